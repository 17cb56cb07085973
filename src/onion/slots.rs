//! The places for rendezvous that are being built on one core.
//!
//! ```text
//!   request --take--> [a place: building ... built, or failed]
//!                       '-- all taken, and a newer request waits: one place is given up, that of
//!                           the oldest whose first attempt has failed, else of the oldest that
//!                           has been building for RENDEZVOUS_SLOT_MS
//! ```
//!
//! Clients choose the relay that is built to: a place must not be worth more to one that does not
//! answer than to the next client. While places are free nobody is hurried.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::base::counters::{InstanceCounters, OpenGuard};
use crate::limits;
use crate::runtime;

/// See the module.
pub(super) struct Slots {
    /// How many are free.
    free: Arc<Semaphore>,
    /// Those that are taken, by number, so the oldest first.
    taken: Mutex<BTreeMap<u64, Arc<Taken>>>,
    /// Rings when a first attempt has failed.
    failed: Notify,
    /// Where it is counted how many are taken.
    counters: Arc<InstanceCounters>,
}

/// One that is taken.
struct Taken {
    /// Since when.
    since: Instant,
    /// Its first attempt has failed.
    failed: AtomicBool,
    /// It was told to give up.
    told: AtomicBool,
    /// Rings when it is.
    give_up: Notify,
}

/// A place, until this is dropped.
pub(super) struct Slot {
    /// All of them.
    slots: Arc<Slots>,
    /// Its number.
    number: u64,
    /// The place.
    taken: Arc<Taken>,
    /// Makes it free again.
    _permit: OwnedSemaphorePermit,
    /// Counts it.
    _building: OpenGuard,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(&self.number);
    }
}

impl Slot {
    /// An attempt has failed: the place is the first to be given up.
    pub(super) fn note_failed(&self) {
        self.taken.failed.store(true, Ordering::Relaxed);
        self.slots.failed.notify_one();
    }

    /// Wait until the place is given up.
    pub(super) async fn given_up(&self) {
        self.taken.give_up.notified().await;
    }
}

impl Slots {
    /// So many, all of them free.
    pub(super) fn new(count: usize, counters: &Arc<InstanceCounters>) -> Arc<Slots> {
        Arc::new(Slots {
            free: Arc::new(Semaphore::new(count)),
            taken: Mutex::default(),
            failed: Notify::new(),
            counters: Arc::clone(counters),
        })
    }

    /// Those that are taken.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Taken>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take a place, once one is free; who waits has one given up. One task at a time may wait.
    pub(super) async fn take(self: &Arc<Slots>) -> Slot {
        loop {
            let next = match Arc::clone(&self.free).try_acquire_owned() {
                Ok(permit) => return self.taken_by(permit),
                Err(_) => self.have_one_given_up(runtime::time::now()),
            };
            tokio::select! {
                permit = Arc::clone(&self.free).acquire_owned() => {
                    return self.taken_by(permit.expect("it is never closed"));
                }
                () = self.failed.notified() => {}
                () = runtime::sleep(next) => {}
            }
        }
    }

    /// A place is taken with this permit.
    fn taken_by(self: &Arc<Slots>, permit: OwnedSemaphorePermit) -> Slot {
        let taken = Arc::new(Taken {
            since: runtime::time::now(),
            failed: AtomicBool::new(false),
            told: AtomicBool::new(false),
            give_up: Notify::new(),
        });
        let mut all = self.lock();
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(number, Arc::clone(&taken));
        let _building = self.counters.building_rendezvous();
        Slot { slots: Arc::clone(self), number, taken, _permit: permit, _building }
    }

    /// Tell the one whose turn it is to give up, if it is somebody's; how long until it may be the
    /// next one's.
    fn have_one_given_up(&self, now: Instant) -> Duration {
        let patience = Duration::from_millis(limits::RENDEZVOUS_SLOT_MS);
        let all = self.lock();
        let left: Vec<&Arc<Taken>> =
            all.values().filter(|one| !one.told.load(Ordering::Relaxed)).collect();
        let failed = left.iter().find(|one| one.failed.load(Ordering::Relaxed));
        let age = |one: &Arc<Taken>| now.saturating_duration_since(one.since);
        let old = || left.first().filter(|one| age(one) >= patience);
        if all.len() > left.len() {
            // One that was told gives its place up when it is polled next.
            return patience;
        }
        match failed.or_else(old) {
            Some(one) => {
                one.told.store(true, Ordering::Relaxed);
                one.give_up.notify_one();
                patience
            }
            None => left.first().map_or(patience, |one| patience.saturating_sub(age(one))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use futures::FutureExt as _;

    use super::{Slot, Slots};
    use crate::base::counters::InstanceCounters;
    use crate::limits;

    /// All places taken, at the same time.
    fn full(count: usize) -> (Arc<Slots>, Vec<Slot>, Arc<InstanceCounters>) {
        let counters = Arc::new(InstanceCounters::default());
        let slots = Slots::new(count, &counters);
        let taken = (0..count).map(|_| slots.take().now_or_never().expect("one is free"));
        let taken = taken.collect();
        (slots, taken, counters)
    }

    /// Which of them were told to give up.
    fn told(taken: &[Slot]) -> Vec<usize> {
        let told = |slot: &Slot| slot.given_up().now_or_never().is_some();
        (0..).zip(taken).filter(|(_, slot)| told(slot)).map(|(number, _)| number).collect()
    }

    #[tokio::test]
    async fn who_has_failed_gives_up_first_then_the_oldest_and_only_while_somebody_waits() {
        let (slots, mut taken, counters) = full(32);
        assert_eq!(counters.rendezvous_building(), 32);
        taken[20].note_failed();
        assert_eq!(told(&taken), [0; 0], "nobody waits");
        assert!(slots.take().now_or_never().is_none());
        assert_eq!(told(&taken), [20]);
        // One place for one that waits.
        assert!(slots.take().now_or_never().is_none());
        assert_eq!(told(&taken), [0; 0]);
        drop(taken.remove(20));
        taken.push(slots.take().now_or_never().expect("the place is free"));
        let now = Instant::now();
        let patience = Duration::from_millis(limits::RENDEZVOUS_SLOT_MS);
        let wait = slots.have_one_given_up(now);
        assert!(wait <= patience && told(&taken).is_empty(), "all of them are new");
        slots.have_one_given_up(now + patience);
        assert_eq!(told(&taken), [0]);
        drop(taken);
        assert_eq!(counters.rendezvous_building(), 0);
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_of_the_next_one_that_fails() {
        let (slots, mut taken, _) = full(4);
        let last = taken.pop().expect("there are 4");
        let waits = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take().await }
        });
        let gives_up = tokio::spawn(async move {
            last.note_failed();
            last.given_up().await;
        });
        let patience = Duration::from_secs(30);
        let got = tokio::time::timeout(patience, waits).await.expect("in time").expect("no panic");
        gives_up.await.expect("no panic");
        drop((got, taken));
    }
}
