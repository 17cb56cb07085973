//! When a round of uploads may begin: changes are collected for a moment, a few rounds may follow
//! each other, then there is one a minute. A few more are kept for instances that are gone. Knows
//! nothing about descriptors; drawn by time alone, so that a test can drive it.

use std::time::{Duration, Instant};

use crate::limits;

/// Decides when the next round begins.
#[derive(Debug)]
pub struct Pacing {
    /// Rounds that may begin without waiting for the interval, those that are reserved among them.
    tokens: u32,
    /// When the last token came.
    refilled: Instant,
    /// When the wanted round may begin, if one is wanted.
    due: Option<Instant>,
}

/// The time in which one token comes back.
const REFILL: Duration = Duration::from_secs(limits::PUBLISH_ROUND_INTERVAL_SECONDS);

/// Tokens that there are at most.
const TOKENS_MAX: u32 = limits::PUBLISH_ROUNDS_BURST + limits::PUBLISH_ROUNDS_RESERVED;

/// How long changes are collected.
const DEBOUNCE: Duration = Duration::from_millis(limits::PUBLISH_DEBOUNCE_MS);

impl Pacing {
    /// Nothing is wanted, and the burst is there to be used.
    pub fn new(now: Instant) -> Pacing {
        Pacing { tokens: TOKENS_MAX, refilled: now, due: None }
    }

    /// A round is wanted: it begins after the debounce, or when the next token comes.
    pub fn want(&mut self, now: Instant) {
        self.refill(now);
        if self.due.is_none() {
            let free = self.tokens > limits::PUBLISH_ROUNDS_RESERVED;
            let next_token = if free { now } else { (self.refilled + REFILL).max(now) };
            self.due = Some(next_token.max(now + DEBOUNCE));
        }
    }

    /// A round is wanted because an instance is gone: it begins after the debounce if a token is
    /// left, reserved ones included.
    pub fn want_soon(&mut self, now: Instant) {
        self.refill(now);
        match self.tokens {
            0 => self.want(now),
            _ => self.bring_forward(now),
        }
    }

    /// A round is wanted whatever the rate: only the debounce holds.
    pub fn want_now(&mut self, now: Instant) {
        self.refill(now);
        self.tokens = self.tokens.max(1);
        self.bring_forward(now);
    }

    /// The next round begins after the debounce at the latest.
    fn bring_forward(&mut self, now: Instant) {
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
        while self.tokens < TOKENS_MAX && self.refilled + REFILL <= now {
            self.tokens += 1;
            self.refilled += REFILL;
        }
        if self.tokens == TOKENS_MAX {
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
    fn an_instance_that_is_gone_does_not_wait_behind_other_changes() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        assert_eq!(rounds(&mut pacing, start, 10).len(), 4);
        // A change waits for its minute; then an instance dies.
        let mut now = start + Duration::from_secs(10);
        for _ in 0..3 {
            pacing.want_soon(now);
            assert!(pacing.take(now + Duration::from_secs(1)), "within the debounce");
            now += Duration::from_secs(2);
        }
        // One that dies again and again waits like everybody.
        pacing.want_soon(now);
        assert!(!pacing.take(now + Duration::from_secs(20)));
        assert!(pacing.take(now + Duration::from_secs(60)));
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
