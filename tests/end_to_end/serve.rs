//! A stock C tor client reaches a web server through RustBalance: many fresh circuits, large
//! bodies, both directions at once, and the address's descriptor as tor reads it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::service::{Service, Spec};
use rustbalance_lab::client::{fresh_user, random_file, sha256};
use rustbalance_lab::{Lab, backend, measure, wait_until};

/// An nginx with files of these sizes, named by their size; the hashes, in order.
fn nginx(lab: &Lab, root: &std::path::Path, sizes: &[usize]) -> (String, String, Vec<String>) {
    let hashes = sizes
        .iter()
        .map(|size| random_file(root, &size.to_string(), *size).expect("it can be written"))
        .collect();
    let nginx = lab.nginx(root).expect("nginx starts");
    (nginx.address.to_string(), format!("unix:{}", nginx.socket.display()), hashes)
}

#[test]
fn two_hundred_fresh_circuits_none_fails_and_both_instances_serve() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let (tcp, _, hashes) = nginx(lab, root.path(), &[1024]);
    let service = Service::start(lab, &Spec { backends: vec![tcp], ..Spec::default() });
    let failed: Vec<String> = std::thread::scope(|scope| {
        let fetch = |_| {
            let (onion, hash) = (&service.onion, &hashes[0]);
            scope.spawn(move || {
                let mut failed = Vec::new();
                for _ in 0..50 {
                    match client.fetch_fresh(onion, 80, "/1024") {
                        Ok(answer) if answer.sha256() == *hash => {}
                        Ok(answer) => failed.push(format!("{} {}", answer.status, answer.sha256())),
                        Err(error) => failed.push(format!("{error:#}")),
                    }
                }
                failed
            })
        };
        let threads: Vec<_> = (0..4).map(fetch).collect();
        threads.into_iter().flat_map(|one| one.join().expect("a client does not panic")).collect()
    });
    assert!(failed.is_empty(), "{} of 200 failed: {failed:?}\n{}", failed.len(), service.log());
    let status = service.service_status();
    let served: Vec<u64> = status["instances"]
        .as_array()
        .expect("instances are a list")
        .iter()
        .map(|one| one["streams_total"].as_u64().expect("it is known"))
        .collect();
    assert_eq!(served.iter().sum::<u64>(), 200, "{status:#}");
    for share in &served {
        assert!((50..=150).contains(share), "each serves 25 to 75 %: {served:?}");
    }
    assert!(
        status["summary"]
            .as_str()
            .is_some_and(|line| line.starts_with("Aggregating 2/2 Instances. Master Onion: ")),
        "{status:#}"
    );
}

#[test]
fn large_bodies_arrive_intact_over_tcp_and_unix_sockets() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let sizes = [1_000_000, 100_000_000];
    let (tcp, unix, hashes) = nginx(lab, root.path(), &sizes);
    for (backend, bodies) in [(tcp, 2), (unix, 1)] {
        let service = Service::start(lab, &Spec { backends: vec![backend], ..Spec::default() });
        for (size, hash) in sizes.iter().zip(&hashes).take(bodies) {
            let answer = client
                .fetch_fresh(&service.onion, 80, &format!("/{size}"))
                .unwrap_or_else(|error| panic!("{size}: {error:#}\n{}", service.log()));
            assert_eq!(answer.sha256(), *hash, "{size} bytes");
        }
        let instances = service.service_status()["instances"].clone();
        let sent: u64 = instances
            .as_array()
            .expect("instances are a list")
            .iter()
            .filter_map(|one| one["bytes_out_total"].as_u64())
            .sum();
        let least: usize = sizes.iter().take(bodies).sum();
        assert!(sent >= least as u64, "the counters saw {sent} of {least} bytes");
    }
}

/// Send back what comes, until it ends. Ends with the test's process.
pub(crate) fn echo() -> String {
    let serve = |stream: TcpStream| {
        let (mut from, mut to) = (&stream, &stream);
        let _ = std::io::copy(&mut from, &mut to);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    };
    backend(serve).expect("loopback has ports")
}

