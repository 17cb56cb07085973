//! What HAProxy was for: backends that die and come back, that are taken out by hand, that wait for
//! a place; and a real HAProxy behind us that reads the circuit from the PROXY header.

use std::net::SocketAddr;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustbalance_lab::client::fresh_user;
use rustbalance_lab::{Client, Haproxy, Lab, OnionServiceSpec, free_port, wait_until};
use serde_json::Value;

use crate::service::{Service, Spec, state_dir};

/// An nginx that says `name`: its address and its process.
fn named(lab: &Lab, root: &std::path::Path, name: &str) -> (String, u32) {
    let root = root.join(name);
    std::fs::create_dir(&root).expect("a directory can be made");
    std::fs::write(root.join("who"), name).expect("a file can be written");
    let nginx = lab.nginx(&root).expect("nginx starts");
    (nginx.address.to_string(), nginx.pid)
}

/// Who answers each of `requests`, every one of which is answered.
fn answers(client: &Client, service: &Service, requests: usize) -> Vec<String> {
    let ask = |_| {
        let answer = client.fetch_fresh(&service.onion, 80, "/who");
        let answer = answer.unwrap_or_else(|error| panic!("{error:#}\n{}", service.log()));
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).expect("a name")
    };
    (0..requests).map(ask).collect()
}

