//! How far our clock is off, as relays tell when a link opens (tor-spec, NETINFO).
//!
//! arti has an estimate of its own, but for clients in trouble: it waits for eight relays and for
//! 15 minutes. A service has a link or two. The median of what their relays say is taken; a relay
//! that lies can stop us from publishing, which a guard could do by dropping our circuits as well.
//!
//! A link tells once. A clock that is set later is noticed by comparing it with the time since the
//! machine's start, which nobody sets, and which runs on while the machine sleeps.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use tor_proto::ClockSkew;

/// Both clocks at one time.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    /// The one that is set: time since 1970.
    wall: Duration,
    /// The one that nobody sets: time since the machine's start, `CLOCK_BOOTTIME`.
    boot: Duration,
}

impl Clocks {
    /// What they show now.
    fn now() -> Clocks {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Clocks { wall, boot }
    }

    /// How far the wall clock was set ahead since `then`, in milliseconds.
    fn set_ahead_since(self, then: Clocks) -> i64 {
        let whole = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let wall = whole(self.wall).saturating_sub(whole(then.wall));
        wall.saturating_sub(whole(self.boot).saturating_sub(whole(then.boot)))
    }
}

/// What one relay said.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Our clock's skew in milliseconds, positive when it was behind.
    skew_ms: i64,
    /// When.
    at: Clocks,
}

/// What the relays of open links said.
#[derive(Debug, Default)]
pub(super) struct Skews {
    /// By the link's number; `None` for a link that cannot be asked.
    by_link: Mutex<BTreeMap<u64, Option<Told>>>,
}

impl Skews {
    /// The list.
    fn list(&self) -> MutexGuard<'_, BTreeMap<u64, Option<Told>>> {
        self.by_link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forget links that have closed.
    pub(super) fn keep_only(&self, open: &[u64]) {
        self.list().retain(|number, _| open.contains(number));
    }

    /// Whether this link's relay was asked.
    pub(super) fn knows(&self, link: u64) -> bool {
        self.list().contains_key(&link)
    }

    /// A link's relay has told.
    pub(super) fn note(&self, link: u64, skew: ClockSkew) {
        self.note_at(link, skew, Clocks::now());
    }

    /// See [`Self::note`].
    fn note_at(&self, link: u64, skew: ClockSkew, at: Clocks) {
        self.list().insert(link, Some(Told { skew_ms: milliseconds(skew), at }));
    }

    /// A link's relay cannot be asked.
    pub(super) fn note_silent(&self, link: u64) {
        self.list().insert(link, None);
    }

    /// The median, of two middle ones the smaller skew; `None` while no relay has told.
    pub(super) fn median_ms(&self) -> Option<i64> {
        self.median_ms_at(Clocks::now())
    }

    /// See [`Self::median_ms`].
    fn median_ms_at(&self, now: Clocks) -> Option<i64> {
        let skew = |told: &Told| told.skew_ms.saturating_sub(now.set_ahead_since(told.at));
        let mut all: Vec<i64> = self.list().values().flatten().map(skew).collect();
        all.sort_unstable();
        let (low, high) = (*all.get(all.len().checked_sub(1)? / 2)?, *all.get(all.len() / 2)?);
        Some(if low.unsigned_abs() <= high.unsigned_abs() { low } else { high })
    }
}

/// Positive when our clock is behind.
fn milliseconds(skew: ClockSkew) -> i64 {
    let whole = |skew: Duration| i64::try_from(skew.as_millis()).unwrap_or(i64::MAX);
    match skew {
        ClockSkew::Slow(skew) => whole(skew),
        ClockSkew::Fast(skew) => -whole(skew),
        ClockSkew::None => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tor_proto::ClockSkew;

    use super::{Clocks, Skews};

    /// An hour after the machine's start, at noon.
    const NOON: Clocks =
        Clocks { wall: Duration::from_secs(1_800_000_000), boot: Duration::from_secs(3600) };

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_runs_on_is_not() {
        let skews = Skews::default();
        skews.note_at(1, ClockSkew::Slow(Duration::from_secs(2)), NOON);
        let hour = Duration::from_secs(3600);
        let later = Clocks { wall: NOON.wall + hour, boot: NOON.boot + hour };
        assert_eq!(skews.median_ms_at(later), Some(2_000));
        let ahead = Clocks { wall: later.wall + hour, ..later };
        assert_eq!(skews.median_ms_at(ahead), Some(2_000 - 3_600_000));
        let back = Clocks { wall: later.wall - hour, ..later };
        assert_eq!(skews.median_ms_at(back), Some(2_000 + 3_600_000));
    }

    #[test]
    fn one_relay_that_lies_among_three_changes_nothing() {
        let skews = Skews::default();
        assert_eq!(skews.median_ms_at(NOON), None);
        skews.note_at(1, ClockSkew::None, NOON);
        skews.note_at(2, ClockSkew::Slow(Duration::from_secs(3600)), NOON);
        skews.note_at(3, ClockSkew::Fast(Duration::from_secs(2)), NOON);
        assert_eq!(skews.median_ms_at(NOON), Some(0));
    }

    #[test]
    fn one_relay_that_lies_among_two_changes_nothing() {
        for lie in [ClockSkew::Slow(Duration::from_secs(900)), ClockSkew::Fast(Duration::MAX)] {
            let skews = Skews::default();
            skews.note_at(1, lie, NOON);
            skews.note_at(2, ClockSkew::None, NOON);
            skews.note_silent(3);
            assert_eq!(skews.median_ms_at(NOON), Some(0));
        }
    }

    #[test]
    fn a_link_that_has_closed_does_not_count() {
        let skews = Skews::default();
        skews.note_at(1, ClockSkew::Fast(Duration::from_secs(600)), NOON);
        assert_eq!(skews.median_ms_at(NOON), Some(-600_000));
        skews.keep_only(&[2]);
        assert!(!skews.knows(1));
        assert_eq!(skews.median_ms(), None);
    }
}
