//! When a remote instance's descriptor is fetched: soon after something has changed or failed, and
//! ever more seldom while it stays the same. Drawn by events alone, so that a test can drive it.

use std::time::Duration;

use rand::RngExt as _;

use crate::limits;

/// How much of the way to the ceiling one fetch without news brings, in percent.
const CALM_PERCENT: u32 = 30;

/// Decides how long to wait for the next fetch.
#[derive(Debug)]
pub(super) struct Timing {
    /// Shortest wait, which is also the time between two looks at the points.
    floor: Duration,
    /// Longest wait.
    ceiling: Duration,
    /// The wait that comes next.
    wait: Duration,
    /// Fetches in a row that have failed.
    failures: u32,
}

impl Timing {
    /// Between `floor` and `ceiling`.
    pub(super) fn new(floor: Duration, ceiling: Duration) -> Timing {
        Timing { floor, ceiling: ceiling.max(floor), wait: floor, failures: 0 }
    }

    /// The descriptor was fetched; the wait until the next time.
    pub(super) fn fetched(&mut self, news: bool) -> Duration {
        self.failures = 0;
        self.wait = match news {
            true => self.floor,
            false => {
                let way = self.ceiling.saturating_sub(self.wait);
                self.wait + way * CALM_PERCENT / 100
            }
        };
        self.wait
    }

    /// The fetch failed; the wait until the next time. An instance that has just started has no
    /// descriptor for a moment, so the first waits are short.
    pub(super) fn failed(&mut self) -> Duration {
        let first = Duration::from_secs(limits::REMOTE_RETRY_SECONDS_MIN);
        self.wait = first.saturating_mul(1 << self.failures.min(16)).min(self.floor);
        self.failures = self.failures.saturating_add(1);
        self.wait
    }

    /// Fetches in a row that have failed.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The time between two looks at the points.
    pub(super) fn look(&self) -> Duration {
        self.floor
    }
}

/// A wait that nobody can foresee to the second: a tenth shorter at most.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait - wait.mul_f64(rand::rng().random_range(0.0..0.1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Timing, jittered};

    /// Waits of a minute to ten.
    fn timing() -> Timing {
        Timing::new(Duration::from_secs(60), Duration::from_secs(600))
    }

    #[test]
    fn calm_makes_it_seldom_and_news_often() {
        let mut timing = timing();
        let mut before = Duration::ZERO;
        for _ in 0..10 {
            let wait = timing.fetched(false);
            assert!(wait > before && wait <= Duration::from_secs(600), "{wait:?}");
            before = wait;
        }
        assert!(before > Duration::from_secs(570), "{before:?}");
        assert_eq!(timing.fetched(true), Duration::from_secs(60));
    }

    #[test]
    fn failures_are_followed_by_ever_longer_waits_up_to_the_floor() {
        let mut timing = timing();
        let waits: Vec<u64> = (0..6).map(|_| timing.failed().as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(timing.failures(), 6);
        timing.fetched(true);
        assert_eq!((timing.failures(), timing.failed().as_secs()), (0, 5));
        let mut quick = Timing::new(Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!((quick.failed().as_secs(), quick.fetched(false).as_secs()), (2, 2));
    }

    #[test]
    fn a_wait_is_never_longer_than_it_was_meant_to_be() {
        let wait = Duration::from_secs(60);
        for _ in 0..1000 {
            let drawn = jittered(wait);
            assert!(drawn <= wait && drawn >= Duration::from_secs(54), "{drawn:?}");
        }
    }
}
