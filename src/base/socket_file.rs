//! Unix sockets in the file system: whether one is somebody's, how one is made for our own user
//! alone, and that ours goes away with us, and nobody else's does.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

/// A socket of ours in the file system; removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    /// Where it is.
    path: PathBuf,
    /// Device and inode: what stands there later may be somebody else's.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// Make a socket there that our own user alone may connect to, once it listens.
    ///
    /// # Errors
    /// What `socket(2)` and `bind(2)` say.
    pub fn bind(path: &Path) -> io::Result<(Socket, SocketFile)> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Linux gives the file the mode that the socket has at bind(2): it is never open to others.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        socket.bind(&SockAddr::unix(path)?)?;
        Ok((socket, SocketFile { path: path.to_owned(), identity: identity(path) }))
    }

    /// Have it stand there, in the place of what does so now.
    ///
    /// # Errors
    /// What `rename(2)` says; it is gone then.
    pub fn move_to(mut self, path: &Path) -> io::Result<SocketFile> {
        std::fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(self)
    }

    /// Take it away, if it is still there.
    pub fn remove(&self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // A socket that stays is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Device and inode of what is at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Whether what is at `path` is a socket; `None` where nothing is.
///
/// # Errors
/// What `lstat(2)` says.
pub fn is_socket(path: &Path) -> io::Result<Option<bool>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found.file_type().is_socket())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether somebody listens on the socket at `path`. Does not wait.
///
/// # Errors
/// What `connect(2)` says where that tells neither.
pub fn is_in_use(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        // A full queue is somebody's, too.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{SocketFile, is_in_use, is_socket};

    #[test]
    fn a_socket_is_private_moves_and_goes_away_unless_another_has_taken_its_place() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
        let (socket, file) = SocketFile::bind(&here).expect("the path is free");
        let mode = std::fs::metadata(&here).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!is_in_use(&here).expect("nobody listens"));
        socket.listen(0).expect("it is bound");
        let file = file.move_to(&there).expect("one directory");
        assert_eq!(is_socket(&here).ok(), Some(None));
        assert!(is_in_use(&there).expect("somebody listens"));
        // Until its queue is full, and then as well.
        for _ in 0..5 {
            assert!(is_in_use(&there).expect("somebody listens"));
        }
        let (_socket, other) = SocketFile::bind(&here).expect("the path is free");
        let other = other.move_to(&there).expect("one directory");
        drop(file);
        assert_eq!(is_socket(&there).ok(), Some(Some(true)));
        drop(other);
        assert_eq!(is_socket(&there).ok(), Some(None));
        std::fs::write(&here, "").expect("it is writable");
        assert_eq!(is_socket(&here).ok(), Some(Some(false)));
    }
}
