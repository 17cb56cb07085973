//! What all operations have in common: how one is submitted, and what follows its completion.

use std::os::fd::RawFd;
use std::task::Waker;

use io_uring::{cqueue, squeue};

use super::Errand;
use super::accept::Accept;
use super::buffers::Pools;
use super::connect::Connect;
use super::receive::Receive;
use super::send::Send;
use super::slots::Key;
use super::wake::Wake;
use super::watch::Watch;

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
    /// Hear when a socket is ready.
    Watch(Watch),
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
    /// Whether the operation goes on.
    pub(super) more: bool,
    /// The provided buffer that was used.
    pub(super) buffer: Option<u16>,
}

impl Completion {
    /// From the completion queue.
    pub(super) fn new(entry: &cqueue::Entry) -> Completion {
        let result = u32::try_from(entry.result()).map_err(|_| -entry.result());
        let flags = entry.flags();
        Completion { result, more: cqueue::more(flags), buffer: cqueue::buffer_select(flags) }
    }

    /// The last one of an operation.
    pub(super) fn last(result: Result<u32, i32>) -> Completion {
        Completion { result, more: false, buffer: None }
    }
}

/// What came of trying an operation without waiting, where this thread does it itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt {
    /// It would have to wait.
    WouldWait,
    /// It has ended.
    Ended(Result<u32, i32>),
    /// It has done something and goes on.
    GoesOn {
        /// A count or a descriptor.
        result: u32,
        /// Whether there was no more to do.
        all: bool,
    },
}

impl Attempt {
    /// Of an error of a system call.
    pub(super) fn failed(error: nix::Error) -> Attempt {
        match error {
            // Told again: the descriptor stays ready.
            nix::Error::EAGAIN | nix::Error::EINTR => Attempt::WouldWait,
            other => Attempt::Ended(Err(other as i32)),
        }
    }
}

/// What completions leave to be done once they have all been seen.
pub(super) struct Tick<'a> {
    /// The core's buffers.
    pub(super) buffers: &'a mut Pools,
    /// Who is woken.
    pub(super) wake: &'a mut Vec<Waker>,
    /// What is cancelled.
    pub(super) cancel: &'a mut Vec<Key>,
    /// What is done next: receives that found no buffer.
    pub(super) starved: &'a mut Vec<Errand>,
    /// What is done after them.
    pub(super) later: &'a mut Vec<Errand>,
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
            Op::Watch(watch) => watch.entry(),
        }
    }

    /// The descriptor that it is about.
    pub(super) fn fd(&self) -> RawFd {
        match self {
            Op::Accept(accept) => accept.fd(),
            Op::Connect(connect) => connect.fd(),
            Op::Receive(receive) => receive.socket.fd(),
            Op::Send(send) => send.fd(),
            Op::Wake(wake) => wake.fd(),
            Op::Watch(watch) => watch.fd(),
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
            Op::Watch(watch) => watch.complete(completion, tick),
        }
    }

    /// Whether a ring that ends gives it time to end by itself.
    pub(super) fn is_worth_waiting_for(&self) -> bool {
        matches!(self, Op::Send(_))
    }
}
