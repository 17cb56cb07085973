//! Listening sockets that somebody else has bound and passes to this process: systemd, for one
//! (`systemd.socket(5)`). A `[[listen]]` with the address that such a socket is bound to takes
//! connections from it and binds nothing; all cores share it. Who passed it keeps a copy, so it is
//! never shut down here, and its file, where it has one, is not ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use socket2::{Socket, Type};

use super::config::{BackendAddress, ListenConfig};

/// One socket that was passed.
#[derive(Debug)]
pub struct PassedSocket {
    /// What whoever passed it calls it.
    name: String,
    /// The socket.
    socket: Socket,
    /// Where it listens.
    address: BackendAddress,
}

/// Why a descriptor is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// It is something else.
    #[error("it is no socket: {0}")]
    NoSocket(#[source] io::Error),
    /// It takes no connections.
    #[error("it takes no connections; a socket unit needs ListenStream= and Accept=no")]
    NotListening,
    /// Its address is none that can be written in a configuration.
    #[error("its address is neither an IP address nor a path")]
    Address,
}

impl PassedSocket {
    /// Look at a descriptor.
    ///
    /// # Errors
    /// [`PassedError`]; it is closed then.
    pub fn new(fd: OwnedFd, name: String) -> Result<PassedSocket, PassedError> {
        let socket = Socket::from(fd);
        let is_stream = socket.r#type().map_err(PassedError::NoSocket)? == Type::STREAM;
        if !is_stream || !socket.is_listener().map_err(PassedError::NoSocket)? {
            return Err(PassedError::NotListening);
        }
        let address = socket.local_addr().map_err(PassedError::NoSocket)?;
        let path = address.as_pathname().map(|path| BackendAddress::Unix(path.to_owned()));
        let address = address.as_socket().map(BackendAddress::Tcp).or(path);
        Ok(PassedSocket { name, socket, address: address.ok_or(PassedError::Address)? })
    }

    /// What whoever passed it calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it listens where a configuration says.
    fn is_at(&self, address: &BackendAddress) -> bool {
        match (&self.address, address) {
            (BackendAddress::Tcp(here), BackendAddress::Tcp(there)) => {
                // What else is in a sockaddr_in6 is nothing that one writes.
                (here.ip(), here.port()) == (there.ip(), there.port())
            }
            (BackendAddress::Unix(here), BackendAddress::Unix(there)) => {
                let real = |path| std::fs::canonicalize(path).ok();
                here == there || real(here).is_some_and(|here| real(there) == Some(here))
            }
            _ => false,
        }
    }
}

impl AsFd for PassedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Display for PassedSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.address, self.name)
    }
}

/// All that were passed. They live as long as the process, so that a listener that a reload brings
/// finds its own.
#[derive(Clone, Debug, Default)]
pub struct PassedSockets(Arc<[PassedSocket]>);

impl From<Vec<PassedSocket>> for PassedSockets {
    fn from(sockets: Vec<PassedSocket>) -> PassedSockets {
        PassedSockets(sockets.into())
    }
}

impl PassedSockets {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &PassedSocket> {
        self.0.iter()
    }

    /// The one that listens at an address, if it was passed.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(super) fn at(&self, address: &BackendAddress) -> io::Result<Option<Socket>> {
        let Some(passed) = self.iter().find(|one| one.is_at(address)) else { return Ok(None) };
        let socket = passed.socket.try_clone()?;
        if let BackendAddress::Tcp(_) = address {
            // As for sockets of our own: connections have it from their listener.
            socket.set_tcp_nodelay(true)?;
        }
        Ok(Some(socket))
    }

    /// Those that no listener takes connections from: whoever connects there waits in vain.
    pub fn unused(&self, listens: &[ListenConfig]) -> impl Iterator<Item = &PassedSocket> {
        let used = |listen: &ListenConfig| self.iter().position(|one| one.is_at(&listen.address));
        let used: Vec<usize> = listens.iter().filter_map(used).collect();
        self.iter().enumerate().filter(move |(at, _)| !used.contains(at)).map(|(_, one)| one)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::{PassedError, PassedSocket, PassedSockets};
    use crate::plane::config::{BackendAddress, ListenConfig};

    fn listen(address: BackendAddress) -> ListenConfig {
        ListenConfig {
            address,
            service: "main".to_owned(),
            virtual_port: Some(80),
            proxy_protocol: false,
            backlog: 16,
        }
    }

    #[test]
    fn a_socket_is_known_by_its_address_and_one_that_nobody_uses_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("front");
        let unix = UnixListener::bind(&path).expect("the path is free");
        let [first, second] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback"));
        let address = first.local_addr().expect("it is bound");
        let other = second.local_addr().expect("it is bound");
        let passed: PassedSockets = [(unix.into(), "a"), (first.into(), "b"), (second.into(), "c")]
            .map(|(fd, name)| PassedSocket::new(fd, name.to_owned()).expect("they listen"))
            .into_iter()
            .collect::<Vec<_>>()
            .into();
        let at = |address: &BackendAddress| {
            let found = passed.at(address).expect("descriptors are left")?;
            found.local_addr().expect("it is bound").as_socket().map(BackendAddress::Tcp)
        };
        let tcp = BackendAddress::Tcp(address);
        assert_eq!(at(&tcp), Some(tcp.clone()));
        assert_eq!(at(&BackendAddress::Tcp(SocketAddr::from(([127, 0, 0, 2], 1)))), None);
        // The same file by another path.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).expect("it is writable");
        for path in [path, link.join("front")] {
            assert!(passed.at(&BackendAddress::Unix(path)).expect("descriptors").is_some());
        }
        let unix = listen(BackendAddress::Unix(link.join("front")));
        let unused = |listens: &[ListenConfig]| {
            passed.unused(listens).map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(unused(&[unix.clone(), listen(tcp)]), [format!("{other} (c)")]);
        assert_eq!(unused(&[unix]).len(), 2);
        assert_eq!(unused(&[]).len(), 3);
    }

    #[test]
    fn what_takes_no_connections_is_refused() {
        let refused = |fd| PassedSocket::new(fd, String::new()).expect_err("it takes none");
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("loopback is up");
        assert!(matches!(refused(datagrams.into()), PassedError::NotListening));
        // As with Accept=yes.
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = listener.local_addr().expect("it is bound");
        let _client = TcpStream::connect(address).expect("it listens");
        let (connection, _) = listener.accept().expect("somebody came");
        assert!(matches!(refused(connection.into()), PassedError::NotListening));
        let file = std::fs::File::open("/dev/null").expect("it is there");
        assert!(matches!(refused(file.into()), PassedError::NoSocket(_)));
    }
}
