//! The relay between a client and a backend: two directions, one buffer each, back-pressure from
//! end to end.
//!
//! A direction reads only when its buffer is empty, so a slow reader costs one buffer and stops
//! the other side. arti's writer collects bytes into cells: it is flushed when the backend has
//! nothing more at hand, not after each write.
//!
//! **Half-close.** When the client ends the stream, the backend is told (`shutdown(SHUT_WR)`), and
//! what it still sends is read until it closes; Tor's END has ended both directions, so it goes
//! nowhere; a backend that does not close within [`limits::RELAY_LINGER_SECONDS`] is left. When the
//! backend ends first, everything is flushed to the client and the stream ends
//! with DONE.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as TokioRead, AsyncWrite as TokioWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf as TcpReadHalf, OwnedWriteHalf as TcpWriteHalf};
use tokio::net::unix::{OwnedReadHalf as UnixReadHalf, OwnedWriteHalf as UnixWriteHalf};

use super::backend::Connection;
use crate::base::counters::InstanceCounters;
use crate::base::stream::{ClientStream, EndReason};
use crate::limits;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamOutcome {
    /// It was never open.
    Refused(EndReason),
    /// Both sides are done.
    Done,
    /// The client, or its circuit, went away.
    ClientGone,
    /// The backend broke the connection.
    BackendDied,
}

/// Which side failed.
enum Failure {
    /// The client's.
    Client,
    /// The backend's.
    Backend,
}

/// One direction's buffer.
struct Buffer {
    /// Allocated with the first byte.
    bytes: Vec<u8>,
    /// Start of what is to be written.
    start: usize,
    /// End of what is to be written.
    end: usize,
}

impl Buffer {
    /// Nothing in it, nothing allocated.
    fn new() -> Buffer {
        Buffer { bytes: Vec::new(), start: 0, end: 0 }
    }

    /// Room to read into.
    fn room(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = vec![0; limits::RELAY_BUFFER_BYTES];
        }
        &mut self.bytes
    }

    /// Take note of what was read.
    fn filled(&mut self, length: usize) {
        (self.start, self.end) = (0, length);
    }

    /// What is to be written.
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

/// Where a direction stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// It carries bytes.
    Open,
    /// The source is done; the sink is being told.
    Closing,
    /// Nothing more to do.
    Closed,
}

/// Both directions of one stream.
struct Relay<'a, C, R, W> {
    /// The client.
    client: C,
    /// What the backend sends.
    backend_read: R,
    /// What the backend gets.
    backend_write: W,
    /// What is counted.
    counters: &'a Arc<InstanceCounters>,
    /// From the client.
    inward: (Direction, Buffer),
    /// To the client.
    outward: (Direction, Buffer),
    /// Whether the client's writer holds bytes that were not flushed.
    unflushed: bool,
    /// Set when the client has ended the stream: how long the backend may take to close.
    linger: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// Carry bytes both ways until both sides are done.
pub(super) async fn relay(
    client: impl ClientStream,
    connection: Connection,
    counters: &Arc<InstanceCounters>,
) -> StreamOutcome {
    match connection {
        Connection::Tcp(socket) => {
            let (read, write): (TcpReadHalf, TcpWriteHalf) = socket.into_split();
            run(client, read, write, counters).await
        }
        Connection::Unix(socket) => {
            let (read, write): (UnixReadHalf, UnixWriteHalf) = socket.into_split();
            run(client, read, write, counters).await
        }
    }
}

/// See [`relay`].
async fn run<C, R, W>(
    client: C,
    backend_read: R,
    backend_write: W,
    counters: &Arc<InstanceCounters>,
) -> StreamOutcome
where
    C: ClientStream,
    R: TokioRead + Unpin,
    W: TokioWrite + Unpin,
{
    let mut relay = Relay {
        client,
        backend_read,
        backend_write,
        counters,
        inward: (Direction::Open, Buffer::new()),
        outward: (Direction::Open, Buffer::new()),
        unflushed: false,
        linger: None,
    };
    match std::future::poll_fn(|cx| relay.poll(cx)).await {
        Ok(()) => StreamOutcome::Done,
        Err(Failure::Client) => StreamOutcome::ClientGone,
        Err(Failure::Backend) => StreamOutcome::BackendDied,
    }
}

