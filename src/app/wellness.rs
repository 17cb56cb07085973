//! How well the instances on this machine can serve: without a backend, or overloaded, they leave
//! their share of the introduction points to others.
//!
//! | what is the case for 10 s | who gives up its share | until it is over for |
//! |---|---|---|
//! | no backend is up | all on this machine | 10 s |
//! | memory is short: new clients are refused | all on this machine | 60 s |
//! | a guard refuses circuits: one is asked for at a time | in-process, of its Tor stack | 60 s |
//! | introductions are dropped: their queue, or every core, is full | that one | 60 s |
//!
//! The last three are what *overloaded* means. Where all who have points are overloaded, all keep
//! their share: there is nobody to leave it to.
//!
//! Looked at each second on the control core. What is wrong for a moment is no reason to publish:
//! it has to last, and so has the recovery, or points would come and go with each wave of clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control_core::Shared;
use super::roster::ServiceShared;
use crate::limits;
use crate::onion::status::Engine;
use crate::plane::status::{BackendState, BackendStatus};
use crate::runtime;

/// A guard refuses circuits.
const REFUSED: &str = "overloaded: a guard refuses circuits";
/// Introductions were dropped.
const DROPPED: &str = "overloaded: introductions were dropped, since a queue was full";

/// What lasts.
#[derive(Clone, Debug)]
struct Lasting {
    /// What is told.
    told: bool,
    /// Since when the opposite is the case.
    opposite_since: Option<Instant>,
    /// How long all has to be well again until that is told.
    recovery: Duration,
}

impl Lasting {
    /// All is well, and is well again after `recovery_ms` without a fault.
    fn new(recovery_ms: u64) -> Lasting {
        let recovery = Duration::from_millis(recovery_ms);
        Lasting { told: true, opposite_since: None, recovery }
    }

    /// Take in what is the case; what is to be told.
    fn note(&mut self, well: bool, now: Instant) -> bool {
        if well == self.told {
            self.opposite_since = None;
            return self.told;
        }
        let since = *self.opposite_since.get_or_insert(now);
        let long = if well { self.recovery } else { Duration::from_millis(limits::WELLNESS_MS) };
        if now.saturating_duration_since(since) >= long {
            self.told = well;
            self.opposite_since = None;
        }
        self.told
    }
}

/// What is watched of one in-process instance.
#[derive(Clone, Debug)]
struct Watched {
    /// Introductions that it had dropped at the last look.
    dropped_total: u64,
    /// When a look last found more.
    dropped_at: Option<Instant>,
    /// Whether it can serve.
    lasting: Lasting,
    /// What is or was the matter.
    reason: &'static str,
}

impl Watched {
    /// All is well.
    fn new() -> Watched {
        let lasting = Lasting::new(limits::OVERLOAD_RECOVERY_MS);
        Watched { dropped_total: 0, dropped_at: None, lasting, reason: DROPPED }
    }

    /// Take in what is counted, and whether its guard refuses circuits; why it is overloaded, if it
    /// has been for long enough.
    fn note(&mut self, dropped_total: u64, refused: bool, now: Instant) -> Option<&'static str> {
        if dropped_total > self.dropped_total {
            (self.dropped_total, self.dropped_at) = (dropped_total, Some(now));
        }
        // A queue that runs over does so again and again, not at every look.
        let recent = Duration::from_millis(limits::OVERLOAD_DROPPED_MS);
        let dropping = self.dropped_at.is_some_and(|at| now.saturating_duration_since(at) < recent);
        match (refused, dropping) {
            (true, _) => self.reason = REFUSED,
            (false, true) => self.reason = DROPPED,
            (false, false) => {}
        }
        (!self.lasting.note(!refused && !dropping, now)).then_some(self.reason)
    }
}