/// Wait until the backend of this address is in this state, and give what status says of it.
fn wait_for(service: &Service, address: &str, state: &str) -> Value {
    let is = |one: &&Value| one["address"] == address && one["state"] == state;
    wait_until(&format!("{address} is {state}"), 30, || {
        let status = service.service_status();
        status["backends"].as_array().and_then(|all| all.iter().find(is).cloned())
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", service.status(), service.log()))
}

/// `rustbalance backend ...`: whether it worked, and what it said.
fn backend(service: &Service, words: &[&str]) -> (bool, String) {
    rustbalance(service, &[&["backend"], words].concat())
}

/// `rustbalance ...`: whether it worked, and what it said.
pub fn rustbalance(service: &Service, words: &[&str]) -> (bool, String) {
    let socket = state_dir(service).join("admin.sock");
    let output = Command::new(env!("CARGO_BIN_EXE_rustbalance"))
        .args(words)
        .arg("--socket")
        .arg(socket)
        .output()
        .expect("the binary was built");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_backend_that_dies_or_is_taken_out_costs_no_request() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let ((one, one_pid), (two, _)) =
        (named(lab, root.path(), "one"), named(lab, root.path(), "two"));
    let service = Service::start(
        lab,
        &Spec {
            backends: vec![one.clone(), two.clone()],
            port_lines: "[service.port.check]\npath = \"/who\"\ninterval_s = 1".to_owned(),
            ..Spec::default()
        },
    );
    assert_eq!(wait_for(&service, &two, "up")["state"], "up");
    let both = answers(client, &service, 6);
    assert_eq!(both.iter().filter(|name| *name == "one").count(), 3, "{both:?}");

    let (worked, said) = backend(&service, &["drain", &two]);
    assert!(worked && said == format!("{two} gets no new stream\n"), "{said}");
    assert_eq!(answers(client, &service, 3), ["one"; 3]);
    let (worked, said) = backend(&service, &["list"]);
    assert!(worked && said.contains("draining"), "{said}");
    assert!(backend(&service, &["ready", &two]).0);
    let (worked, said) = backend(&service, &["ready", "127.0.0.1:1"]);
    assert!(!worked && said.contains("there is no such backend as 127.0.0.1:1"), "{said}");

    // It dies; what is asked from that moment on is answered by the other one.
    let pid = Pid::from_raw(i32::try_from(one_pid).expect("pids are small"));
    kill(pid, Signal::SIGKILL).expect("it runs");
    assert_eq!(answers(client, &service, 4), ["two"; 4]);
    wait_for(&service, &one, "down");
    wait_until("the checks say so as well", 15, || {
        let check = wait_for(&service, &one, "down")["check"].clone();
        let refused = check.as_str().is_some_and(|check| check.starts_with("refused: "));
        (refused && service.log().contains("the backend is down")).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", service.status(), service.log()));
}

/// A HAProxy that expects a PROXY header and answers with what `format` says of it.
pub fn haproxy_that_says(lab: &Lab, format: &str) -> (Haproxy, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port().expect("loopback has room")));
    let haproxy = lab.haproxy(&format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nfrontend onion\n  bind {address} accept-proxy\n  \
         http-request return status 200 content-type text/plain lf-string \"{format}\"\n"
    ));
    (haproxy.expect("HAProxy takes the configuration"), address)
}

/// Ban a circuit and close it: the ban ends with it.
fn close_banned(service: &Service, id: &str) {
    assert!(rustbalance(service, &["circuit", "ban", id, "--for", "600"]).0);
    assert_eq!(service.service_status()["circuits"]["banned"], 1);
    let (worked, said) = rustbalance(service, &["circuit", "close", id]);
    assert!(worked && said.ends_with(" is closed\n"), "{said}");
    wait_until("the ban is over", 60, || {
        (service.service_status()["circuits"]["banned"] == 0).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let (worked, said) = rustbalance(service, &["circuit", "ban", id]);
    assert!(!worked && said.contains("no such circuit is open"), "{said}");
}

#[test]
fn a_real_haproxy_reads_the_circuit_from_both_versions_of_the_header() {
    let (lab, client) = crate::lab();
    // It says what it has read: the address, its port, and version 2's unique id.
    let says = "%[src] %[src_port] %[dst_port] %[fc_pp_unique_id]";
    let (_haproxy, address) = haproxy_that_says(lab, says);
    let port = |number, version| {
        format!(
            "[[service.port]]\nvirtual = {number}\nbackends = [\"{address}\"]\n\
             proxy_protocol = \"{version}\"\n[service.port.check]\npath = \"/\"\n"
        )
    };
    let service_lines = port(81, "v1") + &port(82, "v2");
    let service = Service::start(lab, &Spec { service_lines, ..Spec::default() });
    let read = |port: u16, user: &str| -> Vec<String> {
        let answer = client.fetch(&service.onion, port, "/", user);
        let answer = answer.unwrap_or_else(|error| panic!("{error:#}\n{}", service.log()));
        let text = String::from_utf8(answer.body).expect("text");
        text.split(' ').map(str::to_owned).collect()
    };
    let (first, second) = (fresh_user(), fresh_user());
    for port in [81, 82] {
        let seen = read(port, &first);
        let again = read(port, &first);
        let other = read(port, &second);
        // One circuit is one address, and another circuit is another.
        assert_eq!(seen, again);
        assert_ne!(seen[0], other[0]);
        let circuit: std::net::Ipv6Addr = seen[0].parse().expect("an address");
        let parts = circuit.segments();
        assert_eq!(parts[..5], [0xfc00, 0xdead, 0xbeef, 0x4dad, 0], "{seen:?}");
        assert_eq!(seen[1], parts[7].to_string());
        assert_eq!(seen[2], port.to_string());
        let serial = (u32::from(parts[6]) << 16) | u32::from(parts[7]);
        match port {
            82 => assert_eq!(seen[3], format!("{}/{serial}", parts[5])),
            _ => assert!(seen[3].is_empty() || seen[3] == "-", "{seen:?}"),
        }
    }
    // By its id the circuit can be banned, and forgiven.
    let before = read(81, &second);
    let (worked, said) = rustbalance(&service, &["circuit", "ban", &before[0], "--for", "600"]);
    assert!(worked && said.ends_with(" is banned for 600 s\n"), "{said}");
    let refused = client.fetch(&service.onion, 81, "/", &second);
    assert!(refused.is_err(), "{refused:?}");
    let circuits = service.service_status()["circuits"].clone();
    assert_eq!((&circuits["banned"], &circuits["refused_banned_total"]), (&1.into(), &1.into()));
    assert!(rustbalance(&service, &["circuit", "forget", &before[0]]).0);
    assert_eq!(read(81, &second)[0], before[0], "the circuit has stayed");
    // By its id the circuit can be closed: the same client comes over another one afterwards.
    let before = read(81, &first);
    let close = |id: &str| rustbalance(&service, &["circuit", "close", id]);
    close_banned(&service, &before[0]);
    wait_until("another circuit", 60, || {
        let answer = client.fetch(&service.onion, 81, "/", &first).ok()?;
        (!answer.body.starts_with(before[0].as_bytes())).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let (worked, said) = close(&before[0]);
    assert!(!worked && said.contains("there is no open circuit"), "{said}");
    // Its checks say whom they are for, and are answered.
    assert_eq!(wait_for(&service, &address.to_string(), "up")["check"], "ok");
}

#[test]
fn streams_beyond_a_backends_connections_wait_and_are_served() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let (address, _) = named(lab, root.path(), "one");
    let service = Service::start(
        lab,
        &Spec {
            service_lines: format!(
                "[[service.port]]\nvirtual = 81\nqueue_timeout_s = 60\n\
                 backends = [{{ address = \"{address}\", connections_max = 1 }}]\n"
            ),
            ..Spec::default()
        },
    );
    // One connection is held open and says nothing.
    let held = client.stream(&service.onion, 81, &fresh_user()).expect("the service is there");
    wait_until("the connection is open", 30, || {
        (wait_for(&service, &address, "up")["open"] == 1).then_some(())
    })
    .expect("it opens");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| client.fetch_fresh(&service.onion, 81, "/who"));
        wait_until("a stream waits", 30, || {
            (wait_for(&service, &address, "up")["queued"] == 1).then_some(())
        })
        .expect("it waits");
        drop(held);
        let answer = waits.join().expect("a client does not panic");
        assert_eq!(answer.expect("it had its turn").body, b"one");
    });
    let after = wait_until("all is over", 30, || {
        Some(wait_for(&service, &address, "up")).filter(|one| one["open"] == 0)
    });
    assert_eq!(after.expect("it ends")["queue_refused_total"], 0);
}

#[test]
fn another_onion_service_is_a_backend_and_stands_in_no_log() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let (far, _) = named(lab, root.path(), "far");
    let body = vec![b'x'; 300_000];
    std::fs::write(root.path().join("far").join("body"), &body).expect("a file can be written");
    let spec =
        OnionServiceSpec { ports: vec![(8080, far)], vanguards_lite: true, extra: String::new() };
    let far = lab.onion_service(&spec).expect("C tor takes the configuration");
    far.wait_reachable(client, 8080).unwrap_or_else(|error| panic!("{error:#}"));
    let address = format!("{}:8080", far.hostname);
    let service = Service::start(
        lab,
        &Spec {
            backends: vec![address.clone()],
            port_lines: "[service.port.check]\npath = \"/who\"\ninterval_s = 1".to_owned(),
            ..Spec::default()
        },
    );
    assert_eq!(answers(client, &service, 4), ["far"; 4]);
    let whole = client.fetch_fresh(&service.onion, 80, "/body").expect("it is served");
    assert!(whole.body == body, "{} bytes", whole.body.len());
    let checked = wait_until("it was checked", 60, || {
        Some(wait_for(&service, &address, "up")).filter(|one| one["check"] == "ok")
    });
    checked.unwrap_or_else(|error| panic!("{error}: {:#}", service.status()));
    let (worked, said) = backend(&service, &["maintenance", &address]);
    assert!(worked, "{said}");
    client.fetch_fresh(&service.onion, 80, "/who").expect_err("it is taken out");
    let log = service.log();
    assert!(log.contains("the operator says") && !log.contains(&far.hostname), "{log}");
}
