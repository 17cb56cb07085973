//! The guards' DoS defence, met as it is in life: relays and services in two network namespaces,
//! with the public network's parameters (`DoSCircuitCreationMinConnections=2`, `Rate=2`). More than
//! two rendezvous a second for three minutes over one link: no CREATE is refused and no client
//! fails. The control shows that the test can fail: a second link from the same address to the
//! same guard, and the guard refuses CREATEs. An upgrade is such a second link, for a while.

#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;
#[path = "end_to_end/upgrading.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod upgrading;

use std::time::{Duration, Instant};

use rustbalance_lab::{Client, Lab, LabOptions, Size, measure, wait_until};
use service::{Service, Spec};

/// Fetch from fresh circuits at `rate` a second for `seconds`: how many came, and what failed.
fn load(clients: &[Client], onions: &[&str], rate: u32, seconds: u64) -> (usize, Vec<String>) {
    let started = Instant::now();
    let total = u64::from(rate) * seconds;
    let workers = 12;
    let results: Vec<_> = std::thread::scope(|scope| {
        let worker = |worker: u64| {
            scope.spawn(move || {
                let mut results = Vec::new();
                // An open loop: each request has its intended start.
                for turn in (worker..total).step_by(workers) {
                    let due = Duration::from_secs_f64(turn as f64 / f64::from(rate));
                    let wait = due.saturating_sub(started.elapsed());
                    let (_bell, waiting) = std::sync::mpsc::sync_channel::<()>(1);
                    let _ = waiting.recv_timeout(wait);
                    let client = &clients[turn as usize % clients.len()];
                    let onion = onions[turn as usize % onions.len()];
                    let failed = |error| format!("due after {due:?}: {error:#}");
                    results.push(client.fetch_fresh(onion, 80, "/").map_err(failed));
                }
                results
            })
        };
        let running: Vec<_> = (0..workers as u64).map(worker).collect();
        running.into_iter().flat_map(|one| one.join().expect("no panic")).collect()
    });
    let count = results.len();
    (count, results.into_iter().filter_map(Result::err).collect())
}

/// A lab with namespaces, and clients in it.
fn lab() -> (Lab, Vec<Client>) {
    let options =
        LabOptions { size: Size::Full, netns: true, quiet: true, ..LabOptions::default() };
    let lab = Lab::start(options).expect("network namespaces can be made");
    let clients = (0..3).map(|turn| lab.client(&format!("c{turn}")).expect("it starts")).collect();
    (lab, clients)
}

#[test]
fn one_link_carries_more_than_two_rendezvous_a_second() {
    let (lab, clients) = lab();
    let service = Service::start(&lab, &Spec::default());
    let (count, failed) = load(&clients, &[&service.onion], 4, 180);
    assert!(count >= 700, "{count}");
    let status = service.service_status();
    assert!(failed.is_empty(), "{} of {count}: {failed:?}\n{status:#}", failed.len());
    for instance in status["instances"].as_array().expect("a list") {
        assert_eq!(instance["rendezvous_failed_total"], 0, "{instance:#}");
    }
    let connections = measure::connections_to_relays(service.pid(), lab.relays());
    assert!(connections.values().all(|count| *count == 1), "{connections:?}");
    assert_eq!(circuits_refused(&lab), 0, "a relay has refused CREATEs");
}

/// Circuits that the DoS defence of any relay has refused, by the relays' own reports.
fn circuits_refused(lab: &Lab) -> u64 {
    let one = |relay: &rustbalance_lab::Relay| relay.circuits_refused().expect("it reports");
    lab.relays().iter().map(one).sum()
}

#[test]
fn a_second_link_to_the_same_guard_is_refused_circuits() {
    let (lab, clients) = lab();
    // A second process with the first one's guards, at the same address. Guards are on disk for
    // certain once a process has ended.
    let mut earlier = Service::start(&lab, &Spec::default());
    earlier.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(earlier.wait(60).success(), "{}", earlier.log());
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let state = dir.path().join("state");
    copy(&service::state_dir(&earlier).join("arti/state"), &state.join("arti/state"));
    let first = Service::start_in(&lab, &Spec::default(), earlier.take_dir());
    let second = Service::start_in(&lab, &Spec::default(), dir);
    let guards = |service: &Service| {
        let connections = measure::connections_to_relays(service.pid(), lab.relays());
        connections.into_keys().collect::<std::collections::BTreeSet<_>>()
    };
    let shared: Vec<_> = guards(&first).intersection(&guards(&second)).cloned().collect();
    assert!(!shared.is_empty(), "{:?} {:?}", guards(&first), guards(&second));
    let (count, failed) = load(&clients, &[&first.onion, &second.onion], 8, 90);
    // Clients may be served all the same: arti turns to another guard when one refuses.
    let refused = circuits_refused(&lab);
    assert!(refused > 0, "no CREATE was refused; {} of {count} clients failed", failed.len());
    // And the services know it: those that were needed are counted, by link.
    let known = creates_refused(&first) + creates_refused(&second);
    println!("{refused} refused, of which {known} were needed; {} of {count} failed", failed.len());
    assert!((1..=refused).contains(&known), "{known} of {refused}\n{:#}", first.status());
    let slow = "a guard refuses circuits";
    assert!(first.log().contains(slow) || second.log().contains(slow), "{}", first.log());
}

