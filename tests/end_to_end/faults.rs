//! What clients see when something breaks: a backend that dies, refuses or is not there, a port
//! that is not served, a service that ends.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::serve::echo;
use crate::service::{Service, Spec};
use nix::sys::signal::Signal;
use rustbalance_lab::client::{fresh_user, random_file};
use rustbalance_lab::{backend, wait_until};

#[test]
fn a_backend_that_dies_in_mid_stream_ends_the_stream_and_nothing_else() {
    let (lab, client) = crate::lab();
    let dying = backend(|mut stream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        let _ = stream.write_all(&[7; 100_000]);
        // Dropping a socket with unread bytes resets it.
    })
    .expect("loopback has ports");
    let service = Service::start(lab, &Spec { backends: vec![dying], ..Spec::default() });
    for _ in 0..3 {
        let error = client
            .fetch_fresh(&service.onion, 80, "/")
            .expect_err("a tenth of a body is no answer");
        let text = format!("{error:#}");
        assert!(text.contains("body has") || text.contains("broke off"), "{text}");
    }
    wait_until("no stream is open", 10, || {
        let status = service.service_status();
        let instances = status["instances"].as_array()?;
        instances.iter().all(|one| one["streams_open"] == 0).then_some(())
    })
    .expect("the streams have ended");
    assert_eq!(service.service_status()["state"], "ready");
}

#[test]
fn a_refused_backend_ends_the_stream_at_once() {
    let (lab, client) = crate::lab();
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        listener.local_addr().expect("it is bound").to_string()
    };
    let service = Service::start(lab, &Spec { backends: vec![nobody], ..Spec::default() });
    let started = Instant::now();
    let error = client.stream(&service.onion, 80, &fresh_user()).expect_err("nobody is there");
    assert!(started.elapsed() < Duration::from_secs(30), "{error:#}");
    let status = service.service_status();
    assert_eq!(status["backends"][0]["state"], "down", "{status:#}");
    assert!(status["backends"][0]["failed_total"].as_u64() >= Some(1), "{status:#}");
}

/// Rendezvous circuits that a service has built, and streams to ports that it does not serve.
fn rendezvous_and_unknown_ports(service: &Service) -> (u64, u64) {
    let status = service.service_status();
    let instances = status["instances"].as_array().expect("there are some");
    let built = instances.iter().filter_map(|one| one["rendezvous_total"].as_u64()).sum();
    let unknown = status["circuits"]["unknown_ports_total"].as_u64();
    (built, unknown.expect("it is counted"))
}

#[test]
fn a_port_that_is_not_served_costs_the_circuit_unless_that_is_allowed() {
    let (lab, client) = crate::lab();
    for allowed in [false, true] {
        let service_lines = format!("allow_unknown_ports = {allowed}");
        let service_lines = if allowed { service_lines } else { String::new() };
        let spec = Spec { backends: vec![echo()], service_lines, ..Spec::default() };
        let service = Service::start(lab, &spec);
        let user = fresh_user();
        let mut open = client.stream(&service.onion, 80, &user).expect("it is served");
        let mut says_hello =
            || open.write_all(b"hello").and_then(|()| open.read_exact(&mut [0; 5]));
        says_hello().expect("it echoes");
        assert_eq!(rendezvous_and_unknown_ports(&service), (1, 0));
        client.stream(&service.onion, 81, &user).expect_err("nobody is there");
        assert_eq!(says_hello().is_ok(), allowed, "the other stream of this circuit");
        client.stream(&service.onion, 80, &user).expect("it is served");
        let circuits = if allowed { 1 } else { 2 };
        let counted = rendezvous_and_unknown_ports(&service);
        assert_eq!(counted, (circuits, 1), "allowed: {allowed}\n{}", service.log());
    }
}

#[test]
fn sigterm_lets_an_open_download_end() {
    let (lab, client) = crate::lab();
    let (open_gate, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let gate = Arc::new(Mutex::new(gate));
    let slow = backend(move |mut stream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 400000\r\n\r\n");
        let _ = stream.write_all(&[1; 200_000]);
        // The second half comes when the test has seen that the service drains.
        let _ = gate.lock().expect("nobody panics with the gate").recv();
        let _ = stream.write_all(&[2; 200_000]);
    })
    .expect("loopback has ports");
    let mut service = Service::start(lab, &Spec { backends: vec![slow], ..Spec::default() });
    let answer = std::thread::scope(|scope| {
        let onion = service.onion.clone();
        let download = scope.spawn(move || client.fetch_fresh(&onion, 80, "/"));
        wait_until("the download runs", 30, || {
            let status = service.service_status();
            let instances = status["instances"].as_array()?;
            instances.iter().any(|one| one["streams_open"] == 1).then_some(())
        })
        .expect("the download begins");
        service.signal(Signal::SIGTERM);
        wait_until("draining", 10, || {
            (service.service_status()["state"] == "draining").then_some(())
        })
        .expect("it says so");
        open_gate.send(()).expect("the backend waits");
        download.join().expect("no panic")
    });
    assert_eq!(answer.expect("the download came to its end").body.len(), 400_000);
    assert!(service.wait(30).success(), "{}", service.log());
}

