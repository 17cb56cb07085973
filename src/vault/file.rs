//! Key files: read only where nobody else can read or replace them, written whole or not at all.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::{KeyError, KeyFormatError};
use crate::limits::KEY_FILE_BYTES_MAX;

/// Permission bits for group and others.
const OTHERS: u32 = 0o077;

/// Permission bits by which group and others write.
const OTHERS_WRITE: u32 = 0o022;

/// Read a key file after checking that only we (or root) can read and replace it.
///
/// The file may be a symbolic link (secret managers mount keys so); then the directory of the link
/// and the one of the file behind it are both checked.
///
/// # Errors
/// No regular file, rights for group or others, another owner, a directory that others can write
/// to (a sticky bit does not excuse it), a file that is too long, an answer of the system.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let unreadable = "give this user the right to read it, or another path";
    // O_NONBLOCK: opening a pipe must not wait for somebody to write to it.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
            _ => KeyError::io("open it", path, source, unreadable),
        })?;
    let metadata =
        file.metadata().map_err(|source| KeyError::io("look at it", path, source, unreadable))?;
    check_file(path, &metadata)?;
    check_directory(path, &parent(path))?;
    let real =
        path.canonicalize().map_err(|source| KeyError::io("find it", path, source, unreadable))?;
    check_directory(path, &parent(&real))?;

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
    Ok(bytes)
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
    check_directory(path, &directory)?;

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

/// Refuse a key file that others can read, write or own.
fn check_file(path: &Path, metadata: &Metadata) -> Result<(), KeyError> {
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path });
    }
    let us = nix::unistd::geteuid().as_raw();
    if metadata.uid() != us && metadata.uid() != 0 {
        return Err(KeyError::Owner { path, owner: metadata.uid(), us });
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(KeyError::Mode { path, mode: metadata.mode() & 0o7777 });
    }
    Ok(())
}

/// Refuse a directory in which others can replace the key file.
fn check_directory(path: &Path, directory: &Path) -> Result<(), KeyError> {
    let metadata = directory.metadata().map_err(|source| {
        KeyError::io("look at its directory", path, source, "choose a directory that exists")
    })?;
    let us = nix::unistd::geteuid().as_raw();
    if metadata.uid() != us && metadata.uid() != 0 {
        return Err(KeyError::DirectoryOwner {
            path: path.to_owned(),
            directory: directory.to_owned(),
            owner: metadata.uid(),
            us,
        });
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        return Err(KeyError::DirectoryMode {
            path: path.to_owned(),
            directory: directory.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    Ok(())
}
