//! The relay between a client and a backend: two directions, each with at most one buffer, and
//! back-pressure from end to end.
//!
//! ```text
//!            inward:  client.read -> buffer -> backend.write
//!   client                                                    backend
//!            outward: client.write <- buffer <- backend.read
//!
//!   each:  Open --source ends--> Closing --sink is told--> Closed
//!            '---- outward only: the backend breaks off --> Broken
//! ```
//!
//! A direction reads only when it holds no buffer, so a slow reader costs one buffer and stops the
//! other side; an idle stream holds none. arti's writer collects bytes into cells: it is flushed
//! when the backend has nothing more at hand, not after each write.
//!
//! **Half-close.** When the client ends the stream, the backend is told (`shutdown(SHUT_WR)`), and
//! what it still sends is delivered for as long as the client takes it. Tor has no half-close (an
//! END ends both directions), so a Tor client takes nothing more: it is read and dropped, for the
//! backend shall not see its answer refused; and a backend that delivers nothing and does not close
//! within `half_close_timeout` is left. When the backend ends first, everything is
//! flushed to the client and the stream ends, even if the backend would still listen.
//!
//! **A backend that breaks off** (`ECONNRESET`): what it had sent is delivered, and the stream is
//! aborted.
//!
//! **A stream that is without bytes for too long**, or goes over a limit, is aborted, and its
//! backend gets a reset: half an answer, or half an upload, shall not look like a whole one, as it
//! would to a reader that goes by the end of the connection. (tor-proto 0.47 writes the same END
//! for all endings, so today a client tells half a download from a whole one by its length alone.)

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead as TokioRead, AsyncWrite as TokioWrite, ReadBuf};

use super::Meter;
use super::buffers::Buffer;
use super::forward::Patience;
use super::gate::Refused;
use super::idle::Idle;
use crate::base::stream::{ClientStream, EndReason};
use crate::limits;
use crate::runtime::{self, Sleep, net};

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
    /// There were no bytes for longer than there may be none.
    Idle,
    /// The client had ended, and the backend delivered nothing for too long.
    Left,
    /// Its circuit has carried more bytes a second than it may.
    OverLimit,
    /// It is open, and goes on by itself.
    Forwarded,
}

/// Which side failed.
enum Failure {
    /// The client's.
    Client,
    /// The backend's.
    Backend,
    /// None: the circuit has gone over a limit.
    Limit(Refused),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Failure::Limit(refused)
    }
}

/// Where a direction stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It carries bytes.
    Open,
    /// The source is done; the sink is being told.
    Closing,
    /// The source broke off; what it had sent is being flushed.
    Broken,
    /// Nothing more to do.
    Closed,
}

/// One direction.
struct Direction {
    /// Where it stands.
    phase: Phase,
    /// What was read and is not written yet; never empty.
    held: Option<Buffer>,
    /// The sink takes no more: what still comes is dropped, so that the source's end is seen.
    deaf: bool,
}

impl Direction {
    /// A direction that has carried nothing yet.
    fn new() -> Direction {
        Direction { phase: Phase::Open, held: None, deaf: false }
    }

    /// The sink takes no more.
    fn give_up(&mut self) {
        self.deaf = true;
        self.held = None;
    }

    /// `length` bytes of what is held were written.
    fn wrote(&mut self, length: usize) {
        if self.held.as_mut().is_some_and(|held| !held.wrote(length)) {
            self.held = None;
        }
    }
}

/// Both directions of one stream.
struct Relay<C, R, W> {
    /// The client.
    client: C,
    /// What the backend sends.
    backend_read: R,
    /// What the backend gets.
    backend_write: W,
    /// Where bytes are counted.
    meter: Meter,
    /// From the client.
    inward: Direction,
    /// To the client.
    outward: Direction,
    /// Whether the client's writer holds bytes that were not flushed.
    unflushed: bool,
    /// How long there may be no bytes.
    patience: Patience,
    /// When the client has ended the stream: until when the backend may deliver nothing.
    linger: Option<Sleep>,
    /// Where an idle stream ends.
    idle: Option<Idle>,
}

