//! What dependencies rely on: the elements come out as they went in, and a move is three words.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use crate::SmallVec;

/// The point of it all: however many elements the type names, the vector is as large as a `Vec`.
#[test]
fn is_three_words_whatever_it_is_for() {
    assert_eq!(size_of::<SmallVec<[[u8; 336]; 32]>>(), size_of::<Vec<u8>>());
}

/// An empty one has no memory, and the first push makes room by the size of the elements.
#[test]
fn allocates_with_the_first_push() {
    let mut small = SmallVec::<[u64; 16]>::new();
    assert_eq!(small.capacity(), 0);
    small.push(1);
    assert_eq!(small.capacity(), 16);
    let mut few = SmallVec::<[u64; 2]>::new();
    few.push(1);
    assert_eq!(few.capacity(), 2);
    let mut large = SmallVec::<[[u8; 336]; 32]>::new();
    large.push([0; 336]);
    assert_eq!(large.capacity(), 1);
    let mut nothing = SmallVec::<[u8; 0]>::new();
    nothing.push(1);
    assert_eq!(nothing[..], [1]);
}

/// Elements come out in the order in which they went in, from both ends, beyond `N` too.
#[test]
fn keeps_order() {
    let vector: SmallVec<[u32; 2]> = (0..5).collect();
    assert_eq!(vector.iter().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(vector.len(), 5);
    assert_eq!(vector.into_iter().rev().collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
    let filtered: SmallVec<[u32; 2]> = (0..9).filter(|number| number % 2 == 1).collect();
    assert_eq!(filtered[..], [1, 3, 5, 7]);
}

/// Each call that changes one does what `Vec`'s of that name does.
#[test]
fn changes_as_a_vec_does() {
    let mut vector: SmallVec<[u8; 4]> = smallvec![1, 2, 3, 4, 5];
    assert_eq!(vector.remove(0), 1);
    assert_eq!(vector.drain(..2).collect::<Vec<_>>(), [2, 3]);
    vector.extend_from_slice(&[6, 7]);
    vector.insert(1, 0);
    assert_eq!(vector.remove(1), 0);
    assert_eq!(vector.pop(), Some(7));
    vector.resize(5, 9);
    assert_eq!(vector.as_slice(), [4, 5, 6, 9, 9]);
    vector.retain(|number| *number != 5);
    assert_eq!(vector.as_slice(), [4, 6, 9, 9]);
    vector.truncate(1);
    vector.shrink_to_fit();
    assert_eq!(vector.capacity(), 1);
    vector.as_mut_slice()[0] = 8;
    assert_eq!(vector.clone().into_vec(), [8]);
    vector.clear();
    assert!(vector.is_empty() && vector == SmallVec::<[u8; 9]>::default());
}

/// Every way to make one gives the same elements.
#[test]
fn is_made_in_many_ways() {
    let made = [
        SmallVec::<[u8; 3]>::from([7; 3]),
        SmallVec::from(&[7; 3][..]),
        SmallVec::from(vec![7; 3]),
        SmallVec::from_elem(7, 3),
        smallvec![7; 3],
        smallvec![7, 7, 7],
        smallvec_inline![7; 3],
        smallvec_inline![7, 7, 7],
    ];
    assert!(made.iter().all(|vector| vector[..] == [7, 7, 7]), "{made:?}");
}

/// Equal ones hash alike, as slices do: maps are asked for one by the other.
#[test]
fn compares_and_hashes_as_a_slice() {
    let hash = |value: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        value(&mut hasher);
        hasher.finish()
    };
    let (one, two): (SmallVec<[u8; 4]>, SmallVec<[u8; 4]>) = (smallvec![1, 2], smallvec![1, 3]);
    assert!(one < two && one != two);
    let slice: &[u8] = &[1, 2];
    assert_eq!(hash(&|state| one.hash(state)), hash(&|state| slice.hash(state)));
}

/// Each element is dropped once, whether it was taken out or not.
#[test]
fn drops_each_element_once() {
    let counted = Rc::new(());
    let mut vector: SmallVec<[Rc<()>; 2]> = smallvec![counted.clone(); 6];
    drop(vector.pop());
    drop(vector.drain(..2));
    assert_eq!(Rc::strong_count(&counted), 1 + 3);
    let mut taken = vector.into_iter();
    drop(taken.next());
    assert_eq!(taken.len(), 2);
    drop(taken);
    assert_eq!(Rc::strong_count(&counted), 1);
}
