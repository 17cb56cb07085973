//! The document, as arti's client side reads it.

use std::time::SystemTime;

use tor_bytes::Reader;
use tor_checkable::Timebound as _;
use tor_hscrypto::pk::{HsIntroPtSessionIdKey, HsSvcNtorKeypair};
use tor_hscrypto::time::TimePeriod;
use tor_linkspec::EncodedLinkSpec;
use tor_llcrypto::pk::{curve25519, ed25519};
use tor_netdir::params::NetParameters;
use tor_netdoc::doc::hsdesc::{HsDesc, IntroPointDesc};

use super::{DescriptorError, at_same_relay, build, point_name};
use crate::limits;
use crate::onion::period::PeriodKeys;
use crate::vault::MasterKey;

/// A point at a relay that does not exist; its document is like that of any other.
pub(in crate::onion) fn point(number: u8) -> IntroPointDesc {
    let mut rng = rand::rng();
    let secret = curve25519::StaticSecret::random_from_rng(&mut rng);
    // An IPv4 link specifier: type 0, six bytes.
    let specifier = [0, 6, 127, number, 0, 1, 0x13, 0x88];
    let specifier: EncodedLinkSpec =
        Reader::from_slice(&specifier).extract().expect("a well-formed link specifier");
    IntroPointDesc::builder()
        .link_specifiers(vec![specifier])
        .ipt_kp_ntor(curve25519::PublicKey::from(&secret))
        .kp_hs_ipt_sid(HsIntroPtSessionIdKey::from(
            ed25519::Keypair::generate(&mut rng).verifying_key(),
        ))
        .kp_hss_ntor(HsSvcNtorKeypair::generate(&mut rng).public().clone())
        .build()
        .expect("every field is set")
}

fn points(count: u8) -> Vec<(usize, IntroPointDesc)> {
    (0..count).map(|number| (usize::from(number) / 3, point(number))).collect()
}

pub(in crate::onion) fn keys() -> PeriodKeys {
    let period = TimePeriod::from_parts(1440, 20_000, 12 * 3600);
    PeriodKeys::derive(&MasterKey::generate(), period).expect("any key can be blinded")
}

#[test]
fn arti_reads_what_we_publish_and_finds_every_point() {
    let keys = keys();
    let ours = points(16);
    let now = SystemTime::now();
    let built =
        build(&keys, &ours, 7, true, &NetParameters::default(), now).expect("it can be built");
    let read =
        HsDesc::parse_decrypt_validate(&built.text, &keys.blinded.id(), &keys.subcredential, None)
            .expect("arti decrypts it")
            .dangerously_assume_timely();
    let mut expected: Vec<_> = ours.iter().map(|(_, point)| point_name(point)).collect();
    let mut found: Vec<_> = read.intro_points().iter().map(point_name).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn the_order_of_points_says_nothing_of_instances_and_stays() {
    let mut points = points(20);
    let order = |points: &[(usize, IntroPointDesc)]| -> Vec<usize> {
        let number = |point: &IntroPointDesc| {
            points.iter().position(|(_, one)| one.ipt_sid_key() == point.ipt_sid_key())
        };
        super::shuffled(points).iter().map(|one| number(one).expect("it is one of them")).collect()
    };
    let there = order(&points);
    assert_ne!(there, (0..20).collect::<Vec<_>>(), "one in two trillion million");
    points.reverse();
    let back: Vec<usize> = order(&points).iter().map(|at| 19 - at).collect();
    assert_eq!(back, there);
}

#[test]
fn twenty_points_fit_and_twenty_one_are_refused() {
    let keys = keys();
    let now = SystemTime::now();
    let params = NetParameters::default();
    let built = build(&keys, &points(20), 7, true, &params, now).expect("twenty are allowed");
    assert!(built.text.len() < 50_000, "{} bytes", built.text.len());
    let error = build(&keys, &points(21), 7, true, &params, now).expect_err("one too many");
    assert!(matches!(error, DescriptorError::TooManyPoints { count: 21, .. }), "{error}");
}

#[test]
fn the_default_number_of_points_stays_below_30_kb() {
    let count = limits::INTRO_POINTS_DEFAULT;
    let params = NetParameters::default();
    let built = build(&keys(), &points(count), 7, true, &params, SystemTime::now());
    assert!(built.expect("it can be built").text.len() < 30_000);
}

#[test]
fn points_at_one_relay_are_told_from_points_at_two() {
    assert!(at_same_relay(&point(1), &point(1)));
    assert!(!at_same_relay(&point(1), &point(2)));
}

#[test]
fn a_document_that_the_network_does_not_take_is_too_large() {
    let small = [("HSV3MaxDescriptorSize".to_owned(), 10_000)].into_iter().collect();
    let small: NetParameters = NetParameters::from_map(&small);
    let error = build(&keys(), &points(16), 7, true, &small, SystemTime::now());
    let error = error.expect_err("28 kB are more than 10");
    assert!(matches!(error, DescriptorError::TooLarge { points: 16, max: 10_000, .. }), "{error}");
}
