//! Managed C tor daemons beside in-process instances: one address, clients on all of them, and a
//! daemon that is killed.

use std::path::Path;
use std::time::Instant;

use arti_client::IsolationToken;
use nix::sys::signal::{Signal, kill};
use rustbalance_lab::{Lab, wait_until};

use crate::arti_client::ArtiClient;
use crate::backends::{haproxy_that_says, rustbalance};
use crate::daemon::{
    all_serve, directory, give_up, instances, process, processes, published, reach_all,
};
use crate::service::{Service, Spec, ctor_table};

/// Two instances of this process and two daemons, in front of a backend that says by which circuit
/// its client came. `root` has what lasts as long.
fn start(lab: &Lab, root: &Path, backend: String) -> Service {
    let port_lines = format!("proxy_protocol = \"v2\"\n{}", ctor_table(lab, root, 2));
    Service::start(lab, &Spec { backends: vec![backend], port_lines, ..Spec::default() })
}

/// A circuit of a daemon's is closed by its id; `user` has it, and it is called `before`.
fn close_a_circuit(client: &ArtiClient, service: &Service, (user, before): (IsolationToken, &str)) {
    let try_id = || {
        let answer = client.fetch(&service.onion, "/", user)?;
        String::from_utf8(answer).map_err(|error| error.to_string())
    };
    assert_eq!(try_id().as_deref(), Ok(before), "a client stays on its circuit");
    let close = || rustbalance(service, &["circuit", "close", before]);
    let (worked, said) = close();
    assert!(worked && said.contains("is closed"), "{said}");
    wait_until("another circuit", 60, || try_id().ok().filter(|id| id != before))
        .expect("the client comes over another one");
    let (worked, said) = close();
    assert!(!worked && said.contains("there is no open circuit"), "{said}");
}

#[test]
fn daemons_and_instances_share_an_address_and_a_daemon_that_is_killed_leaves_and_comes_back() {
    let (lab, _) = crate::lab();
    let (_haproxy, address) = haproxy_that_says(lab, "%[fc_pp_unique_id]");
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let mut service = start(lab, root.path(), address.to_string());
    all_serve(&service, 4);
    let log = service.log();
    assert!(log.contains("2 more sets of guards"), "what it exposes is said: {log}");
    // Instances of this process are 0 and 1, the daemons' listeners are 1024 and 1025.
    let client = ArtiClient::start(lab);
    let met = reach_all(&client, &service, &["0", "1", "1024", "1025"]);
    let streams = instances(&service, "ctor");
    let streams: Vec<_> = streams.iter().map(|one| one["streams_total"].as_u64()).collect();
    assert!(streams.iter().all(|streams| *streams >= Some(1)), "{streams:?}");
    let (user, id, _) = &met["1025"];
    close_a_circuit(&client, &service, (*user, id));
    wait_until("both daemons have links to guards", 60, || {
        let links = service.status()["daemons"].as_array().cloned()?;
        let linked = links.iter().filter(|one| one["guards"] != serde_json::json!([])).count();
        (linked == 2).then_some(())
    })
    .unwrap_or_else(|error| give_up(&service, error));

    let place = directory(&service, 1);
    let first = process(&place).expect("it runs");
    kill(first, Signal::SIGKILL).expect("it runs");
    let killed = Instant::now();
    wait_until("a descriptor without it", 60, || (published(&service) == Some(9)).then_some(()))
        .unwrap_or_else(|error| give_up(&service, error));
    // 10 s are promised; a loaded machine may take longer, and the number is for the log.
    println!("{:?} from the kill to a descriptor without it", killed.elapsed());
    all_serve(&service, 4);
    let second = process(&place).expect("it runs");
    assert_ne!(first, second);

    service.signal(Signal::SIGTERM);
    let ended = service.wait(60);
    assert!(ended.success(), "{ended}\n{}", service.log());
    assert!(processes(&service).is_empty(), "a daemon is left behind");
}
