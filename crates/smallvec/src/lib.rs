//! The interface of `smallvec` 1 over a plain [`Vec`], for the dependencies of this workspace.
//!
//! `smallvec`'s own vectors hold up to `N` elements in themselves. That spares an allocation, and
//! makes each of them as large as `N` elements, also when it is empty: every move copies it all.
//! tor-proto 0.47 moves one of 32 circuit events, some 10 kB, about ten times for each relayed
//! cell, and has one or two events in it. Here a vector is three words and its elements stand on
//! the heap; an empty one allocates nothing. The root `Cargo.toml` puts this crate in `smallvec`'s
//! place, for all that we build (ADR 0010).
//!
//! Written for the calls that our dependencies make and no others: one that is missing is an error
//! of the compiler. No line is taken from `smallvec`. Dependencies alone use it; our own code takes
//! `Vec`.
//!
//! What differs from `smallvec` 1: nothing is ever held inline, so [`SmallVec::new`] has capacity 0
//! and the first push allocates; `Array` need not be implemented by an `unsafe impl`.

#![forbid(unsafe_code)]

use std::borrow::{Borrow, BorrowMut};
use std::fmt;
use std::ops::{Deref, DerefMut, RangeBounds};

mod compare;
mod iterate;

pub use iterate::IntoIter;
/// The macro, for ours: a crate without `std` has no name for it.
#[doc(hidden)]
pub use std::vec;

/// What the first push makes room for, in bytes: small elements a few at once, a large one alone.
const FIRST_ROOM_BYTES: usize = 256;

/// An array type `[T; N]`: names the elements, and how many there are as a rule.
pub trait Array {
    /// The elements.
    type Item;
    /// How many: the most that the first push makes room for.
    const LEN: usize;
}

impl<T, const N: usize> Array for [T; N] {
    type Item = T;
    const LEN: usize = N;
}

/// A vector of the elements of `A`.
pub struct SmallVec<A: Array> {
    /// All of them.
    elements: Vec<A::Item>,
}

impl<A: Array> SmallVec<A> {
    /// An empty one, without an allocation.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self { elements: Vec::new() }
    }

    /// An empty one with room for `capacity` elements.
    #[inline]
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { elements: Vec::with_capacity(capacity) }
    }

    /// The elements of `elements`.
    #[inline]
    #[must_use]
    pub const fn from_vec(elements: Vec<A::Item>) -> Self {
        Self { elements }
    }

    /// `count` clones of `element`.
    #[inline]
    #[must_use]
    pub fn from_elem(element: A::Item, count: usize) -> Self
    where
        A::Item: Clone,
    {
        Self { elements: vec![element; count] }
    }

    /// How many it holds.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it holds none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// How many there is room for.
    #[inline]
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.elements.capacity()
    }

    /// Gives back the room that is not used.
    #[inline]
    pub fn shrink_to_fit(&mut self) {
        self.elements.shrink_to_fit();
    }

    /// All of them.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[A::Item] {
        &self.elements
    }

    /// All of them, to change.
    #[inline]
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [A::Item] {
        &mut self.elements
    }

    /// Puts `element` at the end.
    #[inline]
    pub fn push(&mut self, element: A::Item) {
        if self.elements.capacity() == 0 {
            self.elements.reserve_exact(Self::FIRST_ROOM);
        }
        self.elements.push(element);
    }

    /// Takes the last one.
    #[inline]
    pub fn pop(&mut self) -> Option<A::Item> {
        self.elements.pop()
    }

    /// Puts `element` before the one at `index`.
    ///
    /// # Panics
    ///
    /// If it holds less than `index`.
    #[inline]
    pub fn insert(&mut self, index: usize, element: A::Item) {
        self.elements.insert(index, element);
    }

    /// Takes the one at `index`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[inline]
    pub fn remove(&mut self, index: usize) -> A::Item {
        self.elements.remove(index)
    }

    /// Drops those of which `keep` says no.
    #[inline]
    pub fn retain(&mut self, keep: impl FnMut(&mut A::Item) -> bool) {
        self.elements.retain_mut(keep);
    }

    /// Drops all of them.
    #[inline]
    pub fn clear(&mut self) {
        self.elements.clear();
    }

    /// Drops all but the first `len`.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.elements.truncate(len);
    }

    /// Makes it `len` long: drops what is too much, fills up with clones of `element`.
    #[inline]
    pub fn resize(&mut self, len: usize, element: A::Item)
    where
        A::Item: Clone,
    {
        self.elements.resize(len, element);
    }

    /// Puts clones of `slice` at the end.
    #[inline]
    pub fn extend_from_slice(&mut self, slice: &[A::Item])
    where
        A::Item: Clone,
    {
        self.elements.extend_from_slice(slice);
    }

    /// Takes those in `range`; what the iterator has not given when it is dropped, is dropped.
    ///
    /// # Panics
    ///
    /// If `range` reaches beyond the end.
    #[inline]
    pub fn drain<R: RangeBounds<usize>>(&mut self, range: R) -> vec::Drain<'_, A::Item> {
        self.elements.drain(range)
    }

    /// The elements as a vector.
    #[inline]
    #[must_use]
    pub fn into_vec(self) -> Vec<A::Item> {
        self.elements
    }

    /// How many elements the first push makes room for.
    const FIRST_ROOM: usize = {
        let fit = match FIRST_ROOM_BYTES.checked_div(size_of::<A::Item>()) {
            Some(fit) => fit,
            None => 1,
        };
        let most = if fit < A::LEN { fit } else { A::LEN };
        if most == 0 { 1 } else { most }
    };
}

