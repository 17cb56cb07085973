//! What runs on data cores, as the kernel sees it, and what happens when one of them dies.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::serve::echo;
use crate::service::{Service, Spec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustbalance_lab::client::{Client, fresh_user};
use rustbalance_lab::{measure, wait_until};

/// Send so much to an echo and read it back.
fn there_and_back(client: &Client, onion: &str, bytes: usize) {
    let mut stream = client.stream(onion, 80, &fresh_user()).expect("the service can be reached");
    let sent = vec![7_u8; bytes];
    let mut writer = stream.try_clone().expect("there are descriptors");
    let writing = std::thread::spawn(move || writer.write_all(&sent));
    let mut received = vec![0; bytes];
    stream.read_exact(&mut received).expect("everything comes back");
    writing.join().expect("no panic").expect("everything was sent");
    assert!(received.iter().all(|byte| *byte == 7));
}

#[test]
fn the_cpu_goes_to_data_cores() {
    let (lab, client) = crate::lab();
    let service = Service::start(lab, &Spec { backends: vec![echo()], ..Spec::default() });
    there_and_back(client, &service.onion, 100_000);
    let before = measure::thread_cpu_seconds(service.pid());
    there_and_back(client, &service.onion, 20_000_000);
    let after = measure::thread_cpu_seconds(service.pid());
    let spent = |wanted: fn(&str) -> bool| -> f64 {
        let threads = after.iter().filter(|(name, _)| wanted(name));
        threads.map(|(name, cpu)| cpu - before.get(name).unwrap_or(&0.0)).sum()
    };
    let (all, data) = (spent(|_| true), spent(|name| name.starts_with("data-")));
    assert!(all > 0.1, "{all} CPU seconds say nothing: {after:?}");
    assert!(data >= 0.9 * all, "{data} of {all} CPU seconds are on data cores: {after:?}");
}

/// Data cores' threads of a process.
fn data_threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let ids = tasks.flatten().map(|task| task.file_name().to_string_lossy().into_owned());
    ids.filter(|id| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/task/{id}/comm"));
        name.is_ok_and(|name| name.starts_with("data-"))
    })
    .collect()
}

/// strace(1) on some threads, for what a ring takes the place of.
fn trace(threads: &[String], output: &std::path::Path) -> Child {
    let mut strace = Command::new("strace");
    for thread in threads {
        strace.args(["-p", thread]);
    }
    let calls = "trace=io_uring_enter,epoll_wait,epoll_pwait,epoll_pwait2,poll,ppoll,select,\
                 pselect6,read,readv,write,writev,recvfrom,recvmsg,recvmmsg,sendto,sendmsg,\
                 sendmmsg";
    strace.args(["-q", "-yy", "-e", calls, "-e", "signal=none", "-o"]).arg(output);
    let strace = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is there");
    wait_until("strace is attached", 20, || {
        let traced = |thread: &String| {
            let status = std::fs::read_to_string(format!("/proc/{thread}/status"));
            status.is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
        };
        threads.iter().all(traced).then_some(())
    })
    .expect("a test may trace what it has started");
    strace
}

#[test]
fn with_a_ring_data_cores_make_no_other_calls_on_sockets() {
    let (lab, client) = crate::lab();
    let service = Service::start(lab, &Spec { backends: vec![echo()], ..Spec::default() });
    if service.status()["io"] != "uring" {
        eprintln!("not tested: this runs on {}", service.status()["io"]);
        return;
    }
    there_and_back(client, &service.onion, 100_000);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let output = dir.path().join("calls");
    let threads = data_threads(service.pid());
    assert_eq!(threads.len(), 2, "two instances");
    let mut strace = trace(&threads, &output);
    // A circuit of its own, so that links, introduction and backend are in it.
    there_and_back(client, &service.onion, 3_000_000);
    let pid = i32::try_from(strace.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
    strace.wait().expect("it is our child");
    let calls = std::fs::read_to_string(&output).expect("strace has written it");
    let rings = calls.lines().filter(|line| line.contains("io_uring_enter(")).count();
    assert!(rings > 20, "{rings} turns of the rings:\n{calls}");
    // What is left is the write that wakes another core.
    let forbidden: Vec<&str> = calls
        .lines()
        .filter(|line| !line.contains("io_uring_enter"))
        .filter(|line| {
            let on_socket = ["<TCP", "<UNIX", "<socket"].iter().any(|kind| line.contains(kind));
            let waits = ["epoll", "poll(", "select"].iter().any(|call| line.contains(call));
            on_socket || waits
        })
        .collect();
    assert!(forbidden.is_empty(), "{} calls: {:#?}", forbidden.len(), forbidden.first());
}

#[test]
fn a_core_that_dies_is_started_again_with_new_points() {
    let (lab, client) = crate::lab();
    let service = Service::start_with_fault(lab, &Spec::default(), "core-died:1:6");
    let instance = || service.service_status()["instances"][1].clone();
    wait_until("points of both", 30, || (instance()["intro_points"] == 3).then_some(()))
        .expect("the points come up");
    // The panic's own words, before anything is cleaned up.
    let dies = || service.log().contains("a fault that a test has asked for").then_some(());
    wait_until("the fault", 30, dies).unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let died = Instant::now();
    // Changes are collected for a second, so these still name its points; newer ones do not.
    let named = service.service_status()["descriptors"].clone();
    wait_until("descriptors without it", 60, || {
        let status = service.service_status();
        let now = status["descriptors"].as_array()?;
        let newer = |one: &serde_json::Value| {
            let mut before = named.as_array().into_iter().flatten();
            let same = before.find(|old| old["period"] == one["period"]);
            one["hsdirs_ok"] == one["hsdirs_total"]
                && same.is_none_or(|old| one["revision"].as_u64() > old["revision"].as_u64())
        };
        (!now.is_empty() && now.iter().all(newer)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    // Promised: 5 s. Printed, since a loaded machine decides nothing.
    eprintln!("every HSDir has descriptors without the dead instance after {:.1?}", died.elapsed());
    assert!(service.log().contains("the core died"), "{}", service.log());
    // Its links went with it, and with them circuits of the other instance: these are made anew,
    // and until then clients may find nobody.
    let mut in_a_row = 0;
    wait_until("clients are served", 90, || {
        in_a_row = match client.fetch_fresh(&service.onion, 80, "/") {
            Ok(_) => in_a_row + 1,
            Err(_) => 0,
        };
        (in_a_row == 5).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    wait_until("new points", 60, || {
        let one = instance();
        (one["state"] == "serving" && one["intro_points"] == 3).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", instance(), service.log()));
    let before = instance()["rendezvous_total"].as_u64();
    wait_until("the core serves again", 60, || {
        client.fetch_fresh(&service.onion, 80, "/").expect("the service is reached");
        (instance()["rendezvous_total"].as_u64() > before).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", instance(), service.log()));
    assert_eq!(service.service_status()["state"], "ready");
}
