//! How far our clock is off, as relays tell when a link opens (tor-spec, NETINFO).
//!
//! arti has an estimate of its own, but for clients in trouble: it waits for eight relays and for
//! 15 minutes. A service has a link or two. The median of what their relays say is taken; a relay
//! that lies can stop us from publishing, which a guard could do by dropping our circuits as well.
//!
//! A link tells once: a clock that is set later counts from the next link on.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tor_proto::ClockSkew;

/// What the relays of open links said.
#[derive(Debug, Default)]
pub(super) struct Skews {
    /// By the link's number: our clock's skew in milliseconds, positive when it is behind; `None`
    /// for a link that cannot be asked.
    by_link: Mutex<BTreeMap<u64, Option<i64>>>,
}

impl Skews {
    /// The list.
    fn list(&self) -> MutexGuard<'_, BTreeMap<u64, Option<i64>>> {
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
        self.list().insert(link, Some(milliseconds(skew)));
    }

    /// A link's relay cannot be asked.
    pub(super) fn note_silent(&self, link: u64) {
        self.list().insert(link, None);
    }

    /// The median, of two middle ones the smaller skew; `None` while no relay has told.
    pub(super) fn median_ms(&self) -> Option<i64> {
        let mut all: Vec<i64> = self.list().values().copied().flatten().collect();
        all.sort_unstable();
        let (low, high) = (*all.get(all.len().checked_sub(1)? / 2)?, *all.get(all.len() / 2)?);
        Some(if low.unsigned_abs() <= high.unsigned_abs() { low } else { high })
    }
}

/// Positive when our clock is behind.
fn milliseconds(skew: ClockSkew) -> i64 {
    let whole = |skew: std::time::Duration| i64::try_from(skew.as_millis()).unwrap_or(i64::MAX);
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

    use super::Skews;

    #[test]
    fn one_relay_that_lies_among_three_changes_nothing() {
        let skews = Skews::default();
        assert_eq!(skews.median_ms(), None);
        skews.note(1, ClockSkew::None);
        skews.note(2, ClockSkew::Slow(Duration::from_secs(3600)));
        skews.note(3, ClockSkew::Fast(Duration::from_secs(2)));
        assert_eq!(skews.median_ms(), Some(0));
    }

    #[test]
    fn one_relay_that_lies_among_two_changes_nothing() {
        for lie in [ClockSkew::Slow(Duration::from_secs(900)), ClockSkew::Fast(Duration::MAX)] {
            let skews = Skews::default();
            skews.note(1, lie);
            skews.note(2, ClockSkew::None);
            skews.note_silent(3);
            assert_eq!(skews.median_ms(), Some(0));
        }
    }

    #[test]
    fn a_link_that_has_closed_does_not_count() {
        let skews = Skews::default();
        skews.note(1, ClockSkew::Fast(Duration::from_secs(600)));
        assert_eq!(skews.median_ms(), Some(-600_000));
        skews.keep_only(&[2]);
        assert!(!skews.knows(1));
        assert_eq!(skews.median_ms(), None);
    }
}
