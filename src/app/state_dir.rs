//! The state directory: who may use it, and which format it has.
//!
//! ```text
//!   state_dir/          0700
//!     lock              held while a process uses the directory
//!     format            a number: what wrote this
//!     NAME.key          a service's master key, unless configured elsewhere (0600)
//!     revisions-NAME.json, published-NAME.json
//!     arti/             directory cache and guards
//!     admin.sock
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use crate::limits;

/// How often a lock is tried for, while the process that held it lets go.
const LOCK_LOOK: Duration = Duration::from_millis(20);
/// How long.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// The format that this version writes and reads.
const FORMAT: u32 = 1;

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or read.
    #[error(
        "cannot {action} {path}: {source}; give this user the right to it, or name another place \
         with --state-dir or state_dir"
    )]
    Io {
        /// What was done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not a directory.
    #[error("state_dir {path} is not a directory; name another one")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Others can read or write it.
    #[error("state_dir {path} is open to other users (mode {mode:03o}); run: chmod 700 {path}")]
    Open {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error(
        "state_dir {path} belongs to another user (uid {owner}); {fix}",
        path = .path.display(), fix = owner_fix(.path, *.owner, *.us)
    )]
    Owner {
        /// The path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// There is no room for state.
    #[error(
        "state_dir {path}: the disk is full ({free} bytes and {files} files are left); make room, \
         or name another state_dir"
    )]
    Full {
        /// The path.
        path: PathBuf,
        /// Bytes that are left.
        free: u64,
        /// Files that can still be made.
        files: u64,
    },
    /// Another process uses it.
    #[error(
        "state_dir {path} is in use by another RustBalance; stop it, or name another state_dir"
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// A newer version wrote it.
    #[error(
        "state_dir {path} has format {found}, this version knows {FORMAT}; use the newer version"
    )]
    Newer {
        /// The path.
        path: PathBuf,
        /// The format found.
        found: String,
    },
}

/// What to do about a directory of somebody else's. Who is root here is mostly not who serves:
/// root's `chown` would lock the service out of its own directory.
fn owner_fix(path: &Path, owner: u32, us: u32) -> String {
    match us {
        0 => format!(
            "run this as that user, as in `sudo -u '#{owner}' rustbalance ...`, or name another \
             state_dir"
        ),
        _ => format!("run: chown {us} {}; or name another state_dir", path.display()),
    }
}

/// A state directory that is ours for as long as this lives, unless it was opened
/// [beside](StateDir::beside) another process or [given up](StateDir::give_up).
#[derive(Debug)]
pub struct StateDir {
    /// The directory.
    path: PathBuf,
    /// Carries the lock.
    lock: File,
}

