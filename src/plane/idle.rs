//! Says when a stream has been without bytes for too long.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::runtime::{self, Sleep, time};

/// See the module.
pub(super) struct Idle {
    /// How long it may be.
    longest: Duration,
    /// When bytes were moved last.
    last: Instant,
    /// When to look. It is not moved with each byte: when it is due it is seen how long there were
    /// none.
    timer: Sleep,
}

impl Idle {
    /// From now on.
    pub(super) fn new(longest: Duration) -> Idle {
        let last = time::now();
        Idle { longest, last, timer: runtime::sleep_until(last + longest) }
    }

    /// Bytes were moved.
    pub(super) fn note(&mut self) {
        self.last = time::now();
    }

    /// Ready when there were none for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(Pin::new(&mut self.timer).poll(cx));
            let until = self.last + self.longest;
            if time::now() >= until {
                return Poll::Ready(());
            }
            self.timer.reset(until);
        }
    }
}
