//! Iterating over a [`SmallVec`], and filling one from an iterator.

use std::fmt;
use std::iter::FusedIterator;
use std::{slice, vec};

use crate::{Array, SmallVec};

/// The elements of a [`SmallVec`] that was taken apart.
pub struct IntoIter<A: Array> {
    /// Those that are left.
    rest: vec::IntoIter<A::Item>,
}

impl<A: Array> fmt::Debug for IntoIter<A>
where
    A::Item: fmt::Debug,
{
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rest.fmt(formatter)
    }
}

impl<A: Array> Iterator for IntoIter<A> {
    type Item = A::Item;

    #[inline]
    fn next(&mut self) -> Option<A::Item> {
        self.rest.next()
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rest.size_hint()
    }
}

impl<A: Array> DoubleEndedIterator for IntoIter<A> {
    #[inline]
    fn next_back(&mut self) -> Option<A::Item> {
        self.rest.next_back()
    }
}

impl<A: Array> ExactSizeIterator for IntoIter<A> {}
impl<A: Array> FusedIterator for IntoIter<A> {}

impl<A: Array> IntoIterator for SmallVec<A> {
    type Item = A::Item;
    type IntoIter = IntoIter<A>;

    #[inline]
    fn into_iter(self) -> IntoIter<A> {
        IntoIter { rest: self.into_vec().into_iter() }
    }
}

impl<'a, A: Array> IntoIterator for &'a SmallVec<A> {
    type Item = &'a A::Item;
    type IntoIter = slice::Iter<'a, A::Item>;

    #[inline]
    fn into_iter(self) -> slice::Iter<'a, A::Item> {
        self.iter()
    }
}

impl<'a, A: Array> IntoIterator for &'a mut SmallVec<A> {
    type Item = &'a mut A::Item;
    type IntoIter = slice::IterMut<'a, A::Item>;

    #[inline]
    fn into_iter(self) -> slice::IterMut<'a, A::Item> {
        self.iter_mut()
    }
}

impl<A: Array> Extend<A::Item> for SmallVec<A> {
    #[inline]
    fn extend<I: IntoIterator<Item = A::Item>>(&mut self, elements: I) {
        let elements = elements.into_iter();
        if elements.size_hint().0 > 0 {
            self.elements.extend(elements);
        } else {
            // It cannot say how many come: `push` makes room as for an element at a time.
            elements.for_each(|element| self.push(element));
        }
    }
}

impl<A: Array> FromIterator<A::Item> for SmallVec<A> {
    #[inline]
    fn from_iter<I: IntoIterator<Item = A::Item>>(elements: I) -> Self {
        let mut vector = Self::new();
        vector.extend(elements);
        vector
    }
}
