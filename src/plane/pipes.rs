//! Pipes that streams borrow for as long as bytes are in them.
//!
//! A user may have 64 MiB in pipes before the kernel makes new ones small
//! (`fs.pipe-user-pages-soft`, pipe(7)), and a pipe costs two descriptors: so each core has a
//! bounded number of them, and whoever gets none copies instead.

use std::cell::RefCell;

use crate::limits;
use crate::runtime::kernel_socket::Pipe;

/// The pipes of one core.
struct Pipes {
    /// Those that nobody has.
    spare: Vec<Pipe>,
    /// How many are lent.
    lent: usize,
}

thread_local! {
    /// This core's.
    static PIPES: RefCell<Pipes> = const { RefCell::new(Pipes { spare: Vec::new(), lent: 0 }) };
}

/// A borrowed pipe; goes back to the core that drops it, unless there are bytes in it.
pub(super) struct LentPipe {
    /// The pipe; there until this is dropped.
    pipe: Option<Pipe>,
    /// Bytes that are in it.
    pub(super) holds: usize,
}

impl LentPipe {
    /// An empty one; `None` when as many as may be are lent, or no descriptor is left.
    pub(super) fn take() -> Option<LentPipe> {
        PIPES.with_borrow_mut(|pipes| {
            if pipes.lent >= limits::SPLICE_PIPES_MAX {
                return None;
            }
            let spare = pipes.spare.pop();
            let pipe = spare.or_else(|| Pipe::new(limits::SPLICE_PIPE_BYTES).ok())?;
            pipes.lent += 1;
            Some(LentPipe { pipe: Some(pipe), holds: 0 })
        })
    }

    /// The pipe.
    pub(super) fn pipe(&self) -> Option<&Pipe> {
        self.pipe.as_ref()
    }
}

impl Drop for LentPipe {
    fn drop(&mut self) {
        let pipe = self.pipe.take().filter(|_| self.holds == 0);
        // A thread that is ending has no pipes any more.
        let _ = PIPES.try_with(|pipes| {
            let mut pipes = pipes.borrow_mut();
            pipes.lent -= 1;
            if pipes.spare.len() < limits::SPLICE_PIPES_SPARE_MAX {
                pipes.spare.extend(pipe);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{LentPipe, PIPES};
    use crate::limits;

    #[test]
    fn pipes_are_bounded_and_one_with_bytes_in_it_is_not_used_again() {
        let first = LentPipe::take().expect("there are descriptors");
        drop(first);
        assert_eq!(PIPES.with_borrow(|pipes| (pipes.spare.len(), pipes.lent)), (1, 0));
        let mut second = LentPipe::take().expect("there are descriptors");
        second.holds = 1;
        drop(second);
        assert_eq!(PIPES.with_borrow(|pipes| (pipes.spare.len(), pipes.lent)), (0, 0));
        PIPES.with_borrow_mut(|pipes| pipes.lent = limits::SPLICE_PIPES_MAX);
        assert!(LentPipe::take().is_none());
        PIPES.with_borrow_mut(|pipes| pipes.lent = 0);
    }
}
