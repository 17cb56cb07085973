//! The PROXY header that comes before a client's first byte at a listener, from C tor
//! (`HiddenServiceExportCircuitID haproxy`), from HAProxy, or from another RustBalance.
//!
//! How long a header is, is told by its first bytes (version 2) or by its line's end (version 1):
//! nothing behind it is taken from the socket. What it says is read by the crate `ppp`.
//!
//! **C tor's line** names a circuit by an address that is not quite as RFC 5952 writes it and a
//! port that may be 0: `PROXY TCP6 fc00:dead:beef:4dad::0:29a ::1 666 42`, for circuit 666 and port
//! 42.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use ppp::{HeaderResult, v1, v2};

use super::{SIGNATURE, UNIQUE_ID};
use crate::base::stream::CircuitId;
use crate::limits;

/// Bytes of version 2 before what its length counts.
const V2_FIXED_BYTES: usize = 16;
/// The longest line of version 1, with its end (section 2.1).
const V1_BYTES_MAX: usize = 107;

/// What is wrong with a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// It does not begin as one.
    #[error("it does not begin as a PROXY header")]
    Other,
    /// It is longer than it may be.
    #[error("it is longer than {} bytes", limits::PROXY_HEADER_BYTES_MAX)]
    TooLong,
    /// It does not say what it should.
    #[error("{0}")]
    Malformed(String),
}

/// How far a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// It has so many bytes, all of which are there.
    Whole(usize),
    /// It needs more.
    Partial,
}

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The client's circuit, as whoever wrote the header numbers it.
    pub(crate) circuit: Option<CircuitId>,
    /// The port that the client asked for.
    pub(crate) port: Option<u16>,
}

/// Where the header in front of `bytes` ends.
///
/// # Errors
/// When there is none.
pub(crate) fn extent(bytes: &[u8]) -> Result<Extent, HeaderError> {
    let begins = |first: &[u8]| {
        let common = first.len().min(bytes.len());
        bytes[..common] == first[..common]
    };
    if begins(SIGNATURE) {
        let Some(length) = bytes.get(V2_FIXED_BYTES - 2..V2_FIXED_BYTES) else {
            return Ok(Extent::Partial);
        };
        let whole = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]]));
        return match whole {
            _ if whole > limits::PROXY_HEADER_BYTES_MAX => Err(HeaderError::TooLong),
            _ if bytes.len() < whole => Ok(Extent::Partial),
            _ => Ok(Extent::Whole(whole)),
        };
    }
    if begins(b"PROXY ") {
        let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
        return match line.windows(2).position(|end| end == b"\r\n") {
            Some(end) => Ok(Extent::Whole(end + 2)),
            None if line.len() == V1_BYTES_MAX => Err(HeaderError::TooLong),
            None => Ok(Extent::Partial),
        };
    }
    Err(HeaderError::Other)
}

/// What a whole header says.
///
/// # Errors
/// [`HeaderError::Malformed`].
pub(crate) fn parse(header: &[u8]) -> Result<Facts, HeaderError> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Unknown => Facts::default(),
            v1::Addresses::Tcp4(all) => facts(all.source_address.into(), all.destination_port),
            v1::Addresses::Tcp6(all) => facts(all.source_address.into(), all.destination_port),
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => {
            Ok(Facts::default())
        }
        HeaderResult::V2(Ok(header)) => {
            let mut said = match header.addresses {
                v2::Addresses::IPv4(all) => facts(all.source_address.into(), all.destination_port),
                v2::Addresses::IPv6(all) => facts(all.source_address.into(), all.destination_port),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Facts::default(),
            };
            let ids = header.tlvs().filter_map(Result::ok).filter(|tlv| tlv.kind == UNIQUE_ID);
            let circuit = ids.last().and_then(|tlv| unique_id(&tlv.value));
            said.circuit = circuit.or(said.circuit);
            Ok(said)
        }
        HeaderResult::V1(Err(error)) => Err(HeaderError::Malformed(error.to_string())),
        HeaderResult::V2(Err(error)) => Err(HeaderError::Malformed(error.to_string())),
    }
}

