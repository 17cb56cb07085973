//! What the plane is told, checked by `config` before it arrives here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use super::status::Verdict;
use crate::base::redact::REDACTED;
use crate::limits;

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
    /// A unix stream socket in the abstract namespace (unix(7)), by its name without the zero byte.
    UnixAbstract(String),
    /// A port of this machine's loopback addresses, of both families, without a look-up.
    Localhost {
        /// The port.
        port: u16,
    },
    /// A handler of the program that embeds the library, by its name ([`super::handler`]).
    Handler(String),
    /// A port of another onion service, reached through this process's own Tor stack.
    Onion {
        /// `<56 characters>.onion`.
        host: String,
        /// Its virtual port.
        port: u16,
    },
    /// A port of whatever the system's resolver says that a name stands for ([`super::name`]).
    Name {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
}

impl BackendAddress {
    /// How it stands in a log line that is not for debugging: without an onion address.
    pub fn in_log(&self) -> String {
        match self {
            BackendAddress::Onion { port, .. } => format!("{REDACTED}:{port}"),
            other => other.to_string(),
        }
    }
}

impl std::fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BackendAddress::Tcp(address) => address.fmt(f),
            BackendAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            BackendAddress::UnixAbstract(name) => write!(f, "unix:@{name}"),
            BackendAddress::Localhost { port } => write!(f, "localhost:{port}"),
            BackendAddress::Handler(name) => write!(f, "handler:{name}"),
            BackendAddress::Onion { host, port } | BackendAddress::Name { host, port } => {
                write!(f, "{host}:{port}")
            }
        }
    }
}

/// One backend of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Where it listens.
    pub address: BackendAddress,
    /// Its share of the streams, beside the weights of the others; from 1 to
    /// [`limits::BACKEND_WEIGHT_MAX`].
    pub weight: u16,
    /// Used only while no other backend is up.
    pub backup: bool,
    /// Connections at a time, those that are being made included; `None`: no limit.
    pub connections_max: Option<u32>,
    /// Whose streams it gets: those of circuits of which this was said.
    pub lane: Verdict,
}

impl From<BackendAddress> for BackendConfig {
    fn from(address: BackendAddress) -> BackendConfig {
        BackendConfig {
            address,
            weight: 1,
            backup: false,
            connections_max: None,
            lane: Verdict::Normal,
        }
    }
}

/// Which backend a new stream goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, as often as its weight says.
    #[default]
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConnections,
    /// The better of two that are drawn by weight: nearly as even as the fewest connections, and
    /// cheaper with many backends.
    RandomTwo,
    /// The same one for all streams of a client's circuit, for as long as it is up.
    Circuit,
}

impl Balance {
    /// Every way, by its name in the configuration.
    pub const NAMES: [(&'static str, Balance); 4] = [
        ("round_robin", Balance::RoundRobin),
        ("least_connections", Balance::LeastConnections),
        ("random_two", Balance::RandomTwo),
        ("circuit", Balance::Circuit),
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        let named = Balance::NAMES.iter().find(|(_, balance)| *balance == self);
        named.map_or("round_robin", |(name, _)| name)
    }
}

/// The header that goes before a client's first byte (HAProxy's proxy-protocol.txt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text, as C tor's `HiddenServiceExportCircuitID haproxy` writes it.
    V1,
    /// Binary, with the circuit's id as PP2_TYPE_UNIQUE_ID.
    V2,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckRequest {
    /// Whether a connection is accepted.
    Tcp,
    /// Whether `GET` is answered with a status from 200 to 399.
    Http {
        /// What is asked for; begins with `/`.
        path: String,
        /// The `Host` header.
        host: String,
    },
}

/// How the backends of a port are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    /// What is asked.
    pub request: CheckRequest,
    /// From the end of one check to the next, give or take a tenth.
    pub interval: Duration,
    /// How long a backend may take to answer.
    pub timeout: Duration,
    /// Good checks in a row after which a backend that was down is up.
    pub rise: u32,
    /// Bad checks in a row after which a backend that was up is down.
    pub fall: u32,
}

