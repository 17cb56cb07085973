//! Key files: read only where nobody else can read or replace them, written whole or not at all.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs_mistrust::Mistrust;
use zeroize::Zeroizing;

use super::error::{KeyError, KeyFormatError};
use super::guard::{self, Guard};
use crate::limits::KEY_FILE_BYTES_MAX;

/// Read a key file after checking that only we (or root) can read and replace it, or that a
/// platform guards it ([`Guard`]).
///
/// The file may be a symbolic link; every directory that a link leads through is checked.
///
/// # Errors
/// No regular file, rights for group or others, another owner, a directory anywhere on the way that
/// others can write to (above the file's own, a sticky bit excuses it), a file that is too long, an
/// answer of the system.
pub fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Guard), KeyError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    read_beside(path, credentials.as_deref())
}

/// [`read`], where systemd's `$CREDENTIALS_DIRECTORY` is `credentials`.
pub(super) fn read_beside(
    path: &Path,
    credentials: Option<&Path>,
) -> Result<(Zeroizing<Vec<u8>>, Guard), KeyError> {
    let unreadable = "give this user the right to read it, or another path";
    // O_NONBLOCK: opening a pipe must not wait for somebody to write to it.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => KeyError::missing(path),
            _ => KeyError::io("open it", path, source, unreadable),
        })?;
    let metadata =
        file.metadata().map_err(|source| KeyError::io("look at it", path, source, unreadable))?;
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path: path.to_owned() });
    }
    let guard = guarded(path, &file, &metadata, credentials)?;

    // One byte more than allowed, to see that there is more; the buffer never grows, so no copy
    // of the key stays behind.
    let mut bytes = Zeroizing::new(vec![0; KEY_FILE_BYTES_MAX + 1]);
    let mut length = 0;
    let mut file = file;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(KeyError::io("read it", path, source, unreadable)),
        }
    }
    if length > KEY_FILE_BYTES_MAX {
        let source = KeyFormatError::Unknown { bytes: metadata.len().try_into().unwrap_or(length) };
        return Err(KeyError::Format { path: path.to_owned(), source });
    }
    bytes.truncate(length);
    Ok((bytes, guard))
}

/// Write `contents` to a new file, mode 0600: to a temporary name beside it, synced, then linked to
/// its name, which fails where the name is taken, then the directory synced.
///
/// # Errors
/// [`KeyError::Exists`], a directory that others can write to, or an answer of the system.
pub fn create_new(path: &Path, contents: &[u8]) -> Result<(), KeyError> {
    if path.symlink_metadata().is_ok() {
        return Err(KeyError::Exists { path: path.to_owned() });
    }
    let fix = "choose a directory that exists and that this user may write to";
    let failed = |action, source| KeyError::io(action, path, source, fix);
    let Some(name) = path.file_name() else {
        let source = io::Error::from(io::ErrorKind::InvalidFilename);
        return Err(failed("create a file of this name", source));
    };
    let directory = parent(path);
    match mistrust().and_then(|mistrust| check_directory(&mistrust, &directory)) {
        Err(fs_mistrust::Error::NotFound(_)) => {
            return Err(failed("find its directory", io::ErrorKind::NotFound.into()));
        }
        checked => checked.map_err(|refusal| KeyError::exposed(path, refusal, None))?,
    }

    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{:016x}", rand::random::<u64>()));
    let temporary = Temporary(directory.join(temporary_name));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary.0)
        .map_err(|source| failed("create a file beside it", source))?;
    file.write_all(contents).map_err(|source| failed("write it", source))?;
    file.sync_all().map_err(|source| failed("sync it to the disk", source))?;
    // link(2), unlike rename(2), does not replace a file that came meanwhile.
    std::fs::hard_link(&temporary.0, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => failed("give it its name", source),
    })?;
    drop(temporary);
    File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| failed("sync its directory to the disk", source))
}

/// Make the directory of `path`, and those above, with mode 0700, if it is not there.
///
/// # Errors
/// An answer of the system.
pub fn make_directory(path: &Path) -> Result<(), KeyError> {
    let directory = parent(path);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|source| {
        KeyError::io("make its directory", path, source, "choose another state_dir or key")
    })
}

/// A temporary file, removed when dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may not have been made; and a name that stays is only untidy.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The directory that a path lies in.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The rules for the way to a file: every directory belongs to us or root, and others cannot write.
/// Nothing in the environment switches them off.
fn mistrust() -> Result<Mistrust, fs_mistrust::Error> {
    let us = nix::unistd::geteuid().as_raw();
    Mistrust::builder().ignore_environment().trust_user(us).trust_no_group_id().build()
}

/// What guards the file at `path`, which is open as `file`.
fn guarded(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    credentials: Option<&Path>,
) -> Result<Guard, KeyError> {
    let refusal = match permissions(path, metadata) {
        Ok(()) => return Ok(Guard::Permissions),
        Err(refusal) => refusal,
    };
    // Where the way cannot be looked at, it is no platform's.
    let looked = guard::look(path, file, metadata, credentials).map_err(|_| None);
    looked
        .and_then(|facts| guard::decide(&facts))
        .map_err(|clause| KeyError::exposed(path, refusal, clause))
}

/// Whether the permissions of the file and of its whole way keep others out.
fn permissions(path: &Path, metadata: &Metadata) -> Result<(), fs_mistrust::Error> {
    let mistrust = mistrust()?;
    mistrust.verifier().require_file().check(path)?;
    // In its own directory a sticky bit excuses nothing: others could have made the file first.
    check_directory(&mistrust, &parent(path))?;
    let inspect = |error: io::Error| {
        fs_mistrust::Error::CouldNotInspect(path.to_owned(), std::sync::Arc::new(error))
    };
    let real = path.canonicalize().map_err(inspect)?;
    check_directory(&mistrust, &parent(&real))?;
    // What is open is what was looked at, unless it was replaced meanwhile.
    let there = real.metadata().map_err(inspect)?;
    if (there.dev(), there.ino()) != (metadata.dev(), metadata.ino()) {
        let changed = io::Error::other("it was replaced while it was read; try again");
        return Err(inspect(changed));
    }
    Ok(())
}

/// Refuse a directory in which others can replace a file, or one on the way to it.
fn check_directory(mistrust: &Mistrust, directory: &Path) -> Result<(), fs_mistrust::Error> {
    mistrust.verifier().require_directory().permit_readable().check(directory)
}
