//! Faults that last: a process that stood still for a minute and a half, a core that dies again and
//! again. For each, the service comes back without a restart.

#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustbalance_lab::{Client, Lab, Size, wait_until};
use service::{Service, Spec};

/// A lab and a client of this test's own.
fn lab(name: &str) -> (Lab, Client) {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    let client = lab.client(name).expect("a client starts");
    (lab, client)
}

/// Wait until five requests in a row are served; how long that took.
fn served_again(client: &Client, service: &Service, seconds: u64) -> Duration {
    let (started, mut in_a_row) = (Instant::now(), 0);
    wait_until("five requests in a row", seconds, || {
        in_a_row = match client.fetch_fresh(&service.onion, 80, "/") {
            Ok(_) => in_a_row + 1,
            Err(_) => 0,
        };
        (in_a_row == 5).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    started.elapsed()
}

/// Wait until the service is ready with every point.
fn whole_again(service: &Service) {
    wait_until("every instance serves", 180, || {
        let main = service.try_status()?["services"][0].clone();
        let instances = main["instances"].as_array()?.clone();
        let whole = |one: &serde_json::Value| one["state"] == "serving" && one["intro_points"] == 3;
        (main["state"] == "ready" && instances.iter().all(whole)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", service.status(), service.log()));
}

#[test]
fn a_process_that_stood_still_serves_again() {
    let (lab, client) = lab("stopped");
    let service = Service::start(&lab, &Spec::default());
    service.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    // Clients ask in vain meanwhile.
    while stopped.elapsed() < Duration::from_secs(90) {
        let impatient = client.clone().with_timeout(Duration::from_secs(10));
        assert!(impatient.fetch_fresh(&service.onion, 80, "/").is_err(), "it stands still");
    }
    service.signal(Signal::SIGCONT);
    let took = served_again(&client, &service, 120);
    println!("after 90 s of SIGSTOP: served again within {:.1} s", took.as_secs_f32());
    whole_again(&service);
}

#[test]
fn a_core_that_dies_again_and_again_is_started_again_and_again() {
    const DEATHS: usize = 6;
    let (lab, client) = lab("dying");
    let service = Service::start_with_fault(&lab, &Spec::default(), "core-dying:1:20");
    let (mut fetched, mut failed) = (0_u32, 0_u32);
    wait_until("the last death", 600, || {
        fetched += 1;
        failed += u32::from(client.fetch_fresh(&service.onion, 80, "/").is_err());
        (service.log().matches("the core died").count() >= DEATHS).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let took = served_again(&client, &service, 150);
    println!(
        "{DEATHS} deaths of a core: {failed} of {fetched} requests lost; after the last one \
         served again within {:.1} s",
        took.as_secs_f32()
    );
    assert!(failed * 2 < fetched, "{failed} of {fetched} failed\n{}", service.log());
    whole_again(&service);
}
