//! How a backend is reached: over a socket, as a handler of this program, through Tor, or at what
//! its name was last found to stand for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockAddr;

use super::config::BackendAddress;
use super::handler::{Handler, Handlers};
use super::name::Name;
use crate::base::stream::{Apart, CircuitId, OpenOnion};
use crate::limits;
use crate::runtime::kernel_socket::KernelSocket;
use crate::runtime::{self, net};

/// What backends may be that are no sockets.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Backends inside this process.
    pub handlers: Handlers,
    /// The way to other onion services; `None`: there is none.
    pub onions: Option<Arc<dyn OpenOnion>>,
}

impl From<Handlers> for Reach {
    fn from(handlers: Handlers) -> Reach {
        Reach { handlers, onions: None }
    }
}

/// What kind of connection a stream needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A socket of the core's ring: the client's bytes are in user space.
    Ring,
    /// One that bytes are moved to and from within the kernel; only on a data core.
    Kernel,
}

/// The way to one backend.
#[derive(Debug)]
pub(super) enum Path {
    /// Sockets, of which one is enough; none where no socket address holds the path.
    Sockets(Vec<SockAddr>),
    /// A handler; `None`: nobody has added it.
    Handler(Option<Handler>),
    /// Another onion service.
    Onion(OnionPath),
    /// Whatever a name stands for.
    Name(Name),
}

/// The way to another onion service.
#[derive(Debug)]
pub(super) struct OnionPath {
    /// `<56 characters>.onion`.
    host: String,
    /// Its port.
    port: u16,
    /// Who opens streams; `None`: nobody does.
    opener: Option<Arc<dyn OpenOnion>>,
    /// What they share circuits with.
    apart: Apart,
}

impl OnionPath {
    /// A new stream to it.
    async fn open(&self) -> io::Result<net::Stream> {
        let Some(opener) = &self.opener else { return Err(io::ErrorKind::Unsupported.into()) };
        let opened = opener.open_onion(&self.host, self.port, self.apart).await?;
        Ok(net::Stream::Onion(opened))
    }
}

impl Path {
    /// The way to `address`. Streams to onion services share circuits with those of `apart` alone.
    pub(super) fn new(address: &BackendAddress, reach: &Reach, apart: Apart) -> Path {
        match address {
            BackendAddress::Tcp(address) => Path::Sockets(vec![SockAddr::from(*address)]),
            BackendAddress::Localhost { port } => {
                let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
                let socket = |ip| SockAddr::from(SocketAddr::new(ip, *port));
                Path::Sockets(both.map(socket).to_vec())
            }
            BackendAddress::Unix(path) => Path::Sockets(SockAddr::unix(path).into_iter().collect()),
            BackendAddress::UnixAbstract(name) => {
                let address = SockAddr::unix(format!("\0{name}"));
                Path::Sockets(address.into_iter().collect())
            }
            BackendAddress::Handler(name) => Path::Handler(reach.handlers.get(name)),
            BackendAddress::Onion { host, port } => Path::Onion(OnionPath {
                host: host.clone(),
                port: *port,
                opener: reach.onions.clone(),
                apart,
            }),
            BackendAddress::Name { host, port } => Path::Name(Name::new(host.clone(), *port)),
        }
    }

    /// The name that has to be looked up for it.
    pub(super) fn name(&self) -> Option<&Name> {
        match self {
            Path::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Connect, however long it takes, for a stream of this circuit to this port.
    pub(super) async fn connect(
        &self,
        way: Way,
        circuit: CircuitId,
        port: u16,
    ) -> io::Result<net::Stream> {
        match self {
            Path::Sockets(addresses) => {
                let none = io::ErrorKind::InvalidInput.into();
                connect_first(addresses.iter().cloned(), way, none).await
            }
            Path::Handler(Some(handler)) => handler.connect(circuit, port).map(net::Stream::Pipe),
            Path::Handler(None) => Err(io::ErrorKind::NotFound.into()),
            Path::Onion(onion) => onion.open().await,
            Path::Name(name) => {
                let unknown = io::Error::new(io::ErrorKind::NotFound, "the name is unknown");
                let found = name.found();
                connect_first(found.iter().copied().map(SockAddr::from), way, unknown).await
            }
        }
    }

    /// Whether it is the way to a name of which no address was found yet.
    pub(super) fn is_unknown(&self) -> bool {
        self.name().is_some_and(|name| name.found().is_empty())
    }

    /// Wait until it makes sense to check whether somebody is there: an onion service is reached
    /// once there is Tor, and everybody else at once.
    pub(super) async fn ready(&self) {
        if let Path::Onion(OnionPath { opener: Some(opener), .. }) = self {
            opener.ready().await;
        }
    }

    /// Connect for a health check; handlers are always well.
    pub(super) async fn connect_to_check(&self) -> io::Result<Option<net::Stream>> {
        match self {
            Path::Handler(_) => Ok(None),
            _ => self.connect(Way::Ring, CircuitId { instance: 0, serial: 0 }, 0).await.map(Some),
        }
    }
}

/// Connect to the first of these sockets that accepts; `none` where there is none. Of several
/// errors the first is told: a machine without IPv6 has no address to connect to `::1` from.
async fn connect_first(
    addresses: impl Iterator<Item = SockAddr>,
    way: Way,
    none: io::Error,
) -> io::Result<net::Stream> {
    let mut refused = None;
    for address in addresses {
        match connect_socket(&address, way).await {
            Ok(connection) => return Ok(connection),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or(none))
}

/// Connect to a socket, however long it takes.
async fn connect_socket(address: &SockAddr, way: Way) -> io::Result<net::Stream> {
    loop {
        let connected = match way {
            Way::Ring => net::connect(address).await,
            Way::Kernel => KernelSocket::connect(address.clone()).await.map(net::Stream::Kernel),
        };
        match connected {
            // A unix socket's queue is full (connect(2), EAGAIN): TCP would wait by itself.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && address.is_unix() => {
                runtime::sleep(Duration::from_millis(limits::BACKEND_QUEUE_FULL_WAIT_MS)).await;
            }
            connected => return connected,
        }
    }
}
