//! Addresses: what an operator may write, and why not.

mod error;
mod quoted;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

pub use self::error::AddressError;
use crate::limits::UNIX_SOCKET_PATH_BYTES_MAX;
use crate::plane::config::BackendAddress;
use crate::tor::config::onion_address_problem;

/// The name of this machine's own addresses (RFC 6761, section 6.3), which is never looked up.
const LOCALHOST: &str = "localhost";

/// What an address without a port is shown with.
const EXAMPLE_PORT: &str = "8080";

/// Read `IP:port`, `[v6]:port`, `localhost:port`, `unix:/path`, `unix:"/path"` as in a torrc,
/// `unix:@abstract` or `<56 characters>.onion:port`. A relative path is below `base`. `allowed` are
/// host names, in lower case, that may be looked up.
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
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(url(scheme, rest));
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            let right = format!("{}:{EXAMPLE_PORT}", host_of(text));
            Err(AddressError::Port { port: "0".to_owned(), right })
        }
        Ok(SocketAddr::V6(address)) if needs_zone(*address.ip()) && address.scope_id() == 0 => {
            Err(AddressError::Zone { right: format!("[{}%2]:{}", address.ip(), address.port()) })
        }
        Ok(address) => Ok(BackendAddress::Tcp(address)),
        Err(_) => named(text, allowed).unwrap_or_else(|| Err(explain(text))),
    }
}

/// The onion address that a remote instance has, in lower case.
///
/// # Errors
/// [`AddressError::MoreThanOnion`] for one in a URL or with a port; what is no onion address at all
/// is not looked at.
pub fn onion_alone(text: &str) -> Result<String, AddressError> {
    let text = text.trim().to_ascii_lowercase();
    let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    let host = rest.split(['/', ':']).next().unwrap_or(rest);
    match is_onion(host) && host != text {
        true => Err(AddressError::MoreThanOnion { onion: host.to_owned() }),
        false => Ok(text),
    }
}

/// An onion address, localhost or an allowed name, each with a port; `None` for whatever else this
/// is.
fn named(text: &str, allowed: &[String]) -> Option<Result<BackendAddress, AddressError>> {
    let (host, port_text) = text.rsplit_once(':').unwrap_or((text, ""));
    let host = host.to_ascii_lowercase();
    let is_onion = is_onion(&host);
    if !is_onion && host != LOCALHOST && !allowed.contains(&host) {
        return None;
    }
    if is_onion && let Some(reason) = onion_address_problem(&host) {
        return Some(Err(AddressError::Onion { reason }));
    }
    let Some(port) = port_number(port_text) else {
        let right = format!("{host}:80");
        return Some(Err(match port_text {
            "" => AddressError::NoPort { with_port: right },
            port => AddressError::Port { port: port.to_owned(), right },
        }));
    };
    Some(Ok(match host.as_str() {
        _ if is_onion => BackendAddress::Onion { host, port },
        LOCALHOST => BackendAddress::Localhost { port },
        _ => BackendAddress::Name { host, port },
    }))
}

/// A port, which is never 0.
fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// Whether a name is one of Tor's.
pub(super) fn is_onion(host: &str) -> bool {
    host.to_ascii_lowercase().ends_with(".onion")
}

