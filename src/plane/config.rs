//! What the plane is told, checked by `config` before it arrives here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
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

/// Why a text is no backend address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendAddressError {
    /// The path of a unix socket is missing or relative.
    #[error("{0:?}: write a unix socket with its whole path, as in unix:/run/app.sock")]
    UnixPath(String),
    /// The name of a handler is missing.
    #[error("{0:?}: write a handler with the name that the program gave it, as in handler:shop")]
    HandlerName(String),
    /// There is no port, or one out of range.
    #[error("{0:?}: write an address with a port from 1 to 65535, as in 127.0.0.1:8080")]
    Port(String),
    /// A host name.
    #[error(
        "{0:?}: write an IP address, not a name; looking a name up tells the resolver what this \
         machine serves"
    )]
    HostName(String),
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

impl FromStr for BackendAddress {
    type Err = BackendAddressError;

    fn from_str(text: &str) -> Result<BackendAddress, BackendAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(BackendAddressError::UnixPath(text.to_owned()));
            }
            return Ok(BackendAddress::Unix(path));
        }
        if let Some(name) = text.strip_prefix("handler:") {
            if name.is_empty() {
                return Err(BackendAddressError::HandlerName(text.to_owned()));
            }
            return Ok(BackendAddress::Handler(name.to_owned()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(BackendAddress::Tcp(address)),
            Ok(_) => Err(BackendAddressError::Port(text.to_owned())),
            Err(_) => {
                let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                match host.parse::<std::net::IpAddr>() {
                    Ok(_) => Err(BackendAddressError::Port(text.to_owned())),
                    Err(_) => Err(BackendAddressError::HostName(text.to_owned())),
                }
            }
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

#[cfg(test)]
mod tests {
    use super::{BackendAddress, BackendAddressError};

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["127.0.0.1:8080", "[::1]:80", "unix:/run/app.sock", "handler:shop"] {
            let address: BackendAddress = text.parse().expect("a good address");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn each_mistake_gets_its_own_sentence() {
        let error = |text: &str| text.parse::<BackendAddress>().expect_err("a bad address");
        assert!(matches!(error("localhost:80"), BackendAddressError::HostName(_)));
        assert!(matches!(error("127.0.0.1"), BackendAddressError::Port(_)));
        assert!(matches!(error("127.0.0.1:0"), BackendAddressError::Port(_)));
        assert!(matches!(error("127.0.0.1:70000"), BackendAddressError::Port(_)));
        assert!(matches!(error("unix:app.sock"), BackendAddressError::UnixPath(_)));
        assert!(matches!(error("handler:"), BackendAddressError::HandlerName(_)));
    }
}
