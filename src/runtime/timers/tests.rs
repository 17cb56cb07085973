//! The wheel against a list that is searched from end to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Wheel;

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One timer, as the test knows it.
struct Known {
    due: u64,
    place: (usize, u64),
    count: Arc<Count>,
}

#[test]
fn timers_are_woken_once_in_their_millisecond_and_never_when_cancelled() {
    for seed in 0..50 {
        let mut random = SmallRng::seed_from_u64(seed);
        let epoch = Instant::now();
        let mut wheel = Wheel::new(epoch);
        let mut known: Vec<Known> = Vec::new();
        let mut cancelled: Vec<Arc<Count>> = Vec::new();
        let mut now = 0_u64;
        for _ in 0..400 {
            match random.random_range(0..4) {
                0 | 1 => {
                    let far = 1_u64 << random.random_range(0..22);
                    let due = now + random.random_range(1..=far);
                    let count = Arc::new(Count::default());
                    let at = epoch + Duration::from_millis(due);
                    let place = wheel.set(at, Waker::from(Arc::clone(&count)));
                    known.push(Known { due, place, count });
                }
                2 if !known.is_empty() => {
                    let one = known.swap_remove(random.random_range(0..known.len()));
                    assert!(wheel.cancel(one.place).is_some(), "seed {seed}: it was set");
                    cancelled.push(one.count);
                }
                _ => {
                    let next = known.iter().map(|one| one.due).min();
                    let wait = wheel.wait(epoch + Duration::from_millis(now));
                    assert_eq!(wait.is_some(), next.is_some(), "seed {seed}");
                    // A coarse slot may come up before its timers, but never after.
                    if let (Some(wait), Some(next)) = (wait, next) {
                        assert!(wait.as_millis() as u64 <= next - now, "seed {seed}");
                    }
                    now += 1_u64 << random.random_range(0..20);
                    let mut wake = Vec::new();
                    wheel.advance(epoch + Duration::from_millis(now), &mut wake);
                    wake.into_iter().for_each(Waker::wake);
                    known.retain(|one| {
                        let times = one.count.0.load(Ordering::Relaxed);
                        assert_eq!(times, u32::from(one.due <= now), "seed {seed}: {}", one.due);
                        one.due > now
                    });
                }
            }
        }
        assert_eq!(wheel.entries.len(), known.len(), "seed {seed}: nothing is left behind");
        assert!(cancelled.iter().all(|one| one.0.load(Ordering::Relaxed) == 0), "seed {seed}");
    }
}

#[test]
fn a_place_that_is_used_again_is_not_cancelled_by_its_last_owner() {
    let epoch = Instant::now();
    let mut wheel = Wheel::new(epoch);
    let first = wheel.set(epoch + Duration::from_millis(5), Waker::noop().clone());
    assert!(wheel.cancel(first).is_some());
    let second = wheel.set(epoch + Duration::from_millis(5), Waker::noop().clone());
    assert_eq!(first.0, second.0);
    assert!(wheel.cancel(first).is_none());
    assert!(wheel.cancel(second).is_some());
}
