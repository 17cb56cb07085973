//! The choice of points, and the document itself as arti's client side reads it.

use std::sync::Arc;
use std::time::SystemTime;

use tor_bytes::Reader;
use tor_checkable::Timebound as _;
use tor_hscrypto::pk::{HsIntroPtSessionIdKey, HsSvcNtorKeypair};
use tor_hscrypto::time::TimePeriod;
use tor_linkspec::EncodedLinkSpec;
use tor_llcrypto::pk::{curve25519, ed25519};
use tor_netdir::params::NetParameters;
use tor_netdoc::doc::hsdesc::{HsDesc, IntroPointDesc};

use super::{DescriptorError, Place, build, select};
use crate::limits;
use crate::onion::period::PeriodKeys;
use crate::vault::MasterKey;

fn by_instance(sizes: &[usize]) -> Vec<Place<usize>> {
    let place = |(instance, size): (usize, &usize)| Place {
        instance,
        points: Arc::new((0..*size).collect()),
        share: 100,
    };
    sizes.iter().enumerate().map(place).collect()
}

#[test]
fn whoever_has_no_share_serves_only_while_nobody_else_can() {
    let mut places = by_instance(&[3, 3]);
    places[1].share = 0;
    assert!(select(&places, 16).iter().all(|(owner, _)| *owner == 0));
    places[0].points = Arc::default();
    assert_eq!(select(&places, 16).len(), 3);
}

#[test]
fn every_instance_gets_a_share() {
    let chosen = select(&by_instance(&[3, 3, 3, 3, 3, 3, 3, 3]), 16);
    assert_eq!(chosen.len(), 16);
    for instance in 0..8 {
        let share = chosen.iter().filter(|(owner, _)| *owner == instance).count();
        assert_eq!(share, 2, "instance {instance}");
    }
}

#[test]
fn what_one_instance_lacks_the_others_fill() {
    let chosen = select(&by_instance(&[1, 0, 20]), 16);
    assert_eq!(chosen.len(), 16);
    assert_eq!(chosen.iter().filter(|(owner, _)| *owner == 0).count(), 1);
    assert_eq!(chosen.iter().filter(|(owner, _)| *owner == 2).count(), 15);
}

#[test]
fn the_choice_is_stable_and_never_above_the_cap() {
    for instances in 1..40 {
        let all = by_instance(&vec![3; instances]);
        let chosen = select(&all, 20);
        assert!(chosen.len() <= 20);
        assert_eq!(chosen, select(&all, 20));
    }
}

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

fn keys() -> PeriodKeys {
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
    let name = |point: &IntroPointDesc| {
        let key: &ed25519::PublicKey = point.ipt_sid_key().as_ref();
        *key.as_bytes()
    };
    let mut expected: Vec<_> = ours.iter().map(|(_, point)| name(point)).collect();
    let mut found: Vec<_> = read.intro_points().iter().map(name).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!((built.intro_points, built.instances), (16, 6));
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