impl StateDir {
    /// What is wrong with `path` as a state directory; nothing is made or locked. A directory that
    /// does not exist yet is fine where it can be made.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn check(path: &Path) -> Result<(), StateDirError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io { action, path, source }
        };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return check_can_be_made(path);
            }
            Err(error) => return Err(io("read", path)(error)),
        };
        if !metadata.is_dir() {
            return Err(StateDirError::NotADirectory { path: path.to_owned() });
        }
        let us = nix::unistd::geteuid().as_raw();
        if metadata.uid() != us {
            let path = path.to_owned();
            return Err(StateDirError::Owner { path, owner: metadata.uid(), us });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateDirError::Open { path: path.to_owned(), mode });
        }
        let format = path.join("format");
        let mut found = String::new();
        match File::open(&format).and_then(|mut file| file.read_to_string(&mut found)) {
            Ok(_) if found.trim().parse() == Ok(FORMAT) => check_writable(path, path),
            Ok(_) => {
                let found = found.trim().to_owned();
                Err(StateDirError::Newer { path: path.to_owned(), found })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                check_writable(path, path)
            }
            Err(error) => Err(io("read", &format)(error)),
        }
    }

    /// Make the directory if need be, and take it.
    ///
    /// # Errors
    /// [`StateDirError`]; a directory that was refused is left as it was.
    pub fn take(path: &Path) -> Result<StateDir, StateDirError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io { action, path, source }
        };
        Self::check(path)?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("make", path))?;
        Self::check(path)?;
        let state_dir = StateDir { path: path.to_owned(), lock: open_lock(path)? };
        state_dir.lock()?;
        let format = path.join("format");
        if !format.exists() {
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&format)
                .map_err(io("make", &format))?;
            writeln!(file, "{FORMAT}").map_err(io("write", &format))?;
        }
        Ok(state_dir)
    }

    /// Open the directory that another process holds, without taking it from anybody.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn beside(path: &Path) -> Result<StateDir, StateDirError> {
        Self::check(path)?;
        Ok(StateDir { path: path.to_owned(), lock: open_lock(path)? })
    }

    /// Take the directory, if nobody holds it.
    ///
    /// # Errors
    /// [`StateDirError::InUse`], [`StateDirError::Io`].
    pub fn lock(&self) -> Result<(), StateDirError> {
        match self.lock.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(StateDirError::InUse { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => {
                let path = self.path.join("lock");
                Err(StateDirError::Io { action: "lock", path, source })
            }
        }
    }

    /// Take the directory from a process that is letting go of it: waits for a moment.
    ///
    /// # Errors
    /// As [`StateDir::lock`].
    pub async fn lock_soon(&self) -> Result<(), StateDirError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match self.lock() {
                Err(StateDirError::InUse { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_LOOK).await;
                }
                end => return end,
            }
        }
    }

    /// Let another process take the directory.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn give_up(&self) -> Result<(), StateDirError> {
        self.lock.unlock().map_err(|source| StateDirError::Io {
            action: "unlock",
            path: self.path.join("lock"),
            source,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a directory that is not there can be made.
fn check_can_be_made(path: &Path) -> Result<(), StateDirError> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let above = absolute.ancestors().skip(1).find(|above| above.exists());
    check_writable(path, above.unwrap_or(Path::new("/")))
}

/// Whether state can be written for `path`, in `existing`, which is there: that is `path` itself,
/// or what it will be made in.
fn check_writable(path: &Path, existing: &Path) -> Result<(), StateDirError> {
    let action = if path == existing { "write to" } else { "make" };
    let failed = |error: nix::Error| StateDirError::Io {
        action,
        path: path.to_owned(),
        source: error.into(),
    };
    access(existing, AccessFlags::W_OK | AccessFlags::X_OK).map_err(failed)?;
    let disk = statvfs(existing).map_err(failed)?;
    // Some file systems have no bound, and count none.
    let free = match disk.blocks() {
        0 => u64::MAX,
        _ => disk.blocks_available().saturating_mul(disk.fragment_size()),
    };
    let files = if disk.files() == 0 { u64::MAX } else { disk.files_available() };
    if free < limits::STATE_BYTES_MIN || files < limits::STATE_FILES_MIN {
        return Err(StateDirError::Full { path: path.to_owned(), free, files });
    }
    Ok(())
}

/// Open the file that carries the lock of `directory`, and make it if need be.
fn open_lock(directory: &Path) -> Result<File, StateDirError> {
    let path = directory.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(&path).map_err(|source| StateDirError::Io { action: "open", path, source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{StateDir, StateDirError, owner_fix};

    /// Proves that a place where nothing can be made, as below a home that does not exist, leads to
    /// the option that names another.
    #[test]
    fn a_directory_that_cannot_be_made_leads_to_the_option() {
        // Not even root makes a directory there.
        let path = std::path::Path::new("/proc/no-such-home/.local/state/rustbalance");
        let error = StateDir::take(path).expect_err("nobody can make it").to_string();
        assert!(error.starts_with("cannot make /proc/no-such-home/"), "{error}");
        assert!(error.contains("--state-dir"), "{error}");
    }

    /// Proves that root is not told to take a directory from the user who serves.
    #[test]
    fn root_is_not_told_to_take_a_directory_away() {
        let path = std::path::Path::new("/var/lib/rustbalance");
        let to_root = owner_fix(path, 33, 0);
        assert!(to_root.contains("sudo -u '#33'") && !to_root.contains("chown"), "{to_root}");
        assert!(owner_fix(path, 33, 1000).contains("chown 1000 /var/lib/rustbalance"));
    }

    #[test]
    fn a_directory_is_taken_once() {
        let above = tempfile::tempdir().expect("a temporary directory can be made");
        let path = above.path().join("state");
        let taken = StateDir::take(&path).expect("nobody uses it");
        assert!(matches!(StateDir::take(&path), Err(StateDirError::InUse { .. })));
        drop(taken);
        StateDir::take(&path).expect("nobody uses it any more");
    }

    #[test]
    fn a_directory_changes_hands() {
        let above = tempfile::tempdir().expect("a temporary directory can be made");
        let path = above.path().join("state");
        let old = StateDir::take(&path).expect("nobody uses it");
        let new = StateDir::beside(&path).expect("it is there");
        assert!(matches!(new.lock(), Err(StateDirError::InUse { .. })));
        old.give_up().expect("it is held");
        new.lock().expect("it was given up");
        assert!(matches!(old.lock(), Err(StateDirError::InUse { .. })));
        drop(new);
        old.lock().expect("the other has ended");
    }

    #[test]
    fn a_newer_format_and_an_open_directory_are_refused_untouched() {
        let above = tempfile::tempdir().expect("a temporary directory can be made");
        let path = above.path().join("state");
        drop(StateDir::take(&path).expect("nobody uses it"));
        std::fs::write(path.join("format"), "2\n").expect("it is ours");
        assert!(matches!(StateDir::take(&path), Err(StateDirError::Newer { .. })));
        std::fs::write(path.join("format"), "1\n").expect("it is ours");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, open).expect("it is ours");
        let error = StateDir::take(&path).expect_err("others can read it");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_check_makes_nothing() {
        let above = tempfile::tempdir().expect("a temporary directory can be made");
        let path = above.path().join("state");
        StateDir::check(&path).expect("it can be made");
        assert!(!path.exists());
    }
}
