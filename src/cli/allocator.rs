//! The allocator of the binary: mimalloc, asked the short way.
//!
//! Every thread of a data core allocates some twenty times for each cell; mimalloc's per-thread
//! heaps take no lock. Its aligned calls, which the `mimalloc` crate makes whatever the alignment,
//! have a fast path for sizes that are a power of two; others they find in a larger class and
//! align within. Its plain calls align for whatever the size may hold, up to
//! [`ALIGNMENT_OF_ALL`]: all but a handful of our types.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// mimalloc's `MI_MAX_ALIGN_SIZE`: how blocks of at least this size are aligned without being
/// asked. Smaller ones are aligned to the largest power of two that is not above their size.
const ALIGNMENT_OF_ALL: usize = 16;

/// mimalloc.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: as mimalloc.h declares it; it may be called at any time, by any thread.
unsafe extern "C" {
    /// Free what the calling thread keeps for later, with `force` all of it.
    safe fn mi_collect(force: bool);
}

/// Give back to the kernel what the allocator keeps of the calling thread for later.
pub(super) fn trim() {
    mi_collect(true);
}

/// Whether every block of this layout's size is aligned for it.
fn is_aligned_anyway(size: usize, alignment: usize) -> bool {
    alignment <= ALIGNMENT_OF_ALL && alignment <= size
}

// SAFETY: mimalloc gives blocks that are unused, at least as large as was asked for, and valid
// until they are freed, or null; by which of its calls a block was made is of no matter to the
// others. It never unwinds. The alignment is asked for where `is_aligned_anyway` does not say that
// it holds.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    // SAFETY: see the trait: the caller asks for at least a byte.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, alignment) = (layout.size(), layout.align());
        // SAFETY: both may be called with any size; an alignment of a layout is a power of two.
        let block = unsafe {
            match is_aligned_anyway(size, alignment) {
                true => mi_malloc(size),
                false => mi_malloc_aligned(size, alignment),
            }
        };
        block.cast()
    }

    #[inline]
    // SAFETY: see the trait: the caller asks for at least a byte.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, alignment) = (layout.size(), layout.align());
        // SAFETY: as above.
        let block = unsafe {
            match is_aligned_anyway(size, alignment) {
                true => mi_zalloc(size),
                false => mi_zalloc_aligned(size, alignment),
            }
        };
        block.cast()
    }

    #[inline]
    // SAFETY: see the trait: the block is one of ours, and nobody uses it any more.
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    // SAFETY: see the trait: the block is one of ours, with this layout, and the size is not zero.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let alignment = layout.align();
        // SAFETY: as the caller says; the new block is aligned as `alloc` would have it.
        let block = unsafe {
            match is_aligned_anyway(size, alignment) {
                true => mi_realloc(block.cast(), size),
                false => mi_realloc_aligned(block.cast(), size, alignment),
            }
        };
        block.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 MB that a thread has allocated and freed are no memory of the process any more.
    #[test]
    fn what_was_freed_is_given_back() {
        const BLOCKS: usize = 200_000;
        let layout = Layout::from_size_align(1024, 8).expect("it is one");
        // SAFETY: the size is not zero; each block is written within its size, and freed once.
        unsafe {
            let blocks: Vec<_> = (0..BLOCKS).map(|_| Allocator.alloc(layout)).collect();
            blocks.iter().for_each(|block| block.write_bytes(0x55, layout.size()));
            blocks.into_iter().for_each(|block| Allocator.dealloc(block, layout));
        }
        let held = || crate::runtime::memory::held_bytes().expect("the kernel says it");
        let before = held();
        trim();
        let after = held();
        assert!(
            before.saturating_sub(after) > (BLOCKS * layout.size() / 2) as u64,
            "{before} {after}"
        );
    }

    /// Blocks of every size up to 1100 and every alignment up to 64, many of each alive at once:
    /// aligned as asked, zeroed where asked, and with their bytes after they have grown.
    #[test]
    fn blocks_are_aligned_zeroed_and_keep_their_bytes() {
        for alignment in [1, 2, 4, 8, 16, 32, 64] {
            let mut blocks = Vec::new();
            for size in 1..=1100_usize {
                let layout = Layout::from_size_align(size, alignment).expect("it is one");
                // SAFETY: the size is not zero; the block is as large as its layout says, and
                // initialized before it is read.
                unsafe {
                    let zeroed = Allocator.alloc_zeroed(layout);
                    let block = Allocator.alloc(layout);
                    assert!(!zeroed.is_null() && !block.is_null());
                    assert_eq!((zeroed.addr() % alignment, block.addr() % alignment), (0, 0));
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                    zeroed.write_bytes(0x55, size);
                    block.write_bytes(0xaa, size);
                    let grown = Allocator.realloc(block, layout, size * 3);
                    assert_eq!(grown.addr() % alignment, 0);
                    let kept = std::slice::from_raw_parts(grown, size);
                    assert!(kept.iter().all(|byte| *byte == 0xaa));
                    blocks.push((zeroed, layout));
                    let tripled = Layout::from_size_align(size * 3, alignment).expect("it is one");
                    blocks.push((grown, tripled));
                }
            }
            for (block, layout) in blocks {
                // SAFETY: it was allocated with this layout above, and is freed once.
                unsafe { Allocator.dealloc(block, layout) };
            }
        }
    }
}
