//! Unix sockets in the file system: whether one is somebody's, how one is made for our own user
//! alone, and that ours goes away with us, and nobody else's does.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
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

/// The kernel's list of unix sockets in this network namespace; of this process, because a sandbox
/// may hide the rest of `/proc`.
const SOCKETS: &str = "/proc/self/net/unix";
/// In its flags: the socket listens (`__SO_ACCEPTCON`).
const LISTENS: u32 = 0x1_0000;

/// Whether a process listens on the socket at `path`, as far as the kernel's list of sockets tells.
/// Nothing connects, so systemd starts no service for it. `false` without `/proc`, and for a
/// process in another network namespace: [`is_in_use`] finds that one as well.
pub fn is_listened_on(path: &Path) -> bool {
    let Ok(sockets) = File::open(SOCKETS) else { return false };
    // The list has a path as it was given to bind(2).
    let names =
        [Some(path.to_owned()), std::path::absolute(path).ok(), std::fs::canonicalize(path).ok()];
    let mut lines = BufReader::new(sockets).split(b'\n').map_while(Result::ok);
    lines.any(|line| {
        let bound = bound_by_listener(&line);
        bound.is_some_and(|bound| names.iter().flatten().any(|name| stands_at(bound, name)))
    })
}

/// The path in a line of the kernel's list, if it is that of a socket that listens:
///
/// ```text
/// 0000000000000000: 00000002 00000000 00010000 0001 01 18437 /run/app.sock
/// ```
fn bound_by_listener(line: &[u8]) -> Option<&Path> {
    let (mut rest, mut flags) = (line, 0);
    for field in 0..7 {
        rest = rest.trim_ascii_start();
        let (this, after) = rest.split_at(rest.iter().position(|byte| *byte == b' ')?);
        if field == 3 {
            flags = u32::from_str_radix(std::str::from_utf8(this).ok()?, 16).ok()?;
        }
        rest = after;
    }
    let path = rest.strip_prefix(b" ")?;
    (flags & LISTENS != 0).then(|| Path::new(OsStr::from_bytes(path)))
}

/// Whether a socket that was bound to `bound` stands at `name`: also one that was bound beside it,
/// with the number of its process, and moved ([`SocketFile::move_to`]; HAProxy appends `.tmp`).
fn stands_at(bound: &Path, name: &Path) -> bool {
    let beside = bound.as_os_str().as_bytes().strip_prefix(name.as_os_str().as_bytes());
    let process = beside
        .and_then(|beside| beside.strip_prefix(b"."))
        .map(|process| process.strip_suffix(b".tmp").unwrap_or(process))
        .is_some_and(|process| !process.is_empty() && process.iter().all(u8::is_ascii_digit));
    bound == name || process && !bound.exists()
}

/// Whether somebody listens on the socket at `path`. Does not wait. A service that systemd starts
/// when somebody connects is started by this.
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

    use super::{SocketFile, is_in_use, is_listened_on, is_socket};

    #[test]
    fn a_listener_is_seen_without_a_connection_also_after_it_was_moved() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [path, beside] = ["a socket", "a socket.4711"].map(|name| directory.path().join(name));
        let (socket, file) = SocketFile::bind(&beside).expect("the path is free");
        assert!(!is_listened_on(&beside), "it is only bound");
        socket.listen(8).expect("it is bound");
        assert!(is_listened_on(&beside));
        assert!(!is_listened_on(&path), "another socket has a name like it");
        let _file = file.move_to(&path).expect("one directory");
        assert!(is_listened_on(&path));
        socket.set_nonblocking(true).expect("it is open");
        let waiting = socket.accept().map(drop).expect_err("nothing has connected");
        assert_eq!(waiting.kind(), std::io::ErrorKind::WouldBlock);
        drop(socket);
        assert!(!is_listened_on(&path), "its process has closed it");
    }

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
