//! What a guest tells the service, and the service the publisher.

use std::num::NonZeroU8;
use std::sync::Arc;

use futures::FutureExt as _;
use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::GuestConfig;
use crate::onion::config::RemoteInterval;
use crate::onion::descriptor::tests::point;
use crate::onion::spread::{Board, spread};
use crate::onion::status::{Engine, GuestState};
use crate::onion::{Guest, Service, ServiceSettings};

/// A service with so many seats and two guests, of weights 1 and 3.
fn service(seats: usize) -> Arc<Service> {
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
    let guest =
        |(engine, weight)| GuestConfig { engine, label: "guest".to_owned(), address: None, weight };
    let guests = [(Engine::Remote, 1), (Engine::Ctor, 3)].map(guest).to_vec();
    Service::new(settings, seats, guests, Arc::default())
}

/// So many points.
fn points(count: u8) -> Vec<IntroPointDesc> {
    (0..count).map(point).collect()
}

/// Whether the publisher has been woken since the last call.
fn is_told(service: &Service) -> bool {
    service.points_changed().now_or_never().is_some()
}

/// The two guests of [`service`].
fn guests(service: &Service) -> [&Guest; 2] {
    [&service.guests()[0], &service.guests()[1]]
}

#[test]
fn the_publisher_hears_of_new_points_and_of_no_others() {
    let service = service(0);
    let [guest, _] = guests(&service);
    let mut some = points(3);
    service.set_guest_points(guest, some.clone(), None);
    assert!(is_told(&service));
    assert_eq!(guest.now().state, GuestState::Serving);
    some.rotate_left(1);
    service.set_guest_points(guest, some.clone(), None);
    assert!(!is_told(&service), "the same in another order");
    some[0] = point(7);
    service.set_guest_points(guest, some, None);
    assert!(is_told(&service));
    service.set_guest_percent(guest, 50);
    assert!(is_told(&service));
    service.set_guest_percent(guest, 50);
    assert!(!is_told(&service));
}

#[test]
fn one_that_has_failed_has_no_points_and_nobody_waits_for_it() {
    let service = service(0);
    let [first, second] = guests(&service);
    assert!(!service.has_points() && !service.has_points_everywhere());
    service.set_guest_points(first, points(2), None);
    assert!(service.has_points() && !service.has_points_everywhere());
    service.set_guest_state(second, GuestState::Failed, Some("it is gone".to_owned()));
    assert!(service.has_points_everywhere());
    assert!(is_told(&service));
    service.set_guest_state(first, GuestState::Failed, None);
    assert!(is_told(&service), "its points leave");
    assert!(!service.has_points() && !service.has_points_everywhere());
    service.set_guest_points(first, points(2), None);
    assert_eq!((first.now().state, first.now().points.len()), (GuestState::Serving, 2));
}

#[test]
fn guests_are_merged_under_the_numbers_after_those_of_the_seats() {
    let service = service(2);
    let [first, second] = guests(&service);
    service.set_points(&service.seats()[1], points(3));
    service.set_guest_points(first, points(3), None);
    service.set_guest_points(second, points(3), None);
    service.set_guest_percent(second, 50);
    let hands = service.hands();
    let shares: Vec<u32> = hands.iter().map(|hand| hand.share).collect();
    assert_eq!(shares, [100, 100, 100, 150]);
    let owners = |service: &Service| {
        let board = Board { replicas: 2, asked: 3, points_max: 20, may_differ: true };
        let dealt = spread(&service.hands(), board, |_, _| false);
        let mut owners: Vec<usize> = dealt.sets[0].iter().map(|(owner, _)| *owner).collect();
        owners.sort_unstable();
        owners
    };
    let expected = [1, 1, 2, 2, 3, 3, 3];
    assert_eq!(owners(&service), expected, "two thirds of the points for two thirds of the share");
    // What is wrong on this machine is wrong for its daemons as well, but not for others.
    service.set_local_percent(0);
    assert!(is_told(&service));
    assert!(owners(&service).iter().all(|owner| *owner == 2), "{:?}", owners(&service));
}

#[test]
fn congestion_control_is_offered_if_every_instance_with_points_does_it() {
    let service = service(1);
    let [first, second] = guests(&service);
    assert!(service.offers_congestion_control(31), "ours do");
    service.set_guest_points(first, points(1), NonZeroU8::new(31));
    assert!(is_told(&service) && service.offers_congestion_control(31));
    assert!(!service.offers_congestion_control(32), "with another increment");
    service.set_guest_points(second, points(1), None);
    assert!(!service.offers_congestion_control(31));
    service.set_guest_state(second, GuestState::Failed, None);
    assert!(service.offers_congestion_control(31));
    let same = first.points().to_vec();
    assert!(is_told(&service));
    service.set_guest_points(first, same, None);
    assert!(is_told(&service) && !service.offers_congestion_control(31));
}
