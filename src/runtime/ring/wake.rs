//! Wake: a poll of an eventfd that goes on (multishot), so that another thread can wake this one.
//!
//! It is edge-triggered: each write to the eventfd makes a completion, whether or not the counter
//! was read in between. So nobody reads it, and nothing is submitted anew.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use super::op::{Attempt, Completion, Next, Op};

/// What other threads write to.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// A new one.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn new() -> io::Result<Arc<Bell>> {
        let flags = nix::sys::eventfd::EfdFlags::EFD_CLOEXEC;
        let fd = nix::sys::eventfd::EventFd::from_value_and_flags(0, flags)?;
        Ok(Arc::new(Bell(fd.as_fd().try_clone_to_owned()?)))
    }

    /// Wake the thread whose ring reads this.
    pub(super) fn ring(&self) {
        // It cannot fail before the counter is full, after 2^64 - 2 rings.
        let _ = nix::unistd::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// The operation.
#[derive(Debug)]
pub(super) struct Wake {
    /// What is polled.
    bell: Arc<Bell>,
}

impl Wake {
    /// Not in flight yet.
    pub(super) fn new(bell: &Arc<Bell>) -> Wake {
        Wake { bell: Arc::clone(bell) }
    }

    /// For the submission queue.
    pub(super) fn entry(&self) -> squeue::Entry {
        let bell = types::Fd(self.bell.0.as_raw_fd());
        opcode::PollAdd::new(bell, libc::POLLIN as u32).multi(true).build()
    }

    /// What is polled.
    pub(super) fn fd(&self) -> RawFd {
        self.bell.0.as_raw_fd()
    }

    /// Whether somebody has rung.
    pub(super) fn attempt(&self, first: bool) -> Attempt {
        if first { Attempt::WouldWait } else { Attempt::GoesOn { result: 1, all: true } }
    }

    /// Somebody has rung: whatever it was about is looked at in any case.
    pub(super) fn complete(self, completion: Completion) -> Next {
        match completion.result {
            _ if completion.more => Next::Wait(Op::Wake(self)),
            Err(libc::ECANCELED) => Next::Done,
            _ => Next::Again(Op::Wake(self)),
        }
    }
}
