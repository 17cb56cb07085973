//! Backend addresses: what an operator may write, and why not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::limits::UNIX_SOCKET_PATH_BYTES_MAX;
use crate::plane::config::BackendAddress;

/// Why a text is no backend address. `Display` is the reason, then the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing was written.
    #[error("the address is empty; write one such as 127.0.0.1:8080 or unix:/run/app.sock")]
    Empty,
    /// A URL.
    #[error("this is a URL and not an address; write one such as 127.0.0.1:8080")]
    Url,
    /// A port alone.
    #[error("there is no IP address; write 127.0.0.1:{port}")]
    PortAlone {
        /// What was written.
        port: String,
    },
    /// A path without `unix:`.
    #[error("this is a path; write unix:{path}")]
    PathAlone {
        /// What was written.
        path: String,
    },
    /// An IP address alone.
    #[error("there is no port; write {with_port}")]
    NoPort {
        /// The address with a port.
        with_port: String,
    },
    /// A name that would have to be looked up.
    #[error(
        "this is a host name, and names are not looked up, as the DNS query would show others \
         what this service talks to; write an IP address such as 127.0.0.1:8080"
    )]
    HostName,
    /// A port that is none.
    #[error("there is no port {port}; write one from 1 to 65535")]
    Port {
        /// What was written.
        port: String,
    },
    /// A unix socket that the kernel cannot name.
    #[error(
        "the socket's path has {bytes} bytes and the system takes {bytes_max}; use a shorter path"
    )]
    UnixTooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
}

/// Read `IP:port`, `[v6]:port` or `unix:/path`. A relative path is below `base`.
///
/// # Errors
/// [`AddressError`]; host names are refused.
pub fn parse_backend(text: &str, base: &Path) -> Result<BackendAddress, AddressError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path, base);
    }
    if let Some(name) = text.strip_prefix("handler:") {
        return match name {
            "" => Err(AddressError::Empty),
            name => Ok(BackendAddress::Handler(name.to_owned())),
        };
    }
    if text.contains("://") {
        return Err(AddressError::Url);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err(AddressError::Port { port: "0".to_owned() }),
        Ok(address) => Ok(BackendAddress::Tcp(address)),
        Err(_) => Err(explain(text)),
    }
}

/// A unix socket's path.
fn unix(path: &str, base: &Path) -> Result<BackendAddress, AddressError> {
    if path.is_empty() {
        return Err(AddressError::Empty);
    }
    let path = base.join(path);
    check_unix_path(&path)?;
    Ok(BackendAddress::Unix(path))
}

/// Refuse a path that does not fit a socket address.
pub(super) fn check_unix_path(path: &Path) -> Result<(), AddressError> {
    let bytes = path.as_os_str().len();
    if bytes > UNIX_SOCKET_PATH_BYTES_MAX {
        return Err(AddressError::UnixTooLong { bytes, bytes_max: UNIX_SOCKET_PATH_BYTES_MAX });
    }
    Ok(())
}

/// Why a text that is no socket address is none.
fn explain(text: &str) -> AddressError {
    if text.starts_with(['/', '.']) {
        return AddressError::PathAlone { path: text.to_owned() };
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(text) {
        return AddressError::PortAlone { port: text.to_owned() };
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        let with_port =
            if text.contains(':') { format!("[{text}]:8080") } else { format!("{text}:8080") };
        return AddressError::NoPort { with_port };
    }
    let Some((host, port)) = text.rsplit_once(':') else { return AddressError::HostName };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() && digits(port) {
        return AddressError::PortAlone { port: port.to_owned() };
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        return AddressError::Port { port: port.to_owned() };
    }
    AddressError::HostName
}

/// [`parse_backend`] for the command line, where a relative path is below the working directory.
///
/// # Errors
/// As [`parse_backend`].
pub fn parse_backend_argument(text: &str) -> Result<BackendAddress, AddressError> {
    let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    parse_backend(text, &base)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{AddressError, parse_backend};
    use crate::plane::config::BackendAddress;

    fn parse(text: &str) -> Result<BackendAddress, AddressError> {
        parse_backend(text, Path::new("/etc/rustbalance"))
    }

    #[test]
    fn addresses_of_every_form_are_read() {
        for text in ["127.0.0.1:80", "[::1]:8080", "10.1.2.3:65535"] {
            let Ok(BackendAddress::Tcp(address)) = parse(text) else { panic!("{text}") };
            assert_eq!(address.to_string(), text);
        }
        for (text, path) in [
            ("unix:/run/app.sock", "/run/app.sock"),
            ("unix:app.sock", "/etc/rustbalance/app.sock"),
        ] {
            let Ok(BackendAddress::Unix(found)) = parse(text) else { panic!("{text}") };
            assert_eq!(found, PathBuf::from(path));
        }
        assert_eq!(parse("handler:shop"), Ok(BackendAddress::Handler("shop".to_owned())));
    }

    #[test]
    fn what_is_no_address_says_why_and_what_to_write() {
        for (text, words) in [
            ("", "empty"),
            ("unix:", "empty"),
            ("handler:", "empty"),
            ("localhost:80", "host name"),
            ("app.internal", "host name"),
            ("http://127.0.0.1:80", "URL"),
            ("8080", "write 127.0.0.1:8080"),
            (":8080", "write 127.0.0.1:8080"),
            ("/run/app.sock", "write unix:/run/app.sock"),
            ("127.0.0.1", "write 127.0.0.1:8080"),
            ("::1", "write [::1]:8080"),
            ("127.0.0.1:0", "no port 0"),
            ("[::1]:0", "no port 0"),
            ("127.0.0.1:70000", "no port 70000"),
            ("127.0.0.1:http", "no port http"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(parse(&long).expect_err("too long").to_string().contains("108 bytes"));
        assert!(parse(&long[..long.len() - 1]).is_ok());
    }
}
