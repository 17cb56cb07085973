//! Two time periods and two shared random values come and go (8 minutes each in the lab) while
//! clients fetch: none fails. A new network has no shared random value for its first minutes, and
//! the specified stand-in is used: that it is replaced by a value is one change more.
//!
//! Beside it a service whose instances are one of this process, two C tor daemons, which close all
//! their introduction points when the shared random value changes, and one elsewhere, which does so
//! too and is asked for the new ones.

#[path = "end_to_end/arti_client.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod arti_client;
#[path = "end_to_end/daemon.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod daemon;
#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustbalance_lab::{Lab, OnionServiceSpec, Size};
use service::{Service, Spec, ctor_table};

/// Longer than two periods of 8 minutes.
const SECONDS: u64 = 20 * 60;
/// A network's third value is there after three runs of the protocol, and what is left of one.
const SECONDS_MAX: u64 = 36 * 60;
/// Values that have to be seen, so that one follows another twice.
const SHARED_RANDOMS: usize = 3;

/// One in so many requests may fail where C tor serves, too: between the moment at which tor closes
/// an instance's points and the next descriptor, a client may come to know only those.
const CTOR_SERVES: usize = 100;

/// A service with two daemons and an instance elsewhere. `root` has what lasts as long.
fn with_ctor(lab: &Lab, root: &Path) -> Service {
    let port_lines = ctor_table(lab, root, 2);
    let mut spec = Spec { instances: 1, port_lines, ..Spec::default() };
    let service = Service::start(lab, &spec);
    std::fs::write(root.join("index.html"), "elsewhere").expect("the directory is writable");
    let nginx = lab.nginx(root).expect("nginx starts");
    let elsewhere = OnionServiceSpec::instance(vec![(80, nginx.address.to_string())]);
    let elsewhere = lab.balanced_service(&elsewhere, &service.onion).expect("it starts");
    spec.service_lines = format!(
        "remote_interval_min_s = 5\nremote_interval_max_s = 20\n[[service.remote]]\naddress = \
         \"{}\"\n",
        elsewhere.hostname
    );
    service.configure(lab, &spec);
    service.signal(Signal::SIGHUP);
    daemon::all_serve(&service, 4);
    service
}

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
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let mixed = with_ctor(&lab, root.path());
    let mut mixed_failed = Vec::new();
    let started = Instant::now();
    let (mut periods, mut revisions) = (BTreeSet::new(), BTreeSet::new());
    let (mut fetched, mut failed) = (0_usize, Vec::new());
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
        if let Err(error) = client.fetch_fresh(&mixed.onion, 80, "/") {
            mixed_failed.push(format!("after {} s: {error:#}", started.elapsed().as_secs()));
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
    let streams: Vec<u64> = mixed.service_status()["instances"]
        .as_array()
        .map(|all| all.iter().filter_map(|one| one["streams_total"].as_u64()).collect())
        .unwrap_or_default();
    println!(
        "with C tor: {} of {fetched} failed, streams by instance {streams:?}: {mixed_failed:?}",
        mixed_failed.len()
    );
    println!("{fetched} requests, periods {periods:?}, {} shared random values", randoms.len());
    assert!(
        failed.is_empty(),
        "{} of {fetched} failed: {failed:?}\n{}",
        failed.len(),
        service.log()
    );
    assert!(mixed_failed.len() * CTOR_SERVES <= fetched, "{}", mixed.log());
    assert!(streams[1..].iter().sum::<u64>() > 0, "no daemon was met: {streams:?}");
}
