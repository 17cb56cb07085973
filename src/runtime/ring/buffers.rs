//! Memory that the kernel receives into: two rings of provided buffers, shared by all sockets of a
//! core. Long ones are for one receive at a time, short ones for receives that go on
//! (`receive.rs`).
//!
//! ```text
//!   we:      provide(0) provide(1) ...          take(1) copies out and provides it again
//!   kernel:       '--> picks the next one for whichever socket has data --'
//! ```
//!
//! No buffer stays away: what was received is copied to the socket's own bytes as soon as its
//! completion is seen, and the buffer goes back. So a socket that nobody reads holds none, and
//! cannot starve another. The copy costs a few hundredths of a nanosecond a byte; the cap on what a
//! socket may hold is in bytes (`receive.rs`).

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::bytes::Bytes;

/// The number under which the long buffers are registered.
pub(super) const LONG: u16 = 0;

/// The number under which the short ones are.
pub(super) const SHORT: u16 = 1;

/// Both kinds of a core's buffers.
#[derive(Debug)]
pub(super) struct Pools {
    /// For one receive at a time.
    pub(super) long: Buffers,
    /// For receives that go on: a burst fills some of them before it can be stopped.
    pub(super) short: Buffers,
}

impl Pools {
    /// Of each kind so many of so many bytes, that the kernel does not know of yet.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn new(long: (u16, usize), short: (u16, usize)) -> io::Result<Pools> {
        let (long, short) = (Buffers::new(LONG, long)?, Buffers::new(SHORT, short)?);
        Ok(Pools { long, short })
    }

    /// Tell the kernel, and provide them all.
    ///
    /// # Errors
    /// What `io_uring_register(2)` says.
    pub(super) fn register(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        self.long.register(submitter)?;
        self.short.register(submitter)
    }

    /// Show the kernel the entries that were written.
    pub(super) fn publish(&self) {
        self.long.publish();
        self.short.publish();
    }

    /// Never give the memory back: the kernel may still write there.
    pub(super) fn keep(&mut self) {
        self.long.keep();
        self.short.keep();
    }
}

/// Entries and buffers in one piece of memory, page-aligned, as the kernel asks.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The number under which they are registered.
    group: u16,
    /// `count` entries, then as many buffers.
    memory: NonNull<u8>,
    /// How many there are: a power of two, as the kernel asks.
    count: u16,
    /// Bytes of one.
    bytes: usize,
    /// How it was allocated.
    layout: std::alloc::Layout,
    /// Entries written so far, as the kernel counts them.
    tail: u16,
    /// Whether the memory is never given back.
    kept: bool,
}

impl Buffers {
    /// So many buffers of so many bytes that the kernel does not know of yet.
    ///
    /// # Errors
    /// Out of memory.
    fn new(group: u16, (count, bytes): (u16, usize)) -> io::Result<Buffers> {
        const PAGE: usize = 4096;
        assert!(count.is_power_of_two(), "as the kernel asks");
        let all = usize::from(count) * (size_of::<BufRingEntry>() + bytes);
        let layout = std::alloc::Layout::from_size_align(all, PAGE).map_err(io::Error::other)?;
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let memory = NonNull::new(memory).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Buffers { group, memory, count, bytes, layout, tail: 0, kept: false })
    }

    /// Tell the kernel, and provide them all.
    ///
    /// # Errors
    /// What `io_uring_register(2)` says.
    fn register(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.memory.as_ptr() as u64;
        // SAFETY: the memory is page-aligned, holds that many entries, and lives until `Ring` has
        // unregistered it by closing its descriptor (the order of its fields' drop).
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, self.group, 0)? };
        for number in 0..self.count {
            self.provide(number);
        }
        self.publish();
        Ok(())
    }

    /// Where buffer `number` begins.
    fn start(&self, number: u16) -> *mut u8 {
        assert!(number < self.count, "the kernel names buffers that it was given");
        let entries = usize::from(self.count) * size_of::<BufRingEntry>();
        let offset = entries + usize::from(number) * self.bytes;
        // SAFETY: `number` is below `count`, so the offset lies within the allocation.
        unsafe { self.memory.as_ptr().add(offset) }
    }

    /// Write an entry for buffer `number`; the kernel sees it after [`Pools::publish`].
    fn provide(&mut self, number: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        let start = self.start(number) as u64;
        // SAFETY: `place` is below `count`, the entries are at the start of the allocation, and the
        // kernel reads an entry only once the tail is past it.
        let entry = unsafe { &mut *self.memory.as_ptr().cast::<BufRingEntry>().add(place) };
        entry.set_addr(start);
        entry.set_len(self.bytes as u32);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
    }

    /// See [`Pools::publish`].
    fn publish(&self) {
        // SAFETY: the pointer is to the first entry of a ring that lives; the field that the tail
        // overlays is 16 bits wide and aligned, and only written here, by the one thread that owns
        // the ring, while the kernel reads it.
        let tail = unsafe {
            let tail = BufRingEntry::tail(self.memory.as_ptr().cast::<BufRingEntry>());
            &*tail.cast::<AtomicU16>()
        };
        tail.store(self.tail, Ordering::Release);
    }

    /// See [`Pools::keep`].
    fn keep(&mut self) {
        self.kept = true;
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of one.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Buffer `number`, where the kernel was told of none.
    pub(super) fn room(&mut self, number: u16) -> &mut [u8] {
        assert!(number < self.count, "there are no others");
        // SAFETY: within the allocation, zeroed when it was made; this thread alone uses it, for
        // the engine that calls this registers nothing.
        unsafe { std::slice::from_raw_parts_mut(self.start(number), self.bytes) }
    }

    /// Copy what was received into buffer `number` to the end of `bytes`, and give the buffer back.
    /// The kernel sees it after [`Pools::publish`].
    pub(super) fn take(&mut self, number: u16, length: usize, bytes: &mut Bytes) {
        assert!(length <= self.bytes, "as the kernel was told");
        // SAFETY: a completion has named the buffer, so the kernel has written `length` bytes there
        // and will not touch it again before it is provided anew.
        let received = unsafe { std::slice::from_raw_parts(self.start(number), length) };
        bytes.append(received);
        self.provide(number);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // SAFETY: allocated with this layout; nothing is in flight any more, or `Ring` would have
        // had it kept.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}
