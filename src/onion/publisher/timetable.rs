//! When the rounds of one time period begin. Each period has a timetable of its own, as in C tor
//! and arti: scheduled rounds of two periods never begin together, which would tell whoever runs an
//! HSDir of each that both blinded keys are one service's. What has to be known at once (a lost
//! instance, other points) is wanted of every period by the publisher.
//!
//! Knows nothing about descriptors; drawn by time alone, so that a test can drive it.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::pacing::Pacing;
use crate::limits;

/// How soon a round is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// At the next turn.
    Turn,
    /// Before its turn, while there are rounds in reserve: an instance is gone.
    Soon,
    /// Whatever the rate: nothing that clients know works any more.
    Now,
}

/// The times of one period.
#[derive(Debug)]
pub(super) struct Timetable {
    /// When a round may begin.
    pacing: Pacing,
    /// When the published descriptor is to be replaced.
    republish_at: Option<Instant>,
    /// Rounds in a row of which an HSDir refused a descriptor.
    refusals: u32,
}

/// How far two scheduled rounds are apart at least.
const APART: Duration = Duration::from_secs(limits::REPUBLISH_APART_SECONDS);

impl Timetable {
    /// Of a period that has just begun: its first round is wanted.
    pub(super) fn new(now: Instant) -> Timetable {
        let mut pacing = Pacing::new(now);
        pacing.want(now);
        Timetable { pacing, republish_at: None, refusals: 0 }
    }

    /// A round is wanted.
    pub(super) fn want(&mut self, urgency: Urgency, now: Instant) {
        match urgency {
            Urgency::Turn => self.pacing.want(now),
            Urgency::Soon => self.pacing.want_soon(now),
            Urgency::Now => self.pacing.want_now(now),
        }
    }

    /// A round is wanted if it is time to publish again.
    pub(super) fn look(&mut self, now: Instant) {
        if self.republish_at.take_if(|at| *at <= now).is_some() {
            self.pacing.want(now);
        }
    }

    /// Whether the wanted round begins now. It is then no longer wanted.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.pacing.take(now)
    }

    /// When the wanted round may begin.
    pub(super) fn next_round(&self) -> Option<Instant> {
        self.pacing.next_round()
    }

    /// When the published descriptor is to be replaced.
    pub(super) fn republish_at(&self) -> Option<Instant> {
        self.republish_at
    }

    /// A round has begun; `was_refused` tells whether an HSDir refused the one before. The next
    /// comes at a random time that is apart from those of `others`.
    pub(super) fn note_begun(&mut self, was_refused: bool, others: &[Instant], now: Instant) {
        if !was_refused {
            self.refusals = 0;
        }
        self.republish_at = Some(republish_time(others, now));
    }

    /// A round could not be built.
    pub(super) fn note_failed(&mut self, now: Instant) {
        self.pacing.want(now + Duration::from_secs(limits::PUBLISH_ROUND_INTERVAL_SECONDS));
    }

    /// An HSDir has refused a descriptor of the round: bring the next one forward.
    pub(super) fn note_refused(&mut self, now: Instant) {
        let wait = limits::REFUSED_WAIT_SECONDS_MIN << self.refusals.min(16);
        let wait = Duration::from_secs(wait.min(limits::REFUSED_WAIT_SECONDS_MAX));
        self.refusals = self.refusals.saturating_add(1);
        self.republish_at = Some(self.republish_at.map_or(now + wait, |at| at.min(now + wait)));
    }
}

