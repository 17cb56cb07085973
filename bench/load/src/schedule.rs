//! When requests are meant to begin: pure arithmetic, in time since the start of the run.
//!
//! Clients ask it for the instant at which they shall begin; it knows nothing of what happens, so
//! that nothing that happens can move an intended start.

use std::time::Duration;

use crate::plan::{Load, Plan};

/// The intended start of request number `index` (from 0) in an open loop: evenly spaced at `rate`,
/// after a ramp in which the rate rises evenly from nothing.
#[expect(clippy::cast_precision_loss, reason = "an index is at most ten millions")]
pub(crate) fn open(index: u64, rate: f64, ramp: Duration) -> Duration {
    let (index, ramp) = (index as f64, ramp.as_secs_f64());
    // At time t of the ramp, rate * t^2 / (2 * ramp) requests have begun: half of what the full
    // rate would have begun when it ends.
    let in_ramp = rate * ramp / 2.0;
    let seconds = match index < in_ramp {
        true => (2.0 * ramp * index / rate).sqrt(),
        false => ramp + (index - in_ramp) / rate,
    };
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// When a client of a closed loop, or a held one, sends its first request.
pub(crate) fn first(plan: &Plan, client: usize) -> Duration {
    let share = u32::try_from(client).unwrap_or(u32::MAX);
    let clients = u32::try_from(plan.clients).unwrap_or(u32::MAX).max(1);
    plan.ramp.saturating_mul(share) / clients
}

/// When a held client sends its request number `index` (from 0).
pub(crate) fn hold(plan: &Plan, client: usize, every: Duration, index: u32) -> Duration {
    first(plan, client).saturating_add(every.saturating_mul(index))
}

/// How many requests from number `index` on are due after `elapsed`, in an open loop.
pub(crate) fn open_due(plan: &Plan, index: u64, elapsed: Duration) -> u64 {
    let Load::Open { rate } = plan.load else { return 0 };
    let begun = |index: &u64| {
        let intended = open(*index, rate, plan.ramp);
        intended <= elapsed && intended < plan.duration
    };
    (index..plan.requests).take_while(begun).map(|_| 1).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{first, hold, open, open_due};
    use crate::plan::{Load, Plan};

    fn plan() -> Plan {
        let target = format!("http://{}d.onion/", "a".repeat(55)).parse().expect("a good URL");
        Plan::new(vec![([127, 0, 0, 1], 9050).into()], target)
    }

    #[test]
    fn an_open_loop_is_evenly_spaced() {
        let at = |index| open(index, 20.0, Duration::ZERO);
        assert_eq!(at(0), Duration::ZERO);
        assert_eq!(at(1), Duration::from_millis(50));
        assert_eq!(at(600), Duration::from_secs(30));
    }

    /// In a ramp of 10 s to 20 a second, 100 requests begin, each gap shorter than the one before,
    /// and then the full rate holds.
    #[test]
    fn a_ramp_rises_to_the_rate() {
        let at = |index| open(index, 20.0, Duration::from_secs(10)).as_secs_f64();
        assert!((at(100) - 10.0).abs() < 1e-9);
        assert!((at(101) - 10.05).abs() < 1e-9);
        for index in 1..99 {
            assert!(at(index + 1) - at(index) < at(index) - at(index - 1), "{index}");
        }
    }

    #[test]
    fn clients_begin_evenly_over_the_ramp() {
        let plan = Plan { clients: 4, ramp: Duration::from_secs(8), ..plan() };
        let starts: Vec<_> = (0..4).map(|client| first(&plan, client).as_secs()).collect();
        assert_eq!(starts, [0, 2, 4, 6]);
        assert_eq!(hold(&plan, 1, Duration::from_secs(10), 3), Duration::from_secs(32));
    }

    #[test]
    fn what_is_due_is_bounded_by_the_plan() {
        let plan = Plan { load: Load::Open { rate: 10.0 }, requests: 100, ..plan() };
        assert_eq!(open_due(&plan, 0, Duration::from_millis(950)), 10);
        assert_eq!(open_due(&plan, 4, Duration::from_millis(950)), 6);
        assert_eq!(open_due(&plan, 0, Duration::from_secs(20)), 100);
        let short = Plan { duration: Duration::from_secs(1), ..plan.clone() };
        assert_eq!(open_due(&short, 0, Duration::from_secs(20)), 10);
        assert_eq!(open_due(&Plan { load: Load::Closed, ..plan }, 0, Duration::MAX), 0);
    }
}
