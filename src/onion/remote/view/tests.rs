//! What fetches and probes make of a remote instance.

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::{Foreign, LIFETIME, Presence, View};
use crate::limits;
use crate::onion::descriptor::tests::point;

/// A descriptor with these points.
fn found(revision: u64, points: &[IntroPointDesc]) -> Foreign {
    Foreign { revision, points: points.to_vec(), congestion_control: NonZeroU8::new(31) }
}

/// How many points may be published.
fn published(view: &View, failures: u32, now: Instant) -> usize {
    view.verdict(failures, now).map(|(points, _)| points.len()).unwrap_or_default()
}

#[test]
fn an_older_copy_says_nothing_and_a_newer_one_brings_news() {
    let (now, mut view) = (Instant::now(), View::default());
    let old: Vec<IntroPointDesc> = (0..3).map(point).collect();
    let new: Vec<IntroPointDesc> = (3..6).map(point).collect();
    assert!(view.verdict(0, now).is_err());
    assert!(view.note_descriptor(1, found(10, &old), now));
    assert!(!view.note_descriptor(1, found(11, &old), now), "published again");
    assert!(view.note_descriptor(1, found(12, &new), now));
    assert!(!view.note_descriptor(1, found(11, &old), now), "an HSDir that was left behind");
    let (points, offered) = view.verdict(0, now).expect("it serves");
    assert!(points.iter().any(|one| one.ipt_sid_key() == new[0].ipt_sid_key()));
    assert_eq!(
        (offered, view.revision_in(1), view.revision_in(2)),
        (NonZeroU8::new(31), Some(12), None)
    );
    // Counters of another period are other counters.
    assert!(view.note_descriptor(2, found(3, &old), now));
}

#[test]
fn points_that_are_gone_leave_and_come_back_when_their_relay_has_them_again() {
    let (now, mut view) = (Instant::now(), View::default());
    let points: Vec<IntroPointDesc> = (0..3).map(point).collect();
    view.note_descriptor(1, found(10, &points), now);
    assert!(view.note_presence(&points[0], Presence::Gone));
    assert!(!view.note_presence(&points[0], Presence::Gone), "that is known");
    assert!(!view.note_presence(&points[1], Presence::Unknown));
    assert_eq!(published(&view, 0, now), 2);
    view.note_descriptor(1, found(10, &points), now);
    assert_eq!(published(&view, 0, now), 2, "the descriptor knows no better than the relay");
    view.note_presence(&points[0], Presence::There);
    assert_eq!(published(&view, 0, now), 3);
    for point in &points {
        assert!(view.note_presence(point, Presence::Gone));
    }
    let reason = view.verdict(0, now).expect_err("nothing is left");
    assert!(reason.contains("gone"), "{reason}");
    assert!(!view.note_presence(&point(9), Presence::Gone), "no point of its");
}

#[test]
fn without_a_fresh_descriptor_it_serves_while_relays_confirm_its_points() {
    let (now, mut view) = (Instant::now(), View::default());
    let points: Vec<IntroPointDesc> = (0..3).map(point).collect();
    view.note_descriptor(1, found(10, &points), now);
    let enough = limits::REMOTE_FAILURES_MAX;
    view.note_failure("no HSDir answers".to_owned());
    assert_eq!(published(&view, enough - 1, now), 3);
    assert_eq!(published(&view, enough, now), 0);
    view.note_presence(&points[1], Presence::There);
    assert_eq!(published(&view, enough, now), 3);
    assert_eq!(published(&view, enough, now + LIFETIME - Duration::from_secs(1)), 3);
    assert_eq!(published(&view, enough, now + LIFETIME), 0, "clients could not know them");
}

#[test]
fn every_point_has_its_turn_and_no_more_are_asked_for_at_a_time() {
    let (now, mut view) = (Instant::now(), View::default());
    assert!(view.take_probes().is_empty());
    let points: Vec<IntroPointDesc> = (0..20).map(point).collect();
    view.note_descriptor(1, found(10, &points), now);
    let turns = 20_usize.div_ceil(limits::PROBES_AT_ONCE_MAX);
    let asked: Vec<IntroPointDesc> = (0..turns).flat_map(|_| view.take_probes()).collect();
    assert!(asked.len() <= turns * limits::PROBES_AT_ONCE_MAX);
    let was_asked =
        |one: &IntroPointDesc| asked.iter().any(|other| other.ipt_sid_key() == one.ipt_sid_key());
    assert!(points.iter().all(was_asked));
}
