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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::{Duration, Instant};

    use super::Idle;
    use crate::runtime::ring::tests::on_ring;
    use crate::runtime::time;
    use crate::runtime::time::tests::spin_until;

    #[test]
    fn it_ends_even_when_the_batch_began_before_the_timer_was_due() {
        on_ring(|| async {
            let longest = Duration::from_millis(5);
            let begun = time::now();
            let mut idle = Idle::new(longest);
            spin_until(begun + 2 * longest);
            poll_fn(|cx| idle.poll(cx)).await;
            assert!(begun.elapsed() >= 2 * longest);
        });
    }

    #[test]
    fn bytes_put_it_off() {
        on_ring(|| async {
            let longest = Duration::from_millis(20);
            let mut idle = Idle::new(longest);
            let begun = Instant::now();
            for _ in 0..5 {
                crate::runtime::sleep(longest / 2).await;
                idle.note();
            }
            let quiet = time::now();
            assert!(quiet >= begun + 5 * (longest / 2));
            poll_fn(|cx| idle.poll(cx)).await;
            assert!(Instant::now() >= quiet + longest);
        });
    }
}
