//! Wake: a read of an eventfd that is always in flight, so that another thread can wake this one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use super::op::{Completion, Next, Op};

/// What other threads write to. A blocking descriptor: the kernel would answer a read of a
/// non-blocking one at once, again and again.
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
        // It can fail only when the counter is full, and then the reader is awake.
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
    /// What is read.
    bell: Arc<Bell>,
    /// Where the kernel puts the count.
    count: Box<[u8; 8]>,
}

impl Wake {
    /// Not in flight yet.
    pub(super) fn new(bell: &Arc<Bell>) -> Wake {
        Wake { bell: Arc::clone(bell), count: Box::new([0; 8]) }
    }

    /// For the submission queue.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let count = self.count.as_mut_ptr();
        opcode::Read::new(types::Fd(self.bell.0.as_raw_fd()), count, 8).build()
    }

    /// Somebody has rung: whatever it was about is looked at in any case.
    pub(super) fn complete(self, completion: Completion) -> Next {
        match completion.result {
            Err(libc::ECANCELED) => Next::Done,
            _ => Next::Again(Op::Wake(self)),
        }
    }
}