/// By a clock that is ten minutes fast, the lab's consensus, which holds for 40 s, is over; by the
/// guard's it is not.
#[test]
fn a_clock_that_guard_and_consensus_prove_to_be_fast_stops_publishing_and_says_so() {
    let (lab, _) = crate::lab();
    let service = Service::start_with_clock(lab, &Spec::default(), "+10m");
    let said = wait_until("the clock is the reason", 60, || {
        let main = service.try_status()?["services"][0].clone();
        let reason = main["reason"].as_str()?.to_owned();
        (reason.contains("clock") && reason.contains("fast")).then_some(main)
    });
    let main = said.unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    assert_eq!(main["state"], "starting", "{main:#}");
    assert_eq!(main["descriptors"].as_array().map(Vec::len), Some(0), "{main:#}");
    let skew = service.try_status().and_then(|status| status["clock_skew_ms"].as_i64());
    assert!(skew.is_some_and(|skew| skew < -590_000), "{skew:?}");
}

#[test]
fn a_slow_clock_is_warned_of_and_the_service_is_published() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    random_file(root.path(), "page", 1000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let spec = Spec { backends: vec![nginx.address.to_string()], ..Spec::default() };
    let service = Service::start_with_clock(lab, &spec, "-10m");
    let ready = wait_until("ready", 90, || {
        let main = service.try_status()?["services"][0].clone();
        (main["state"] == "ready").then_some(main)
    });
    let main = ready.unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let onion = main["onion"].as_str().expect("it has an address");
    client.fetch_fresh(onion, 80, "/page").unwrap_or_else(|error| {
        panic!("{error:#}\n{}", service.log());
    });
    let skew = service.try_status().and_then(|status| status["clock_skew_ms"].as_i64());
    assert!(skew.is_some_and(|skew| skew > 590_000), "{skew:?}");
    assert!(service.log().contains("s slow: set it"), "{}", service.log());
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let (lab, client) = crate::lab();
    let endless = backend(|mut stream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        let _ = stream.write_all(&[1; 1000]);
        // Never ends by itself: comes back when the other side has gone.
        let _ = stream.read(&mut request);
    })
    .expect("loopback has ports");
    let mut service = Service::start(lab, &Spec { backends: vec![endless], ..Spec::default() });
    let mut stream =
        client.stream(&service.onion, 80, &fresh_user()).expect("the service can be reached");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it is open");
    stream.read_exact(&mut [0; 1000]).expect("bytes come");
    service.signal(Signal::SIGTERM);
    wait_until("draining", 10, || (service.service_status()["state"] == "draining").then_some(()))
        .expect("it says so");
    service.signal(Signal::SIGTERM);
    let status = service.wait(5);
    assert!(status.success(), "{status:?}");
}

/// As after a move to another machine without the file, from one whose clock was ahead.
#[test]
fn a_higher_counter_on_the_hsdirs_is_learnt_and_exceeded() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    random_file(root.path(), "page", 1000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let spec = Spec { backends: vec![nginx.address.to_string()], ..Spec::default() };
    let revisions = |service: &Service| -> Vec<u64> {
        let status = service.service_status();
        let list = status["descriptors"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|one| one["revision"].as_u64()).collect()
    };
    let mut first = Service::start(lab, &spec);
    first.signal(Signal::SIGKILL);
    first.wait(10);
    let dir = first.take_dir();
    let file = dir.path().join("state").join("revisions-main.json");
    let text = std::fs::read_to_string(&file).expect("the counters are on disk");
    let mut counters: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let ahead = 1_000_000_000_000_u64;
    for one in counters.as_object_mut().expect("counters by key").values_mut() {
        one["counter"] = ahead.into();
    }
    std::fs::write(&file, counters.to_string()).expect("it is ours");
    let mut second = Service::start_in(lab, &spec, dir);
    assert!(revisions(&second).iter().all(|revision| *revision > ahead));
    second.signal(Signal::SIGKILL);
    second.wait(10);
    let dir = second.take_dir();
    std::fs::remove_file(&file).expect("it is there");
    let third = Service::start_in(lab, &spec, dir);
    let exceeded = wait_until("every descriptor is newer than what the HSDirs held", 60, || {
        revisions(&third).iter().all(|revision| *revision > ahead + 1).then_some(())
    });
    exceeded.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", revisions(&third), third.log()));
    client.fetch_fresh(&third.onion, 80, "/page").expect("the service is reached");
}

#[test]
fn a_restart_keeps_the_address_and_the_guard_and_counts_on() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    random_file(root.path(), "page", 1000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let spec = Spec { backends: vec![nginx.address.to_string()], ..Spec::default() };
    let mut first = Service::start(lab, &spec);
    let revision = |service: &Service| {
        let status = service.service_status();
        let list = status["descriptors"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|one| one["revision"].as_u64()).max().unwrap_or(0)
    };
    let (onion, before) = (first.onion.clone(), revision(&first));
    first.signal(Signal::SIGKILL);
    first.wait(10);
    let second = Service::start_in(lab, &spec, first.take_dir());
    assert_eq!(second.onion, onion);
    assert!(revision(&second) > before, "a counter never goes back");
    client.fetch_fresh(&onion, 80, "/page").unwrap_or_else(|error| {
        panic!("a client with a cached descriptor fetches a new one: {error:#}")
    });
}
