//! Send: one operation for a socket at a time, with everything that was written since the last.
//!
//! The operation owns the bytes; what the kernel did not take of them goes out again. Plain sends:
//! `SEND_ZC` waits for the peer's acknowledgement and pays only above tens of kilobytes on real
//! network cards (ADR 0009).
//!
//! What is written is collected in a vector of the socket's, which goes to the operation and then
//! to the core's spare ones; a socket that has nothing to send has none.

use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use nix::sys::socket::{self, MsgFlags};

use super::op::{Attempt, Completion, Next, Op, Tick};
use super::slots::Key;
use super::socket::Shared;
use crate::limits;
use crate::runtime::spare::Spare;

thread_local! {
    /// Vectors that have grown.
    static SPARE: Spare<Vec<u8>> = const { Spare::new(limits::RING_SPARE_VECTORS_MAX) };
}

/// An empty vector for what is written.
pub(super) fn spare_vector() -> Vec<u8> {
    Spare::take(&SPARE).unwrap_or_default()
}

/// Give a vector back, if it has grown.
fn give_back(mut vector: Vec<u8>) {
    if vector.capacity() > 0 {
        vector.clear();
        Spare::give_back(&SPARE, vector);
    }
}

/// Drop what is kept for later.
pub(super) fn drop_spare() {
    Spare::drop_all(&SPARE);
}

/// The operation.
#[derive(Debug)]
pub(super) struct Send {
    /// For whom.
    socket: Arc<Shared>,
    /// What is sent. Not touched while it is in flight.
    bytes: Vec<u8>,
    /// How much of it the kernel has taken.
    sent: usize,
}

impl Send {
    /// Send what waits in the socket, under this key, unless it sends already or cannot any more.
    pub(super) fn next(socket: &Arc<Shared>, key: Key) -> Option<Send> {
        let mut state = socket.state();
        state.dirty = false;
        if state.sending.is_some() || state.outgoing.is_empty() || state.send_failed.is_some() {
            return None;
        }
        state.sending = Some(key);
        let bytes = std::mem::take(&mut state.outgoing);
        drop(state);
        Some(Send { socket: Arc::clone(socket), bytes, sent: 0 })
    }

    /// For the submission queue.
    pub(super) fn entry(&self) -> squeue::Entry {
        let rest = &self.bytes[self.sent..];
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        opcode::Send::new(types::Fd(self.socket.fd()), rest.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL)
            .build()
    }

    /// The socket's descriptor.
    pub(super) fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Give the kernel what it takes.
    pub(super) fn attempt(&self) -> Attempt {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match socket::send(self.fd(), &self.bytes[self.sent..], flags) {
            Ok(length) => Attempt::Ended(Ok(length as u32)),
            Err(error) => Attempt::failed(error),
        }
    }

    /// The kernel has taken some bytes, or will take none.
    pub(super) fn complete(mut self, completion: Completion, tick: &mut Tick<'_>) -> Next {
        match completion.result {
            Ok(length) => self.sent += length as usize,
            Err(libc::EINTR | libc::EAGAIN) => {}
            Err(number) => {
                let mut state = self.socket.state();
                (state.sending, state.send_failed) = (None, Some(number));
                state.outgoing = Vec::new();
                tick.wake.extend(state.writer.take());
                return Next::Done;
            }
        }
        let mut state = self.socket.state();
        let given_up = tick.ended || state.send_failed.is_some();
        if self.sent < self.bytes.len() && !given_up {
            drop(state);
            return Next::Again(Op::Send(self));
        }
        tick.wake.extend(state.writer.take());
        self.bytes.clear();
        self.sent = 0;
        if state.outgoing.is_empty() || given_up {
            state.sending = None;
            // Neither vector stays with the socket, which may have nothing to send for hours.
            let other = std::mem::take(&mut state.outgoing);
            drop(state);
            give_back(self.bytes);
            give_back(other);
            return Next::Done;
        }
        std::mem::swap(&mut self.bytes, &mut state.outgoing);
        drop(state);
        Next::Again(Op::Send(self))
    }
}
