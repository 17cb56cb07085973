//! The memory budget: what happens when the process comes near `memory_max`.
//!
//! In this order: at 75 % circuits that serve nobody close, those of the least use first
//! ([`eviction`]); at 80 % one core after another gives back what it and its allocator keep for
//! later, and after each time that circuits were closed; at 90 % new clients are refused if there
//! is no circuit left that serves nobody, circuits close whose bytes do not move, and sockets
//! receive less ahead of their readers; at 100 % new clients are refused in any case, and the
//! circuits close that hold the most, each time after giving back was not enough. arti's quota for
//! what waits in queues is the last resort. What is looked at is what the kernel counts, so what
//! sockets hold for their readers counts as well, and what an embedding program holds.
//!
//! The same looks keep room for circuits on each core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control_core::Shared;
use crate::base::overload::{Overload, Shortage};
use crate::limits;
use crate::onion::{Service, eviction};
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
    /// How short memory is.
    shortage: Option<Shortage>,
    /// Give back what is kept for later.
    trim: bool,
    /// Close circuits that serve nobody.
    evict: bool,
    /// Close circuits that hold much.
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
    /// Circuits were closed at the last look: what they held is on its way back.
    evicted: bool,
    /// There were circuits that serve nobody when those were last looked for.
    idle_left: bool,
}

impl Watch {
    /// Shortest pause.
    const PAUSE_MIN: Duration = Duration::from_secs(limits::MEMORY_TRIM_SECONDS);
    /// Longest pause.
    const PAUSE_MAX: Duration = Duration::from_secs(limits::MEMORY_TRIM_SECONDS_MAX);

    /// Nothing was done yet.
    fn new(max: u64) -> Watch {
        let (trimmed, before, pause) = (None, None, Watch::PAUSE_MIN);
        Watch { max, trimmed, before, pause, evicted: false, idle_left: false }
    }

    /// What is to be done with `held` bytes, while new clients are refused or not.
    fn look(&mut self, now: Instant, held: u64, refusing: bool) -> Verdict {
        let scarce = match refusing {
            true => limits::MEMORY_ACCEPT_AGAIN_PERCENT,
            false => limits::MEMORY_REFUSE_PERCENT,
        };
        let shortage = Shortage::of(held, self.max, scarce);
        let full = shortage == Some(Shortage::Full);
        let (evicted, before) = (std::mem::take(&mut self.evicted), self.before.take());
        if let Some(before) = before {
            let worth = before.saturating_sub(held) >= self.max / limits::MEMORY_TRIM_WORTH_ONE_OF;
            self.pause = match worth || evicted {
                true => Watch::PAUSE_MIN,
                false => (2 * self.pause).min(Watch::PAUSE_MAX),
            };
        }
        let much = held / 100 >= self.max / 10_000 * limits::MEMORY_TRIM_PERCENT;
        // Circuits close only after memory was given back, so that must not wait for long now.
        let pause = if shortage >= Some(Shortage::Scarce) { Watch::PAUSE_MIN } else { self.pause };
        let due = self.trimmed.is_none_or(|at| now >= at + pause);
        let trim = evicted || much && (full || due);
        if trim {
            (self.trimmed, self.before) = (Some(now), Some(held));
        }
        // Not before it is seen what closing and giving back have brought.
        let evict = shortage.is_some() && (full || !evicted);
        let close = shortage >= Some(Shortage::Scarce) && before.is_some();
        Verdict { shortage, trim, evict, close }
    }

    /// So many circuits were closed that served nobody.
    fn note_evicted(&mut self, closed: u64) {
        (self.evicted, self.idle_left) = (closed > 0, closed > 0);
    }

    /// Whether new clients are refused now. Nobody is while no client is there, since nothing would
    /// come back by waiting.
    fn refuses(&self, shortage: Option<Shortage>, clients: bool) -> bool {
        match shortage {
            Some(Shortage::Full) => clients,
            Some(Shortage::Scarce) => clients && !self.idle_left,
            Some(Shortage::Short) | None => false,
        }
    }

    /// Bytes above so many percent.
    fn above(&self, held: u64, percent: u64) -> u64 {
        held.saturating_sub(self.max / 100 * percent)
    }
}

