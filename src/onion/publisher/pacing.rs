//! When a round of uploads may begin: changes are collected for a moment, a few rounds may follow
//! each other, then there is one a minute. Knows nothing about descriptors; drawn by time alone,
//! so that a test can drive it.

use std::time::{Duration, Instant};

use crate::limits;

/// Decides when the next round begins.
#[derive(Debug)]
pub struct Pacing {
    /// Rounds that may begin without waiting for the interval.
    tokens: u32,
    /// When the last token came.
    refilled: Instant,
    /// When the wanted round may begin, if one is wanted.
    due: Option<Instant>,
}

/// The time in which one token comes back.
const REFILL: Duration = Duration::from_secs(limits::PUBLISH_ROUND_INTERVAL_SECONDS);

/// How long changes are collected.
const DEBOUNCE: Duration = Duration::from_millis(limits::PUBLISH_DEBOUNCE_MS);

impl Pacing {
    /// Nothing is wanted, and the burst is there to be used.
    pub fn new(now: Instant) -> Pacing {
        Pacing { tokens: limits::PUBLISH_ROUNDS_BURST, refilled: now, due: None }
    }

    /// A round is wanted: it begins after the debounce, or when the next token comes.
    pub fn want(&mut self, now: Instant) {
        self.refill(now);
        if self.due.is_none() {
            let next_token = if self.tokens > 0 { now } else { (self.refilled + REFILL).max(now) };
            self.due = Some(next_token.max(now + DEBOUNCE));
        }
    }

    /// A round is wanted whatever the rate: only the debounce holds.
    pub fn want_now(&mut self, now: Instant) {
        self.refill(now);
        self.tokens = self.tokens.max(1);
        let soon = now + DEBOUNCE;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// When the wanted round may begin.
    pub fn next_round(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the wanted round begins now. It is then no longer wanted.
    pub fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.due = None;
        self.tokens = self.tokens.saturating_sub(1);
        true
    }

    /// Give back the tokens that time has brought.
    fn refill(&mut self, now: Instant) {
        while self.tokens < limits::PUBLISH_ROUNDS_BURST && self.refilled + REFILL <= now {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == limits::PUBLISH_ROUNDS_BURST {
            self.refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Pacing;

    /// Want a round all the time for `seconds`; how many begin, and when.
    fn rounds(pacing: &mut Pacing, start: Instant, seconds: u64) -> Vec<f32> {
        let mut begun = Vec::new();
        for tenth in 0..seconds * 10 {
            let now = start + Duration::from_millis(tenth * 100);
            pacing.want(now);
            if pacing.take(now) {
                begun.push(now.duration_since(start).as_secs_f32());
            }
        }
        begun
    }

    #[test]
    fn a_burst_of_four_and_then_one_a_minute() {
        let start = Instant::now();
        let begun = rounds(&mut Pacing::new(start), start, 600);
        let early = begun.iter().filter(|at| **at < 10.0).count();
        assert_eq!(early, 4, "{begun:?}");
        for pair in begun[3..].windows(2) {
            assert!(pair[1] - pair[0] >= 50.0, "{begun:?}");
        }
        assert!((12..=15).contains(&begun.len()), "{begun:?}");
    }

    #[test]
    fn changes_are_collected_for_a_second() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        pacing.want(start);
        assert!(!pacing.take(start + Duration::from_millis(900)));
        pacing.want(start + Duration::from_millis(950));
        assert!(pacing.take(start + Duration::from_millis(1000)));
        assert!(!pacing.take(start + Duration::from_secs(30)), "nothing is wanted any more");
    }

    #[test]
    fn when_every_point_is_gone_the_rate_does_not_hold() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        let begun = rounds(&mut pacing, start, 10);
        assert_eq!(begun.len(), 4);
        let now = start + Duration::from_secs(10);
        pacing.want_now(now);
        assert!(pacing.take(now + Duration::from_secs(1)));
    }
}
