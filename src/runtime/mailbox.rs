//! A bounded queue into one core: many senders on any thread, one receiver.
//!
//! ```text
//!   sender on any core --push--> [ ArrayQueue, fixed size ] --recv--> task on the owning core
//!                                        '-- full: the item comes back, the sender counts it
//! ```
//!
//! Used for INTRODUCE2 that wait for decryption, for rendezvous handed to another core, and for
//! commands. Never blocks and never grows; whoever pushes decides what a full queue means.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

/// The queue was full: here is the item again.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// What the handles share.
#[derive(Debug)]
struct Shared<T> {
    /// The items that wait.
    queue: ArrayQueue<T>,
    /// Holds one permit while there may be an item that the receiver has not seen.
    ready: Notify,
}

/// A handle to a bounded queue. Clones lead to the same queue.
#[derive(Debug)]
pub struct Mailbox<T> {
    /// The queue and its bell.
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Mailbox { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Mailbox<T> {
    /// A queue for at most `items_max` items.
    pub fn new(items_max: usize) -> Mailbox<T> {
        let shared = Shared { queue: ArrayQueue::new(items_max), ready: Notify::new() };
        Mailbox { shared: Arc::new(shared) }
    }

    /// Put `item` into the queue and wake the receiver.
    ///
    /// # Errors
    /// [`Full`] with the item when there is no room.
    pub fn push(&self, item: T) -> Result<(), Full<T>> {
        self.shared.queue.push(item).map_err(Full)?;
        self.shared.ready.notify_one();
        Ok(())
    }

    /// Take the next item if there is one.
    pub fn try_recv(&self) -> Option<T> {
        self.shared.queue.pop()
    }

    /// Wait for the next item. One task at a time may wait.
    pub async fn recv(&self) -> T {
        loop {
            if let Some(item) = self.shared.queue.pop() {
                return item;
            }
            // `notify_one` leaves a permit when nobody waits, so a push between the pop above and
            // this wait is not lost.
            self.shared.ready.notified().await;
        }
    }

    /// Items that wait now.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether no item waits now.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, Mailbox};

    #[test]
    fn a_full_queue_gives_the_item_back() {
        let mailbox = Mailbox::new(2);
        assert_eq!(mailbox.push(1), Ok(()));
        assert_eq!(mailbox.push(2), Ok(()));
        assert_eq!(mailbox.push(3), Err(Full(3)));
        assert_eq!(mailbox.try_recv(), Some(1));
        assert_eq!(mailbox.push(3), Ok(()));
        assert_eq!(mailbox.len(), 2);
    }

    #[test]
    fn no_item_is_lost_between_threads() {
        const ITEMS: usize = 20_000;
        let mailbox = Mailbox::new(64);
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    for item in 0..ITEMS {
                        let mut item = item;
                        while let Err(Full(back)) = mailbox.push(item) {
                            item = back;
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let driver = crate::runtime::Driver::new().expect("a driver can be made");
        let sum = driver.block_on(async {
            let mut sum = 0;
            for _ in 0..2 * ITEMS {
                sum += mailbox.recv().await;
            }
            sum
        });
        for sender in senders {
            sender.join().expect("a sender does not panic");
        }
        assert_eq!(sum, ITEMS * (ITEMS - 1));
    }
}
