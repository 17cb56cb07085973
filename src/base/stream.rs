//! What a client's stream is to the rest of the program.
//!
//! `onion::session` implements these traits, `plane` consumes them, `app` brings the two together;
//! neither side knows the other.

use std::io;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::io::{AsyncRead, AsyncWrite};

/// Why a stream ends, in the words of tor-spec ("Closing streams", RELAY_END reasons).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The application closed the connection in good order.
    Done,
    /// The backend refused the connection.
    ConnectRefused,
    /// The service does not serve this port.
    ExitPolicy,
    /// The backend did not answer in time.
    Timeout,
    /// Something failed on our side.
    Internal,
    /// A limit was reached.
    ResourceLimit,
    /// The backend reset the connection.
    ConnReset,
    /// The circuit is being destroyed.
    Destroy,
    /// Anything else.
    Misc,
}

/// Names a client's circuit: which instance carries it, and a number that says nothing about the
/// client. Written `instance/serial`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitId {
    /// The instance.
    pub instance: u16,
    /// Counts the circuits of this process.
    pub serial: u32,
}

/// The first four groups of an address that stands for a circuit in a PROXY header: C tor's.
const CIRCUIT_PREFIX: [u16; 4] = [0xfc00, 0xdead, 0xbeef, 0x4dad];

impl CircuitId {
    /// The address that stands for it in a PROXY header.
    pub fn address(self) -> Ipv6Addr {
        let [a, b, c, d] = CIRCUIT_PREFIX;
        let (high, low) = ((self.serial >> 16) as u16, self.serial as u16);
        Ipv6Addr::new(a, b, c, d, 0, self.instance, high, low)
    }

    /// The circuit that an address stands for, if it stands for one.
    pub fn of_address(address: Ipv6Addr) -> Option<CircuitId> {
        let [a, b, c, d, zero, instance, high, low] = address.segments();
        let serial = u32::from(high) << 16 | u32::from(low);
        ([a, b, c, d] == CIRCUIT_PREFIX && zero == 0).then_some(CircuitId { instance, serial })
    }
}

/// Who waits as one: streams of one party take turns among themselves, and parties among each
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// The streams of a circuit.
    Circuit(CircuitId),
    /// Clients of the listener of this number of which nothing says whose they are.
    Listener(u16),
}

/// What was read is no circuit's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no circuit's id: write INSTANCE/NUMBER, or its address in a PROXY header")]
pub struct NoCircuitId;

impl std::str::FromStr for CircuitId {
    type Err = NoCircuitId;

    fn from_str(text: &str) -> Result<CircuitId, NoCircuitId> {
        if let Ok(address) = text.parse() {
            return CircuitId::of_address(address).ok_or(NoCircuitId);
        }
        let (instance, serial) = text.split_once('/').ok_or(NoCircuitId)?;
        let instance = instance.parse().map_err(|_| NoCircuitId)?;
        let serial = serial.parse().map_err(|_| NoCircuitId)?;
        Ok(CircuitId { instance, serial })
    }
}

impl std::fmt::Display for CircuitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.instance, self.serial)
    }
}

/// An open stream to a client. Closing the writing side ends the stream: Tor's END ends both
/// directions.
///
/// Reading gives 0 bytes when the client has ended the stream in good order (END with DONE), and an
/// error when it, or its circuit, broke off.
pub trait ClientStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// End the stream as one that did not end in good order; what is not flushed is lost.
    ///
    /// An implementation that can tell the client `reason` does so. Otherwise the stream is
    /// dropped, which must not look like a clean end either.
    fn abort(self, reason: EndReason)
    where
        Self: Sized,
    {
        let _ = reason;
    }

    /// Close the circuit that it came over, with all its streams. Where that is not ours to close,
    /// the stream alone is aborted.
    fn close_circuit(self)
    where
        Self: Sized,
    {
        self.abort(EndReason::ResourceLimit);
    }
}

/// A stream that a client has begun, and that waits for an answer. Dropping it refuses it.
#[async_trait]
pub trait IncomingStream: Send + 'static {
    /// What it becomes.
    type Stream: ClientStream;

    /// The port that the client asked for.
    fn virtual_port(&self) -> u16;

    /// The circuit it came over.
    fn circuit_id(&self) -> CircuitId;

    /// Whose turn it takes where streams wait: its circuit's, unless it alone has that number.
    fn party(&self) -> Party {
        Party::Circuit(self.circuit_id())
    }

    /// Say yes.
    ///
    /// # Errors
    /// When the circuit has closed.
    async fn accept(self) -> io::Result<Self::Stream>;

    /// Say no.
    ///
    /// # Errors
    /// When the circuit has closed.
    async fn reject(self, reason: EndReason) -> io::Result<()>;

    /// Say no, and close the circuit, with all its streams. Where that is not ours to close, the
    /// stream alone is dropped.
    fn close_circuit(self)
    where
        Self: Sized,
    {
    }
}

