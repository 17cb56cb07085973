//! Carries bytes between two sockets of the kernel's: a client that came through a listener, and a
//! backend.
//!
//! ```text
//!   little:  recv(2) -> buffer of the core -> send(2)      nothing is held between two rounds
//!   much:    splice(2) -> pipe of the core -> splice(2)    no copy to user space
//! ```
//!
//! A direction begins with copies and goes over to pages when what comes fills buffers, one after
//! another ([`limits::SPLICE_AFTER_FULL_BUFFERS`]); when it thins out it goes back. Buffers and
//! pipes are lent by the core and held only while bytes are in them, so an idle pair holds neither.
//!
//! **Ends.** Each direction ends by itself (`shutdown(SHUT_WR)` is passed on). Once one has, the
//! other one may be without bytes for `half_close` at most. A side that breaks off ends both, and
//! so do a time that is over and a limit: what was not taken yet is lost, and a side whose peer has
//! not ended is reset, so that half an answer, or half an upload, does not look like a whole one.
//!
//! **Idle** is a stream of which neither socket takes or gives bytes. A whole answer may be in the
//! kernel's send buffer while the client takes it slowly: when the time is over, that buffer is
//! looked at ([`KernelSocket::unsent`]). With bytes in it there is one more time of the same
//! length, and another one for each in which it has become less: a reset would discard them.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;

use super::Meter;
use super::buffers::Buffer;
use super::front::Circuit;
use super::gate::Refused;
use super::idle::Idle;
use super::pipes::LentPipe;
use super::stream::StreamOutcome;
use crate::limits;
use crate::runtime::kernel_socket::KernelSocket;

/// How long a stream may be without bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// While both sides may send; `None` for ever.
    pub(super) idle: Option<Duration>,
    /// Once one side has ended.
    pub(super) half_close: Duration,
}

/// Which side failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The one whose bytes they are.
    Source,
    /// The one that gets them.
    Sink,
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It carries bytes.
    Open,
    /// The source is done.
    Closed,
}

/// One direction.
struct Direction {
    /// Where it stands.
    phase: Phase,
    /// What was received and is not sent yet; never empty.
    held: Option<Buffer>,
    /// A pipe with bytes in it, or about to be filled.
    pipe: Option<LentPipe>,
    /// Buffers that were full, in a row.
    full: u8,
    /// Whether these sockets cannot be spliced.
    never_splice: bool,
    /// Whether the sink has taken bytes since the timer was last told.
    wrote: bool,
}

impl Direction {
    /// One that begins with these bytes.
    fn new(held: Option<Buffer>) -> Direction {
        let phase = Phase::Open;
        Direction { phase, held, pipe: None, full: 0, never_splice: false, wrote: false }
    }

    /// Make what progress can be made; ready when the source is done and the sink was told. The
    /// `last` of the two directions tells it by the end of the connection, which follows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &KernelSocket,
        sink: &KernelSocket,
        moved: &mut usize,
        last: bool,
    ) -> Poll<Result<(), Side>> {
        for _ in 0..limits::RELAY_TURNS_MAX {
            if self.phase == Phase::Closed {
                return Poll::Ready(Ok(()));
            }
            if let Some(held) = &mut self.held {
                match ready!(sink.poll_send(cx, held.waiting())) {
                    Ok(sent) if held.wrote(sent) => {}
                    Ok(_) => self.held = None,
                    Err(_) => return Poll::Ready(Err(Side::Sink)),
                }
                self.wrote = true;
                continue;
            }
            if let Some(lent) = &mut self.pipe
                && let Some(pipe) = lent.pipe()
                && lent.holds > 0
            {
                match ready!(sink.poll_splice_out(cx, pipe, lent.holds)) {
                    Ok(sent) => {
                        lent.holds = lent.holds.saturating_sub(sent);
                        if lent.holds == 0 && self.full < limits::SPLICE_AFTER_FULL_BUFFERS {
                            // It has become little: others may have much.
                            self.pipe = None;
                        }
                    }
                    Err(_) => return Poll::Ready(Err(Side::Sink)),
                }
                self.wrote = true;
                continue;
            }
            let taken = match self.full >= limits::SPLICE_AFTER_FULL_BUFFERS && !self.never_splice {
                true => ready!(self.poll_splice_in(cx, source))?,
                false => Some(ready!(self.poll_receive(cx, source))?),
            };
            match taken {
                Some(0) => {
                    if !last {
                        // A sink that is gone is noticed where it is read.
                        let _ = sink.shutdown_write();
                    }
                    self.phase = Phase::Closed;
                }
                Some(length) => *moved += length,
                None => {}
            }
        }
        // There is more: let other streams of this core have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Receive into a buffer.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        source: &KernelSocket,
    ) -> Poll<Result<usize, Side>> {
        let mut buffer = Buffer::take();
        let room = buffer.room().len();
        let received = ready!(source.poll_receive(cx, buffer.room()));
        let length = received.map_err(|_| Side::Source)?;
        self.full = if length == room { self.full.saturating_add(1) } else { 0 };
        if length > 0 {
            self.held = Some(buffer.filled(length));
        }
        Poll::Ready(Ok(length))
    }

    /// Move what has come into a pipe. `None` when that cannot be done: it is received then.
    fn poll_splice_in(
        &mut self,
        cx: &mut Context<'_>,
        source: &KernelSocket,
    ) -> Poll<Result<Option<usize>, Side>> {
        if self.pipe.is_none() {
            self.pipe = LentPipe::take();
        }
        let Some(spliced) =
            self.pipe.as_ref().and_then(LentPipe::pipe).map(|pipe| source.poll_splice_in(cx, pipe))
        else {
            // All pipes are lent: it is tried again after so many more buffers.
            self.full = 0;
            return Poll::Ready(Ok(None));
        };
        match &spliced {
            Poll::Ready(Ok(length)) => {
                self.pipe.iter_mut().for_each(|lent| lent.holds = *length);
                if *length < limits::RELAY_BUFFER_BYTES {
                    self.full = 0;
                }
            }
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
                (self.pipe, self.never_splice) = (None, true);
                return Poll::Ready(Ok(None));
            }
            _ => {}
        }
        if !matches!(&spliced, Poll::Ready(Ok(1..))) {
            self.pipe = None;
        }
        spliced.map(|result| result.map(Some).map_err(|_| Side::Source))
    }
}

