//! Managed C tor daemons beside in-process instances: one address, clients on all of them, and a
//! daemon that is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustbalance_lab::wait_until;
use serde_json::Value;

use crate::backends::haproxy_that_says;
use crate::service::{Service, Spec, state_dir};

/// The process of the daemon whose files are in `directory`.
fn daemon(directory: &Path) -> Option<i32> {
    let torrc = directory.join("torrc");
    let named = |pid: i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = command.split(|byte| *byte == 0);
        words.into_iter().any(|word| word == torrc.as_os_str().as_encoded_bytes())
    };
    let entries = std::fs::read_dir("/proc").expect("there is /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| named(*pid))
}

/// What status says of the daemons' instances.
fn instances(service: &Service) -> Vec<Value> {
    let all = service.service_status()["instances"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|one| one["engine"] == "ctor").collect()
}

/// Introduction points in the descriptors that are on all of their HSDirs; `None` while some are
/// not.
fn published(service: &Service) -> Option<u64> {
    let descriptors = service.service_status()["descriptors"].as_array().cloned()?;
    let whole = |one: &Value| one["hsdirs_ok"] == one["hsdirs_total"];
    let points = descriptors.iter().filter_map(|one| one["intro_points"].as_u64()).max();
    points.filter(|_| descriptors.iter().all(whole))
}

#[test]
fn daemons_and_instances_share_an_address_and_a_daemon_that_is_killed_leaves_and_comes_back() {
    let (lab, client) = crate::lab();
    let (_haproxy, address) = haproxy_that_says(lab, "%[fc_pp_unique_id]");
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let extra = root.path().join("extra");
    std::fs::write(&extra, lab.torrc_lines()).expect("it can be written");
    let spec = Spec {
        backends: vec![address.to_string()],
        port_lines: format!(
            "proxy_protocol = \"v2\"\n[ctor]\ninstances = 2\nextra_torrc = {:?}\n",
            extra.display().to_string()
        ),
        ..Spec::default()
    };
    let mut service = Service::start(lab, &spec);
    let all_serve = || {
        let serving = instances(&service).iter().filter(|one| one["state"] == "serving").count();
        (serving == 2 && published(&service) == Some(12)).then_some(())
    };
    let log = |error| -> ! { panic!("{error:#}\n{:#}\n{}", service.status(), service.log()) };
    wait_until("both daemons are in the descriptor", 120, all_serve).unwrap_or_else(|e| log(e));
    assert!(
        service.log().contains("2 more sets of guards"),
        "what it exposes is said: {}",
        service.log()
    );

    // Instances of this process are 0 and 1, the daemons' listeners are 1024 and 1025.
    let mut seen = BTreeSet::new();
    wait_until("clients were on all four", 240, || {
        let answer = client.fetch_fresh(&service.onion, 80, "/");
        let answer = answer.unwrap_or_else(|error| log(error));
        let id = String::from_utf8(answer.body).expect("text");
        let (instance, _) = id.split_once('/').unwrap_or_else(|| panic!("no circuit: {id}"));
        seen.insert(instance.parse::<u16>().expect("a number"));
        (seen == BTreeSet::from([0, 1, 1024, 1025])).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: only {seen:?}"));
    let streams: Vec<_> =
        instances(&service).iter().map(|one| one["streams_total"].as_u64()).collect();
    assert!(streams.iter().all(|streams| *streams >= Some(1)), "{streams:?}");

    let directory = state_dir(&service).join("ctor/1");
    let first = daemon(&directory).expect("it runs");
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("it runs");
    let killed = Instant::now();
    wait_until("a descriptor without it", 60, || (published(&service) == Some(9)).then_some(()))
        .unwrap_or_else(|error| log(error));
    // 10 s are promised; a loaded machine may take longer, and the number is for the log.
    println!("{:?} from the kill to a descriptor without it", killed.elapsed());
    wait_until("it is back", 180, all_serve).unwrap_or_else(|e| log(e));
    let second = daemon(&directory).expect("it runs");
    assert_ne!(first, second);

    service.signal(Signal::SIGTERM);
    let ended = service.wait(60);
    assert!(ended.success(), "{ended}\n{}", service.log());
    for number in ["1", "2"] {
        let left = daemon(&state_dir(&service).join("ctor").join(number));
        assert_eq!(left, None, "a daemon is left behind");
    }
}
