//! Buffers that streams borrow for as long as they hold bytes.
//!
//! A direction of a stream takes a buffer to read into and gives it back once everything is
//! written; an idle stream holds none, so ten thousand quiet connections cost no buffers. Each core
//! keeps a few spare ones for itself: no lock, and no allocation while streams come and go.

use crate::limits;
use crate::runtime::spare::Spare;

thread_local! {
    /// This core's spare buffers.
    static SPARE: Spare<Box<[u8]>> = const { Spare::new(limits::RELAY_BUFFERS_SPARE_MAX) };
}

/// Drop those of the calling thread.
pub(crate) fn drop_spare() {
    Spare::drop_all(&SPARE);
}

/// A borrowed buffer; goes back to the spare ones of the core that drops it.
pub(super) struct Buffer {
    /// [`limits::RELAY_BUFFER_BYTES`] of room.
    bytes: Box<[u8]>,
    /// Start of what is to be written.
    start: usize,
    /// End of what is to be written; never before `start`.
    end: usize,
}

impl Buffer {
    /// An empty buffer.
    pub(super) fn take() -> Buffer {
        let new = || vec![0; limits::RELAY_BUFFER_BYTES].into_boxed_slice();
        Buffer { bytes: Spare::take(&SPARE).unwrap_or_else(new), start: 0, end: 0 }
    }

    /// One that holds these bytes, which fit.
    pub(super) fn holding(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::take();
        buffer.room()[..bytes.len()].copy_from_slice(bytes);
        buffer.filled(bytes.len())
    }

    /// Room to read into. It shows what others have left there: read only what was filled.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Take note that `length` bytes were read into the room.
    pub(super) fn filled(mut self, length: usize) -> Buffer {
        (self.start, self.end) = (0, length.min(self.bytes.len()));
        self
    }

    /// What is to be written.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Take note that `length` bytes were written; true while there are more.
    pub(super) fn wrote(&mut self, length: usize) -> bool {
        self.start = self.end.min(self.start + length);
        self.start < self.end
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        Spare::give_back(&SPARE, std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, SPARE, Spare};
    use crate::limits;

    #[test]
    fn buffers_are_used_again_and_only_so_many_are_kept() {
        let first = Buffer::take();
        let address = first.bytes.as_ptr();
        drop(first);
        assert_eq!(Buffer::take().bytes.as_ptr(), address);
        let many: Vec<Buffer> =
            (0..limits::RELAY_BUFFERS_SPARE_MAX * 2).map(|_| Buffer::take()).collect();
        drop(many);
        assert_eq!(Spare::len(&SPARE), limits::RELAY_BUFFERS_SPARE_MAX);
    }

    #[test]
    fn what_waits_is_what_was_filled_and_not_yet_written() {
        let mut buffer = Buffer::take();
        buffer.room()[..4].copy_from_slice(b"tor!");
        let mut buffer = buffer.filled(4);
        assert!(buffer.wrote(3));
        assert_eq!(buffer.waiting(), b"!");
        assert!(!buffer.wrote(1));
        assert!(buffer.waiting().is_empty());
    }
}
