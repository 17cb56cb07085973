//! A service that moves, with its key: from software with higher counters to RustBalance, from C
//! tor to RustBalance, and back. Clients fetch all the while.

#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustbalance_lab::client::random_file;
use rustbalance_lab::measure::has_ended;
use rustbalance_lab::{Client, Lab, OnionServiceSpec, Size, wait_until};
use serde_json::Value;
use service::{Service, Spec, state_dir};

/// Counters as the earlier RustBalance made them: the clock's seconds times three.
fn unix_times_three() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is set").as_secs() * 3
}

/// The revision counters that are published.
fn revisions(service: &Service) -> Vec<u64> {
    let status = service.service_status();
    let list = status["descriptors"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|one| one["revision"].as_u64()).collect()
}

/// Wait until every HSDir holds the newest.
fn wait_until_good(service: &Service) {
    let socket = state_dir(service).join("admin.sock");
    wait_until("every HSDir holds the newest", 240, || {
        let found = rustbalance::admin::client::verify(&socket, None).ok()?;
        (!found.is_empty() && found.iter().all(|one| one.is_good())).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{:#}\n{}", service.service_status(), service.log()));
}

/// A new client, which knows no descriptor, comes to the service.
fn fetch_anew(client: &Client, onion: &str, path: &str) {
    wait_until("a client without descriptors gets an answer", 240, || {
        client.control().and_then(|mut tor| tor.new_identity()).ok()?;
        client.fetch_fresh(onion, 80, path).ok()
    })
    .expect("the service is reached");
}

#[test]
fn counters_of_the_earlier_rustbalance_are_exceeded() {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    let client = lab.client("counters").expect("a client starts");
    // Its place is taken by this one, whose counters are made to be as its were.
    let mut earlier = Service::start(&lab, &Spec::default());
    earlier.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(earlier.wait(60).success());
    let file = state_dir(&earlier).join("revisions-main.json");
    let text = std::fs::read(&file).expect("it has published");
    let mut counters: Value = serde_json::from_slice(&text).expect("it is JSON");
    for one in counters.as_object_mut().expect("by blinded key").values_mut() {
        one["counter"] = unix_times_three().into();
    }
    std::fs::write(&file, counters.to_string()).expect("the file is ours");
    let mut earlier = Service::start_in(&lab, &Spec::default(), earlier.take_dir());
    wait_until_good(&earlier);
    let theirs = revisions(&earlier);
    assert!(theirs.iter().any(|counter| *counter > u64::from(u32::MAX)), "{theirs:?}");
    drop_at_once(&mut earlier);

    // Nothing but the key moves.
    let moved = earlier.take_dir();
    for name in ["revisions-main.json", "published-main.json"] {
        std::fs::remove_file(moved.path().join("state").join(name)).expect("it is there");
    }
    let service = Service::start_in(&lab, &Spec::default(), moved);
    wait_until_good(&service);
    let ours = revisions(&service);
    assert!(ours.iter().any(|counter| *counter > u64::from(u32::MAX)), "{ours:?} after {theirs:?}");
    assert!(service.log().contains("the next one is above it"), "{}", service.log());
    fetch_anew(&client, &service.onion, "/");
}

/// End a process without a word.
fn drop_at_once(service: &mut Service) {
    service.signal(nix::sys::signal::Signal::SIGKILL);
    let _ = service.wait(10);
}

/// Copy tor's key into a state directory, as RustBalance's.
fn copy_key(from: &Path, state: &Path) {
    std::fs::create_dir(state).expect("the directory is writable");
    std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    let key = state.join("main.key");
    std::fs::copy(from, &key).expect("tor has made its key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
}

#[test]
fn a_service_moves_from_c_tor_and_back_while_clients_fetch() {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    let (client, newcomer) = (
        lab.client("migration").expect("a client starts"),
        lab.client("newcomer").expect("a client starts"),
    );
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    random_file(root.path(), "page", 1024).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let tor = lab
        .onion_service(&OnionServiceSpec {
            ports: vec![(80, nginx.address.to_string())],
            vanguards_lite: true,
            extra: String::new(),
        })
        .expect("tor starts");
    tor.wait_reachable(&client, 80).expect("it is reached");

    // C tor has published; RustBalance takes over with the same key, and then tor ends.
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    copy_key(&tor.hs_dir.join("hs_ed25519_secret_key"), &dir.path().join("state"));
    let spec = Spec { backends: vec![nginx.address.to_string()], ..Spec::default() };
    let service = Service::start_in(&lab, &spec, dir);
    assert_eq!(service.onion, tor.hostname);
    end(tor.pid);
    wait_until_good(&service);
    fetch_anew(&newcomer, &service.onion, "/page");
    // A client that holds tor's descriptor finds its points gone, and fetches ours.
    wait_until("the client that knew tor's points comes too", 240, || {
        client.fetch_fresh(&service.onion, 80, "/page").ok()
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));

    // And back: tor starts again on its own directory.
    drop(service);
    let tor = lab.restart_onion_service(&tor).expect("tor starts");
    fetch_anew(&newcomer, &tor.hostname, "/page");
    wait_until("the client that knew our points comes too", 240, || {
        client.fetch_fresh(&tor.hostname, 80, "/page").ok()
    })
    .expect("tor serves again");
}

/// End a process, and wait for it.
fn end(pid: u32) {
    let process = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("pids are small"));
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    wait_until("the process ends", 60, || has_ended(pid).then_some(())).expect("it ends");
}
