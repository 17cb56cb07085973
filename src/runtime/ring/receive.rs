//! Receive: into the core's provided buffers, for as long as the socket's reader keeps up.
//!
//! ```text
//!                      much comes at once, or the reader is behind
//!   goes on (multishot) ------------------------------------------> one at a time
//!    short buffers      <------------------------------------------   long buffers
//!                      a few that brought little, each read at once
//! ```
//!
//! **What is in flight is bounded.** A receive that goes on is not asked before the kernel goes on:
//! it fills up to [`limits::RING_MULTISHOT_RETRIES`] buffers in a row before a cancellation reaches
//! it. So it is given short ones, and is for sockets of which little comes at a time: requests,
//! answers, cells. Where much comes, each receive is asked for, and fills a long buffer.
//!
//! With [`limits::SOCKET_RECEIVED_BYTES_MAX`] bytes that wait for the reader nothing more is
//! received; reading starts it anew. While memory is short
//! ([`crate::runtime::memory::set_short`]) that is less. When the kernel finds no buffer
//! (`ENOBUFS`), the socket waits its turn until the buffers of this tick are back: never for a
//! timer.

use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use nix::sys::socket::{self, MsgFlags};

use super::Errand;
use super::buffers::{self, Buffers};
use super::op::{Attempt, Completion, Next, Op, Tick};
use super::slots::Key;
use super::socket::{End, Shared, State};
use crate::limits;
use crate::runtime::memory;

/// The operation.
#[derive(Debug)]
pub(super) struct Receive {
    /// For whom.
    pub(super) socket: Arc<Shared>,
    /// How.
    mode: Mode,
}

/// How it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The kernel does, over and over, into short buffers.
    GoesOn,
    /// The kernel does, once, into a long one.
    Once,
    /// This thread does, over and over, into long ones.
    Attempted,
}

/// What was begun and what came of it on this thread.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Operations that were begun.
    pub(super) begun: u64,
    /// Completions.
    pub(super) completed: u64,
}

#[cfg(test)]
thread_local! {
    /// Since the thread began.
    pub(super) static COUNTS: std::cell::Cell<Counts> = const {
        std::cell::Cell::new(Counts { begun: 0, completed: 0 })
    };
}

/// Bytes that may wait for a reader.
pub(super) fn waiting_max() -> usize {
    match memory::is_short() {
        true => limits::SOCKET_RECEIVED_BYTES_SHORT,
        false => limits::SOCKET_RECEIVED_BYTES_MAX,
    }
}

impl Receive {
    /// Receive for a socket under this key, unless it does already or nothing more will come.
    pub(super) fn next(socket: Arc<Shared>, key: Key, by_kernel: bool) -> Option<Receive> {
        let mut state = socket.state();
        if state.receiving.is_some() || state.closed || state.end.is_some() {
            return None;
        }
        (state.receiving, state.full_in_a_row) = (Some(key), 0);
        let mode = match by_kernel {
            false => Mode::Attempted,
            true if state.receives_once == 0 && !memory::is_short() => Mode::GoesOn,
            true => Mode::Once,
        };
        drop(state);
        #[cfg(test)]
        COUNTS.with(|counts| counts.update(|one| Counts { begun: one.begun + 1, ..one }));
        Some(Receive { socket, mode })
    }

    /// For the submission queue.
    pub(super) fn entry(&self) -> squeue::Entry {
        let fd = types::Fd(self.socket.fd());
        if self.mode == Mode::GoesOn {
            return opcode::RecvMulti::new(fd, buffers::SHORT).build();
        }
        // The kernel chooses where, and for how many bytes at most.
        opcode::Recv::new(fd, std::ptr::null_mut(), limits::RING_BUFFER_BYTES as u32)
            .buf_group(buffers::LONG)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
    }

    /// Receive what is there into buffer `number`.
    pub(super) fn attempt(&self, number: u16, buffers: &mut Buffers) -> Attempt {
        let room = buffers.room(number);
        match socket::recv(self.socket.fd(), room, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Attempt::Ended(Ok(0)),
            Ok(length) => Attempt::GoesOn { result: length as u32, all: length < room.len() },
            Err(error) => Attempt::failed(error),
        }
    }

    /// The kernel has received something, or will receive nothing more.
    pub(super) fn complete(self, key: Key, completion: Completion, tick: &mut Tick<'_>) -> Next {
        #[cfg(test)]
        COUNTS.with(|counts| counts.update(|one| Counts { completed: one.completed + 1, ..one }));
        let mut state = self.socket.state();
        match completion.result {
            Ok(0) => state.end = Some(End::Done),
            Ok(length) => match completion.buffer {
                Some(number) => self.take(number, length as usize, &mut state, tick),
                None => state.end = Some(End::Failed(libc::EIO)),
            },
            // Cancelled, by us; or no buffer: see below.
            Err(libc::ECANCELED | libc::ENOBUFS | libc::EINTR) => {}
            Err(number) => state.end = Some(End::Failed(number)),
        }
        tick.wake.extend(state.reader.take());
        if completion.more {
            let stop = match self.mode {
                Mode::GoesOn => state.receives_once > 0,
                Mode::Once | Mode::Attempted => state.received.len() > waiting_max(),
            };
            if stop && !state.stopping {
                state.stopping = true;
                tick.cancel.push(key);
            }
            drop(state);
            return Next::Wait(Op::Receive(self));
        }
        (state.receiving, state.stopping) = (None, false);
        let wanted = state.end.is_none() && !state.closed;
        let next = state.received.len() + tick.buffers.long.bytes();
        drop(state);
        if wanted && next <= waiting_max() {
            let starved = completion.result == Err(libc::ENOBUFS);
            let list = if starved { &mut tick.starved } else { &mut tick.later };
            list.push(Errand::Receive(self.socket));
        }
        Next::Done
    }

    /// Take what was received, and see how the next is to be.
    fn take(&self, number: u16, length: usize, state: &mut State, tick: &mut Tick<'_>) {
        let short_bytes = tick.buffers.short.bytes();
        let before = state.received.len();
        let buffers = match self.mode {
            Mode::GoesOn => &mut tick.buffers.short,
            Mode::Once | Mode::Attempted => &mut tick.buffers.long,
        };
        buffers.take(number, length, &mut state.received);
        self.socket.note_received(length);
        match self.mode {
            Mode::GoesOn => {
                let full = length == short_bytes;
                state.full_in_a_row = if full { state.full_in_a_row.saturating_add(1) } else { 0 };
                if state.full_in_a_row >= limits::RING_FULL_IN_A_ROW
                    || state.received.len() > limits::RING_BUFFER_BYTES
                {
                    state.receives_once = limits::RING_RECEIVES_ONCE;
                }
            }
            Mode::Once if before == 0 && length < short_bytes => {
                state.receives_once = state.receives_once.saturating_sub(1);
            }
            Mode::Once => state.receives_once = limits::RING_RECEIVES_ONCE,
            Mode::Attempted => {}
        }
    }
}
