//! Operations that the kernel knows of.
//!
//! An operation owns the memory and the descriptors that the kernel uses for it, and stays here
//! until its last completion has come: nothing that a future drops can pull memory away under the
//! kernel. What the kernel gives back with a completion (`user_data`) is the slot's index and its
//! generation, so that a completion that comes late never reaches the next owner of the slot.

use slab::Slab;

/// Names an operation in flight. The lower half is the slot's index, the upper its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

impl Key {
    /// Belongs to no operation: cancellations have it, and nobody waits for their completions.
    pub(super) const NONE: u64 = u64::MAX;

    /// As the kernel keeps it.
    pub(super) fn user_data(self) -> u64 {
        self.0
    }

    /// The slot.
    fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    /// How often the slot had been used before.
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The slots. `T` is an operation.
#[derive(Debug)]
pub(super) struct Slots<T> {
    /// What is in flight. An operation that is being worked on leaves its slot empty meanwhile.
    used: Slab<Option<T>>,
    /// How often each slot was used.
    generations: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { used: Slab::new(), generations: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// A slot for an operation that will be put there with [`Slots::put_back`].
    pub(super) fn reserve(&mut self) -> Key {
        let index = self.used.insert(None);
        if index == self.generations.len() {
            self.generations.push(0);
        }
        // All ones would make `Key::NONE`.
        assert!(index < u32::MAX as usize, "a ring has fewer operations in flight");
        self.key(index)
    }

    /// The name of what is in a slot.
    fn key(&self, index: usize) -> Key {
        Key(u64::from(self.generations[index]) << 32 | index as u64)
    }

    /// Take the operation of `user_data` to work on it; its slot stays its own. `None` when it has
    /// ended already.
    pub(super) fn take(&mut self, user_data: u64) -> Option<(Key, T)> {
        let key = Key(user_data);
        if self.generations.get(key.index()) != Some(&key.generation()) {
            return None;
        }
        self.used.get_mut(key.index())?.take().map(|operation| (key, operation))
    }

    /// Look at an operation; `None` when it has ended.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let current = self.generations.get(key.index()) == Some(&key.generation());
        self.used.get(key.index()).filter(|_| current)?.as_ref()
    }

    /// Put an operation into its slot.
    pub(super) fn put_back(&mut self, key: Key, operation: T) {
        self.used[key.index()] = Some(operation);
    }

    /// The operation has ended: the slot is free for another.
    pub(super) fn free(&mut self, key: Key) {
        self.used.remove(key.index());
        let generation = &mut self.generations[key.index()];
        *generation = generation.wrapping_add(1);
    }

    /// Operations in flight.
    pub(super) fn len(&self) -> usize {
        self.used.len()
    }

    /// What is in flight.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.iter_with_keys().map(|(_, operation)| operation)
    }

    /// What is in flight, and under which key.
    pub(super) fn iter_with_keys(&self) -> impl Iterator<Item = (Key, &T)> {
        self.used.iter().filter_map(|(index, operation)| {
            operation.as_ref().map(|operation| (self.key(index), operation))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn a_late_completion_does_not_reach_the_next_owner_of_the_slot() {
        let mut slots = Slots::default();
        let first = slots.reserve();
        slots.put_back(first, "first");
        assert_eq!(slots.take(first.user_data()), Some((first, "first")));
        slots.free(first);
        let second = slots.reserve();
        slots.put_back(second, "second");
        assert_eq!(first.index(), second.index());
        assert_eq!(slots.take(first.user_data()), None);
        assert_eq!(slots.take(second.user_data()), Some((second, "second")));
    }

    #[test]
    fn an_operation_that_is_worked_on_keeps_its_slot() {
        let mut slots = Slots::default();
        let first = slots.reserve();
        slots.put_back(first, 1);
        assert_eq!(slots.take(first.user_data()), Some((first, 1)));
        assert_eq!(slots.take(first.user_data()), None);
        assert_ne!(slots.reserve().index(), first.index());
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn nothing_is_named_like_nothing() {
        let mut slots: Slots<()> = Slots::default();
        assert_eq!(slots.take(super::Key::NONE), None);
        assert_ne!(slots.reserve().user_data(), super::Key::NONE);
    }
}