/// Carry bytes both ways until both sides are done. The backend gets `preface` first.
pub(super) async fn relay(
    client: impl ClientStream,
    connection: net::Stream,
    preface: Option<Buffer>,
    meter: Meter,
    patience: Patience,
) -> StreamOutcome {
    let halves = connection.into_split();
    let (outcome, (_read, write)) = run(client, halves, preface, meter, patience).await;
    if matches!(outcome, StreamOutcome::Idle | StreamOutcome::OverLimit) {
        write.reset_on_close();
    }
    outcome
}

/// See [`relay`]. Gives the backend back, which closes with its halves.
pub(super) async fn run<C, R, W>(
    client: C,
    (backend_read, backend_write): (R, W),
    preface: Option<Buffer>,
    meter: Meter,
    patience: Patience,
) -> (StreamOutcome, (R, W))
where
    C: ClientStream,
    R: TokioRead + Unpin,
    W: TokioWrite + Unpin,
{
    let mut relay = Relay {
        client,
        backend_read,
        backend_write,
        meter,
        inward: Direction { held: preface, ..Direction::new() },
        outward: Direction::new(),
        unflushed: false,
        patience,
        linger: None,
        idle: patience.idle.map(Idle::new),
    };
    let ended = std::future::poll_fn(|cx| relay.poll(cx)).await;
    let Relay { client, backend_read, backend_write, .. } = relay;
    let outcome = match ended {
        Ok(outcome @ (StreamOutcome::Idle | StreamOutcome::Left)) => {
            client.abort(EndReason::Timeout);
            outcome
        }
        Ok(outcome) => outcome,
        Err(Failure::Client) => StreamOutcome::ClientGone,
        Err(Failure::Backend) => {
            client.abort(EndReason::ConnReset);
            StreamOutcome::BackendDied
        }
        Err(Failure::Limit(Refused { close })) => {
            match close {
                true => client.close_circuit(),
                false => client.abort(EndReason::ResourceLimit),
            }
            StreamOutcome::OverLimit
        }
    };
    (outcome, (backend_read, backend_write))
}

