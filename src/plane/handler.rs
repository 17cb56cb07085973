//! Backends inside this process: a program that embeds the library takes streams without a socket.
//!
//! ```text
//!   data core:  client <-> relay <-> pipe ==== pipe <-> whatever takes from the inbox
//!                                                       (on any thread, on any runtime)
//! ```
//!
//! A handler is a name with a bounded inbox. When the inbox is full, or nobody takes from it any
//! more, it is a backend that refuses: the next one is tried, or the client is told.

#[cfg(feature = "axum")]
mod axum;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

#[cfg(feature = "axum")]
pub use self::axum::OnionListener;
use crate::base::stream::CircuitId;
use crate::limits;

/// A client's stream, as a handler gets it.
#[derive(Debug)]
pub struct HandlerStream {
    /// Its end of the pipe.
    pipe: DuplexStream,
    /// The client's circuit.
    circuit: CircuitId,
    /// The port that the client asked for.
    virtual_port: u16,
}

impl HandlerStream {
    /// The client's circuit: streams with the same one come from the same client.
    pub fn circuit_id(&self) -> CircuitId {
        self.circuit
    }

    /// The port that the client asked for.
    pub fn virtual_port(&self) -> u16 {
        self.virtual_port
    }
}

impl AsyncRead for HandlerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_read(cx, room)
    }
}

impl AsyncWrite for HandlerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().pipe).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_shutdown(cx)
    }
}

/// Where streams for a handler wait until somebody takes them.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<HandlerStream>);

impl Inbox {
    /// The next stream; `None` once the service has ended.
    pub async fn next(&mut self) -> Option<HandlerStream> {
        self.0.recv().await
    }
}

/// The side of a handler that streams are given to.
#[derive(Clone, Debug)]
pub(super) struct Handler(mpsc::Sender<HandlerStream>);

impl Handler {
    /// Make a pipe and give one end of it to the handler.
    ///
    /// # Errors
    /// `WouldBlock` when the inbox is full, `ConnectionRefused` when nobody takes from it any more.
    pub(super) fn connect(&self, circuit: CircuitId, port: u16) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(limits::HANDLER_PIPE_BYTES);
        let stream = HandlerStream { pipe: far, circuit, virtual_port: port };
        match self.0.try_send(stream) {
            Ok(()) => Ok(near),
            Err(mpsc::error::TrySendError::Full(_)) => Err(io::ErrorKind::WouldBlock.into()),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        }
    }
}

/// The handlers of a program, by the names that backends have in the configuration: `handler:NAME`.
#[derive(Clone, Debug, Default)]
pub struct Handlers(HashMap<String, Handler>);

impl Handlers {
    /// Add one, which holds at most `waiting_max` streams that nobody has taken yet (at least one).
    /// One of the same name is replaced.
    pub fn add(&mut self, name: &str, waiting_max: usize) -> Inbox {
        let (sender, receiver) = mpsc::channel(waiting_max.max(1));
        self.0.insert(name.to_owned(), Handler(sender));
        Inbox(receiver)
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The one of this name.
    pub(super) fn get(&self, name: &str) -> Option<Handler> {
        self.0.get(name).cloned()
    }
}