/// Whose streams may share a circuit to another onion service: those with the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Apart(u64);

impl Apart {
    /// Apart from all others of this process.
    pub fn from_all_others() -> Apart {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Apart(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a stream to another onion service gives.
pub trait OnionRead: tokio::io::AsyncRead + std::fmt::Debug + Send + Unpin {}
impl<T: tokio::io::AsyncRead + std::fmt::Debug + Send + Unpin> OnionRead for T {}

/// What it takes. Bytes that a write has taken are on their way: there is no need to flush it.
/// Tor has no half-close: shutting it down ends the stream both ways.
pub trait OnionWrite: tokio::io::AsyncWrite + std::fmt::Debug + Send + Unpin {}
impl<T: tokio::io::AsyncWrite + std::fmt::Debug + Send + Unpin> OnionWrite for T {}

/// An open stream to another onion service, on the core that opened it.
#[derive(Debug)]
pub struct OnionStream {
    /// What it gives.
    pub read: Box<dyn OnionRead>,
    /// What it takes.
    pub write: Box<dyn OnionWrite>,
}

/// Opens streams to other onion services: `tor` does it, `plane` has it done.
#[async_trait]
pub trait OpenOnion: std::fmt::Debug + Send + Sync {
    /// Open a stream to this port of `<56 characters>.onion`, on the calling core, however long it
    /// takes. It shares its circuit with streams of the same core and of the same `apart` alone.
    ///
    /// # Errors
    /// When there is no Tor yet, or the service cannot be reached or refuses.
    async fn open_onion(&self, host: &str, port: u16, apart: Apart) -> io::Result<OnionStream>;

    /// Wait until there is Tor on the calling core: before, whoever asks learns nothing of a
    /// service.
    async fn ready(&self) {}
}

#[cfg(test)]
mod tests {
    use super::{CircuitId, NoCircuitId};

    #[test]
    fn a_circuits_id_is_read_in_both_forms() {
        let circuit = CircuitId { instance: 3, serial: 0x0001_029a };
        assert_eq!("3/66202".parse(), Ok(circuit));
        assert_eq!(circuit.to_string().parse(), Ok(circuit));
        assert_eq!(circuit.address().to_string(), "fc00:dead:beef:4dad:0:3:1:29a");
        assert_eq!(circuit.address().to_string().parse(), Ok(circuit));
        for wrong in ["", "3", "3/", "/3", "3/4294967296", "65536/1", "-1/1", "::1", "3/1/1"] {
            assert_eq!(wrong.parse::<CircuitId>(), Err(NoCircuitId), "{wrong:?}");
        }
    }
    /// The table that tells operators how to read an address: its rows, an address as text and the
    /// circuit's id.
    fn documented() -> Vec<(String, String)> {
        let page = include_str!("../../docs/operating/configuration.md");
        let cells = |line: &str| {
            let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
            Some((cells.nth(1)?, cells.next()?))
        };
        page.lines().filter(|line| line.starts_with("| `fc00:dead:")).filter_map(cells).collect()
    }

    #[test]
    fn the_documented_reading_of_an_address_round_trips() {
        let rows = documented();
        assert!(rows.len() >= 5, "{rows:?}");
        for (text, id) in rows {
            let circuit: CircuitId = text.parse().expect("it stands for a circuit");
            assert_eq!(circuit.to_string(), id, "{text}");
            assert_eq!(id.parse(), Ok(circuit));
            let address: std::net::Ipv6Addr = text.parse().expect("it is an address");
            assert_eq!(circuit.address(), address, "{text}");
            // As the page says: the sixth group, and the last two.
            let groups = address.segments();
            let number = u32::from(groups[6]) * 65_536 + u32::from(groups[7]);
            assert_eq!(format!("{}/{number}", groups[5]), id);
        }
    }

    #[test]
    fn every_circuit_is_read_back_however_its_zeros_are_written() {
        let halves = [0, 1, 0x29a, 0x1000, u16::MAX];
        for instance in halves {
            for (high, low) in halves.iter().flat_map(|high| halves.map(|low| (*high, low))) {
                let circuit =
                    CircuitId { instance, serial: u32::from(high) << 16 | u32::from(low) };
                // As we write it; as RFC 5952 does, which compresses zeros; with leading zeros.
                let address = circuit.address();
                let ours = format!("fc00:dead:beef:4dad:0:{instance:x}:{high:x}:{low:x}");
                let all = address.segments().map(|group| format!("{group:04x}")).join(":");
                for text in [ours, address.to_string(), all] {
                    assert_eq!(text.parse(), Ok(circuit), "{text}");
                }
                if instance == 0 {
                    // As C tor does.
                    let tors = format!("fc00:dead:beef:4dad::{high:x}:{low:x}");
                    assert_eq!(tors.parse(), Ok(circuit), "{tors}");
                }
            }
        }
        assert_eq!("fc00:dead:beef:4dad:1:1:0:29a".parse::<CircuitId>(), Err(NoCircuitId));
    }
}