/// Whether an address means something only together with an interface (RFC 4291, section 2.5.6).
fn needs_zone(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// A unix socket's path, or its abstract name (unix(7)) after an `@`. In quotes it is a path,
/// whatever it begins with.
fn unix(text: &str, base: &Path) -> Result<BackendAddress, AddressError> {
    if let Some(name) = text.strip_prefix('@') {
        check_unix_path(Path::new(name))?;
        return match name {
            "" => Err(AddressError::Empty),
            name => Ok(BackendAddress::UnixAbstract(name.to_owned())),
        };
    }
    let path = match text.as_bytes().first() {
        Some(b'"') => quoted::unquote(text).map_err(|wrong| AddressError::Quotes { wrong })?,
        Some(b'\'') => return Err(AddressError::Quotes { wrong: "are single ones" }),
        _ => text.as_bytes().to_vec(),
    };
    if path.is_empty() {
        return Err(AddressError::Empty);
    }
    let path = base.join(OsString::from_vec(path));
    check_unix_path(&path)?;
    Ok(BackendAddress::Unix(path))
}

/// Refuse a path that does not fit a socket address.
pub(super) fn check_unix_path(path: &Path) -> Result<(), AddressError> {
    let bytes = path.as_os_str().len();
    if bytes > UNIX_SOCKET_PATH_BYTES_MAX {
        return Err(AddressError::UnixTooLong { bytes, bytes_max: UNIX_SOCKET_PATH_BYTES_MAX });
    }
    match path.as_os_str().as_bytes().contains(&0) {
        true => Err(AddressError::UnixNul),
        false => Ok(()),
    }
}

/// Why a URL is no address, with the address in it where there is one.
fn url(scheme: &str, rest: &str) -> AddressError {
    let tls = ["https", "wss"].iter().any(|one| scheme.eq_ignore_ascii_case(one));
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let port = if tls { 443 } else { 80 };
    let read = |text: &str| parse_backend(text, Path::new("/"), &[]).ok();
    let address = read(host).or_else(|| read(&format!("{host}:{port}")));
    let address = address.filter(|address| !matches!(address, BackendAddress::Unix(_)));
    let example = || format!("127.0.0.1:{EXAMPLE_PORT}");
    AddressError::Url { address: address.map_or_else(example, |address| address.to_string()), tls }
}

/// What stands before the last colon.
fn host_of(text: &str) -> &str {
    text.rsplit_once(':').map_or(text, |(host, _)| host)
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
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, after)) => explain_brackets(host, after),
            None if rest.parse::<SocketAddr>().is_ok() => {
                AddressError::NoBrackets { right: rest.to_owned() }
            }
            None => explain(rest),
        };
    }
    if text.contains('%') && text.contains(':') {
        return explain_brackets(text, "");
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        // The end of what is an address as a whole looks like a port.
        return match host.parse::<Ipv6Addr>().is_ok() && port_number(port).is_some() {
            true => AddressError::Brackets { right: format!("[{host}]:{port}") },
            false => AddressError::NoPort { with_port: format!("[{address}]:{EXAMPLE_PORT}") },
        };
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(host)) if port_number(port).is_some() => {
            AddressError::Brackets { right: format!("[{host}]:{port}") }
        }
        Ok(IpAddr::V6(host)) => port_problem(&format!("[{host}]"), port),
        Ok(IpAddr::V4(host)) => port_problem(&host.to_string(), port),
        Err(_) if host.is_empty() && digits(port) => {
            AddressError::PortAlone { port: port.to_owned() }
        }
        Err(_) if host == "*" => {
            let port = if port_number(port).is_some() { port } else { EXAMPLE_PORT };
            AddressError::Every { right: format!("127.0.0.1:{port}") }
        }
        Err(_) if is_name(host) => AddressError::HostName,
        Err(_) => AddressError::NoForm,
    }
}

/// Why `[host]after` is none.
fn explain_brackets(host: &str, after: &str) -> AddressError {
    let port = after.strip_prefix(':').unwrap_or(after);
    let port_or_example = if port_number(port).is_some() { port } else { EXAMPLE_PORT };
    if let Some((address, zone)) = host.split_once('%')
        && let Ok(address) = address.parse::<Ipv6Addr>()
    {
        // A port may follow where there are no brackets.
        let (zone, port) = zone.split_once(':').unwrap_or((zone, port_or_example));
        let number = interface_number(zone).unwrap_or_else(|| "2".to_owned());
        return AddressError::Zone { right: format!("[{address}%{number}]:{port}") };
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(host)) => {
            AddressError::NoBrackets { right: format!("{host}:{port_or_example}") }
        }
        Ok(IpAddr::V6(host)) if port_number(port).is_some() => {
            AddressError::Brackets { right: format!("[{host}]:{port}") }
        }
        Ok(IpAddr::V6(host)) => port_problem(&format!("[{host}]"), port),
        Err(_) => AddressError::NoForm,
    }
}

/// What is wrong with the port of a good host.
fn port_problem(host: &str, port: &str) -> AddressError {
    let right = format!("{host}:{EXAMPLE_PORT}");
    match port {
        "" => AddressError::NoPort { with_port: right },
        port => AddressError::Port { port: port.to_owned(), right },
    }
}

/// Whether this can be a host name: letters, digits, hyphens and dots, and not digits alone at the
/// end, as a mistyped IPv4 address has.
fn is_name(host: &str) -> bool {
    let good = |c: char| c.is_alphanumeric() || c == '-' || c == '.' || c == '_';
    let last = host.rsplit('.').next().unwrap_or(host);
    host.chars().all(good) && last.chars().any(char::is_alphabetic)
}

/// The number of an interface of this machine, as text.
fn interface_number(name: &str) -> Option<String> {
    let simple = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    let file = Path::new("/sys/class/net").join(name).join("ifindex");
    let text = simple.then(|| std::fs::read_to_string(file).ok()).flatten()?;
    Some(text.trim().to_owned()).filter(|text| port_number(text).is_some())
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
mod tests;
