//! Streams that wait because every backend of their port has as many connections as it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::limits;
use crate::runtime;

/// The queue of one port: first come, first served, up to a length and a time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Told of each place that becomes free; keeps one notice when nobody waits.
    freed: Notify,
    /// Streams that wait.
    waiting: AtomicU32,
    /// Streams that waited in vain, or found the queue full.
    refused_total: AtomicU64,
}

/// A stream that waits, until this is dropped.
pub(super) struct Waiting {
    /// Where it waits.
    queue: Arc<Queue>,
    /// Until when.
    until: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// Tell the first who waits that a place is free.
    pub(super) fn note_free(&self) {
        self.freed.notify_one();
    }

    /// Streams that wait now.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Streams that waited in vain, or found the queue full.
    pub(super) fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// Get in line, unless `length_max` others are; for `timeout` at most.
    pub(super) fn enter(self: &Arc<Queue>, length_max: u32, timeout: Duration) -> Option<Waiting> {
        let room = |waiting: u32| (waiting < length_max).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => Some(Waiting { queue: Arc::clone(self), until: Instant::now() + timeout }),
            Err(_) => {
                self.refused_total.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Waiting {
    /// Wait until there may be a place; false when the time is over.
    ///
    /// A notice that came between the last look and this call is kept by [`Notify`], so none is
    /// missed; one for a place that a newcomer has taken meanwhile wakes in vain.
    pub(super) async fn wait(&self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.queue.refused_total.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let look = Duration::from_millis(limits::BACKEND_QUEUE_LOOK_MS);
        // A timeout is as good a reason to look as a notice.
        let _ = runtime::timeout(left.min(look), self.queue.freed.notified()).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::Queue;

    #[tokio::test]
    async fn a_queue_is_bounded_in_length_and_time() {
        let queue = Arc::new(Queue::default());
        let first = queue.enter(1, Duration::from_secs(60)).expect("there is room");
        assert!(queue.enter(1, Duration::from_secs(60)).is_none());
        assert_eq!((queue.waiting(), queue.refused_total()), (1, 1));
        queue.note_free();
        assert!(first.wait().await);
        drop(first);
        let late = queue.enter(1, Duration::ZERO).expect("there is room again");
        assert!(!late.wait().await);
        assert_eq!(queue.refused_total(), 2);
    }

    #[tokio::test]
    async fn a_notice_that_comes_before_the_wait_is_not_missed() {
        let queue = Arc::new(Queue::default());
        let stream = queue.enter(1, Duration::from_secs(60)).expect("there is room");
        queue.note_free();
        let begun = std::time::Instant::now();
        assert!(stream.wait().await);
        assert!(begun.elapsed() < Duration::from_millis(crate::limits::BACKEND_QUEUE_LOOK_MS));
    }
}
