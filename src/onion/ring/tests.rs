//! The published vectors, and arti's ring as the other opinion.

use std::time::{Duration, SystemTime};

use tor_hscrypto::pk::HsBlindId;
use tor_hscrypto::time::TimePeriod;
use tor_linkspec::HasRelayIds as _;
use tor_netdir::NetDir;
use tor_netdir::testnet::construct_netdir;

use super::{
    Ring, disaster_value, hs_index, hsdir_index, live_rings, neighbour, positions, responsible,
};

/// A day, beginning at noon, as on the public network.
fn period(number: u64) -> TimePeriod {
    TimePeriod::from_parts(1440, number, 12 * 3600)
}

/// A network of arti's for tests: 40 relays, no shared random value.
fn network() -> NetDir {
    construct_netdir().unwrap_if_sufficient().unwrap_or_else(|_| panic!("it has all it needs"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn disaster_values_are_those_of_c_tor() {
    // C tor, src/test/test_hs_common.c: test_disaster_srv.
    let vectors = [
        (1, "f8a4948707653837fa44abb5bbc75a12f6f101e7f8faf699b9715f4965d3507d"),
        (2, "c17966df8b4834638e1b7bf38944c4995b92e89749d1623e417a44938d08fd67"),
    ];
    for (number, value) in vectors {
        assert_eq!(hex(&disaster_value(period(number))), value, "period {number}");
    }
}

#[test]
fn indexes_are_those_of_c_tor() {
    // C tor, src/test/test_hs_common.c: test_hs_indexes.
    assert_eq!(
        hex(&hs_index(period(42), &[0x42; 32], 1)),
        "37e5cbbd56a22823714f18f1623ece5983a0d64c78495a8cfab854245e5f9a8a"
    );
    assert_eq!(
        hex(&hsdir_index(period(42), &[0x42; 32], &[0x43; 32])),
        "db475361014a09965e7e5e4d4a25b8f8d4b8f16cb1d8a7e95eed50249cc1a2d5"
    );
}

#[test]
fn the_hsdirs_are_those_that_arti_names() {
    let netdir = network();
    let current = netdir.hs_time_period();
    let relays = positions(&netdir, current, &disaster_value(current));
    for seed in 0..50_u8 {
        let blinded = HsBlindId::from([seed; 32]);
        let theirs = netdir.hs_dirs_upload(blinded, current).expect("it is the current period");
        let theirs: Vec<_> = theirs.map(|relay| relay.ed_identity().copied()).collect();
        let ours = responsible(&netdir, current, &blinded, &relays);
        let ours: Vec<_> = ours.into_iter().map(|relay| relay.ed_identity().copied()).collect();
        assert_eq!(ours, theirs, "seed {seed}");
        assert_eq!(ours.len(), 8);
    }
}

#[test]
fn two_periods_are_live_without_any_shared_random_value() {
    let netdir = network();
    let rings = live_rings(&netdir);
    let current = netdir.hs_time_period();
    assert_eq!(rings.len(), 2, "{rings:?}");
    assert!(rings.iter().any(|ring| ring.time_period() == current));
    let other = rings.iter().find(|ring| matches!(ring, Ring::Disaster(_))).expect("no value");
    let neighbours = [current.prev(), current.next()];
    assert!(neighbours.contains(&Some(other.time_period())), "{rings:?}");
    let hsdirs = other.hsdirs(&netdir, HsBlindId::from([7; 32])).expect("it is our own ring");
    assert_eq!(hsdirs.len(), 8);
}

#[test]
fn the_neighbour_is_the_one_that_c_tor_publishes_for() {
    let current = period(20_000);
    let noon = current.range().expect("it can be represented").start;
    let hour = Duration::from_secs(3600);
    let beside = |hours: u32| neighbour(current, noon + hour * hours, hour);
    // From noon to midnight the next value is not out; from midnight on it is.
    assert_eq!(beside(0), current.prev());
    assert_eq!(beside(11), current.prev());
    assert_eq!(beside(12), current.next());
    assert_eq!(beside(23), current.next());
    assert_eq!(neighbour(current, noon, Duration::ZERO), None);
    assert_eq!(neighbour(current, SystemTime::UNIX_EPOCH - hour, hour), None);
}

#[test]
fn a_counter_can_be_made_before_the_period_begins() {
    let ring = Ring::Disaster(period(20_000));
    let noon = period(20_000).range().expect("it can be represented").start;
    let hour = Duration::from_secs(3600);
    assert!(ring.offset(noon - hour * 13).is_none());
    assert_eq!(ring.offset(noon - hour * 12), Some(0.into()));
    assert_eq!(ring.offset(noon), Some((12 * 3600).into()));
}
