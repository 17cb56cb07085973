//! What a client's stream is to the rest of the program.
//!
//! `onion::session` implements these traits, `plane` consumes them, `app` brings the two together;
//! neither side knows the other.

use std::io;

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
}