#[test]
fn both_directions_at_once() {
    const BYTES: usize = 20_000_000;
    let (lab, client) = crate::lab();
    let service = Service::start(lab, &Spec { backends: vec![echo()], ..Spec::default() });
    let mut stream =
        client.stream(&service.onion, 80, &fresh_user()).expect("the service can be reached");
    let mut sent = vec![0_u8; BYTES];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut sent);
    let hash = sha256(&sent);
    let mut writer = stream.try_clone().expect("there are descriptors");
    let writing = std::thread::spawn(move || writer.write_all(&sent));
    let mut received = vec![0; BYTES];
    stream.read_exact(&mut received).expect("everything comes back");
    writing.join().expect("no panic").expect("everything was sent");
    assert_eq!(sha256(&received), hash);
}

#[test]
fn tor_and_the_status_agree_about_the_descriptor() {
    let (lab, client) = crate::lab();
    let service = Service::start(lab, &Spec::default());
    // `ready` comes with the first point of each instance; the others follow.
    wait_until("a descriptor with every point on every HSDir", 60, || {
        let status = service.service_status();
        let list = status["descriptors"].as_array()?;
        let whole = |one: &serde_json::Value| {
            one["intro_points"] == 6 && one["hsdirs_ok"] == one["hsdirs_total"]
        };
        list.iter().all(whole).then_some(())
    })
    .expect("the descriptor is completed");
    let document = client
        .control()
        .expect("the client answers")
        .fetch_descriptor(&service.onion)
        .expect("tor finds the descriptor and accepts it");
    let revision = document.lines().find_map(|line| line.strip_prefix("revision-counter "));
    let revision: u64 = revision.and_then(|text| text.parse().ok()).expect("it has a counter");
    let status = service.service_status();
    let published = status["descriptors"].as_array().expect("descriptors are a list");
    assert!(
        published.iter().any(|one| one["revision"].as_u64() == Some(revision)),
        "tor has {revision}, status says {published:#?}"
    );
}

