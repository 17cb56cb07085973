//! Remote instances: C tor services in OnionBalance's instance mode beside an in-process instance.
//! Clients of the one address reach all of them; one that is killed leaves the descriptor within a
//! look at its points, and one that comes back with other points is found within another.

#[path = "end_to_end/arti_client.rs"]
mod arti_client;
#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::path::Path;
use std::time::{Duration, Instant};

use arti_client::ArtiClient;
use nix::sys::signal::Signal;
use rustbalance_lab::{Lab, OnionService, OnionServiceSpec, Size, wait_until};
use serde_json::Value;
use service::{Service, Spec};

/// Seconds between two looks at a remote instance's points in these tests.
const LOOK_SECONDS: u64 = 5;

/// An nginx whose page says `text`; where it listens.
fn page(lab: &Lab, root: &Path, text: &str) -> String {
    let root = root.join(text);
    std::fs::create_dir(&root).expect("the directory is writable");
    std::fs::write(root.join("page"), text).expect("the directory is writable");
    lab.nginx(&root).expect("nginx starts").address.to_string()
}

/// A C tor instance of the service at `onion`, in front of a page that says `text`.
fn instance(lab: &Lab, root: &Path, onion: &str, text: &str) -> OnionService {
    let spec = OnionServiceSpec::instance(vec![(80, page(lab, root, text))]);
    lab.balanced_service(&spec, onion).expect("the instance starts")
}

/// The lines that name these instances in a `[[service]]`.
fn remotes(names: &[(&str, &OnionService)]) -> String {
    let one = |(name, service): &(&str, &OnionService)| {
        let address = &service.hostname;
        format!("[[service.remote]]\nname = \"{name}\"\naddress = \"{address}\"\n")
    };
    names.iter().map(one).collect()
}

/// The instance of this name in the status.
fn of_name<'a>(status: &'a Value, name: &str) -> &'a Value {
    let instances = status["instances"].as_array().expect("a list");
    instances.iter().find(|one| one["name"] == name).expect("it is configured")
}

/// Wait until what is published has so many points, and is on every HSDir; how long that took.
fn published(service: &Service, points: u64, seconds: u64) -> Duration {
    let began = Instant::now();
    wait_until("the descriptors are out", seconds, || {
        let status = service.service_status();
        let whole =
            |one: &Value| one["intro_points"] == points && one["hsdirs_ok"] == one["hsdirs_total"];
        let descriptors = status["descriptors"].as_array()?;
        (!descriptors.is_empty() && descriptors.iter().all(whole)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{:#}\n{}", service.service_status(), service.log()));
    began.elapsed()
}

/// Fetch as a client that has no descriptor yet until each of `texts` was served; every answer has
/// to be one of them.
fn reach(lab: &Lab, onion: &str, texts: &[&str]) {
    let client = ArtiClient::start(lab);
    let mut missing: Vec<&str> = texts.to_vec();
    for turn in 0.. {
        let answer = client.fetch(onion, "/page", arti_client::new_user());
        let answer = answer.unwrap_or_else(|error| panic!("fetch {turn}, {missing:?}: {error}"));
        let body = String::from_utf8(answer).expect("the page is text");
        assert!(texts.contains(&body.as_str()), "{body}");
        missing.retain(|text| *text != body);
        if missing.is_empty() {
            return;
        }
        // Each turn has one chance in three for the last one: three in a million.
        assert!(turn < 80, "never served: {missing:?}");
    }
}

#[test]
fn remote_instances_serve_one_address_leave_when_they_die_and_come_back_with_new_points() {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let spec =
        Spec { instances: 1, backends: vec![page(&lab, root.path(), "here")], ..Spec::default() };
    let service = Service::start(&lab, &spec);
    let onion = service.onion.clone();
    let first = instance(&lab, root.path(), &onion, "first");
    let second = instance(&lab, root.path(), &onion, "second");

    let tables = remotes(&[("first", &first), ("second", &second)]);
    let with_remotes = Spec {
        service_lines: format!(
            "remote_interval_min_s = {LOOK_SECONDS}\nremote_interval_max_s = 20\n{tables}"
        ),
        ..spec
    };
    service.configure(&lab, &with_remotes);
    service.signal(Signal::SIGHUP);
    published(&service, 9, 180);
    let status = service.service_status();
    assert!(status["summary"].as_str().is_some_and(|text| text.contains("3/3")), "{status:#}");
    for (name, instance) in [("first", &first), ("second", &second)] {
        let one = of_name(&status, name);
        assert_eq!((&one["engine"], &one["state"]), (&"remote".into(), &"serving".into()));
        assert_eq!(one["address"], instance.hostname.as_str());
        assert!(one["streams_total"].is_null() && one["core"].is_null(), "{one:#}");
    }
    reach(&lab, &onion, &["here", "first", "second"]);

    // Killed: HSDirs still have its descriptor.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(first.pid).expect("pids are small"));
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it runs");
    let took = published(&service, 6, 60);
    eprintln!("a killed remote instance was out of every descriptor after {took:?}");
    let status = service.service_status();
    let one = of_name(&status, "first");
    assert_eq!(one["state"], "failed");
    assert!(one["reason"].as_str().is_some_and(|text| text.contains("gone")), "{one:#}");
    reach(&lab, &onion, &["here", "second"]);

    // Back, with new points; the other one has new points without having been away for long.
    let before = of_name(&status, "second")["changed_at"].clone();
    lab.restart_onion_service(&first).expect("it starts again");
    published(&service, 9, 120);
    lab.restart_onion_service(&second).expect("it starts again");
    wait_until("the new points are found", 120, || {
        let status = service.service_status();
        let one = of_name(&status, "second");
        let found = one["state"] == "serving" && one["changed_at"] != before;
        (found && one["intro_points"] == 3).then_some(())
    })
    .expect("they are found");
    published(&service, 9, 60);
    reach(&lab, &onion, &["here", "first", "second"]);
}
