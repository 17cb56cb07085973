//! What a socket has received and nobody has read yet: a queue of pieces.
//!
//! ```text
//!   received -> append() -> [ piece | piece | piece ] -> read()
//!                 ^                                        |
//!                 '---------- spare pieces of the core <---'
//! ```
//!
//! A socket that much comes through fills hundreds of kilobytes and is read empty, over and over.
//! One vector would grow from nothing each time: each step is a copy, and pages that the kernel has
//! to clear. A piece is as large as what the kernel receives at once, and never moves; each core
//! keeps a few for whoever comes next. Little that waits gets a small piece, and an idle socket
//! holds at most one of those.

use std::collections::VecDeque;

use crate::limits;
use crate::runtime::spare::Spare;

/// Bytes of a large piece.
const PIECE_BYTES: usize = limits::RING_BUFFER_BYTES;

/// Bytes of the smallest piece.
const SMALLEST_BYTES: usize = 64;

/// Room for pieces that an idle socket keeps.
const PIECES_KEPT: usize = 4;

thread_local! {
    /// Large pieces.
    static SPARE: Spare<Vec<u8>> = const { Spare::new(limits::RING_SPARE_PIECES_MAX) };
}

/// An empty large piece.
fn large_piece() -> Vec<u8> {
    Spare::take(&SPARE).unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES))
}

/// Give a piece back, if it is a large one.
fn give_back(mut piece: Vec<u8>) {
    if piece.capacity() == PIECE_BYTES {
        piece.clear();
        Spare::give_back(&SPARE, piece);
    }
}

/// Drop what is kept for later.
pub(super) fn drop_spare() {
    Spare::drop_all(&SPARE);
}

/// Bytes in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    /// All of them. One of them may be empty: a small one that an idle socket keeps.
    pieces: VecDeque<Vec<u8>>,
    /// Those of the first piece before this were read.
    start: usize,
    /// How many are left.
    left: usize,
}

impl Bytes {
    /// Put these behind what is there.
    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.pieces.back().map_or(0, |last| last.capacity() - last.len());
            if room == 0 {
                self.add_piece(bytes.len());
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(last) = self.pieces.back_mut() {
                last.extend_from_slice(now);
            }
            self.left += now.len();
            bytes = later;
        }
    }

    /// An empty piece for so many bytes, or for some of them.
    fn add_piece(&mut self, wanted: usize) {
        let piece = match self.left + wanted <= limits::SOCKET_BYTES_KEPT {
            true => Vec::with_capacity(wanted.next_power_of_two().max(SMALLEST_BYTES)),
            false => large_piece(),
        };
        self.pieces.push_back(piece);
    }

    /// Copy as many as fit to `wanted`.
    pub(super) fn read(&mut self, wanted: &mut [u8]) -> usize {
        let mut given = 0;
        while given < wanted.len()
            && let Some(first) = self.pieces.front()
        {
            let there = &first[self.start..];
            let now = there.len().min(wanted.len() - given);
            if now == 0 {
                break;
            }
            wanted[given..given + now].copy_from_slice(&there[..now]);
            given += now;
            self.start += now;
            self.left -= now;
            if self.start == first.len() {
                self.first_was_read();
            }
        }
        given
    }

    /// The first piece has nothing left to read.
    fn first_was_read(&mut self) {
        self.start = 0;
        match self.pieces.front_mut() {
            // An idle socket shall hold no memory to speak of.
            Some(last) if self.left == 0 && last.capacity() <= limits::SOCKET_BYTES_KEPT => {
                last.clear();
            }
            _ => {
                if let Some(piece) = self.pieces.pop_front() {
                    give_back(piece);
                }
            }
        }
        if self.left == 0 {
            self.pieces.shrink_to(PIECES_KEPT);
        }
    }

    /// How many are left.
    pub(super) fn len(&self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, PIECE_BYTES, SPARE, Spare};
    use crate::limits;

    /// Room that it holds.
    fn room(bytes: &Bytes) -> usize {
        bytes.pieces.iter().map(Vec::capacity).sum()
    }

    /// Bytes of which no two neighbours of a piece or buffer are alike.
    fn some(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    /// Read all of it, so many at a time.
    fn read_all(bytes: &mut Bytes, at_once: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut wanted = vec![0; at_once];
        loop {
            match bytes.read(&mut wanted) {
                0 => return all,
                given => all.extend_from_slice(&wanted[..given]),
            }
        }
    }

    #[test]
    fn whatever_is_appended_is_read_in_order() {
        for (appended, read) in [(1, 1), (7, 3), (498, 4096), (32_768, 20_000), (50_000, 131_072)] {
            let sent = some(300_000);
            let mut bytes = Bytes::default();
            for part in sent.chunks(appended) {
                bytes.append(part);
            }
            assert_eq!(bytes.len(), sent.len());
            assert!(read_all(&mut bytes, read) == sent, "{appended} appended, {read} read");
            assert_eq!(bytes.len(), 0);
        }
    }

    #[test]
    fn reading_and_appending_may_take_turns() {
        let sent = some(200_000);
        let (mut bytes, mut received) = (Bytes::default(), Vec::new());
        let mut wanted = [0; 900];
        for part in sent.chunks(1000) {
            bytes.append(part);
            let given = bytes.read(&mut wanted);
            received.extend_from_slice(&wanted[..given]);
        }
        received.extend(read_all(&mut bytes, 4096));
        assert!(received == sent);
        assert_eq!(bytes.read(&mut []), 0);
    }

    #[test]
    fn an_idle_socket_holds_little() {
        let mut bytes = Bytes::default();
        bytes.append(&some(500));
        assert_eq!(room(&bytes), 512);
        assert_eq!(read_all(&mut bytes, 4096).len(), 500);
        assert_eq!(room(&bytes), 512, "what the next 500 go to");
        bytes.append(&some(1_000_000));
        assert_eq!(read_all(&mut bytes, 4096).len(), 1_000_000);
        assert!(room(&bytes) <= limits::SOCKET_BYTES_KEPT);
        assert!(bytes.pieces.capacity() <= 8, "room for {} pieces", bytes.pieces.capacity());
    }

    #[test]
    fn little_that_waits_takes_little_room() {
        let mut bytes = Bytes::default();
        for _ in 0..40 {
            bytes.append(&some(100));
        }
        assert!(room(&bytes) <= 2 * limits::SOCKET_BYTES_KEPT, "{} bytes", room(&bytes));
    }

    #[test]
    fn large_pieces_are_used_again_and_only_so_many_are_kept() {
        let mut bytes = Bytes::default();
        bytes.append(&some(PIECE_BYTES));
        let address = bytes.pieces[0].as_ptr();
        assert_eq!(read_all(&mut bytes, PIECE_BYTES).len(), PIECE_BYTES);
        let mut other = Bytes::default();
        other.append(&some(PIECE_BYTES));
        assert_eq!(other.pieces[0].as_ptr(), address);
        let many = 2 * limits::RING_SPARE_PIECES_MAX * PIECE_BYTES;
        other.append(&some(many));
        assert_eq!(read_all(&mut other, PIECE_BYTES).len(), PIECE_BYTES + many);
        assert_eq!(Spare::len(&SPARE), limits::RING_SPARE_PIECES_MAX);
        super::drop_spare();
        assert_eq!(Spare::len(&SPARE), 0);
    }
}
