//! Two time periods come and go (8 minutes each in the lab) while clients fetch: none fails.

#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustbalance_lab::{Lab, Size};
use service::{Service, Spec};

/// Longer than two periods of 8 minutes.
const SECONDS: u64 = 20 * 60;

#[test]
fn two_period_rotations_without_a_failed_request() {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    let client = lab.client("rotation").expect("a client starts");
    let service = Service::start(&lab, &Spec::default());
    let started = Instant::now();
    let (mut periods, mut revisions) = (BTreeSet::new(), BTreeSet::new());
    let (mut fetched, mut failed) = (0_u32, Vec::new());
    while started.elapsed() < Duration::from_secs(SECONDS) {
        fetched += 1;
        if let Err(error) = client.fetch_fresh(&service.onion, 80, "/") {
            failed.push(format!("after {} s: {error:#}", started.elapsed().as_secs()));
        }
        let status = service.service_status();
        for one in status["descriptors"].as_array().expect("a list") {
            periods.extend(one["period"].as_u64());
            revisions.extend(one["revision"].as_u64());
        }
    }
    assert!(periods.len() >= 4, "two rotations show four periods or more: {periods:?}");
    assert!(revisions.len() >= 4, "{revisions:?}");
    assert!(fetched > 200, "{fetched}");
    assert!(
        failed.is_empty(),
        "{} of {fetched} failed: {failed:?}\n{}",
        failed.len(),
        service.log()
    );
}
