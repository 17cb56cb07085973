//! The PROXY protocol: what a backend hears about a client before its first byte.
//!
//! There is no client address to tell. What stands for it is the client's circuit, so that a rule
//! for an address (nginx's `limit_conn`, HAProxy's stick tables) is one for a circuit:
//! `fc00:dead:beef:4dad:0:INSTANCE:HI:LO`, where `HI:LO` are the two halves of the circuit's
//! number. C tor's `HiddenServiceExportCircuitID haproxy` writes `fc00:dead:beef:4dad::HI:LO`; the
//! instance keeps the circuits of several apart.
//!
//! Formats: HAProxy's `doc/proxy-protocol.txt`, sections 2.1 and 2.2.

#[cfg(test)]
mod fuzz;
pub(super) mod read;

use std::io::Write as _;
use std::net::Ipv6Addr;

use super::config::ProxyProtocol;
use crate::base::stream::CircuitId;

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection that was made for somebody else.
const V2_PROXY: u8 = 0x21;
/// Version 2, a connection of our own.
const V2_LOCAL: u8 = 0x20;
/// TCP over IPv6.
const TCP6: u8 = 0x21;
/// No address follows.
const UNSPECIFIED: u8 = 0;
/// PP2_TYPE_UNIQUE_ID
const UNIQUE_ID: u8 = 5;
/// Two IPv6 addresses and two ports.
const ADDRESSES_BYTES: usize = 36;

/// The header for a stream of this circuit to this port.
pub(super) fn header(version: ProxyProtocol, circuit: CircuitId, virtual_port: u16) -> Vec<u8> {
    let (high, low) = ((circuit.serial >> 16) as u16, circuit.serial as u16);
    let mut out = Vec::with_capacity(80);
    match version {
        ProxyProtocol::V1 => {
            // As C tor writes it, and not as RFC 5952 does. Writing to a vector does not fail.
            let instance = circuit.instance;
            let _ = write!(
                out,
                "PROXY TCP6 fc00:dead:beef:4dad:0:{instance:x}:{high:x}:{low:x} ::1 {low} \
                 {virtual_port}\r\n"
            );
        }
        ProxyProtocol::V2 => {
            let id = circuit.to_string();
            out.extend_from_slice(SIGNATURE);
            out.extend_from_slice(&[V2_PROXY, TCP6]);
            let length = ADDRESSES_BYTES + 3 + id.len();
            out.extend_from_slice(&(length as u16).to_be_bytes());
            out.extend_from_slice(&circuit.address().octets());
            out.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
            out.extend_from_slice(&low.to_be_bytes());
            out.extend_from_slice(&virtual_port.to_be_bytes());
            out.push(UNIQUE_ID);
            out.extend_from_slice(&(id.len() as u16).to_be_bytes());
            out.extend_from_slice(id.as_bytes());
        }
    }
    out
}

/// The header of a connection that we make for ourselves: a health check.
pub(super) fn header_of_our_own(version: ProxyProtocol) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        ProxyProtocol::V2 => [SIGNATURE.as_slice(), &[V2_LOCAL, UNSPECIFIED, 0, 0]].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::{header, header_of_our_own};
    use crate::base::stream::CircuitId;
    use crate::plane::config::ProxyProtocol;

    #[test]
    fn version_1_is_c_tors_line_with_the_instance() {
        let line = |instance, serial, port| {
            let header = header(ProxyProtocol::V1, CircuitId { instance, serial }, port);
            String::from_utf8(header).expect("text")
        };
        // C tor writes for circuit 666, port 42: PROXY TCP6 fc00:dead:beef:4dad::0:29a ::1 666 42
        assert_eq!(line(0, 666, 42), "PROXY TCP6 fc00:dead:beef:4dad:0:0:0:29a ::1 666 42\r\n");
        let longest = line(u16::MAX, u32::MAX, 65_535);
        let expected = "PROXY TCP6 fc00:dead:beef:4dad:0:ffff:ffff:ffff ::1 65535 65535\r\n";
        assert_eq!(longest, expected);
        // Section 2.1: 107 bytes at most.
        assert!(longest.len() <= 107);
    }

    #[test]
    fn version_2_has_the_addresses_and_the_unique_id() {
        let header = header(ProxyProtocol::V2, CircuitId { instance: 3, serial: 0x0001_029a }, 80);
        assert_eq!(&header[..12], b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(&header[12..14], [0x21, 0x21]);
        assert_eq!(usize::from(u16::from_be_bytes([header[14], header[15]])), header.len() - 16);
        let from = [0xfc, 0, 0xde, 0xad, 0xbe, 0xef, 0x4d, 0xad, 0, 0, 0, 3, 0, 1, 2, 0x9a];
        assert_eq!(&header[16..32], from);
        assert_eq!(&header[48..52], [0x02, 0x9a, 0, 80]);
        assert_eq!(&header[52..], [b"\x05\0\x07".as_slice(), b"3/66202"].concat());
    }

    #[test]
    fn a_check_says_that_it_is_our_own() {
        assert_eq!(header_of_our_own(ProxyProtocol::V1), b"PROXY UNKNOWN\r\n");
        let local = header_of_our_own(ProxyProtocol::V2);
        assert_eq!((local.len(), &local[12..]), (16, [0x20, 0, 0, 0].as_slice()));
    }
}
