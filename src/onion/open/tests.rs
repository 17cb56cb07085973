//! Whose turn it is to close, and what is seen of streams.

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::Semaphore;

use super::{Flow, OpenCircuits, Place, Turn};
use crate::base::overload::Shortage;
use crate::limits;

/// A circuit that opened at this time, on which so many streams are served.
fn enter(list: &OpenCircuits, serial: u32, opened_ms: u64, streams: usize) -> Place<'_> {
    let free = Arc::new(Semaphore::new(5));
    let held = free.try_acquire_many(u32::try_from(streams).expect("a few")).expect("there are 5");
    held.forget();
    let place = list.enter(serial, (free, 5), opened_ms);
    if streams > 0 {
        place.circuit.note_used(opened_ms);
    }
    place
}

/// Whose turn it is, one after another.
fn turns(
    list: &OpenCircuits,
    places: &[Place<'_>],
    now_ms: u64,
    shortage: Shortage,
) -> Vec<(Turn, u32)> {
    let mut all = list.candidates(now_ms, shortage);
    all.sort_by_key(|one| (one.turn, one.order));
    let serial = |one: &super::Candidate| {
        let place = places.iter().find(|place| Arc::ptr_eq(&place.circuit, &one.circuit));
        place.expect("it is one of them").serial
    };
    all.iter().map(|one| (one.turn, serial(one))).collect()
}

/// A stream whose client takes what it is sent, in the end.
fn download(flow: &Flow, bytes: usize) {
    flow.note_outward(Some(bytes));
    flow.note_outward(None);
}

#[test]
fn who_never_had_a_stream_goes_first_then_the_longest_idle_and_the_busiest_last() {
    use Shortage::{Full, Scarce, Short};
    let list = OpenCircuits::default();
    let begun = 1_000_000;
    let places = [
        enter(&list, 0, begun, 4),
        enter(&list, 1, begun + 1_000, 0),
        enter(&list, 2, begun, 0),
        enter(&list, 3, begun, 0),
        enter(&list, 4, begun, 0),
        enter(&list, 5, begun, 1),
        enter(&list, 6, begun, 1),
    ];
    // Those had streams.
    places[3].circuit.note_used(begun + 3_000);
    places[4].circuit.note_used(begun + 2_000);
    let busy: Vec<_> = (0..4).map(|_| places[0].circuit.open_flow()).collect();
    let stuck = places[5].circuit.open_flow();
    let silent = places[6].circuit.open_flow();
    busy.iter().chain([&stuck, &silent]).for_each(|flow| download(flow, 1000));
    silent.note_outward(Some(0));
    let at = |ms, shortage| turns(&list, &places, begun + ms, shortage);
    // The first look at streams.
    assert_eq!(at(4_000, Scarce), [(Turn::Idle, 4), (Turn::Idle, 3)]);
    assert_eq!(at(9_000, Short), []);
    busy.iter().for_each(|flow| download(flow, 1000));
    let now = limits::CIRCUIT_UNUSED_MS + 500;
    assert_eq!(at(now, Short), [(Turn::Unused, 2)]);
    let idle = [(Turn::Unused, 2), (Turn::Idle, 4), (Turn::Idle, 3), (Turn::Young, 1)];
    assert_eq!(at(now, Scarce), idle);
    let now = 4_000 + limits::STREAM_STUCK_MS;
    let unused = [(Turn::Unused, 2), (Turn::Unused, 1)];
    assert_eq!(at(now, Short), unused);
    let idle = [(Turn::Idle, 4), (Turn::Idle, 3)];
    let scarce = [&unused[..], &idle, &[(Turn::Stuck, 5)]].concat();
    assert_eq!(at(now, Scarce), scarce);
    busy.iter().for_each(|flow| download(flow, 1000));
    let full = [&scarce[..], &[(Turn::Quiet, 6), (Turn::Moving, 0)]].concat();
    assert_eq!(at(now, Full), full);
    // After a while all of them have been idle for longer than they may.
    let late = now + limits::CIRCUIT_IDLE_MS_MAX;
    busy.iter().for_each(|flow| download(flow, 1000));
    let scarce = at(late, Scarce);
    assert!(
        scarce.contains(&(Turn::Quiet, 6)),
        "a stream that moves nothing keeps none: {scarce:?}"
    );
    assert!(
        scarce.iter().all(|(_, serial)| *serial != 0),
        "the busy one is left alone: {scarce:?}"
    );
    assert_eq!(at(late, Short), [&unused[..], &idle].concat());
    assert!(list.candidates(begun + late, Short).iter().all(|one| one.overdue));
}

#[test]
fn a_stream_is_stuck_only_while_it_could_move_and_does_not() {
    let list = OpenCircuits::default();
    let place = enter(&list, 0, 1, 1);
    let flow = place.circuit.open_flow();
    let (mut now, places) = (1, [place]);
    let mut stuck = |flow: &Flow, note: fn(&Flow)| {
        note(flow);
        let _ = turns(&list, &places, now, Shortage::Scarce);
        now += limits::STREAM_STUCK_MS;
        !turns(&list, &places, now, Shortage::Scarce).is_empty()
    };
    assert!(!stuck(&flow, |_| {}), "nothing waits");
    assert!(stuck(&flow, |flow| flow.note_outward(None)), "its client takes nothing");
    assert!(!stuck(&flow, |flow| flow.note_outward(Some(9))), "it has taken all");
    assert!(stuck(&flow, |flow| flow.note_inward(Some(9))), "its backend takes nothing");
    assert!(!stuck(&flow, |flow| flow.note_inward(None)), "its backend has taken all");
    assert!(!stuck(&flow, |flow| flow.note_inward(Some(0))), "its client is done");
}

#[test]
fn streams_that_wait_for_a_backend_keep_no_circuit_for_ever() {
    let list = OpenCircuits::default();
    let places = [enter(&list, 0, 1, 1)];
    let at = |now_ms| turns(&list, &places, now_ms, Shortage::Scarce);
    assert_eq!(at(limits::CIRCUIT_IDLE_MS_MIN), []);
    assert_eq!(at(limits::CIRCUIT_IDLE_MS_MAX + 1), [(Turn::Quiet, 0)]);
}

#[test]
fn a_circuit_is_told_once_and_leaves_the_list_when_it_ends() {
    let list = OpenCircuits::default();
    let places = [enter(&list, 0, 1, 0), enter(&list, 1, 1, 0)];
    let closing = |place: &Place<'_>| place.circuit.close_wanted().now_or_never().is_some();
    assert!(list.has(0) && !list.has(4));
    assert!(list.close(0) && !list.close(4));
    assert!(closing(&places[0]) && !closing(&places[1]));
    assert!(!places[0].circuit.tell_to_close());
    let left = turns(&list, &places, 100_000, Shortage::Full);
    assert_eq!(left, [(Turn::Unused, 1)]);
    list.close_all();
    assert!(closing(&places[1]));
    assert_eq!(list.len(), 2);
    drop(places);
    assert_eq!(list.len(), 0);
}

#[test]
fn streams_that_are_gone_take_no_room() {
    let list = OpenCircuits::default();
    let place = enter(&list, 0, 1, 1);
    let _kept = place.circuit.open_flow();
    (0..10_000).for_each(|_| drop(place.circuit.open_flow()));
    let flows = place.circuit.flows.lock().expect("no panic").len();
    assert!(flows < 10, "{flows}");
}
