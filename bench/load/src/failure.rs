//! How a request fails, and how that is called in reports and in CSV files.

use std::fmt;

use serde::Serialize;

/// How a request failed. `Display` is a phrase for people, [`Failure::code`] a word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Failure {
    /// No TCP connection to the SOCKS proxy.
    Connect,
    /// The proxy ended the handshake, or what it said is not SOCKS5 with a user name.
    SocksHandshake,
    /// The proxy refused with this reply code (RFC 1928, section 6; from 0xF0 on, tor's own).
    SocksReply(u8),
    /// The time was over, and this is what it was spent on last.
    Timeout(Phase),
    /// The stream ended before a whole head of a response, or what came is not HTTP/1.
    NoResponse,
    /// A status outside of 200 to 299.
    Status(u16),
    /// The stream ended before the body did.
    ShortBody,
    /// The body's SHA-256 is not the expected one.
    WrongHash,
}

/// What a request is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A free client: open loop and hold only.
    Waiting,
    /// The SOCKS proxy's word that the stream is open.
    Connecting,
    /// The head of the response.
    Responding,
    /// The rest of the body.
    Receiving,
}

impl Failure {
    /// One word of `a-z`, `0-9`, `A-F` and `-`: the same failure has the same word in each version.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Failure::Connect => "connect".to_owned(),
            Failure::SocksHandshake => "socks-handshake".to_owned(),
            Failure::SocksReply(code) => format!("socks-0x{code:02X}"),
            Failure::Timeout(Phase::Waiting) => "timeout-waiting".to_owned(),
            Failure::Timeout(Phase::Connecting) => "timeout-connecting".to_owned(),
            Failure::Timeout(Phase::Responding) => "timeout-responding".to_owned(),
            Failure::Timeout(Phase::Receiving) => "timeout-receiving".to_owned(),
            Failure::NoResponse => "no-response".to_owned(),
            Failure::Status(status) => format!("status-{status}"),
            Failure::ShortBody => "short-body".to_owned(),
            Failure::WrongHash => "wrong-hash".to_owned(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect => f.write_str("no connection to the SOCKS proxy"),
            Failure::SocksHandshake => f.write_str("the SOCKS handshake broke off"),
            Failure::SocksReply(code) => {
                write!(f, "SOCKS reply 0x{code:02X}: {}", socks_reply_name(*code))
            }
            Failure::Timeout(Phase::Waiting) => f.write_str("timeout: no client became free"),
            Failure::Timeout(Phase::Connecting) => f.write_str("timeout: not connected"),
            Failure::Timeout(Phase::Responding) => f.write_str("timeout: no response"),
            Failure::Timeout(Phase::Receiving) => f.write_str("timeout: body not complete"),
            Failure::NoResponse => f.write_str("the stream ended before an HTTP response"),
            Failure::Status(status) => write!(f, "HTTP status {status}"),
            Failure::ShortBody => f.write_str("the stream ended before the body did"),
            Failure::WrongHash => f.write_str("the body has another SHA-256 than expected"),
        }
    }
}

/// The name of a SOCKS5 reply code: RFC 1928, section 6, and tor's manual page, `ExtendedErrors`
/// (0xF0 to 0xF7, which tor sends only where its `SocksPort` has that flag).
#[must_use]
pub fn socks_reply_name(code: u8) -> &'static str {
    match code {
        0x00 => "succeeded",
        0x01 => "general failure",
        0x02 => "not allowed by ruleset",
        0x03 => "network unreachable",
        0x04 => "host unreachable",
        0x05 => "connection refused",
        0x06 => "TTL expired",
        0x07 => "command not supported",
        0x08 => "address type not supported",
        0xF0 => "onion service descriptor can not be found",
        0xF1 => "onion service descriptor is invalid",
        0xF2 => "onion service introduction failed",
        0xF3 => "onion service rendezvous failed",
        0xF4 => "onion service missing client authorization",
        0xF5 => "onion service wrong client authorization",
        0xF6 => "onion service invalid address",
        0xF7 => "onion service introduction timed out",
        _ => "unassigned",
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, Phase, socks_reply_name};

    /// Every extended code of tor has a name of its own.
    #[test]
    fn replies_of_tor_have_names() {
        let mut names: Vec<_> = (0xF0..=0xF7).map(socks_reply_name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 8);
        assert!(names.iter().all(|name| name.starts_with("onion service ")));
        assert_eq!(socks_reply_name(0xF8), "unassigned");
    }

    /// A code needs no quotes in a CSV file.
    #[test]
    fn codes_are_single_words() {
        let phases = [Phase::Waiting, Phase::Connecting, Phase::Responding, Phase::Receiving];
        let mut failures: Vec<_> = phases.into_iter().map(Failure::Timeout).collect();
        failures.extend([
            Failure::Connect,
            Failure::SocksHandshake,
            Failure::SocksReply(0xF2),
            Failure::NoResponse,
            Failure::Status(503),
            Failure::ShortBody,
            Failure::WrongHash,
        ]);
        let mut codes: Vec<_> = failures.iter().map(Failure::code).collect();
        assert!(codes.contains(&"socks-0xF2".to_owned()));
        assert!(
            codes.iter().flat_map(|code| code.chars()).all(|c| c.is_alphanumeric() || c == '-')
        );
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), failures.len(), "each has its own");
    }
}
