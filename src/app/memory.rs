//! The memory budget: what happens when the process comes near `memory_max`.
//!
//! In this order, each step only if the one before was not enough: circuits that hold more in their
//! queues than fits are closed by arti's quota, which has half of the budget; at 80 % every core
//! gives back what it and its allocator keep for later; at 90 % new clients are refused; at 100 %
//! the largest circuits are closed, a sixteenth of all each second. What is looked at is what the
//! kernel counts, so what an embedding program holds counts as well.

use std::time::{Duration, Instant};

use super::control_core::Shared;
use crate::base::overload::Overload;
use crate::limits;
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

/// What is to be done with `held` of `max` bytes. `refusing` is what is done now; nobody is refused
/// while no client is there, since nothing would come back by waiting.
fn judge(held: u64, max: u64, refusing: bool, clients: bool) -> Verdict {
    let percent =
        if refusing { limits::MEMORY_ACCEPT_AGAIN_PERCENT } else { limits::MEMORY_REFUSE_PERCENT };
    let above = |percent: u64| held / 100 >= max / 10_000 * percent;
    Verdict {
        trim: above(limits::MEMORY_TRIM_PERCENT),
        refuse: clients && above(percent),
        close: clients && above(100),
    }
}

impl Shared {
    /// Keep the process within its budget, for as long as the future is polled.
    pub(super) async fn watch_memory(&self) {
        let Some(max) = self.memory.max else { return std::future::pending().await };
        let mut trimmed = None;
        let mut ticks = tokio::time::interval(Duration::from_millis(limits::MEMORY_LOOK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(held) = memory::held_bytes() {
                self.bound_memory(held, max, &mut trimmed);
            }
        }
    }

    /// Do what has to be done with `held` of `max` bytes. `trimmed` is when memory was given back
    /// last.
    fn bound_memory(&self, held: u64, max: u64, trimmed: &mut Option<Instant>) {
        let overload: &Overload = &self.common.overload;
        let clients = self.roster.all().iter().any(|one| one.service.open_circuits() > 0);
        let refusing = overload.is_short();
        let verdict = judge(held, max, refusing, clients);
        overload.set_short(verdict.refuse);
        let pause = Duration::from_secs(limits::MEMORY_TRIM_SECONDS);
        if verdict.trim && trimmed.is_none_or(|last| last.elapsed() >= pause) {
            tracing::debug!(held, max, "cores give back what they keep for later");
            self.group.trim(self.memory.trim);
            *trimmed = Some(Instant::now());
        }
        match (refusing, verdict.refuse) {
            (false, true) => tracing::warn!(
                "{} MB of {} MB are held: new clients are refused",
                held / 1_000_000,
                max / 1_000_000
            ),
            (true, false) => tracing::info!(
                "{} MB of {} MB are held: new clients are served again",
                held / 1_000_000,
                max / 1_000_000
            ),
            _ => {}
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
    use super::{Verdict, judge};

    #[test]
    fn memory_is_given_back_before_clients_are_refused_and_they_before_circuits_are_closed() {
        let max = 1_000_000_000;
        let at = |percent: u64| judge(max / 100 * percent, max, false, true);
        assert_eq!(at(79), Verdict { trim: false, refuse: false, close: false });
        assert_eq!(at(81), Verdict { trim: true, refuse: false, close: false });
        assert_eq!(at(91), Verdict { trim: true, refuse: true, close: false });
        assert_eq!(at(101), Verdict { trim: true, refuse: true, close: true });
    }

    #[test]
    fn refusing_ends_well_below_where_it_began_or_when_nobody_is_there() {
        let max = 1_000_000_000;
        let at = |percent: u64, clients| judge(max / 100 * percent, max, true, clients).refuse;
        assert!(at(86, true));
        assert!(!at(84, true));
        assert!(!at(99, false));
    }
}
