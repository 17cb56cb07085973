//! Limits, verdicts, and what is forgotten when too much would be remembered.

use std::sync::Arc;
use std::time::Duration;

use super::{Bucket, Gates, Refused};
use crate::base::stream::CircuitId;
use crate::limits;
use crate::plane::config::{CircuitLimits, OverLimit, Rate};
use crate::plane::status::Verdict;

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(3600);

/// The circuit of this number.
fn circuit(serial: u32) -> CircuitId {
    CircuitId { instance: 0, serial }
}

/// So many circuits of which something is remembered.
fn known(gates: &Gates) -> usize {
    gates.shards.iter().map(|shard| shard.lock().expect("no panic").gates.len()).sum()
}

#[test]
fn a_rate_lets_a_burst_through_and_then_so_many_a_second() {
    let (bucket, rate) = (Bucket::default(), Rate { per_second: 10, burst: 5 });
    let mut now = 1;
    let passed = (0..20).filter(|_| bucket.take(1, rate, now, false)).count();
    assert_eq!(passed, 5);
    let mut passed = 0;
    for _ in 0..1000 {
        now += 10_000;
        passed += usize::from(bucket.take(1, rate, now, false));
    }
    // Ten seconds.
    assert!((99..=101).contains(&passed), "{passed}");
    assert!(!bucket.is_full(now) && bucket.is_full(now + 500_000));
    // What has happened is owed.
    assert!(!bucket.take(100, rate, now, true));
    assert!(!bucket.take(1, rate, now + 9_000_000, false));
    assert!(bucket.take(1, rate, now + 11_000_000, false));
}

#[test]
fn a_circuit_has_so_many_streams_and_others_are_not_concerned() {
    let limits = CircuitLimits { streams_max: Some(2), ..CircuitLimits::default() };
    let gates = Gates::new(limits);
    let first = gates.enter(circuit(1), false).expect("there is room");
    let _second = gates.enter(circuit(1), false).expect("there is room");
    let refused = gates.enter(circuit(1), false).expect_err("there is none");
    assert_eq!(refused, Refused { close: false });
    let _other = gates.enter(circuit(2), false).expect("another circuit");
    drop(first);
    let _third = gates.enter(circuit(1), false).expect("there is room again");
    assert_eq!(gates.status().refused_streams_total, 1);
    gates.set_limits(CircuitLimits::default());
    let _free = gates.enter(circuit(1), false).expect("no limit holds");
}

#[test]
fn who_sends_too_much_is_told_and_its_circuit_closes_where_that_is_wanted() {
    let bytes = Some(Rate { per_second: 1000, burst: 5000 });
    let limits = CircuitLimits { bytes, over: OverLimit::Close, ..CircuitLimits::default() };
    let gates = Gates::new(limits);
    let (one, two) = (gates.enter(circuit(1), false), gates.enter(circuit(1), false));
    let (one, two) = (one.expect("it may"), two.expect("it may"));
    assert_eq!(one.note(3000), Ok(()));
    assert_eq!(two.note(3000), Err(Refused { close: true }));
    assert_eq!(gates.status().ended_bytes_total, 1);
}

#[test]
fn a_verdict_holds_for_its_time_and_the_last_one_counts() {
    let gates = Gates::new(CircuitLimits::default());
    assert_eq!(gates.verdict(circuit(1)), Verdict::Normal);
    assert_eq!(known(&gates), 0);
    assert!(gates.set_verdict(circuit(1), Verdict::Preferred, Duration::from_secs(60)));
    assert_eq!(gates.verdict(circuit(1)), Verdict::Preferred);
    assert_eq!(gates.verdict(circuit(2)), Verdict::Normal);
    assert!(gates.set_verdict(circuit(1), Verdict::Banned, Duration::from_secs(60)));
    assert!(gates.enter(circuit(1), false).is_err());
    assert!(gates.enter(circuit(1), true).is_ok());
    let status = gates.status();
    assert_eq!((status.preferred, status.banned, status.refused_banned_total), (0, 1, 1));
    assert!(gates.set_verdict(circuit(1), Verdict::Banned, Duration::ZERO));
    assert_eq!(gates.verdict(circuit(1)), Verdict::Normal);
}

