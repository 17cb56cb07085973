//! Vectors that a core uses again: empty ones that have room.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Some of them, of one thread.
#[derive(Debug)]
pub(super) struct Spare {
    /// They.
    vectors: RefCell<Vec<Vec<u8>>>,
    /// How many are kept.
    most: usize,
}

impl Spare {
    /// None yet, and never more than `most`.
    pub(super) const fn new(most: usize) -> Spare {
        Spare { vectors: RefCell::new(Vec::new()), most }
    }

    /// Take one, if there is one. A thread that is ending has none any more.
    pub(super) fn take(here: &'static LocalKey<Spare>) -> Option<Vec<u8>> {
        here.try_with(|spare| spare.vectors.borrow_mut().pop()).ok().flatten()
    }

    /// Give one back: it is kept if there are not enough of them.
    pub(super) fn give_back(here: &'static LocalKey<Spare>, mut vector: Vec<u8>) {
        vector.clear();
        // A thread that is ending keeps nothing.
        let _ = here.try_with(|spare| {
            let mut vectors = spare.vectors.borrow_mut();
            if vectors.len() < spare.most {
                vectors.push(vector);
            }
        });
    }

    /// Drop them all.
    pub(super) fn drop_all(here: &'static LocalKey<Spare>) {
        let vectors = here.try_with(|spare| spare.vectors.take());
        drop(vectors);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(here: &'static LocalKey<Spare>) -> usize {
        here.with(|spare| spare.vectors.borrow().len())
    }
}