#[test]
fn a_second_link_from_another_address_is_not_refused_circuits() {
    let (lab, clients) = lab();
    let mut sources = Vec::new();
    for _ in 0..2 {
        sources.push(lab.add_address().expect("a namespace has addresses"));
    }
    let turbo_lines = format!("stacks = 2\nsource_addresses = {sources:?}\n");
    let service = Service::start(&lab, &Spec { turbo_lines, ..Spec::default() });
    let links = measure::links(service.pid(), lab.relays());
    let from = |source: &String| -> std::collections::BTreeSet<&String> {
        links.iter().filter(|(local, _)| local == source).map(|(_, relay)| relay).collect()
    };
    let shared = from(&sources[0]).intersection(&from(&sources[1])).count();
    assert!(shared > 0, "two links to one guard: {links:?}");
    let (count, failed) = load(&clients, &[&service.onion], 8, 90);
    assert!(failed.is_empty(), "{} of {count}: {failed:?}", failed.len());
    assert_eq!(circuits_refused(&lab), 0, "a relay has refused CREATEs");
}

#[test]
fn an_upgrade_under_load_is_refused_no_circuit() {
    let (lab, _) = lab();
    // As `upgrading` says, C tor's client gives up requests at the start of a time period, and says
    // so.
    let said = tempfile::tempdir().expect("a temporary directory can be made");
    let file = |turn: usize| said.path().join(turn.to_string());
    let client = |turn: usize| {
        let torrc = format!("Log [rend]info file {}", file(turn).display());
        lab.client_with(&format!("u{turn}"), &torrc).expect("it starts")
    };
    let clients: Vec<_> = (0..3).map(client).collect();
    // Two services: each instance has a point of each, and each has descriptors to upload.
    let port_lines = "[[service]]\nname = \"second\"\n[[service.port]]\nvirtual = 80\nhello = true";
    let spec = Spec {
        instances: 4,
        top_lines: "drain_s = 10".to_owned(),
        port_lines: port_lines.to_owned(),
        ..Spec::default()
    };
    let service = Service::start(&lab, &spec);
    let old = u64::from(service.pid());
    let (count, failed, refused) = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| load(&clients, &[&service.onion], 1, 180));
        let asked = || service.service_status()["instances"][0]["rendezvous_total"].as_u64();
        // The guard has forgotten the start, as it has in life.
        wait_until("clients come", 90, || asked().filter(|count| *count >= 10)).expect("they do");
        let refused_by_old = creates_refused(&service);
        let upgraded = upgrading::upgrade(&lab, &service);
        upgraded.unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
        // The load goes on after the old one's end, when the new one builds ahead again.
        let (count, failed) = fetching.join().expect("no panic");
        (count, failed, (refused_by_old, creates_refused(&service)))
    });
    let by_guards = circuits_refused(&lab);
    let given_up = |turn: usize| {
        let said = std::fs::read_to_string(file(turn)).expect("the client has written it");
        said.matches(upgrading::GIVEN_UP).count()
    };
    let given_up: usize = (0..3).map(given_up).sum();
    println!(
        "{count} requests, {} failed, {given_up} given up by the client; refused: {refused:?}, \
         {by_guards}",
        failed.len()
    );
    let new = upgrading::serving(&service).expect("it answers");
    assert_ne!(new, old);
    let status = service.service_status()["instances"].clone();
    let _ = nix::sys::signal::kill(upgrading::process(new), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(by_guards, 0, "a relay has refused CREATEs\n{}", service.log());
    assert_eq!(refused, (0, 0), "circuits that were needed were refused");
    let by_client = failed.iter().filter(|error| error.ends_with("SOCKS error 1")).count();
    assert!(
        count == 180 && failed.len() == by_client && by_client <= given_up,
        "{} of {count}: {failed:?}\n{status:#}",
        failed.len()
    );
    let log = service.log();
    assert!(!log.contains("a guard refuses circuits"), "{log}");
    assert!(log.contains("the old process has ended"), "it was not noticed: {log}");
    let ended = || measure::has_ended(new).then_some(());
    wait_until("the last one ends", 60, ended).expect("it drains");
}

/// CREATEs that were refused on the links of the process that answers.
fn creates_refused(service: &Service) -> u64 {
    let links = service.status()["links"].as_array().expect("a list").clone();
    links.iter().filter_map(|link| link["creates_refused_total"].as_u64()).sum()
}

/// Copy a directory, each part readable for its owner alone.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(to).expect("it can be made");
    for entry in std::fs::read_dir(from).expect("it is there").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy(&path, &target),
            false => {
                std::fs::copy(&path, &target).expect("it can be copied");
            }
        }
    }
}