/// Why each instance gives up its share. `overloaded`: why it would; `serves`: whether it has
/// points; `others`: whether somebody else has points and a share. Where nobody would be left, all
/// keep theirs.
fn given_up(
    overloaded: &[Option<&'static str>],
    serves: &[bool],
    others: bool,
) -> Vec<Option<&'static str>> {
    let well = overloaded.iter().zip(serves).any(|(why, serves)| why.is_none() && *serves);
    overloaded.iter().map(|why| why.filter(|_| well || others)).collect()
}

/// Whether some backend is up, or none is needed.
fn has_backend(backends: &[BackendStatus]) -> bool {
    backends.is_empty() || backends.iter().any(|one| one.state == BackendState::Up)
}

/// Tell a service how well this machine can serve it, for as long as the future is polled. Where
/// there is only one instance, that changes nothing.
pub(super) async fn watch(service: &ServiceShared, shared: &Arc<Shared>) {
    let (seats, guests) = (service.service.seats().len(), service.service.guests().len());
    if seats + guests < 2 {
        return std::future::pending().await;
    }
    let mut machine = Machine::new();
    let mut watched = vec![Watched::new(); seats];
    loop {
        let now = Instant::now();
        if guests > 0 {
            machine.look(service, shared, now);
        }
        look_at_seats(&mut watched, service, shared, now);
        runtime::sleep(Duration::from_millis(limits::WELLNESS_LOOK_MS)).await;
    }
}

/// What concerns every instance on this machine.
struct Machine {
    /// Whether a backend is up.
    backends: Lasting,
    /// Whether there is memory for new clients.
    memory: Lasting,
}

impl Machine {
    /// All is well.
    fn new() -> Machine {
        let backends = Lasting::new(limits::WELLNESS_MS);
        Machine { backends, memory: Lasting::new(limits::OVERLOAD_RECOVERY_MS) }
    }

    /// Look, and tell the service.
    fn look(&mut self, service: &ServiceShared, shared: &Shared, now: Instant) {
        let before = self.backends.told && self.memory.told;
        let backends = self.backends.note(has_backend(&service.plane.status()), now);
        let memory = self.memory.note(!shared.common.overload.is_short(), now);
        let (well, name) = (backends && memory, service.name());
        if well == before {
            return;
        }
        match (well, backends) {
            (true, _) => tracing::info!(service = name, "served from this machine again"),
            (false, false) => tracing::warn!(
                service = name,
                "no backend is up: clients are left to instances elsewhere"
            ),
            (false, true) => tracing::warn!(
                service = name,
                "memory is short: clients are left to instances elsewhere"
            ),
        }
        service.service.set_local_percent(if well { 100 } else { 0 });
    }
}

/// Look at every in-process instance, and tell the service.
fn look_at_seats(watched: &mut [Watched], service: &ServiceShared, shared: &Shared, now: Instant) {
    let seats = service.service.seats();
    let overloaded: Vec<_> = (0_u16..)
        .zip(seats.iter().zip(watched))
        .map(|(number, (seat, watched))| {
            let refused = shared.is_refused_circuits(number);
            watched.note(seat.counters.queue_full_total(), refused, now)
        })
        .collect();
    let serves: Vec<bool> = seats.iter().map(|seat| !seat.points().is_empty()).collect();
    // A daemon has guards and queues of its own.
    let has_share = |guest: &Arc<crate::onion::Guest>| {
        let able = guest.config.engine == Engine::Remote || service.service.local_percent() > 0;
        able && guest.percent() > 0 && !guest.points().is_empty()
    };
    let others = service.service.guests().iter().any(has_share);
    for (number, why) in given_up(&overloaded, &serves, others).into_iter().enumerate() {
        if !service.service.set_given_up(number, why) {
            continue;
        }
        let name = service.name();
        match why {
            Some(why) => tracing::warn!(
                service = name,
                instance = number,
                "{why}: its share of the introduction points is left to other instances"
            ),
            None => tracing::info!(service = name, instance = number, "it has its share again"),
        }
    }
}

