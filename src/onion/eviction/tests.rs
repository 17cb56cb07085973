//! How many circuits close, of which services, and for what.

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::Semaphore;

use super::{Turn, evict, make_room_at, seats};
use crate::base::overload::{ClosedFor, Overload, Shortage};
use crate::limits;
use crate::onion::config::RemoteInterval;
use crate::onion::{Service, ServiceSettings};

/// A service with two instances.
fn service(overload: &Arc<Overload>) -> Arc<Service> {
    let settings = ServiceSettings {
        name: "main".to_owned(),
        intro_points_per_instance: 3,
        intro_points_max: 20,
        intro_dos: None,
        streams_per_circuit_max: 8,
        rendezvous_building_max: 8,
        remotes: Vec::new(),
        verify_interval: None,
        theft_check_interval: None,
        distinct_descriptors: true,
        remote_interval: RemoteInterval::default(),
    };
    Service::new(settings, 2, Vec::new(), Arc::clone(overload))
}

/// Streams of a circuit.
fn streams() -> (Arc<Semaphore>, usize) {
    (Arc::new(Semaphore::new(8)), 8)
}

/// Everybody who came when time began is old by then.
const LATER_MS: u64 = limits::CIRCUIT_UNUSED_MS + 1000;

#[test]
fn as_many_close_as_give_back_what_is_wanted_the_oldest_first_and_not_all_at_once() {
    let overload = Arc::new(Overload::default());
    let services = [service(&overload), service(&overload)];
    let seats = seats(&services);
    let place = |serial: u32| {
        let seat = seats[serial as usize % seats.len()].1;
        seat.circuits.enter(serial, streams(), 1000 - u64::from(serial))
    };
    let places: Vec<_> = (0..400).map(place).collect();
    let closed = || places.iter().map(|one| one.circuit.close_wanted().now_or_never().is_some());
    let unused = Turn::Unused..=Turn::Young;
    let wanted = (3 * limits::CIRCUIT_BYTES - 1, 0);
    let now = (LATER_MS, Shortage::Short);
    assert_eq!(evict(&seats, now, unused.clone(), wanted), 3);
    assert_eq!(closed().collect::<Vec<_>>()[397..], [true; 3]);
    assert_eq!(closed().filter(|closed| *closed).count(), 0, "each is told once");
    let all = (u64::MAX, 0);
    assert_eq!(evict(&seats, now, unused.clone(), all), 400 / limits::EVICT_ONE_OF as u64);
    // All of them have been idle for too long: whatever is wanted.
    let late = (LATER_MS + limits::CIRCUIT_IDLE_MS_MAX, Shortage::Short);
    assert_eq!(evict(&seats, late, unused, (0, 0)), 400 / limits::EVICT_ONE_OF as u64);
    let counted = [ClosedFor::Unused, ClosedFor::Idle, ClosedFor::Bytes];
    assert_eq!(counted.map(|reason| overload.closed_total(reason)), [103, 0, 0]);
}

#[test]
fn a_core_that_has_nearly_as_many_circuits_as_it_may_makes_room_for_new_clients() {
    let overload = Arc::new(Overload::default());
    let services = [service(&overload)];
    let seat = &services[0].seats()[0];
    let most = u32::try_from(limits::RENDEZVOUS_OPEN_MAX).expect("a few thousand");
    let open: Vec<_> = (0..most)
        .map(|serial| (seat.counters.open_rendezvous(), seat.circuits.enter(serial, streams(), 0)))
        .collect();
    assert_eq!(make_room_at(&services, LATER_MS), u64::from(most) / limits::EVICT_ONE_OF as u64);
    drop(open);
    assert_eq!(make_room_at(&services, LATER_MS), 0);
}

#[test]
fn what_moves_closes_only_for_what_is_above_the_budget() {
    let overload = Arc::new(Overload::default());
    let services = [service(&overload)];
    let seats = seats(&services);
    let places: Vec<_> = (0..4)
        .map(|serial| {
            let (free, most) = streams();
            let place = seats[0].1.circuits.enter(serial, (Arc::clone(&free), most), 0);
            free.try_acquire().expect("there are 8").forget();
            place.circuit.note_used(1);
            let flow = place.circuit.open_flow();
            flow.note_outward(Some(1));
            flow.note_outward(None);
            (place, flow)
        })
        .collect();
    let holding = || Turn::Stuck..=Turn::Moving;
    let full = |ms| (ms, Shortage::Full);
    // One of them moves all the time.
    assert_eq!(evict(&seats, full(1000), holding(), (u64::MAX, 0)), 0);
    places[2].1.note_outward(Some(1));
    let later = 1000 + limits::STREAM_STUCK_MS;
    assert_eq!(evict(&seats, full(later), holding(), (u64::MAX, 0)), 3);
    assert_eq!(evict(&seats, full(later), holding(), (u64::MAX, 1)), 1);
    assert_eq!(overload.closed_total(ClosedFor::Bytes), 4);
}
