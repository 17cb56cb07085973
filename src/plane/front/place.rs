//! The place of a listener: a TCP address or a unix socket's path, and whether somebody has it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;
use socket2::{Domain, SockAddr, Socket, Type};

use super::Occupied;
use crate::base::socket_file::{self, SocketFile};

/// A TCP socket at an address that all cores share.
pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    bind_to(address, true)
}

/// Whether nobody listens there. Without `SO_REUSEPORT`: with it, two processes of one user would
/// share the connections, and neither would know. Connections of before, in TIME_WAIT, are nobody.
pub(super) fn is_free(address: SocketAddr) -> io::Result<()> {
    match bind_to(address, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "a process listens there already (systemd itself, where a socket unit has the \
             address); end it, or write another address",
        )),
        bound => bound.map(drop),
    }
}

/// See above.
fn bind_to(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// A listening unix socket that only this user may connect to, beside the place that it shall have.
/// One that nobody listens on any more is replaced; one that somebody does listen on is not, unless
/// it takes over from that process.
pub(super) fn listen_unix(
    path: &Path,
    backlog: u32,
    occupied: Occupied,
) -> io::Result<(Socket, SocketFile)> {
    unix_place(path, |path| Ok(occupied == Occupied::Refuse && socket_file::is_in_use(path)?))?;
    // Made beside and moved: whoever connects meanwhile finds one of the two, and never nothing.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = std::fs::remove_file(&beside);
    let (socket, beside) = SocketFile::bind(&beside)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok((socket, beside))
}

/// Whether a unix socket may have this place. `is_taken` says whether one that is there already is
/// a process's, which is to keep it.
pub(super) fn unix_place(
    path: &Path,
    is_taken: impl FnOnce(&Path) -> io::Result<bool>,
) -> io::Result<()> {
    match socket_file::is_socket(path)? {
        Some(false) => Err(io::Error::other("there is a file that is no socket")),
        Some(true) if is_taken(path)? => Err(io::ErrorKind::AddrInUse.into()),
        _ => Ok(()),
    }
}

/// Whether a file can be made there.
pub(super) fn can_be_made(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let may = AccessFlags::W_OK | AccessFlags::X_OK;
    Ok(nix::unistd::access(directory, may)?)
}
