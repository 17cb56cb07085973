//! Twelve instances of three points each: more than one descriptor holds. The HSDirs that clients
//! ask hold different ones, which name all twelve together, and clients that know no descriptor
//! reach all twelve.

#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::collections::BTreeSet;
use std::time::Instant;

use rustbalance_lab::{Client, Lab, Size, wait_until};
use serde_json::Value;
use service::{Service, Spec, state_dir};

/// Instances.
const INSTANCES: u64 = 12;
/// Clients, each with a tor of its own, and connections of each: 300 in all.
const CLIENTS: usize = 12;
/// See [`CLIENTS`].
const CONNECTIONS: usize = 25;
/// tor obeys NEWNYM, which makes it forget descriptors, once in ten seconds (`MAX_SIGNEWNYM_RATE`).
const NEW_IDENTITY_SECONDS: u64 = 11;

/// What the HSDirs hold, once every instance has its points and all HSDirs hold the newest. In a
/// network of 16 relays not every point finds a place: a document names no relay twice.
fn verified(service: &Service) -> Value {
    let socket = state_dir(service).join("admin.sock");
    wait_until("every HSDir holds the newest, with points of every instance", 300, || {
        let status = service.service_status();
        let summary = format!("Aggregating {INSTANCES}/{INSTANCES} ");
        let has_points = |one: &Value| one["intro_points"] == 3;
        let complete = status["instances"].as_array()?.iter().all(has_points)
            && status["summary"].as_str()?.starts_with(&summary);
        if !complete {
            return None;
        }
        let found = rustbalance::admin::client::verify(&socket, None).expect("it answers");
        found[0].is_good().then(|| serde_json::to_value(&found[0]).expect("it is JSON"))
    })
    .unwrap_or_else(|error| panic!("{error}\n{:#}\n{}", service.service_status(), service.log()))
}

/// Fetch with fresh descriptors, so many times; what failed.
fn connect(client: &Client, onion: &str) -> Vec<String> {
    let mut control = client.control().expect("it has a control port");
    let mut failed = Vec::new();
    for _ in 0..CONNECTIONS {
        let begun = Instant::now();
        control.new_identity().expect("tor obeys");
        if let Err(error) = client.fetch_fresh(onion, 80, "/") {
            failed.push(format!("{error:#}"));
        }
        wait_until("the next signal counts", 60, || {
            (begun.elapsed().as_secs() >= NEW_IDENTITY_SECONDS).then_some(())
        })
        .expect("time passes");
    }
    failed
}

#[test]
fn twelve_instances_of_three_points_are_all_found_and_all_reached() {
    let lab = Lab::shared(Size::Full).expect("a lab can be had");
    let service = Service::start(&lab, &Spec { instances: 12, ..Spec::default() });
    let found = verified(&service);
    let hsdirs = found["verification"]["hsdirs"].as_array().expect("a list");
    let periods: BTreeSet<u64> = hsdirs.iter().filter_map(|one| one["period"].as_u64()).collect();
    for period in periods {
        let of_period = hsdirs.iter().filter(|one| one["period"] == period);
        let asked: Vec<&Value> = of_period.filter(|one| one["asked"] == true).collect();
        let revisions: BTreeSet<u64> =
            asked.iter().filter_map(|one| one["revision"].as_u64()).collect();
        assert_eq!(revisions.len(), 1, "one counter for all documents: {found:#}");
        let mut replicas = vec![BTreeSet::new(); INSTANCES as usize];
        for one in &asked {
            let points = one["intro_points"].as_u64().expect("it is known");
            assert!((1..=16).contains(&points), "{one:#}");
            for share in one["points"].as_array().expect("a list") {
                let instance = share["instance"].as_u64().expect("a number") as usize;
                replicas[instance].insert(one["replica"].as_u64());
            }
        }
        assert!(replicas.iter().all(|met| met.len() == 2), "{replicas:?}\n{found:#}");
    }
    let status = service.service_status();
    assert_eq!(status["descriptors"][0]["variants"], 6, "{status:#}");
    assert!(status["descriptors"][0]["intro_points"].as_u64() > Some(20), "{status:#}");
    assert!(status["descriptors"][0]["size_bytes"].as_u64() < Some(30_000), "{status:#}");

    let clients: Vec<Client> = (0..CLIENTS)
        .map(|number| lab.client(&format!("variants-{number}")).expect("a client starts"))
        .collect();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            clients.iter().map(|client| scope.spawn(|| connect(client, &service.onion))).collect();
        threads.into_iter().flat_map(|one| one.join().expect("a client does not panic")).collect()
    });
    let all = CLIENTS * CONNECTIONS;
    assert!(failed.is_empty(), "{} of {all} failed: {failed:?}\n{}", failed.len(), service.log());
    let status = service.service_status();
    let introduced: Vec<u64> = status["instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["introductions_total"].as_u64().expect("it is known"))
        .collect();
    println!("introductions by instance: {introduced:?}");
    assert!(introduced.iter().sum::<u64>() >= all as u64, "{introduced:?}");
    // 25 each on average; fewer than 5 would be a chance of one in a million for each of them.
    assert!(introduced.iter().all(|count| *count >= 5), "{introduced:?}");
}
