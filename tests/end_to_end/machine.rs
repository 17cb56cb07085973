//! What a service does when its machine fails it: no descriptors left, a process that stood still.

use std::process::Command;

use nix::sys::signal::Signal;
use rustbalance_lab::{Client, backend, wait_until};

use crate::serve::echo;
use crate::service::{Service, Spec};

/// Set the limit of open files of a process, as prlimit(1) does.
fn limit_descriptors(pid: u32, soft: usize) {
    let done = Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={soft}:")])
        .status()
        .expect("util-linux is installed");
    assert!(done.success());
}

/// Descriptors that a process has open.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// Whether a client gets a stream that goes through.
fn reaches(client: &Client, onion: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let answered = || -> std::io::Result<bool> {
        let user = rustbalance_lab::client::fresh_user();
        let stream = client.stream(onion, 80, &user);
        let mut stream = stream.map_err(|error| std::io::Error::other(format!("{error:#}")))?;
        stream.write_all(b"hello")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"hello")
    };
    answered().unwrap_or(false)
}

#[test]
fn a_process_without_descriptors_lives_on_and_serves_again() {
    let (lab, client) = crate::lab();
    let spec = Spec { backends: vec![echo()], ..Spec::default() };
    let mut service = Service::start(lab, &spec);
    assert!(reaches(client, &service.onion), "{}", service.log());
    let before = soft_limit(service.pid());
    // Whatever is open stays open, and nothing can be opened.
    limit_descriptors(service.pid(), 3);
    for _ in 0..3 {
        assert!(!reaches(client, &service.onion), "no backend can be connected to");
    }
    limit_descriptors(service.pid(), before);
    wait_until("it serves again", 60, || reaches(client, &service.onion).then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    wait_until("it is ready", 60, || {
        (service.try_status()?["services"][0]["state"] == "ready").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    // What failed left nothing open.
    let open = descriptors(service.pid());
    assert!(open < 200, "{open} descriptors are open");
    service.signal(Signal::SIGTERM);
    assert!(service.wait(60).success(), "{}", service.log());
}

/// Send for as long as somebody takes it. Ends with the test's process.
fn flood() -> String {
    use std::io::Write as _;
    backend(|mut stream| while stream.write_all(&[0; 4096]).is_ok() {}).expect("loopback has ports")
}

/// The soft limit of open files of a process.
fn soft_limit(pid: u32) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).expect("the limit is a number")
}

#[test]
fn near_the_memory_budget_new_clients_are_refused_and_the_largest_circuits_close() {
    use std::io::{Read as _, Write as _};
    let (lab, client) = crate::lab();
    let service_lines = format!("[[service.port]]\nvirtual = 9\nbackends = [\"{}\"]", flood());
    let spec = Spec { backends: vec![echo()], service_lines, ..Spec::default() };
    let memory = |service: &Service| service.status()["memory"].clone();
    let held = {
        let service = Service::start(lab, &spec);
        assert!(reaches(client, &service.onion), "{}", service.log());
        memory(&service)["held_bytes"].as_u64().expect("Linux tells")
    };
    // Room for a few dozen clients below the 90 % at which new ones are refused.
    let top_lines = format!("memory_max = \"{} B\"", (held + 6_000_000) / 9 * 10);
    let service = Service::start(lab, &Spec { top_lines, ..spec });
    let impatient = client.clone().with_timeout(std::time::Duration::from_secs(10));
    let (mut users, mut open, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    wait_until("new clients are refused", 240, || {
        let user = rustbalance_lab::client::fresh_user();
        if let Ok(stream) = impatient.stream(&service.onion, 80, &user) {
            open.push(stream);
            users.push(user);
        }
        (memory(&service)["refused_total"].as_u64() > Some(0)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", memory(&service), service.log()));
    // Those that are there take more, and read nothing of it.
    let mut turn = users.iter().cycle();
    wait_until("circuits are closed for want of memory", 240, || {
        let user = turn.next().expect("somebody was served");
        unread.extend(impatient.stream(&service.onion, 9, user).ok());
        (memory(&service)["circuits_closed_total"].as_u64() > Some(0)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", memory(&service), service.log()));
    // All at once: each second that passes may close more.
    let opened = open.len();
    let survived: usize = std::thread::scope(|scope| {
        let answers = open.into_iter().map(|mut stream| {
            scope.spawn(move || {
                stream.write_all(b"hello")?;
                stream.read_exact(&mut [0; 5])
            })
        });
        let answers: Vec<_> = answers.collect();
        answers.into_iter().filter_map(|one| one.join().expect("no panic").ok()).count()
    });
    assert!(
        (1..opened).contains(&survived),
        "{survived} of {opened} are open: {}\n{}",
        memory(&service),
        service.log()
    );
    drop(unread);
    // What circuits hold that are left open may well be more than new clients are served with.
    leave(client);
    let refuses = || memory(&service)["refusing"] == true;
    // A C tor relay that is told at once to destroy two circuits which share their next relay sends
    // the second word only when it next has something to say there: somebody asks.
    let ask = || drop(impatient.stream(&service.onion, 80, &rustbalance_lab::client::fresh_user()));
    wait_until("nobody is refused", 180, || {
        (!refuses()).then_some(()).or_else(|| {
            ask();
            None
        })
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", memory(&service), service.log()));
    wait_until("new clients are served", 60, || reaches(client, &service.onion).then_some(()))
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", memory(&service), service.log()));
}

/// Close every circuit of the client, as when its user ends it.
fn leave(client: &rustbalance_lab::Client) {
    let mut control = client.control().expect("tor answers");
    let circuits = control.command("GETINFO circuit-status").expect("tor knows its circuits");
    let numbers = circuits.iter().flat_map(|text| text.lines());
    let numbers = numbers.filter_map(|line| line.split(' ').next()?.parse::<u32>().ok());
    let closed =
        numbers.filter(|number| control.command(&format!("CLOSECIRCUIT {number}")).is_ok());
    assert!(closed.count() > 0, "{circuits:?}");
}