impl<C, R, W> Relay<'_, C, R, W>
where
    C: ClientStream,
    R: TokioRead + Unpin,
    W: TokioWrite + Unpin,
{
    /// Make what progress can be made; ready when the stream is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let inward = self.poll_inward(cx);
        if let Poll::Ready(Err(failure)) = inward {
            return Poll::Ready(Err(failure));
        }
        // When the backend is done, END has gone out, and nothing comes in any more.
        if let Poll::Ready(ended) = self.poll_outward(cx) {
            return Poll::Ready(ended);
        }
        match &mut self.linger {
            Some(linger) => linger.as_mut().poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }

    /// Carry bytes from the client to the backend.
    fn poll_inward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let (direction, buffer) = &mut self.inward;
        for _ in 0..limits::RELAY_TURNS_MAX {
            match direction {
                Direction::Closed => return Poll::Ready(Ok(())),
                Direction::Closing => {
                    // A backend that has gone is noticed where it is read.
                    let _ = ready!(Pin::new(&mut self.backend_write).poll_shutdown(cx));
                    *direction = Direction::Closed;
                    let wait = Duration::from_secs(limits::RELAY_LINGER_SECONDS);
                    self.linger = Some(Box::pin(tokio::time::sleep(wait)));
                }
                Direction::Open if buffer.start < buffer.end => {
                    let write = Pin::new(&mut self.backend_write).poll_write(cx, buffer.waiting());
                    match ready!(write) {
                        // It may have answered before it stopped to read: that is still read.
                        Ok(0) | Err(_) => *direction = Direction::Closed,
                        Ok(written) => buffer.start += written,
                    }
                }
                Direction::Open => {
                    match ready!(Pin::new(&mut self.client).poll_read(cx, buffer.room())) {
                        Ok(0) => *direction = Direction::Closing,
                        Ok(length) => {
                            self.counters.add_bytes_in(length);
                            buffer.filled(length);
                        }
                        // The circuit is gone, or the client reset the stream.
                        Err(_) => return Poll::Ready(Err(Failure::Client)),
                    }
                }
            }
        }
        // There is more: let other streams of this core have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Carry bytes from the backend to the client.
    fn poll_outward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        for _ in 0..limits::RELAY_TURNS_MAX {
            match self.outward.0 {
                Direction::Closed => return Poll::Ready(Ok(())),
                Direction::Closing => {
                    let closed = ready!(Pin::new(&mut self.client).poll_close(cx));
                    self.outward.0 = Direction::Closed;
                    if closed.is_err() {
                        return Poll::Ready(Err(Failure::Client));
                    }
                }
                Direction::Open if self.outward.1.start < self.outward.1.end => {
                    ready!(self.poll_write_client(cx))?;
                }
                Direction::Open => match self.poll_read_backend(cx) {
                    Poll::Ready(read) => {
                        let length = read.map_err(|_| Failure::Backend)?;
                        if length == 0 {
                            self.outward.0 = Direction::Closing;
                        } else {
                            self.outward.1.filled(length);
                        }
                    }
                    Poll::Pending => {
                        ready!(self.poll_flush_client(cx))?;
                        return Poll::Pending;
                    }
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Read what the backend sends next.
    fn poll_read_backend(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(self.outward.1.room());
        ready!(Pin::new(&mut self.backend_read).poll_read(cx, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Write some of what waits for the client.
    fn poll_write_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // The client has ended the stream: what the backend still sends goes nowhere.
        if self.linger.is_some() {
            self.outward.1.start = self.outward.1.end;
            return Poll::Ready(Ok(()));
        }
        let write = Pin::new(&mut self.client).poll_write(cx, self.outward.1.waiting());
        match ready!(write) {
            Ok(0) | Err(_) => Poll::Ready(Err(Failure::Client)),
            Ok(written) => {
                self.counters.add_bytes_out(written);
                self.outward.1.start += written;
                self.unflushed = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Send the cell that is not full yet.
    fn poll_flush_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.client).poll_flush(cx)).map_err(|_| Failure::Client)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
