//! Work with secrets that leaves nothing of them on the stack.
//!
//! A key that is passed by value is copied wherever it moves, and arithmetic spills its numbers; no
//! destructor knows of those copies. So the vault does such work in [`wiped`], which overwrites
//! what the work had of the stack. What the work returns may hold a secret behind a pointer only.

use std::hint::black_box;

use zeroize::Zeroize as _;

use crate::limits::SECRET_STACK_BYTES;

/// Between the frame that calls and the frames that work: [`overwrite`] has, above its array, a few
/// words of its own that it does not reach.
const GAP_BYTES: usize = 256;

/// Do `work`, then overwrite the stack below this frame. Where `work` panics, it stays as it is.
pub(super) fn wiped<R>(work: impl FnOnce() -> R) -> R {
    let result = below(work);
    overwrite();
    result
}

/// Leave a gap.
#[inline(never)]
fn below<R>(work: impl FnOnce() -> R) -> R {
    let mut gap = [0_u8; GAP_BYTES];
    black_box(&mut gap);
    let result = apart(work);
    black_box(&mut gap);
    result
}

/// A frame for `work`, below the gap however much the compiler inlines.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Overwrite what [`below`] had.
#[inline(never)]
fn overwrite() {
    let mut bytes = [0_u8; SECRET_STACK_BYTES];
    bytes.zeroize();
    black_box(&mut bytes);
}