impl Shared {
    /// Keep the process within its budget, and room on its cores, for as long as the future is
    /// polled.
    pub(super) async fn watch_memory(&self) {
        let mut watch = self.memory.max.map(Watch::new);
        let mut ticks = tokio::time::interval(Duration::from_millis(limits::MEMORY_LOOK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let services: Vec<_> =
                self.roster.all().iter().map(|one| Arc::clone(&one.service)).collect();
            let closed = eviction::make_room(&services);
            if closed > 0 {
                tracing::debug!("a core has many circuits: {closed} that serve nobody are closed");
            }
            if let Some(watch) = &mut watch
                && let Some(held) = memory::held_bytes()
            {
                self.bound_memory(held, watch, &services);
            }
        }
    }

    /// Do what has to be done with `held` bytes.
    fn bound_memory(&self, held: u64, watch: &mut Watch, services: &[Arc<Service>]) {
        let overload: &Overload = &self.common.overload;
        let clients = self.fronts.handoff.is_busy()
            || services.iter().any(|service| service.open_circuits() > 0);
        let refusing = overload.is_short();
        let verdict = watch.look(Instant::now(), held, refusing);
        memory::set_short(verdict.shortage >= Some(Shortage::Scarce));
        let (held_mb, max_mb) = (held / 1_000_000, watch.max / 1_000_000);
        if verdict.trim {
            tracing::debug!("{held_mb} MB of {max_mb} MB are held: cores give back what they keep");
            let trim = self.memory.trim;
            self.group.trim(move || {
                buffers::drop_spare();
                if let Some(trim) = trim {
                    trim();
                }
            });
        }
        let mut evicted = 0;
        if let Some(shortage) = verdict.shortage.filter(|_| verdict.evict) {
            let bytes = watch.above(held, limits::SHORT_GOAL_PERCENT);
            evicted = eviction::evict_idle(services, shortage, bytes);
            watch.note_evicted(evicted);
            if evicted > 0 {
                tracing::debug!(
                    "{held_mb} MB of {max_mb} MB are held: {evicted} circuits that serve nobody \
                     are closed"
                );
            }
        }
        if let Some(shortage) = verdict.shortage.filter(|_| verdict.close && evicted == 0) {
            let above = |percent| watch.above(held, percent);
            let bytes = (above(limits::MEMORY_ACCEPT_AGAIN_PERCENT), above(100));
            let closed = eviction::evict_holding(services, shortage, bytes);
            if closed > 0 {
                // What they held is on its way back, as above.
                watch.evicted = true;
                tracing::warn!(
                    "{held_mb} MB of {max_mb} MB are held: {closed} circuits that hold the most \
                     are closed"
                );
            }
        }
        let refuse = watch.refuses(verdict.shortage, clients);
        overload.set_short(refuse);
        match (refusing, refuse) {
            (false, true) => {
                tracing::warn!("{held_mb} MB of {max_mb} MB are held: new clients are refused");
            }
            (true, false) => {
                tracing::info!(
                    "{held_mb} MB of {max_mb} MB are held: new clients are served again"
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Verdict, Watch};
    use crate::base::overload::Shortage::{Full, Scarce, Short};

    const MAX: u64 = 1_000_000_000;

    /// A look at so many percent.
    fn look(watch: &mut Watch, now: Instant, percent: u64, refusing: bool) -> Verdict {
        watch.look(now, MAX / 100 * percent, refusing)
    }

    #[test]
    fn who_serves_nobody_goes_before_memory_is_given_back_and_both_before_clients_are_refused() {
        let at = |percent| look(&mut Watch::new(MAX), Instant::now(), percent, false);
        let verdict = |shortage, trim, evict| Verdict { shortage, trim, evict, close: false };
        assert_eq!(at(74), verdict(None, false, false));
        assert_eq!(at(76), verdict(Some(Short), false, true));
        assert_eq!(at(81), verdict(Some(Short), true, true));
        assert_eq!(at(91), verdict(Some(Scarce), true, true));
        assert_eq!(at(101), verdict(Some(Full), true, true));
    }

    #[test]
    fn new_clients_are_refused_only_where_no_circuit_is_left_that_serves_nobody() {
        let (mut watch, now) = (Watch::new(MAX), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(look(&mut watch, now, 91, false).evict);
        watch.note_evicted(5);
        assert!(!watch.refuses(Some(Scarce), true));
        // What they held is waited for, and given back.
        let waits = look(&mut watch, after(1), 91, false);
        assert!(waits.trim && !waits.evict);
        assert!(!watch.refuses(waits.shortage, true));
        assert!(look(&mut watch, after(2), 91, false).evict);
        watch.note_evicted(0);
        assert!(watch.refuses(Some(Scarce), true) && !watch.refuses(Some(Scarce), false));
        assert!(!watch.refuses(Some(Short), true));
        watch.note_evicted(5);
        assert!(watch.refuses(Some(Full), true), "the budget holds in any case");
    }

    #[test]
    fn circuits_with_streams_close_only_where_giving_back_was_not_enough() {
        let (mut watch, now) = (Watch::new(MAX), Instant::now());
        let full = |close| Verdict { shortage: Some(Full), trim: true, evict: true, close };
        assert_eq!(look(&mut watch, now, 101, false), full(false));
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(look(&mut watch, after(1), 101, true), full(true));
        assert_eq!(look(&mut watch, after(2), 102, true), full(true));
        assert!(!look(&mut watch, after(3), 80, true).close);
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
    fn refusing_ends_well_below_where_it_began() {
        let at = |percent: u64| look(&mut Watch::new(MAX), Instant::now(), percent, true).shortage;
        assert_eq!((at(86), at(84)), (Some(Scarce), Some(Short)));
    }
}
