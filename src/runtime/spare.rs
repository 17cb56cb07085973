//! What a core uses again: vectors and buffers that cost an allocation each.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Some of them, of one thread.
#[derive(Debug)]
pub(crate) struct Spare<T: 'static> {
    /// They.
    kept: RefCell<Vec<T>>,
    /// How many are kept at most.
    most: usize,
}

impl<T> Spare<T> {
    /// None yet, and never more than `most`.
    pub(crate) const fn new(most: usize) -> Spare<T> {
        Spare { kept: RefCell::new(Vec::new()), most }
    }

    /// Take one, if there is one. A thread that is ending has none any more.
    pub(crate) fn take(here: &'static LocalKey<Spare<T>>) -> Option<T> {
        here.try_with(|spare| spare.kept.borrow_mut().pop()).ok().flatten()
    }

    /// Give one back: it is kept if there are not enough of them.
    pub(crate) fn give_back(here: &'static LocalKey<Spare<T>>, one: T) {
        // A thread that is ending keeps nothing.
        let _ = here.try_with(|spare| {
            let mut kept = spare.kept.borrow_mut();
            if kept.len() < spare.most {
                kept.push(one);
            }
        });
    }

    /// Drop them all.
    pub(crate) fn drop_all(here: &'static LocalKey<Spare<T>>) {
        drop(here.try_with(|spare| spare.kept.take()));
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(here: &'static LocalKey<Spare<T>>) -> usize {
        here.with(|spare| spare.kept.borrow().len())
    }
}
