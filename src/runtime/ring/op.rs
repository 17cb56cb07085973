//! What all operations have in common: how one is submitted, and what follows its completion.

use std::task::Waker;

use io_uring::{cqueue, squeue};

use super::Errand;
use super::accept::Accept;
use super::buffers::Buffers;
use super::connect::Connect;
use super::receive::Receive;
use super::send::Send;
use super::slots::Key;
use super::wake::Wake;

/// An operation, with everything that the kernel uses for it.
#[derive(Debug)]
pub(super) enum Op {
    /// Take connections.
    Accept(Accept),
    /// Connect.
    Connect(Connect),
    /// Receive.
    Receive(Receive),
    /// Send.
    Send(Send),
    /// Be woken by another thread.
    Wake(Wake),
}

/// What is done with an operation after one of its completions.
pub(super) enum Next {
    /// It has ended.
    Done,
    /// More completions will come.
    Wait(Op),
    /// It is submitted once more.
    Again(Op),
}

/// A completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    /// What the system call would have said: a count or a descriptor, or an error number.
    pub(super) result: Result<u32, i32>,
    /// See `io_uring_enter(2)`, `IORING_CQE_F_*`.
    pub(super) flags: u32,
}

impl Completion {
    /// From the completion queue.
    pub(super) fn new(entry: &cqueue::Entry) -> Completion {
        let result = u32::try_from(entry.result()).map_err(|_| -entry.result());
        Completion { result, flags: entry.flags() }
    }

    /// Whether the operation goes on.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that was used.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// What completions leave to be done once they have all been seen.
pub(super) struct Tick<'a> {
    /// The core's buffers.
    pub(super) buffers: &'a mut Buffers,
    /// Who is woken.
    pub(super) wake: &'a mut Vec<Waker>,
    /// What is cancelled.
    pub(super) cancel: &'a mut Vec<Key>,
    /// What is done next.
    pub(super) later: &'a mut Vec<Errand>,
    /// Vectors to be used again.
    pub(super) spare: &'a mut Vec<Vec<u8>>,
    /// Whether the ring has ended: nothing is submitted once more.
    pub(super) ended: bool,
}

impl Op {
    /// For the submission queue. It points into memory that this owns, on the heap: it may be moved
    /// while it is in flight, and not touched.
    pub(super) fn entry(&self) -> squeue::Entry {
        match self {
            Op::Accept(accept) => accept.entry(),
            Op::Connect(connect) => connect.entry(),
            Op::Receive(receive) => receive.entry(),
            Op::Send(send) => send.entry(),
            Op::Wake(wake) => wake.entry(),
        }
    }

    /// Take in a completion.
    pub(super) fn complete(self, key: Key, completion: Completion, tick: &mut Tick<'_>) -> Next {
        match self {
            Op::Accept(accept) => accept.complete(completion, tick),
            Op::Connect(connect) => connect.complete(completion, tick),
            Op::Receive(receive) => receive.complete(key, completion, tick),
            Op::Send(send) => send.complete(completion, tick),
            Op::Wake(wake) => wake.complete(completion),
        }
    }

    /// Whether a ring that ends gives it time to end by itself.
    pub(super) fn is_worth_waiting_for(&self) -> bool {
        matches!(self, Op::Send(_))
    }
}