#[test]
fn what_is_over_is_forgotten_and_what_is_remembered_is_bounded() {
    let streams = Some(Rate { per_second: 1_000_000, burst: 1 });
    let gates = Gates::new(CircuitLimits { streams, ..CircuitLimits::default() });
    for serial in 0..200_000 {
        drop(gates.enter(circuit(serial), false));
    }
    assert!(known(&gates) < 200_000 / 4, "{}", known(&gates));
    let gates = Gates::new(CircuitLimits::default());
    let more = u32::try_from(limits::GATES_MAX + 10_000).expect("a small number");
    let said = (0..more).filter(|at| gates.set_verdict(circuit(*at), Verdict::Banned, LONG));
    let said = said.count();
    assert!(said <= limits::GATES_MAX && said > limits::GATES_MAX * 9 / 10, "{said}");
    assert_eq!(known(&gates), said);
    let refused = u64::from(more) - said as u64;
    assert_eq!(gates.status().not_remembered_total, refused, "none of it is silent");
    // Once they are over there is room again.
    (0..more).for_each(|at| {
        gates.set_verdict(circuit(at), Verdict::Banned, Duration::ZERO);
    });
    let again = (more..2 * more)
        .filter(|at| gates.set_verdict(circuit(*at), Verdict::Banned, Duration::ZERO));
    assert_eq!(u32::try_from(again.count()), Ok(more));
    assert_eq!(Arc::strong_count(&gates), 1);
}
#[test]
fn a_ban_outlives_all_that_matters_less_however_many_come() {
    let streams = Some(Rate { per_second: 1, burst: 5 });
    let gates = Gates::new(CircuitLimits { streams, ..CircuitLimits::default() });
    let banned = 0..1_000;
    for serial in banned.clone() {
        assert!(gates.set_verdict(circuit(serial), Verdict::Banned, LONG));
    }
    let open = gates.enter(circuit(2_000), false).expect("it may");
    for serial in 10_000..10_000 + 3 * limits::GATES_MAX as u32 {
        // Half of them are preferred, and all use up some of their rate.
        if serial % 2 == 0 {
            assert!(gates.set_verdict(circuit(serial), Verdict::Preferred, LONG));
        }
        drop(gates.enter(circuit(serial), false).expect("it may"));
    }
    assert!(known(&gates) <= limits::GATES_MAX);
    let status = gates.status();
    assert_eq!((status.banned, status.not_remembered_total), (1_000, 0));
    assert!(status.forgotten_total > limits::GATES_MAX as u64 / 2, "{status:?}");
    assert!(banned.clone().all(|serial| gates.enter(circuit(serial), false).is_err()));
    // The one with an open stream is still known, too.
    assert!(gates.shard(circuit(2_000)).gates.contains_key(&circuit(2_000)));
    drop(open);
}

#[test]
fn where_only_bans_are_remembered_others_are_limited_together() {
    let streams = Some(Rate { per_second: 1, burst: 5 });
    let gates = Gates::new(CircuitLimits { streams, ..CircuitLimits::default() });
    let full = 2 * limits::GATES_MAX as u32;
    for serial in 0..full {
        gates.set_verdict(circuit(serial), Verdict::Banned, LONG);
    }
    assert_eq!(known(&gates), limits::GATES_MAX);
    let passed = (full..full + 10_000).filter(|at| gates.enter(circuit(*at), false).is_ok());
    // Some seconds may pass meanwhile, each with one more for each shard.
    let passed = passed.count();
    assert!((super::SHARDS * 5..super::SHARDS * 60).contains(&passed), "{passed}");
}

#[test]
fn a_circuit_that_closes_takes_its_ban_with_it() {
    let gates = Gates::new(CircuitLimits::default());
    assert!(gates.set_verdict(circuit(1), Verdict::Banned, LONG));
    assert!(gates.set_verdict(circuit(2), Verdict::Banned, LONG));
    gates.forget(circuit(1));
    assert_eq!((known(&gates), gates.status().banned), (1, 1));
    assert!(gates.enter(circuit(1), false).is_ok() && gates.enter(circuit(2), false).is_err());
    // Circuits of which nothing is said are not remembered where there are no limits.
    assert_eq!(known(&gates), 1);
}