/// Both directions of one stream.
struct Forward {
    /// The client.
    client: KernelSocket,
    /// The backend.
    backend: KernelSocket,
    /// From the client.
    inward: Direction,
    /// To the client.
    outward: Direction,
    /// Where bytes are counted.
    meter: Meter,
    /// How long it may be without bytes.
    patience: Patience,
    /// Whether one side has ended.
    half: bool,
    /// Set where it may not be without bytes for ever.
    idle: Option<Idle>,
    /// What had not arrived at the client and at the backend when the time was last over; `None`
    /// once bytes were moved after that.
    unsent: Option<[usize; 2]>,
    /// Whether its circuit shall close: it has gone over a limit.
    closes: bool,
}

/// Carry bytes both ways until both sides are done. The backend gets `preface` first.
pub(super) async fn forward(
    (client, circuit): (KernelSocket, &Circuit),
    backend: KernelSocket,
    preface: Option<Buffer>,
    meter: Meter,
    patience: Patience,
) -> StreamOutcome {
    let mut forward = Forward {
        client,
        backend,
        inward: Direction::new(preface),
        outward: Direction::new(None),
        meter,
        patience,
        half: false,
        idle: patience.idle.map(Idle::new),
        unsent: None,
        closes: false,
    };
    let outcome = std::future::poll_fn(|cx| forward.poll(cx)).await;
    // Half an answer shall not look like a whole one, nor half an upload.
    if outcome != StreamOutcome::Done {
        for (direction, sink) in
            [(&forward.outward, &forward.client), (&forward.inward, &forward.backend)]
        {
            if direction.phase == Phase::Open {
                // A unix socket has no reset.
                let _ = SockRef::from(sink).set_linger(Some(Duration::ZERO));
            }
        }
    }
    if forward.closes {
        circuit.close();
    }
    outcome
}

impl Forward {
    /// Make what progress can be made; ready when the stream is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StreamOutcome> {
        let (mut from_client, mut to_client) = (0, 0);
        let last = self.outward.phase == Phase::Closed;
        let inward = self.inward.poll(cx, &self.client, &self.backend, &mut from_client, last);
        // A backend that has answered and gone is heard to its end.
        let last = self.inward.phase == Phase::Closed;
        let outward = self.outward.poll(cx, &self.backend, &self.client, &mut to_client, last);
        let within = match (from_client, to_client) {
            (0, 0) => Ok(()),
            (from_client, 0) => self.meter.add_in(from_client),
            (0, to_client) => self.meter.add_out(to_client),
            (from_client, to_client) => {
                self.meter.add_in(from_client).and(self.meter.add_out(to_client))
            }
        };
        if let Err(Refused { close }) = within {
            self.closes = close;
            return Poll::Ready(StreamOutcome::OverLimit);
        }
        match (inward, outward) {
            (Poll::Ready(Err(Side::Source)), _) | (_, Poll::Ready(Err(Side::Sink))) => {
                return Poll::Ready(StreamOutcome::ClientGone);
            }
            (_, Poll::Ready(Err(Side::Source))) => {
                return Poll::Ready(StreamOutcome::BackendDied);
            }
            (Poll::Ready(_), Poll::Ready(Ok(()))) => return Poll::Ready(StreamOutcome::Done),
            // It takes nothing any more, and may still answer.
            (Poll::Ready(Err(Side::Sink)), Poll::Pending) => {
                self.inward = Direction { phase: Phase::Closed, ..Direction::new(None) };
            }
            _ => {}
        }
        // Both are asked: what one has written says nothing of the other.
        let wrote = [&mut self.inward, &mut self.outward].map(|one| std::mem::take(&mut one.wrote));
        self.poll_timer(cx, from_client + to_client > 0 || wrote.contains(&true))
    }

    /// Ready when there were no bytes for too long.
    fn poll_timer(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<StreamOutcome> {
        let half = (self.inward.phase, self.outward.phase) != (Phase::Open, Phase::Open);
        if half && !self.half {
            // The other patience begins here.
            (self.half, self.idle) = (true, Some(Idle::new(self.patience.half_close)));
            self.unsent = None;
        }
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        if moved {
            idle.note();
            self.unsent = None;
        }
        loop {
            ready!(idle.poll(cx));
            let now = [&self.client, &self.backend].map(KernelSocket::unsent);
            if !may_have_shrunk(self.unsent, now) {
                return Poll::Ready(StreamOutcome::Idle);
            }
            self.unsent = Some(now);
            idle.note();
        }
    }
}

/// Whether a peer may have taken bytes since it was last looked at, or for the first time.
fn may_have_shrunk(before: Option<[usize; 2]>, now: [usize; 2]) -> bool {
    match before {
        Some(before) => before.iter().zip(now).any(|(before, now)| now < *before),
        None => now.iter().any(|bytes| *bytes > 0),
    }
}
