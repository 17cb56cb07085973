//! Why a text is no address, and what to write in its place.

use std::fmt;

/// Why a text is no address: the reason and the fix are apart, so that a report can put them where
/// they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Nothing was written.
    Empty,
    /// A URL.
    Url {
        /// The address in it, or an example.
        address: String,
        /// Whether the scheme means TLS.
        tls: bool,
    },
    /// A port alone.
    PortAlone {
        /// What was written.
        port: String,
    },
    /// A path without `unix:`.
    PathAlone {
        /// What was written.
        path: String,
    },
    /// An IP address or a name alone.
    NoPort {
        /// It with a port.
        with_port: String,
    },
    /// An IPv6 address whose brackets are missing or wrong.
    Brackets {
        /// It with brackets and a port.
        right: String,
    },
    /// An IPv4 address in the brackets of an IPv6 address.
    NoBrackets {
        /// It without them.
        right: String,
    },
    /// `*` for an address.
    Every {
        /// An address with that port.
        right: String,
    },
    /// An address that means something on one interface only, with the interface's name or none.
    Zone {
        /// It with the interface's number, or an example of that.
        right: String,
    },
    /// A name that would have to be looked up.
    HostName,
    /// None of the forms.
    NoForm,
    /// An onion address with a mistake in it.
    Onion {
        /// What is wrong.
        reason: String,
    },
    /// Something before or after an onion address that is wanted alone.
    MoreThanOnion {
        /// The address.
        onion: String,
    },
    /// A port that is none.
    Port {
        /// What was written.
        port: String,
        /// The address with one.
        right: String,
    },
    /// A unix socket that the kernel cannot name.
    UnixTooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// A unix socket with a zero byte in its name.
    UnixNul,
    /// A unix socket whose path is badly quoted.
    Quotes {
        /// What is wrong, after "the quotes".
        wrong: &'static str,
    },
}

impl AddressError {
    /// What is wrong.
    pub fn reason(&self) -> String {
        match self {
            AddressError::Empty => "the address is empty".to_owned(),
            AddressError::Url { tls: true, .. } => {
                "this is a URL and not an address, and TLS is for the client and the server to \
                 speak: bytes are passed on as they are"
                    .to_owned()
            }
            AddressError::Url { tls: false, .. } => "this is a URL and not an address".to_owned(),
            AddressError::PortAlone { .. } => "there is no IP address".to_owned(),
            AddressError::PathAlone { .. } => "this is a path".to_owned(),
            AddressError::NoPort { .. } => "there is no port".to_owned(),
            AddressError::Brackets { .. } => {
                "an IPv6 address stands in brackets, with the port after them".to_owned()
            }
            AddressError::NoBrackets { .. } => "brackets are for IPv6 addresses".to_owned(),
            AddressError::Every { .. } => "* is no address".to_owned(),
            AddressError::Zone { .. } => {
                "such an address belongs to one interface, and its number has to stand there, as \
                 `ip link` shows it"
                    .to_owned()
            }
            AddressError::HostName => {
                "this is a host name, and names are not looked up, as the DNS query would show \
                 others what this service talks to"
                    .to_owned()
            }
            AddressError::NoForm => "this is no address".to_owned(),
            AddressError::Onion { reason } => {
                format!("this is no version 3 onion address ({reason})")
            }
            AddressError::MoreThanOnion { .. } => {
                "this is more than an onion address, which is wanted alone".to_owned()
            }
            AddressError::Port { port, .. } => format!("there is no port {port}"),
            AddressError::UnixTooLong { bytes, bytes_max } => {
                format!("the socket's path has {bytes} bytes and the system takes {bytes_max}")
            }
            AddressError::UnixNul => "the socket's path holds a zero byte".to_owned(),
            AddressError::Quotes { wrong } => format!("the quotes {wrong}"),
        }
    }

    /// What to write.
    pub fn fix(&self) -> String {
        match self {
            AddressError::Empty | AddressError::NoForm => {
                "write one such as 127.0.0.1:8080 or unix:/run/app.sock".to_owned()
            }
            AddressError::PortAlone { port } => format!("write 127.0.0.1:{port}"),
            AddressError::PathAlone { path } => format!("write unix:{path}"),
            AddressError::Url { address: right, .. }
            | AddressError::NoPort { with_port: right }
            | AddressError::Brackets { right }
            | AddressError::NoBrackets { right }
            | AddressError::Every { right }
            | AddressError::Zone { right }
            | AddressError::MoreThanOnion { onion: right } => format!("write {right}"),
            AddressError::HostName => {
                "write an IP address such as 127.0.0.1:8080, or, where such queries stay on your \
                 own machines, allow_hostnames with the name beside backends"
                    .to_owned()
            }
            AddressError::Onion { .. } => "write <56 characters>.onion:PORT".to_owned(),
            AddressError::Port { right, .. } => {
                format!("write one from 1 to 65535, as in {right}")
            }
            AddressError::UnixTooLong { .. } => "use a shorter path".to_owned(),
            AddressError::UnixNul => {
                "write the path of a file, as in unix:/run/app.sock".to_owned()
            }
            AddressError::Quotes { .. } => "write unix:/run/app.sock, or, as in a torrc, \
                 unix:\"/run/app.sock\" with C's escapes"
                .to_owned(),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; {}", self.reason(), self.fix())
    }
}

impl std::error::Error for AddressError {}
