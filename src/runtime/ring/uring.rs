//! The kernel's side of a ring that is an io_uring: its queues, and how it is entered.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, opcode, squeue, types};

use super::buffers::Pools;
use super::op::Completion;
use super::slots::Key;

/// See the module.
pub(super) struct Uring {
    /// The one submitter, so that the registered descriptor is used. Borrows `queues`.
    submitter: ManuallyDrop<Submitter<'static>>,
    /// The queues; from a `Box`, freed in `drop`.
    queues: NonNull<IoUring>,
    /// Entries that are to be submitted.
    entries: VecDeque<squeue::Entry>,
}

impl Uring {
    /// One with so many entries, and completions that are never short of room.
    ///
    /// # Errors
    /// What `io_uring_setup(2)` says.
    pub(super) fn new(entries: u32) -> io::Result<Uring> {
        let queues = Box::new(set_up(entries)?);
        let queues = NonNull::from(Box::leak(queues));
        // SAFETY: from a box that was just leaked; freed in `drop`, after the submitter's last use.
        let mut submitter = unsafe { queues.as_ref() }.submitter();
        // A failure is not one of memory: the ring just serves without.
        let _ = submitter.register_ring_fd();
        let submitter = ManuallyDrop::new(submitter);
        Ok(Uring { submitter, queues, entries: VecDeque::new() })
    }

    /// Have the kernel receive into `buffers`.
    ///
    /// # Errors
    /// What `io_uring_register(2)` says.
    pub(super) fn register(&self, buffers: &mut Pools) -> io::Result<()> {
        buffers.register(&self.submitter)
    }

    /// Have an entry submitted with the next turn. What it points to must belong to an operation in
    /// a slot.
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        self.entries.push_back(entry);
    }

    /// Have an operation cancelled. It ends with a completion of its own.
    pub(super) fn cancel(&mut self, key: Key) {
        let entry = opcode::AsyncCancel::new(key.user_data()).build();
        self.entries.push_back(entry.user_data(Key::NONE));
    }

    /// Have all of them cancelled.
    pub(super) fn cancel_all(&mut self) {
        let all = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        self.entries.push_back(all.user_data(Key::NONE));
    }

    /// Entries that are not in the submission queue yet.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len()
    }

    /// Move entries to the submission queue. `false` when it is full before all are there.
    pub(super) fn fill_queue(&mut self) -> bool {
        if self.entries.is_empty() {
            return true;
        }
        // SAFETY: this is the only submission queue at this time, on the ring's own thread.
        let mut queue = unsafe { self.queues.as_ref().submission_shared() };
        while let Some(entry) = self.entries.front() {
            // SAFETY: what the entry points to belongs to an operation in a slot, which stays there
            // until its last completion.
            if unsafe { queue.push(entry) }.is_err() {
                return false;
            }
            self.entries.pop_front();
        }
        true
    }

    /// Enter the kernel, unless there is no reason to.
    ///
    /// # Errors
    /// When it does not take submissions any more.
    pub(super) fn enter(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let (idle, waiting) = {
            // SAFETY: the only ones at this time, on the ring's own thread.
            let (queue, completions) = unsafe {
                let queues = self.queues.as_ref();
                (queues.submission_shared(), queues.completion_shared())
            };
            let news = queue.taskrun() || queue.cq_overflow();
            (queue.is_empty() && !news, !completions.is_empty())
        };
        let entered = match patience.filter(|patience| !waiting && !patience.is_zero()) {
            None if idle => return Ok(()),
            None => self.submitter.submit(),
            Some(patience) => {
                let patience = Timespec::from(patience);
                self.submitter.submit_with_args(1, &SubmitArgs::new().timespec(&patience))
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The time is over; a signal; completions have to be taken in first; memory is
                // short: what was not submitted is submitted the next time.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Take all completions out of their queue.
    pub(super) fn completions(&mut self, seen: &mut Vec<(u64, Completion)>) {
        // SAFETY: the only completion queue at this time, on the ring's own thread.
        let completions = unsafe { self.queues.as_ref().completion_shared() };
        seen.extend(completions.map(|entry| (entry.user_data(), Completion::new(&entry))));
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Or the thread would keep the ring open until it ends.
        let _ = self.submitter.unregister_ring_fd();
        // SAFETY: never used again.
        unsafe { ManuallyDrop::drop(&mut self.submitter) };
        // SAFETY: from the box in `new`; the submitter, which borrowed it, is gone.
        drop(unsafe { Box::from_raw(self.queues.as_ptr()) });
    }
}

/// Make a ring with everything that the kernel offers of what this module asks for.
fn set_up(entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(entries * 4)
        .dontfork();
    // Known from Linux 6.6 on.
    let without_array = builder.clone().setup_no_sqarray().build(entries);
    without_array.or_else(|_| builder.build(entries))
}