/// A circuit's id as another RustBalance writes it: `instance/serial`.
fn unique_id(value: &[u8]) -> Option<CircuitId> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What addresses and ports say; the client's port says nothing. An address that names no circuit
/// is the client's own: streams with the same one are the same client's.
fn facts(source: IpAddr, destination_port: u16) -> Facts {
    let named = match source {
        IpAddr::V6(address) => CircuitId::of_address(address),
        IpAddr::V4(_) => None,
    };
    let of_client = || {
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        CircuitId { instance: 0, serial: hasher.finish() as u32 }
    };
    Facts { circuit: Some(named.unwrap_or_else(of_client)), port: Some(destination_port) }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng as _, RngExt as _, SeedableRng as _};

    use super::{Extent, Facts, HeaderError, extent, parse};
    use crate::base::stream::CircuitId;
    use crate::plane::config::ProxyProtocol;
    use crate::plane::proxy_protocol::{header, header_of_our_own};

    /// A circuit, and a port.
    fn says(instance: u16, serial: u32, port: u16) -> Facts {
        Facts { circuit: Some(CircuitId { instance, serial }), port: Some(port) }
    }

    #[test]
    fn the_lines_of_c_tor_are_read() {
        // C tor's own test vectors (test_hs_common.c) and the port 0 of circuit 0x10000.
        let lines = [
            ("PROXY TCP6 fc00:dead:beef:4dad::0:29a ::1 666 42\r\n", says(0, 666, 42)),
            ("PROXY TCP6 fc00:dead:beef:4dad::ffff:ffff ::1 65535 42\r\n", says(0, u32::MAX, 42)),
            ("PROXY TCP6 fc00:dead:beef:4dad::1:0 ::1 0 80\r\n", says(0, 0x1_0000, 80)),
            ("PROXY TCP6 fc00:dead:beef:4dad::0:0 ::1 1 80\r\n", says(0, 0, 80)),
        ];
        for (line, expected) in lines {
            let sent = format!("{line}GET / HTTP/1.0\r\n\r\n");
            assert_eq!(extent(sent.as_bytes()), Ok(Extent::Whole(line.len())));
            assert_eq!(parse(line.as_bytes()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_we_write_we_read() {
        let circuit = CircuitId { instance: 7, serial: 0xfedc_ba98 };
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let header = header(version, circuit, 8080);
            assert_eq!(extent(&header), Ok(Extent::Whole(header.len())));
            assert_eq!(parse(&header), Ok(says(7, 0xfedc_ba98, 8080)));
            let check = header_of_our_own(version);
            assert_eq!(parse(&check), Ok(Facts::default()));
            for end in 0..header.len() {
                assert_eq!(extent(&header[..end]), Ok(Extent::Partial), "{end}");
            }
        }
    }

    #[test]
    fn streams_from_one_address_have_one_circuit() {
        let of = |line: &str| parse(line.as_bytes()).expect("it is well-formed");
        let one = of("PROXY TCP4 192.0.2.1 192.0.2.9 1000 80\r\n");
        assert_eq!(one, of("PROXY TCP4 192.0.2.1 192.0.2.9 2000 80\r\n"));
        assert_ne!(one, of("PROXY TCP4 192.0.2.2 192.0.2.9 1000 80\r\n"));
        assert_eq!(of("PROXY UNKNOWN\r\n"), Facts::default());
        assert_eq!(of("PROXY UNKNOWN ffff::1 what ever\r\n"), Facts::default());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for other in ["GET / HTTP/1.0\r\n", "PROXYTCP4", "\r\n\r\n\r\n", "proxy tcp4"] {
            assert_eq!(extent(other.as_bytes()), Err(HeaderError::Other), "{other:?}");
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(extent(&endless), Err(HeaderError::TooLong));
        let long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &[0; 50]].concat();
        assert_eq!(extent(&long), Err(HeaderError::TooLong));
        for line in ["PROXY TCP4 1.2.3.4\r\n", "PROXY TCP6 x ::1 1 1\r\n", "PROXY UDP4 a b c d\r\n"]
        {
            assert!(matches!(parse(line.as_bytes()), Err(HeaderError::Malformed(_))), "{line}");
        }
    }

    /// Whatever comes, reading it ends, with one and the same answer however it is cut.
    #[test]
    fn rubbish_and_headers_with_wrong_bytes_do_no_harm() {
        for seed in 0..20_000 {
            let mut random = SmallRng::seed_from_u64(seed);
            let circuit = CircuitId { instance: random.random(), serial: random.random() };
            let version = if seed % 2 == 0 { ProxyProtocol::V1 } else { ProxyProtocol::V2 };
            let mut bytes = header(version, circuit, random.random());
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            let mut behind = vec![0; random.random_range(0..64)];
            random.fill_bytes(&mut behind);
            let cut = random.random_range(0..=bytes.len());
            bytes.truncate(if seed % 5 == 0 { cut } else { usize::MAX });
            bytes.extend(behind);
            if let Ok(Extent::Whole(end)) = extent(&bytes) {
                assert!(end <= bytes.len());
                assert_eq!(extent(&bytes[..end]), Ok(Extent::Whole(end)));
                assert_eq!(extent(&bytes[..end - 1]), Ok(Extent::Partial));
                // It is refused or read, and never both.
                assert_eq!(parse(&bytes[..end]), parse(&bytes[..end]));
            }
        }
    }
}
