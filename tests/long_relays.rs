//! Relays that die one after another, guards and introduction points among them, while clients
//! fetch: RustBalance beside a C tor service under the same faults.

#[path = "end_to_end/recovery.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod recovery;
#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use recovery::{Fetched, served_again, whole_again};
use rustbalance_lab::client::random_file;
use rustbalance_lab::{Client, Lab, LabOptions, OnionServiceSpec, Size};
use service::{Service, Spec};

/// How long each relay is away.
const AWAY: Duration = Duration::from_secs(25);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn relays_that_die_one_after_another_are_survived() {
    let options = LabOptions { size: Size::Small, quiet: true, ..LabOptions::default() };
    let lab = Lab::start(options).expect("a lab can be had");
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    random_file(root.path(), "index.html", 1000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let turbo_lines =
        "[log]\nlevel = \"warn,tor_circmgr=error,tor_netdir=error,rustbalance=debug\"".to_owned();
    let backends = vec![nginx.address.to_string()];
    let spec = Spec { backends, turbo_lines, ..Spec::default() };
    let service = Service::start(&lab, &spec);
    let peer = lab
        .onion_service(&OnionServiceSpec {
            ports: vec![(80, nginx.address.to_string())],
            vanguards_lite: true,
            extra: String::new(),
        })
        .expect("C tor starts");
    // A client for each: a guard that dies is then as much the one's misfortune as the other's.
    let clients: Vec<Client> =
        (0..2).map(|turn| lab.client(&format!("r{turn}")).expect("it starts")).collect();
    peer.wait_reachable(&clients[1], 80).expect("C tor serves");
    let over = AtomicBool::new(false);
    let (ours, theirs) = std::thread::scope(|scope| {
        let fetch = |client: usize, onion: &str| {
            let (over, client, onion) = (&over, &clients[client], onion.to_owned());
            scope.spawn(move || Fetched::until(over, client, &onion, PATIENCE))
        };
        let (ours, theirs) = (fetch(0, &service.onion), fetch(1, &peer.hostname));
        let (_never, clock) = sync_channel::<()>(1);
        for relay in lab.relays() {
            lab.stop_relay(relay).expect("it runs");
            let _ = clock.recv_timeout(AWAY);
            lab.start_relay(relay).expect("it starts again");
        }
        over.store(true, Ordering::Relaxed);
        (ours.join().expect("no panic"), theirs.join().expect("no panic"))
    });
    println!(
        "{} relays away for {AWAY:?} each: {} of {} requests lost, C tor's service {} of {}",
        lab.relays().len(),
        ours.failed.len(),
        ours.count,
        theirs.failed.len(),
        theirs.count
    );
    for (at, error) in &ours.failed {
        println!("    from {at:?} on: {error}");
    }
    let took = served_again(&clients[0], &service, 120);
    println!("after the last one: served again within {took:?}");
    println!("every point up within {:?}", whole_again(&service));
    assert!(ours.failed.len() * 2 < ours.count, "{:?}\n{}", ours.failed, service.log());
}