/// A vector of these elements, or of so many clones of one, as `vec!`.
#[macro_export]
macro_rules! smallvec {
    ($element:expr; $count:expr) => { $crate::SmallVec::from_elem($element, $count) };
    ($($element:expr),* $(,)?) => { $crate::SmallVec::from_vec($crate::vec![$($element),*]) };
}

/// As [`smallvec!`], the array's length taken from what is written.
#[macro_export]
macro_rules! smallvec_inline {
    ($element:expr; $count:expr) => { $crate::SmallVec::<[_; $count]>::from([$element; $count]) };
    ($($element:expr),+ $(,)?) => { $crate::SmallVec::from([$($element),+]) };
}

impl<A: Array> Default for SmallVec<A> {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Array> Clone for SmallVec<A>
where
    A::Item: Clone,
{
    #[inline]
    fn clone(&self) -> Self {
        Self { elements: self.elements.clone() }
    }

    #[inline]
    fn clone_from(&mut self, source: &Self) {
        self.elements.clone_from(&source.elements);
    }
}

impl<A: Array> fmt::Debug for SmallVec<A>
where
    A::Item: fmt::Debug,
{
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.elements.fmt(formatter)
    }
}

impl<A: Array> Deref for SmallVec<A> {
    type Target = [A::Item];

    #[inline]
    fn deref(&self) -> &[A::Item] {
        &self.elements
    }
}

impl<A: Array> DerefMut for SmallVec<A> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [A::Item] {
        &mut self.elements
    }
}

impl<A: Array> AsRef<[A::Item]> for SmallVec<A> {
    #[inline]
    fn as_ref(&self) -> &[A::Item] {
        self
    }
}

impl<A: Array> AsMut<[A::Item]> for SmallVec<A> {
    #[inline]
    fn as_mut(&mut self) -> &mut [A::Item] {
        self
    }
}

impl<A: Array> Borrow<[A::Item]> for SmallVec<A> {
    #[inline]
    fn borrow(&self) -> &[A::Item] {
        self
    }
}

impl<A: Array> BorrowMut<[A::Item]> for SmallVec<A> {
    #[inline]
    fn borrow_mut(&mut self) -> &mut [A::Item] {
        self
    }
}

impl<A: Array> From<Vec<A::Item>> for SmallVec<A> {
    #[inline]
    fn from(elements: Vec<A::Item>) -> Self {
        Self { elements }
    }
}

impl<T, const N: usize> From<[T; N]> for SmallVec<[T; N]> {
    #[inline]
    fn from(elements: [T; N]) -> Self {
        Self { elements: elements.into() }
    }
}

impl<A: Array> From<&[A::Item]> for SmallVec<A>
where
    A::Item: Clone,
{
    #[inline]
    fn from(elements: &[A::Item]) -> Self {
        Self { elements: elements.to_vec() }
    }
}

#[cfg(test)]
mod tests;
