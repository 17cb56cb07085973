//! Backend addresses: what an operator may write, and why not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::limits::UNIX_SOCKET_PATH_BYTES_MAX;
use crate::plane::config::BackendAddress;
use crate::tor::config::onion_address_problem;

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
         what this service talks to; write an IP address such as 127.0.0.1:8080, or, where such \
         queries stay on your own machines, allow_hostnames with the name beside backends"
    )]
    HostName,
    /// An onion address with a mistake in it.
    #[error("this is no version 3 onion address ({reason}); write <56 characters>.onion:PORT")]
    Onion {
        /// What is wrong.
        reason: String,
    },
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

/// Read `IP:port`, `[v6]:port`, `unix:/path` or `<56 characters>.onion:port`. A relative path is
/// below `base`. `allowed` are host names, in lower case, that may be looked up.
///
/// # Errors
/// [`AddressError`]; other host names are refused.
pub fn parse_backend(
    text: &str,
    base: &Path,
    allowed: &[String],
) -> Result<BackendAddress, AddressError> {
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
        Err(_) => named(text, allowed).unwrap_or_else(|| Err(explain(text))),
    }
}

/// An onion address or an allowed name, each with a port; `None` for whatever else this is.
fn named(text: &str, allowed: &[String]) -> Option<Result<BackendAddress, AddressError>> {
    let (host, port_text) = text.rsplit_once(':').unwrap_or((text, ""));
    let host = host.to_ascii_lowercase();
    let (is_onion, is_allowed) = (is_onion(&host), allowed.contains(&host));
    if !is_onion && !is_allowed {
        return None;
    }
    let digits = port_text.bytes().all(|byte| byte.is_ascii_digit());
    let port = port_text.parse::<u16>().ok().filter(|port| digits && *port > 0);
    let Some(port) = port else {
        return Some(Err(match port_text {
            "" => AddressError::NoPort { with_port: format!("{host}:80") },
            port => AddressError::Port { port: port.to_owned() },
        }));
    };
    Some(match is_onion {
        true => match onion_address_problem(&host) {
            None => Ok(BackendAddress::Onion { host, port }),
            Some(reason) => Err(AddressError::Onion { reason }),
        },
        false => Ok(BackendAddress::Name { host, port }),
    })
}

/// Whether a name is one of Tor's.
pub(super) fn is_onion(host: &str) -> bool {
    host.to_ascii_lowercase().ends_with(".onion")
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
    parse_backend(text, &base, &[])
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{AddressError, parse_backend};
    use crate::plane::config::BackendAddress;

    fn parse(text: &str) -> Result<BackendAddress, AddressError> {
        parse_backend(text, Path::new("/etc/rustbalance"), &["app.internal".to_owned()])
    }

    /// From C tor's own tests.
    const ONION: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";

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
        let name = BackendAddress::Name { host: "app.internal".to_owned(), port: 80 };
        assert_eq!(parse("App.internal:80"), Ok(name));
        let onion = BackendAddress::Onion { host: ONION.to_owned(), port: 81 };
        assert_eq!(parse(&format!("{}:81", ONION.to_uppercase())), Ok(onion.clone()));
        assert_eq!(onion.to_string(), format!("{ONION}:81"));
        assert_eq!(onion.in_log(), "[redacted]:81");
    }

    #[test]
    fn what_is_no_address_says_why_and_what_to_write() {
        for (text, words) in [
            ("", "empty"),
            ("unix:", "empty"),
            ("handler:", "empty"),
            ("localhost:80", "host name"),
            ("other.internal:80", "host name"),
            ("example.com", "host name"),
            ("app.internal", "write app.internal:80"),
            ("app.internal:http", "no port http"),
            ("app.internal:0", "no port 0"),
            (ONION, "sid.onion:80"),
            ("abc.onion:80", "no version 3 onion address"),
            (&format!("{}:80", ONION.replace("25nj", "25nk")), "no version 3 onion address"),
            (&format!("www.{ONION}:80"), "no version 3 onion address"),
            (&format!("{ONION}:+80"), "no port +80"),
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
