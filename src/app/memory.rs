//! The memory budget: what happens when the process comes near `memory_max`.
//!
//! In this order: circuits that hold more in their queues than fits are closed by arti's quota,
//! which has half of the budget; at 80 % one core after another gives back what it and its
//! allocator keep for later; at 90 % new clients are refused, and sockets receive less ahead of
//! their readers; at 100 % the largest circuits are closed, a sixteenth of all at a time, each time
//! after giving back was not enough. What is looked at is what the kernel counts, so what sockets
//! hold for their readers counts as well, and what an embedding program holds.

use std::time::{Duration, Instant};

use super::control_core::Shared;
use crate::base::overload::Overload;
use crate::limits;
use crate::plane::buffers;
use crate::runtime::memory;

/// Memory that a process may hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryBudget {
    /// Bytes of it; `None` for as many as there are.
    pub max: Option<u64>,
    /// See [`super::Launch::trim`].
    pub trim: Option<fn()>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    /// Give back what is kept for later.
    trim: bool,
    /// Refuse new clients.
    refuse: bool,
    /// Close the largest circuits.
    close: bool,
}

/// What was done of late for a process's memory.
#[derive(Clone, Copy, Debug)]
struct Watch {
    /// What it may hold, in bytes.
    max: u64,
    /// When memory was given back last.
    trimmed: Option<Instant>,
    /// What was held before, if that was at the last look.
    before: Option<u64>,
    /// How long until it is worth it again.
    pause: Duration,
}

impl Watch {
    /// Shortest pause.
    const PAUSE_MIN: Duration = Duration::from_secs(limits::MEMORY_TRIM_SECONDS);
    /// Longest pause.
    const PAUSE_MAX: Duration = Duration::from_secs(limits::MEMORY_TRIM_SECONDS_MAX);

    /// Nothing was done yet.
    fn new(max: u64) -> Watch {
        Watch { max, trimmed: None, before: None, pause: Watch::PAUSE_MIN }
    }

    /// What is to be done with `held` bytes. `refusing` is what is done now; nobody is refused
    /// while no client is there, since nothing would come back by waiting.
    fn look(&mut self, now: Instant, held: u64, refusing: bool, clients: bool) -> Verdict {
        let above = |percent: u64| held / 100 >= self.max / 10_000 * percent;
        let percent = match refusing {
            true => limits::MEMORY_ACCEPT_AGAIN_PERCENT,
            false => limits::MEMORY_REFUSE_PERCENT,
        };
        let (short, full) = (above(limits::MEMORY_TRIM_PERCENT), above(100));
        let (refuse, before) = (clients && above(percent), self.before.take());
        if let Some(before) = before {
            let worth = before.saturating_sub(held) >= self.max / limits::MEMORY_TRIM_WORTH_ONE_OF;
            self.pause = match worth {
                true => Watch::PAUSE_MIN,
                false => (2 * self.pause).min(Watch::PAUSE_MAX),
            };
        }
        let due = self.trimmed.is_none_or(|at| now >= at + self.pause);
        let trim = short && (full || due);
        if trim {
            (self.trimmed, self.before) = (Some(now), Some(held));
        }
        // Not before it is seen what giving back has brought.
        Verdict { trim, refuse, close: clients && full && before.is_some() }
    }
}

impl Shared {
    /// Keep the process within its budget, for as long as the future is polled.
    pub(super) async fn watch_memory(&self) {
        let Some(max) = self.memory.max else { return std::future::pending().await };
        let mut watch = Watch::new(max);
        let mut ticks = tokio::time::interval(Duration::from_millis(limits::MEMORY_LOOK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(held) = memory::held_bytes() {
                self.bound_memory(held, &mut watch);
            }
        }
    }

    /// Do what has to be done with `held` bytes.
    fn bound_memory(&self, held: u64, watch: &mut Watch) {
        let overload: &Overload = &self.common.overload;
        let clients = self.fronts.handoff.is_busy()
            || self.roster.all().iter().any(|one| one.service.open_circuits() > 0);
        let refusing = overload.is_short();
        let verdict = watch.look(Instant::now(), held, refusing, clients);
        overload.set_short(verdict.refuse);
        memory::set_short(verdict.refuse);
        let (held, max) = (held / 1_000_000, watch.max / 1_000_000);
        match (refusing, verdict.refuse) {
            (false, true) => {
                tracing::warn!("{held} MB of {max} MB are held: new clients are refused");
            }
            (true, false) => {
                tracing::info!("{held} MB of {max} MB are held: new clients are served again");
            }
            _ => {}
        }
        if verdict.trim {
            tracing::debug!("{held} MB of {max} MB are held: cores give back what they keep");
            let trim = self.memory.trim;
            self.group.trim(move || {
                buffers::drop_spare();
                if let Some(trim) = trim {
                    trim();
                }
            });
        }
        if verdict.close {
            let services = self.roster.all();
            let closed: u64 = services.iter().map(|one| one.service.close_largest_circuits()).sum();
            overload.note_closed(closed);
            tracing::warn!("memory_max is reached: {closed} circuits are closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Verdict, Watch};

    const MAX: u64 = 1_000_000_000;

    /// A look at so many percent, with clients there.
    fn look(watch: &mut Watch, now: Instant, percent: u64, refusing: bool) -> Verdict {
        watch.look(now, MAX / 100 * percent, refusing, true)
    }

    #[test]
    fn memory_is_given_back_before_clients_are_refused_and_they_before_circuits_close() {
        let at = |percent| look(&mut Watch::new(MAX), Instant::now(), percent, false);
        assert_eq!(at(79), Verdict { trim: false, refuse: false, close: false });
        assert_eq!(at(81), Verdict { trim: true, refuse: false, close: false });
        assert_eq!(at(91), Verdict { trim: true, refuse: true, close: false });
    }

    #[test]
    fn circuits_close_only_where_giving_back_was_not_enough() {
        let (mut watch, now) = (Watch::new(MAX), Instant::now());
        let full = |close| Verdict { trim: true, refuse: true, close };
        assert_eq!(look(&mut watch, now, 101, false), full(false));
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(look(&mut watch, after(1), 101, true), full(true));
        assert_eq!(look(&mut watch, after(2), 102, true), full(true));
        assert!(!look(&mut watch, after(3), 99, true).close);
        // Nothing was given back at the look before.
        assert!(!look(&mut watch, after(4), 101, true).close);
        assert!(look(&mut watch, after(5), 101, true).close);
    }

    #[test]
    fn what_brings_nothing_is_done_ever_less_often() {
        let (mut watch, begun) = (Watch::new(MAX), Instant::now());
        let trims = |watch: &mut Watch, from: u64, to: u64, held: fn(u64) -> u64| -> Vec<u64> {
            let at = |second| begun + Duration::from_secs(second);
            let does = |second: &u64| look(watch, at(*second), held(*second), false).trim;
            (from..to).filter(does).collect()
        };
        assert_eq!(trims(&mut watch, 0, 80, |_| 85), [0, 10, 30, 70]);
        let mut watch = Watch::new(MAX);
        let comes_back = |second| if second % 5 == 0 { 85 } else { 81 };
        assert_eq!(trims(&mut watch, 0, 20, comes_back), [0, 5, 10, 15]);
    }

    #[test]
    fn refusing_ends_well_below_where_it_began_or_when_nobody_is_there() {
        let at = |percent: u64, clients| {
            Watch::new(MAX).look(Instant::now(), MAX / 100 * percent, true, clients).refuse
        };
        assert!(at(86, true));
        assert!(!at(84, true));
        assert!(!at(99, false));
    }
}