impl Shared {
    /// Whether a guard refuses circuits that a data core asks for.
    fn is_refused_circuits(&self, core: u16) -> bool {
        let stack = self.stacks.get(usize::from(core % self.stack_count().max(1)));
        stack.is_some_and(|stack| {
            stack.borrow().as_ref().is_some_and(|stack| stack.is_refused_circuits())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{DROPPED, Lasting, REFUSED, Watched, given_up};
    use crate::limits;

    #[test]
    fn what_is_wrong_for_a_moment_is_not_told() {
        let mut lasting = Lasting::new(limits::WELLNESS_MS);
        let start = Instant::now();
        let long = Duration::from_millis(limits::WELLNESS_MS);
        let short = long / 2;
        assert!(lasting.note(false, start));
        assert!(lasting.note(true, start + short), "it was short");
        assert!(lasting.note(false, start + short));
        assert!(lasting.note(false, start + long), "not long yet");
        assert!(!lasting.note(false, start + short + long));
        assert!(!lasting.note(true, start + 2 * long), "nor is the recovery told at once");
        assert!(lasting.note(true, start + 3 * long));
    }

    /// Look once a second for so many seconds; what was told at each look.
    fn looks(
        watched: &mut Watched,
        (start, seconds): (Instant, std::ops::Range<u64>),
        seen: impl Fn(u64) -> (u64, bool),
    ) -> Vec<Option<&'static str>> {
        let look = |second: u64| {
            let (dropped_total, refused) = seen(second);
            watched.note(dropped_total, refused, start + Duration::from_secs(second))
        };
        seconds.map(look).collect()
    }

    #[test]
    fn a_queue_that_runs_over_for_long_is_overload_and_one_burst_is_not() {
        let start = Instant::now();
        let mut watched = Watched::new();
        // One burst, of however many.
        let burst = looks(&mut watched, (start, 0..30), |second| (second.min(1) * 1000, false));
        assert!(burst.iter().all(Option::is_none), "{burst:?}");
        // A few every other second.
        let dropped = |second: u64| (1000 + second.saturating_sub(30) / 2 * 3, false);
        let told = looks(&mut watched, (start, 30..60), dropped);
        let first = told.iter().position(Option::is_some).expect("it is overloaded");
        assert!((10..=15).contains(&first), "{told:?}");
        assert!(told[first..].iter().all(|why| *why == Some(DROPPED)), "{told:?}");
        // It ends, and for a minute nothing is told of that; a single drop begins the minute anew.
        let last = dropped(59).0;
        let dropped = |second: u64| (last + u64::from(second >= 90), false);
        let told = looks(&mut watched, (start, 60..180), dropped);
        let again = told.iter().position(Option::is_none).expect("it recovers");
        assert!((90 - 60 + 60..=90 - 60 + 75).contains(&again), "{again}: {told:?}");
        assert!(told[again..].iter().all(Option::is_none), "{told:?}");
    }

    #[test]
    fn a_guard_that_refuses_circuits_is_overload_until_a_minute_after() {
        let start = Instant::now();
        let mut watched = Watched::new();
        let told = looks(&mut watched, (start, 0..20), |_| (0, true));
        assert_eq!(told.iter().position(Option::is_some), Some(10), "{told:?}");
        assert_eq!(told[10], Some(REFUSED));
        let told = looks(&mut watched, (start, 20..100), |_| (0, false));
        assert_eq!(told.iter().position(Option::is_none), Some(60), "{told:?}");
    }

    #[test]
    fn an_overloaded_instance_gives_up_its_share_where_another_can_have_it() {
        let why = Some(DROPPED);
        let both = [true, true];
        assert_eq!(given_up(&[why, None], &both, false), [why, None]);
        assert_eq!(given_up(&[why, None], &[true, false], false), [None, None], "it has no points");
        assert_eq!(given_up(&[why, why], &both, false), [None, None], "nobody is left");
        assert_eq!(given_up(&[why, why], &both, true), [why, why], "somebody elsewhere is");
        assert_eq!(given_up(&[None, None], &both, true), [None, None]);
        assert_eq!(given_up(&[], &[], true), []);
    }
}