/// What is behind a virtual port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortTarget {
    /// One of these.
    Backends(Vec<BackendConfig>),
    /// The built-in page that names the instance.
    Hello,
}

impl PortTarget {
    /// Backends that are all alike.
    pub fn backends(addresses: impl IntoIterator<Item = BackendAddress>) -> PortTarget {
        PortTarget::Backends(addresses.into_iter().map(BackendConfig::from).collect())
    }

    /// Whether this holds for the address of one of its backends.
    pub fn any(&self, holds: impl Fn(&BackendAddress) -> bool) -> bool {
        match self {
            PortTarget::Backends(backends) => backends.iter().any(|one| holds(&one.address)),
            PortTarget::Hello => false,
        }
    }

    /// Whether one of its backends is another onion service, and so many circuits away.
    pub fn is_far(&self) -> bool {
        self.any(|address| matches!(address, BackendAddress::Onion { .. }))
    }

    /// How long a backend may take to accept a connection, unless configured.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(match self.is_far() {
            true => limits::ONION_CONNECT_SECONDS_DEFAULT,
            false => limits::BACKEND_CONNECT_SECONDS_DEFAULT,
        })
    }
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
    /// Which backend a new stream goes to.
    pub balance: Balance,
    /// How backends are checked; `None`: by the streams that they get alone.
    pub check: Option<CheckConfig>,
    /// Streams that may wait for a backend, where all have as many connections as they may.
    pub queue_max: u32,
    /// How long each of them may wait.
    pub queue_timeout: Duration,
    /// How long a stream may be without bytes, both ways; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long, once one side has ended.
    pub half_close_timeout: Duration,
    /// How long the share of a backend that has come up again takes to grow to its whole.
    pub slow_start: Duration,
    /// From one look-up of a backend's name to the next.
    pub resolve_interval: Duration,
    /// The header before a client's first byte; handlers get none, as they are told the circuit.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl PortConfig {
    /// One port, with the defaults for everything else.
    pub fn new(virtual_port: u16, target: PortTarget) -> PortConfig {
        PortConfig {
            virtual_first: virtual_port,
            virtual_last: virtual_port,
            connect_timeout: target.connect_timeout(),
            target,
            balance: Balance::default(),
            check: None,
            queue_max: limits::BACKEND_QUEUE_DEFAULT,
            queue_timeout: Duration::from_secs(limits::BACKEND_QUEUE_SECONDS_DEFAULT),
            idle_timeout: None,
            half_close_timeout: Duration::from_secs(limits::HALF_CLOSE_SECONDS_DEFAULT),
            slow_start: Duration::ZERO,
            resolve_interval: Duration::from_secs(limits::RESOLVE_SECONDS_DEFAULT),
            proxy_protocol: None,
        }
    }
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// Where: TCP or a unix socket.
    pub address: BackendAddress,
    /// The name of the service whose backends serve who comes.
    pub service: String,
    /// The virtual port that is wanted; `None`: the one that the PROXY header names.
    pub virtual_port: Option<u16>,
    /// Whether each connection begins with a PROXY header, of either version.
    pub proxy_protocol: bool,
    /// Connections that the kernel accepts ahead, for each core.
    pub backlog: u32,
}

/// So much a second, and so much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, at least 1.
    pub per_second: u64,
    /// At once, after a while without any; at least 1.
    pub burst: u64,
}

/// What follows when a circuit goes over a limit, or is banned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverLimit {
    /// The stream ends.
    #[default]
    End,
    /// The circuit closes, with all its streams.
    Close,
}

/// What one client circuit may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Streams at a time.
    pub streams_max: Option<u32>,
    /// New streams.
    pub streams: Option<Rate>,
    /// Bytes, both ways together.
    pub bytes: Option<Rate>,
    /// What follows.
    pub over: OverLimit,
    /// Whether a stream to a port that is not served ends alone, and not with its circuit.
    pub allow_unknown_ports: bool,
}

impl CircuitLimits {
    /// Whether there is no limit.
    pub fn is_none(&self) -> bool {
        self.streams_max.is_none() && self.streams.is_none() && self.bytes.is_none()
    }
}
