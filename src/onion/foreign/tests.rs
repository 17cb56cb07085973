//! What is taken from a descriptor that somebody else has signed.

use std::time::{Duration, SystemTime};

use tor_hscrypto::time::TimePeriod;
use tor_linkspec::{EncodedLinkSpec, LinkSpecType};
use tor_netdir::params::NetParameters;
use tor_netdir::testnet::construct_netdir;
use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::{ForeignError, ForeignKeys, usable};
use crate::onion::descriptor::{build, tests::point};
use crate::onion::period::PeriodKeys;
use crate::vault::MasterKey;

/// `point` with other link specifiers.
fn with(point: &IntroPointDesc, specifiers: Vec<EncodedLinkSpec>) -> IntroPointDesc {
    IntroPointDesc::builder()
        .link_specifiers(specifiers)
        .ipt_kp_ntor(*point.ipt_ntor_key())
        .kp_hs_ipt_sid(point.ipt_sid_key().clone())
        .kp_hss_ntor(point.svc_ntor_key().clone())
        .build()
        .expect("every field is set")
}

#[test]
fn of_hostile_points_those_that_clients_can_use_are_left() {
    let good: Vec<IntroPointDesc> = (0..3).map(point).collect();
    let long = EncodedLinkSpec::new(LinkSpecType::from(99), vec![0; 200]);
    let many = vec![EncodedLinkSpec::new(LinkSpecType::from(99), vec![0; 2]); 9];
    let mut offered = good.clone();
    offered.push(good[0].clone());
    offered.push(with(&point(3), vec![long]));
    offered.push(with(&point(4), many));
    assert_eq!(usable(&offered, |_| true).len(), 3);
    assert!(usable(&offered, |_| false).is_empty());
    let flood: Vec<IntroPointDesc> = (0..60).map(point).collect();
    assert_eq!(usable(&flood, |_| true).len(), 20);
}

#[test]
fn a_descriptor_is_read_by_its_address_alone_and_nobody_elses_is() {
    let period = TimePeriod::from_parts(1440, 20_000, 12 * 3600);
    let master = MasterKey::generate();
    let netdir = construct_netdir().unwrap_if_sufficient();
    let netdir = netdir.unwrap_or_else(|_| panic!("it has all it needs"));
    let points: Vec<_> = (0..3).map(|number| (0, point(number))).collect();
    let own = PeriodKeys::derive(&master, period).expect("any key can be blinded");
    let now = SystemTime::now();
    let params = NetParameters::default();
    let keys = ForeignKeys::derive(master.onion_address(), period).expect("an address");
    for offered in [true, false] {
        let built = build(&own, &points, 7, offered, &params, now).expect("it can be built");
        // These points have no relay identities, so that no client could use them.
        let found = keys.read(built.text(), &netdir, now);
        assert!(matches!(found, Err(ForeignError::NoPoint)), "{found:?}");
        let later = now + Duration::from_secs(60 * 3600);
        let found = keys.read(built.text(), &netdir, later);
        assert!(matches!(found, Err(ForeignError::Expired)), "{found:?}");
        let address = MasterKey::generate().onion_address();
        let other = ForeignKeys::derive(address, period).expect("an address");
        let found = other.read(built.text(), &netdir, now);
        assert!(matches!(found, Err(ForeignError::Invalid(_))), "{found:?}");
    }
}