/// A random time, apart from those of `others`.
fn republish_time(others: &[Instant], now: Instant) -> Instant {
    let bounds = limits::REPUBLISH_SECONDS_MIN * 1000..=limits::REPUBLISH_SECONDS_MAX * 1000;
    let mut draw = || now + Duration::from_millis(rand::rng().random_range(bounds.clone()));
    let is_apart = |at: &Instant| {
        let distance = |other: &Instant| {
            at.saturating_duration_since(*other).max(other.saturating_duration_since(*at))
        };
        others.iter().all(|other| distance(other) >= APART)
    };
    // Three of four are apart, or more: see the bounds.
    let drawn = std::iter::repeat_with(&mut draw).take(64).find(is_apart);
    drawn.unwrap_or_else(|| others.iter().max().map_or(now, |last| *last + APART))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{APART, Timetable, Urgency};
    use crate::limits;

    /// Two periods, as the publisher drives them.
    struct Clock {
        /// The time.
        now: Instant,
        /// Each period's.
        periods: [Timetable; 2],
        /// Rounds that have begun.
        begun: Vec<(Instant, usize)>,
    }

    impl Clock {
        /// Two periods that have just begun.
        fn new() -> Clock {
            let now = Instant::now();
            Clock { now, periods: [Timetable::new(now), Timetable::new(now)], begun: Vec::new() }
        }

        /// What the publisher does on each event.
        fn apply(&mut self) {
            for period in 0..2 {
                self.periods[period].look(self.now);
                if self.periods[period].take(self.now) {
                    let others: Vec<Instant> =
                        self.periods[1 - period].republish_at().into_iter().collect();
                    self.periods[period].note_begun(false, &others, self.now);
                    self.begun.push((self.now, period));
                }
            }
        }

        /// Let the time pass, from event to event.
        fn pass(&mut self, duration: Duration) {
            let end = self.now + duration;
            loop {
                let times =
                    self.periods.iter().flat_map(|one| [one.next_round(), one.republish_at()]);
                let next = times.flatten().min().expect("a round is always to come");
                if next > end {
                    self.now = end;
                    return;
                }
                self.now = next.max(self.now);
                self.apply();
            }
        }
    }

    #[test]
    fn scheduled_rounds_of_two_periods_are_apart_and_each_in_its_time() {
        let mut clock = Clock::new();
        clock.pass(Duration::from_secs(2));
        assert_eq!(clock.begun.len(), 2, "both are published at the start");
        clock.pass(Duration::from_secs(100 * 24 * 3600));
        let scheduled = &clock.begun[2..];
        assert!(scheduled.len() > 2 * 100 * 12, "{}", scheduled.len());
        for pair in scheduled.windows(2) {
            let apart = pair[1].0 - pair[0].0;
            assert!(pair[0].1 == pair[1].1 || apart >= APART - Duration::from_secs(1), "{apart:?}");
        }
        for period in 0..2 {
            let own = clock.begun.iter().filter(|(_, one)| *one == period);
            let own: Vec<Instant> = own.map(|(at, _)| *at).collect();
            let waits: Vec<u64> =
                own.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
            let bounds = limits::REPUBLISH_SECONDS_MIN..=limits::REPUBLISH_SECONDS_MAX + 1;
            assert!(waits.iter().all(|wait| bounds.contains(wait)), "{waits:?}");
            let distinct = std::collections::BTreeSet::from_iter(&waits);
            assert!(distinct.len() > waits.len() / 3, "they are random: {waits:?}");
        }
    }

    #[test]
    fn a_lost_instance_starts_the_rounds_of_both_at_once() {
        let mut clock = Clock::new();
        clock.pass(Duration::from_secs(30 * 60));
        clock.begun.clear();
        for period in &mut clock.periods {
            period.want(Urgency::Soon, clock.now);
        }
        let lost = clock.now;
        clock.pass(Duration::from_secs(10));
        let debounce = Duration::from_millis(limits::PUBLISH_DEBOUNCE_MS);
        assert_eq!(clock.begun, [(lost + debounce, 0), (lost + debounce, 1)]);
        // From then on each goes its own way again.
        clock.begun.clear();
        clock.pass(Duration::from_secs(limits::REPUBLISH_SECONDS_MAX + 1));
        assert!(clock.begun.len() >= 2 && clock.begun[0].0 != clock.begun[1].0);
    }

    #[test]
    fn times_are_apart_even_where_chance_would_not_find_one() {
        let now = Instant::now();
        let every = (0..3 * 3600).step_by(60).map(|second| now + Duration::from_secs(second));
        let others: Vec<Instant> = every.collect();
        let at = super::republish_time(&others, now);
        assert!(others.iter().all(|other| at - *other >= APART));
    }

    #[test]
    fn refusals_bring_the_next_round_forward_ever_less() {
        let now = Instant::now();
        let mut times = Timetable::new(now);
        times.note_begun(false, &[], now);
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            times.note_refused(now);
            let wait = times.republish_at().expect("it is due") - now;
            assert!(wait >= last && wait <= Duration::from_secs(limits::REFUSED_WAIT_SECONDS_MAX));
            last = wait;
            times.note_begun(true, &[], now);
        }
        assert_eq!(last, Duration::from_secs(limits::REFUSED_WAIT_SECONDS_MAX));
        times.note_begun(false, &[], now);
        times.note_refused(now);
        let wait = times.republish_at().expect("it is due") - now;
        assert_eq!(wait, Duration::from_secs(limits::REFUSED_WAIT_SECONDS_MIN));
    }
}
