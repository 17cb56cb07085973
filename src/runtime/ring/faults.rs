//! What goes wrong on purpose: answers that a kernel may give at any time and seldom does.
//!
//! An operation may end before the kernel has seen it (`EINTR`, `EAGAIN`, `ENOBUFS`, `ECANCELED`,
//! `ECONNABORTED`), may be cancelled while it goes on, and completions of operations that have
//! ended long ago may come once more. Everything is drawn from a seed. What needs no lie is not
//! made up: short receives come from small buffers, short sends from small socket buffers, a full
//! submission queue from a ring of few entries.

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::op::{Completion, Op};
use super::slots::{Key, Slots};

/// Operations that have ended whose keys are remembered.
const ENDED_MAX: usize = 64;

/// The faults of one ring.
#[derive(Debug)]
pub(super) struct Faults {
    /// Draws them.
    random: SmallRng,
    /// Answers that the kernel never gave.
    answers: Vec<(u64, Completion)>,
    /// Keys that were in flight at some time, oldest first.
    known: VecDeque<Key>,
    /// How many there were.
    pub(super) total: u64,
}

impl Faults {
    /// Those of a seed.
    pub(super) fn new(seed: u64) -> Faults {
        let random = SmallRng::seed_from_u64(seed);
        Faults { random, answers: Vec::new(), known: VecDeque::new(), total: 0 }
    }

    /// Once in so often.
    fn happens(&mut self, once_in: u32) -> bool {
        let happens = self.random.random_range(0..once_in) == 0;
        self.total += u64::from(happens);
        happens
    }

    /// Whether an operation is answered here instead of being submitted.
    pub(super) fn instead_of(&mut self, key: Key, operation: &Op) -> bool {
        self.known.push_back(key);
        if self.known.len() > ENDED_MAX {
            self.known.pop_front();
        }
        let errors: &[i32] = match operation {
            Op::Receive(_) => &[libc::EINTR, libc::ENOBUFS, libc::ECANCELED],
            Op::Send(_) => &[libc::EINTR, libc::EAGAIN],
            Op::Connect(_) | Op::Wake(_) => &[libc::EINTR],
            Op::Watch(_) => &[libc::EINTR, libc::ECANCELED],
            Op::Accept(_) => &[libc::EINTR, libc::ECONNABORTED, libc::ECANCELED],
        };
        if !self.happens(4) {
            return false;
        }
        let error = errors[self.random.random_range(0..errors.len())];
        self.answers.push((key.user_data(), Completion::last(Err(error))));
        true
    }

    /// Whether there are answers of this module, which no wait in the kernel would end for.
    pub(super) fn waits(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Before completions are taken in: add those of this module, and have something cancelled.
    pub(super) fn add_to(
        &mut self,
        seen: &mut Vec<(u64, Completion)>,
        slots: &Slots<Op>,
        cancel: &mut Vec<Key>,
    ) {
        seen.append(&mut self.answers);
        let in_flight: Vec<Key> = slots.iter_with_keys().map(|(key, _)| key).collect();
        let ended: Vec<Key> =
            self.known.iter().copied().filter(|key| !in_flight.contains(key)).collect();
        if !ended.is_empty() && self.happens(4) {
            // As if it had a buffer and would go on: whoever believed it would read rubbish.
            let late = Completion { result: Ok(1), more: true, buffer: Some(0) };
            seen.push((ended[self.random.random_range(0..ended.len())].user_data(), late));
        }
        let goes_on =
            |operation: &Op| matches!(operation, Op::Receive(_) | Op::Accept(_) | Op::Watch(_));
        let multishot: Vec<Key> = slots
            .iter_with_keys()
            .filter_map(|(key, operation)| goes_on(operation).then_some(key))
            .collect();
        if !multishot.is_empty() && self.happens(8) {
            cancel.push(multishot[self.random.random_range(0..multishot.len())]);
        }
    }
}