impl<C, R, W> Relay<C, R, W>
where
    C: ClientStream,
    R: TokioRead + Unpin,
    W: TokioWrite + Unpin,
{
    /// Make what progress can be made; ready when the stream is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamOutcome, Failure>> {
        if let Poll::Ready(Err(failure)) = self.poll_inward(cx) {
            return Poll::Ready(Err(failure));
        }
        // When the backend is done, END has gone out, and nothing comes in any more.
        if let Poll::Ready(ended) = self.poll_outward(cx) {
            return Poll::Ready(ended.map(|()| StreamOutcome::Done));
        }
        if let Some(linger) = &mut self.linger {
            ready!(Pin::new(linger).poll(cx));
            // Who takes nothing misses nothing.
            let done = self.outward.deaf;
            return Poll::Ready(Ok(if done { StreamOutcome::Done } else { StreamOutcome::Left }));
        }
        match &mut self.idle {
            Some(idle) => idle.poll(cx).map(|()| Ok(StreamOutcome::Idle)),
            None => Poll::Pending,
        }
    }

    /// Bytes were moved.
    fn note_alive(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.note();
        }
    }

    /// Carry bytes from the client to the backend.
    fn poll_inward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        for _ in 0..limits::RELAY_TURNS_MAX {
            match self.inward.phase {
                Phase::Closed | Phase::Broken => return Poll::Ready(Ok(())),
                Phase::Closing => {
                    // From here on, for a backend may also take nothing any more.
                    if self.linger.is_none() {
                        self.linger = Some(runtime::sleep(self.patience.half_close));
                    }
                    // A backend that has gone is noticed where it is read.
                    let _ = ready!(Pin::new(&mut self.backend_write).poll_shutdown(cx));
                    self.inward.phase = Phase::Closed;
                }
                Phase::Open => match &self.inward.held {
                    Some(held) => {
                        let write = Pin::new(&mut self.backend_write);
                        match ready!(write.poll_write(cx, held.waiting())) {
                            // It may have answered before it stopped to read: that is still read.
                            Ok(0) | Err(_) => self.inward.give_up(),
                            Ok(written) => self.inward.wrote(written),
                        }
                    }
                    None => ready!(self.poll_read_client(cx))?,
                },
            }
        }
        // There is more: let other streams of this core have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Read what the client sends next.
    fn poll_read_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut buffer = Buffer::take();
        match ready!(Pin::new(&mut self.client).poll_read(cx, buffer.room())) {
            Ok(0) => self.inward.phase = Phase::Closing,
            Ok(length) => {
                self.meter.add_in(length)?;
                self.note_alive();
                if !self.inward.deaf {
                    self.inward.held = Some(buffer.filled(length));
                }
            }
            // The circuit is gone, or the client reset the stream.
            Err(_) => return Poll::Ready(Err(Failure::Client)),
        }
        Poll::Ready(Ok(()))
    }

    /// Carry bytes from the backend to the client.
    fn poll_outward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        for _ in 0..limits::RELAY_TURNS_MAX {
            match self.outward.phase {
                Phase::Closed => return Poll::Ready(Ok(())),
                Phase::Closing => {
                    let closed = ready!(Pin::new(&mut self.client).poll_close(cx));
                    self.outward.phase = Phase::Closed;
                    if closed.is_err() {
                        self.client_takes_no_more()?;
                    }
                }
                Phase::Broken => {
                    ready!(self.poll_flush_client(cx))?;
                    self.outward.phase = Phase::Closed;
                    // To a client that has ended the stream it is all the same.
                    if self.linger.is_none() {
                        return Poll::Ready(Err(Failure::Backend));
                    }
                }
                Phase::Open if self.outward.held.is_some() => {
                    ready!(self.poll_write_client(cx))?;
                }
                Phase::Open => {
                    if self.poll_read_backend(cx).is_pending() {
                        ready!(self.poll_flush_client(cx))?;
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Read what the backend sends next.
    fn poll_read_backend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = Buffer::take();
        let mut room = ReadBuf::new(buffer.room());
        let read: io::Result<()> =
            ready!(Pin::new(&mut self.backend_read).poll_read(cx, &mut room));
        let length = room.filled().len();
        match read {
            Ok(()) if length == 0 => self.outward.phase = Phase::Closing,
            Ok(()) if self.outward.deaf => {}
            Ok(()) => self.outward.held = Some(buffer.filled(length)),
            Err(_) => self.outward.phase = Phase::Broken,
        }
        Poll::Ready(())
    }

    /// Write some of what is held for the client.
    fn poll_write_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(held) = &self.outward.held else { return Poll::Ready(Ok(())) };
        match ready!(Pin::new(&mut self.client).poll_write(cx, held.waiting())) {
            Ok(0) | Err(_) => self.client_takes_no_more()?,
            Ok(written) => {
                self.meter.add_out(written)?;
                self.note_alive();
                self.outward.wrote(written);
                self.unflushed = true;
                if let Some(linger) = &mut self.linger {
                    linger.reset(Instant::now() + self.patience.half_close);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Send the cell that is not full yet.
    fn poll_flush_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.unflushed {
            let flushed = ready!(Pin::new(&mut self.client).poll_flush(cx));
            self.unflushed = false;
            if flushed.is_err() {
                self.client_takes_no_more()?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A write to the client has failed: a fault, unless the client had ended the stream.
    fn client_takes_no_more(&mut self) -> Result<(), Failure> {
        if self.inward.phase == Phase::Open {
            return Err(Failure::Client);
        }
        self.unflushed = false;
        self.outward.give_up();
        Ok(())
    }
}
