//! Receive: one operation that goes on (multishot) into the core's provided buffers, for as long as
//! the socket's reader keeps up.
//!
//! Above [`limits::SOCKET_RECEIVED_BYTES_MAX`] bytes that nobody has read, the operation is
//! cancelled; reading starts it anew. When the kernel finds no buffer (`ENOBUFS`), the socket waits
//! its turn until the buffers of this tick are back: never for a timer.

use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use nix::sys::socket::{self, MsgFlags};

use super::buffers::Buffers;
use super::op::{Attempt, Completion, Next, Op, Tick};
use super::slots::Key;
use super::socket::{End, Shared};
use super::{Errand, buffers};
use crate::limits;

/// The operation.
#[derive(Debug)]
pub(super) struct Receive {
    /// For whom.
    pub(super) socket: Arc<Shared>,
}

impl Receive {
    /// For the submission queue.
    pub(super) fn entry(&self) -> squeue::Entry {
        opcode::RecvMulti::new(types::Fd(self.socket.fd()), buffers::GROUP).build()
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
        let mut state = self.socket.state();
        match completion.result {
            Ok(0) => state.end = Some(End::Done),
            Ok(length) => match completion.buffer {
                Some(number) => tick.buffers.take(number, length as usize, &mut state.received),
                None => state.end = Some(End::Failed(libc::EIO)),
            },
            // Cancelled, by us; or no buffer: see below.
            Err(libc::ECANCELED | libc::ENOBUFS | libc::EINTR) => {}
            Err(number) => state.end = Some(End::Failed(number)),
        }
        tick.wake.extend(state.reader.take());
        if completion.more {
            if state.received.len() > limits::SOCKET_RECEIVED_BYTES_MAX && !state.stopping {
                state.stopping = true;
                tick.cancel.push(key);
            }
            drop(state);
            return Next::Wait(Op::Receive(self));
        }
        (state.receiving, state.stopping) = (None, false);
        let wanted = state.end.is_none() && !state.closed;
        let again = wanted && state.received.len() <= limits::SOCKET_RECEIVED_BYTES_MAX / 2;
        drop(state);
        if again {
            tick.later.push(Errand::Receive(self.socket));
        }
        Next::Done
    }
}
