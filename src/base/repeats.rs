//! One line a minute for one cause: what would fill the log when something fails again and again
//! (no descriptor is left, a disk is full) is said at once the first time, then once in
//! [`limits::REPEAT_SECONDS`], with the number of lines that were left out.
//!
//! Used wherever a loop can warn. The line itself stands at its place, so that its fields and level
//! are the ones of that place:
//!
//! ```
//! # use rustbalance::base::repeats::Repeats;
//! static TAKEN: Repeats = Repeats::new();
//! if let Some(more) = TAKEN.say() {
//!     tracing::warn!("cannot accept: no descriptor is left{more}");
//! }
//! ```
//!
//! What tells that a state has changed is never left out: the log would end with the wrong one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits;

/// How long a cause is quiet once it was told.
const QUIET: Duration = Duration::from_secs(limits::REPEAT_SECONDS);

/// Lines that were left out since the last one: behind the text of the next, nothing when there are
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(pub u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => out.write_str(" (once more since it was last told)"),
            count => write!(out, " ({count} times more since it was last told)"),
        }
    }
}

/// When a cause was told, and what was left out since.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// When.
    at: Instant,
    /// Lines since then.
    left_out: u64,
}

/// See the module: one cause.
#[derive(Debug, Default)]
pub struct Repeats {
    /// `None`: it was never told.
    told: Mutex<Option<Told>>,
}

impl Repeats {
    /// Nothing was told yet.
    pub const fn new() -> Repeats {
        Repeats { told: Mutex::new(None) }
    }

    /// Whether to tell the cause now, and what was left out before.
    pub fn say(&self) -> Option<LeftOut> {
        self.say_at(Instant::now())
    }

    /// See [`Self::say`].
    fn say_at(&self, now: Instant) -> Option<LeftOut> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *told {
            Some(told) => say(told, now),
            never => {
                *never = Some(Told { at: now, left_out: 0 });
                Some(LeftOut(0))
            }
        }
    }
}

/// Whether to tell a cause again.
fn say(told: &mut Told, now: Instant) -> Option<LeftOut> {
    if now.saturating_duration_since(told.at) < QUIET {
        told.left_out += 1;
        return None;
    }
    let left_out = LeftOut(told.left_out);
    *told = Told { at: now, left_out: 0 };
    Some(left_out)
}

/// Many causes, each by a name: at most [`limits::REPEAT_CAUSES_MAX`], of which the one that was
/// told first is forgotten for a new one.
#[derive(Debug, Default)]
pub struct Causes {
    /// By name.
    told: Mutex<HashMap<String, Told>>,
}

impl Causes {
    /// The list.
    fn list(&self) -> MutexGuard<'_, HashMap<String, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to tell this cause now, and what was left out before.
    pub fn say(&self, cause: &str, now: Instant) -> Option<LeftOut> {
        let mut list = self.list();
        if let Some(told) = list.get_mut(cause) {
            return say(told, now);
        }
        if list.len() >= limits::REPEAT_CAUSES_MAX {
            let first = list.iter().min_by_key(|(_, told)| told.at).map(|(name, _)| name.clone());
            first.and_then(|first| list.remove(&first));
        }
        list.insert(cause.to_owned(), Told { at: now, left_out: 0 });
        Some(LeftOut(0))
    }

    /// Causes that are quiet now after lines of them were left out, which nothing has told yet.
    pub fn take_quiet(&self, now: Instant) -> Vec<(String, LeftOut)> {
        let mut quiet = Vec::new();
        self.list().retain(|cause, told| {
            let over = now.saturating_duration_since(told.at) >= QUIET;
            if over && told.left_out > 0 {
                quiet.push((cause.clone(), LeftOut(told.left_out)));
            }
            !over
        });
        quiet
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Causes, LeftOut, Repeats};
    use crate::limits;

    #[test]
    fn a_thousand_lines_within_seconds_are_one_and_the_next_has_their_number() {
        let (repeats, start) = (Repeats::new(), Instant::now());
        assert_eq!(repeats.say_at(start), Some(LeftOut(0)), "the first is told at once");
        let told = (1..=1000)
            .filter(|number| repeats.say_at(start + Duration::from_millis(number * 10)).is_some());
        assert_eq!(told.count(), 0);
        let minute = Duration::from_secs(limits::REPEAT_SECONDS);
        assert_eq!(repeats.say_at(start + minute), Some(LeftOut(1000)));
        assert_eq!(repeats.say_at(start + minute * 3 / 2), None);
        assert_eq!(repeats.say_at(start + minute * 10), Some(LeftOut(1)));
        assert_eq!(LeftOut(0).to_string(), "");
        assert_eq!(LeftOut(7).to_string(), " (7 times more since it was last told)");
    }

    #[test]
    fn a_cause_that_has_ended_is_told_with_what_was_left_out() {
        let (causes, start) = (Causes::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(causes.say("a", start), Some(LeftOut(0)));
        assert_eq!(causes.say("b", start), Some(LeftOut(0)), "another cause is told at once");
        assert_eq!(causes.say("a", start + second), None);
        assert_eq!(causes.say("a", start + second * 2), None);
        assert_eq!(causes.take_quiet(start + second * 3), []);
        let over = start + Duration::from_secs(limits::REPEAT_SECONDS);
        assert_eq!(causes.take_quiet(over), [("a".to_owned(), LeftOut(2))]);
        assert_eq!(causes.take_quiet(over), [], "once");
        assert_eq!(causes.say("a", over), Some(LeftOut(0)));
    }

    #[test]
    fn causes_are_bounded() {
        let (causes, start) = (Causes::default(), Instant::now());
        for number in 0..limits::REPEAT_CAUSES_MAX as u64 + 10 {
            let now = start + Duration::from_millis(number);
            assert!(causes.say(&number.to_string(), now).is_some());
        }
        assert_eq!(causes.list().len(), limits::REPEAT_CAUSES_MAX);
        assert!(!causes.list().contains_key("0"));
    }
}
