//! Two time periods and two shared random values come and go (8 minutes each in the lab) while
//! clients fetch: none fails. A new network has no shared random value for its first minutes, and
//! the specified stand-in is used: that it is replaced by a value is one change more.

#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustbalance_lab::{Lab, Size};
use service::{Service, Spec};

/// Longer than two periods of 8 minutes.
const SECONDS: u64 = 20 * 60;
/// A network's third value is there after three runs of the protocol, and what is left of one.
const SECONDS_MAX: u64 = 36 * 60;
/// Values that have to be seen, so that one follows another twice.
const SHARED_RANDOMS: usize = 3;

/// A shared random value of the consensus, if it has one.
fn shared_random(consensus: &str, which: &str) -> Option<String> {
    let line = consensus.lines().find(|line| line.starts_with(which))?;
    line.split(' ').nth(2).map(str::to_owned)
}

#[test]
fn two_rotations_of_period_and_shared_random_value_without_a_failed_request() {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    let client = lab.client("rotation").expect("a client starts");
    let service = Service::start(&lab, &Spec::default());
    let started = Instant::now();
    let (mut periods, mut revisions) = (BTreeSet::new(), BTreeSet::new());
    let (mut fetched, mut failed) = (0_u32, Vec::new());
    let mut randoms: Vec<String> = Vec::new();
    let (least, most) = (Duration::from_secs(SECONDS), Duration::from_secs(SECONDS_MAX));
    let goes_on = |randoms: &[String]| match started.elapsed() {
        elapsed if elapsed < least => true,
        elapsed => randoms.len() < SHARED_RANDOMS && elapsed < most,
    };
    while goes_on(&randoms) {
        fetched += 1;
        if let Err(error) = client.fetch_fresh(&service.onion, 80, "/") {
            failed.push(format!("after {} s: {error:#}", started.elapsed().as_secs()));
        }
        let status = service.service_status();
        for one in status["descriptors"].as_array().expect("a list") {
            periods.extend(one["period"].as_u64());
            revisions.extend(one["revision"].as_u64());
        }
        let consensus = lab.consensus().expect("a directory answers");
        let current = shared_random(&consensus, "shared-rand-current-value ");
        if let Some(current) = current.filter(|current| randoms.last() != Some(current)) {
            println!("after {} s: a shared random value", started.elapsed().as_secs());
            if let Some(last) = randoms.last() {
                let previous = shared_random(&consensus, "shared-rand-previous-value ");
                assert_eq!(previous.as_ref(), Some(last), "one follows another");
            }
            randoms.push(current);
        }
    }
    assert!(periods.len() >= 4, "two rotations show four periods or more: {periods:?}");
    assert!(revisions.len() >= 4, "{revisions:?}");
    assert!(randoms.len() >= SHARED_RANDOMS, "{randoms:?}");
    assert!(fetched > 200, "{fetched}");
    println!("{fetched} requests, periods {periods:?}, {} shared random values", randoms.len());
    assert!(
        failed.is_empty(),
        "{} of {fetched} failed: {failed:?}\n{}",
        failed.len(),
        service.log()
    );
}
