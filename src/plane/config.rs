//! What the plane is told, checked by `config` before it arrives here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
    /// A handler of the program that embeds the library, by its name ([`super::handler`]).
    Handler(String),
}

impl std::fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BackendAddress::Tcp(address) => address.fmt(f),
            BackendAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            BackendAddress::Handler(name) => write!(f, "handler:{name}"),
        }
    }
}

/// What is behind a virtual port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortTarget {
    /// One of these, in turn.
    Backends(Vec<BackendAddress>),
    /// The built-in page that names the instance.
    Hello,
}

/// A virtual port, or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The first port.
    pub virtual_first: u16,
    /// The last port; the same as the first for a single one.
    pub virtual_last: u16,
    /// What is behind it.
    pub target: PortTarget,
    /// How long a backend may take to accept a connection.
    pub connect_timeout: Duration,
}