#[test]
fn one_link_to_a_guard_and_reactors_where_they_belong() {
    let (lab, client) = crate::lab();
    let spec = Spec { instances: 4, ..Spec::default() };
    let service = Service::start(lab, &spec);
    for _ in 0..20 {
        client.fetch_fresh(&service.onion, 80, "/").expect("the built-in page comes");
    }
    let connections = measure::connections_to_relays(service.pid(), lab.relays());
    assert!(!connections.is_empty(), "a running service has links");
    for (relay, count) in &connections {
        assert_eq!(*count, 1, "links to {relay}: {connections:?}");
    }
    let status = service.status();
    for link in status["links"].as_array().expect("links are a list") {
        assert!(link["core"].is_u64(), "a link's reactor runs on a data core: {link:#}");
    }
    // Every introduction point and every client is a circuit on one of them. What is counted when a
    // link opens is known a few seconds later.
    let needed: u64 = status["services"][0]["instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["intro_points"].as_u64().expect("a number"))
        .sum();
    wait_until("circuits are counted by link", 30, || {
        let links = service.status()["links"].as_array().expect("a list").clone();
        let refused = links.iter().filter_map(|link| link["creates_refused_total"].as_u64());
        assert_eq!(refused.sum::<u64>(), 0, "{links:#?}");
        let open: u64 = links.iter().filter_map(|link| link["circuits"].as_u64()).sum();
        (needed > 0 && open >= needed).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{:#}", service.status()));
    // Circuits run on the core that asked for them: each data core has asked for some.
    for instance in status["services"][0]["instances"].as_array().expect("a list") {
        assert!(instance["circuits_started_total"].as_u64() > Some(0), "{instance:#}");
    }
    // And the kernel says so as well: every data core's thread has worked.
    let threads = measure::thread_cpu_seconds(service.pid());
    for core in 0..4 {
        assert!(threads.contains_key(&format!("data-{core}")), "{threads:?}");
    }
}

#[test]
fn stacks_with_source_addresses_share_guards_and_no_address() {
    let (lab, client) = crate::lab();
    let sources = ["127.0.0.51".to_owned(), "127.0.0.52".to_owned()];
    let turbo_lines = format!("stacks = 2\nsource_addresses = {sources:?}\n");
    let service = Service::start(lab, &Spec { turbo_lines, ..Spec::default() });
    for _ in 0..20 {
        client.fetch_fresh(&service.onion, 80, "/").expect("the built-in page comes");
    }
    let links = measure::links(service.pid(), lab.relays());
    let from = |source: &str| -> BTreeSet<&str> {
        let own = links.iter().filter(|(local, _)| local == source);
        own.map(|(_, relay)| relay.as_str()).collect()
    };
    let (first, second) = (from(&sources[0]), from(&sources[1]));
    // The first stack has asked for the directory as well, where it liked.
    assert!(!second.is_empty() && second.is_subset(&first), "{links:?}");
    assert_eq!(first.len() + second.len(), links.len(), "one from each address: {links:?}");
    let status = service.status();
    let of_stack = |stack: u64| -> BTreeSet<u64> {
        let links = status["links"].as_array().expect("links are a list").iter();
        let own = links.filter(|link| link["stack"] == stack);
        own.filter_map(|link| link["guard"].as_u64()).collect()
    };
    assert!(of_stack(1).is_subset(&of_stack(0)), "{status:#}");
}

#[test]
fn a_lost_introduction_point_is_replaced_and_published_again() {
    let lab = Lab::start(rustbalance_lab::LabOptions { quiet: true, ..Default::default() })
        .expect("a lab of its own, since it loses a relay");
    let client = lab.client("intro").expect("a client starts");
    let spec = Spec { instances: 1, ..Spec::default() };
    let service = Service::start(&lab, &spec);
    let revision = |service: &Service| {
        let status = service.service_status();
        let list = status["descriptors"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|one| one["revision"].as_u64()).max().unwrap_or(0)
    };
    wait_until("three points", 30, || {
        (service.service_status()["instances"][0]["intro_points"] == 3).then_some(())
    })
    .expect("the points come up");
    // Where the points are, only a client knows.
    let mut tor = client.control().expect("it has a control port");
    let mut points = BTreeSet::new();
    wait_until("every point is used", 60, || {
        let fetch = || client.fetch_fresh(&service.onion, 80, "/").map(drop);
        points.insert(tor.introduction_point(fetch).expect("tor says where it introduces itself"));
        (points.len() == 3).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {points:?}\n{}", service.log()));
    let before = revision(&service);
    // Rather not an authority, and what we have a link to last: it is our guard, or was asked for
    // the directory.
    let linked = measure::connections_to_relays(service.pid(), lab.relays());
    let relays = lab.relays().iter().filter(|relay| points.contains(&relay.nickname));
    let relay = relays
        .min_by_key(|relay| (linked.contains_key(&relay.nickname), relay.v3ident.is_some()))
        .expect("points are at relays");
    lab.stop_relay(relay).expect("it runs");
    wait_until("three points again, published", 120, || {
        let status = service.service_status();
        let points = &status["instances"][0]["intro_points"];
        let published = status["descriptors"]
            .as_array()?
            .iter()
            .all(|one| one["intro_points"] == 3 && one["hsdirs_ok"].as_u64() >= Some(1));
        (*points == 3 && published && revision(&service) > before).then_some(())
    })
    .unwrap_or_else(|error| {
        let (status, log) = (service.service_status(), service.log());
        panic!("{}: {error}\n{status:#}\n{log}", relay.nickname)
    });
    client.fetch_fresh(&service.onion, 80, "/").expect("the service is still reached");
}

#[test]
fn a_stack_for_each_instance_has_guards_of_its_own() {
    let (lab, client) = crate::lab();
    let spec = Spec { turbo_lines: "stacks = \"per-instance\"".to_owned(), ..Spec::default() };
    let service = Service::start(lab, &spec);
    for _ in 0..20 {
        client.fetch_fresh(&service.onion, 80, "/").unwrap_or_else(|error| {
            panic!("{error:#}\n{}", service.log());
        });
    }
    let status = service.status();
    let links = status["links"].as_array().expect("links are a list");
    // Directory fetches open links as well, but only a guard carries rendezvous.
    let guard = |stack: u64| {
        let own = links.iter().filter(|link| link["stack"].as_u64() == Some(stack));
        own.max_by_key(|link| link["bytes_out_total"].as_u64()).cloned()
    };
    let first = guard(0).expect("the first stack has a link");
    let second = guard(1).expect("the second stack has a link");
    assert_ne!(first["guard"], second["guard"], "{links:#?}");
    // No cell crosses a core: a stack's link is driven by its instance's core.
    assert_eq!((first["core"].as_u64(), second["core"].as_u64()), (Some(0), Some(1)), "{links:#?}");
}
