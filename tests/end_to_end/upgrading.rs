//! How a new process is made to take over from the one that runs, and what has to be true then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustbalance_lab::{Client, Lab, wait_until};

use crate::service::{Service, Spec};

/// The process that answers on the admin socket.
pub fn serving(service: &Service) -> Option<u64> {
    service.try_status()?["pid"].as_u64()
}

/// A process, for signals.
pub fn process(pid: u64) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("pids are small"))
}

/// Whether a process has ended (one that nobody has waited for yet has, too).
pub fn has_ended(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
}

/// The highest revision counter of each period that is published.
fn revisions(service: &Service) -> Vec<(u64, u64)> {
    let status = service.service_status();
    let descriptors = status["descriptors"].as_array().expect("a list").clone();
    let number = |one: &serde_json::Value, field: &str| one[field].as_u64().expect("a number");
    descriptors.iter().map(|one| (number(one, "period"), number(one, "revision"))).collect()
}

/// Upgrade so many times in a row under requests on fresh circuits; none may fail.
pub fn upgrade_under_requests(lab: &Lab, client: &Client, times: usize) {
    let spec = Spec { top_lines: "drain_s = 5".to_owned(), ..Spec::default() };
    let service = Service::start(lab, &spec);
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let (fetched, failed) = std::thread::scope(|scope| {
        let fetch = scope.spawn(|| {
            let (mut fetched, mut failed) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                fetched += 1;
                let started = begun.elapsed();
                if let Err(error) = client.fetch_fresh(&service.onion, 80, "/") {
                    failed.push(format!("from {started:?} on: {error:#}"));
                }
            }
            (fetched, failed)
        });
        let mut ended = Ok(());
        for _ in 0..times {
            ended = ended.and_then(|()| upgrade(lab, &service));
        }
        over.store(true, Ordering::Relaxed);
        let result = fetch.join().expect("the client does not panic");
        let last = serving(&service);
        // The last one is no child of ours.
        if let Some(last) = last.filter(|pid| *pid != u64::from(service.pid())) {
            let _ = kill(process(last), Signal::SIGTERM);
            let _ = wait_until("the last one ends", 30, || has_ended(last).then_some(()));
        }
        ended.unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
        result
    });
    assert!(fetched >= 3 * times, "only {fetched} requests\n{}", service.log());
    assert!(
        failed.is_empty(),
        "{} of {fetched} failed: {failed:?}\n{}",
        failed.len(),
        service.log()
    );
}

/// One upgrade: the new process serves, has published with higher counters, and the old one ends.
pub fn upgrade(lab: &Lab, service: &Service) -> Result<(), String> {
    let old = serving(service).ok_or("nobody answers")?;
    let before = revisions(service);
    kill(process(old), Signal::SIGUSR2).map_err(|error| error.to_string())?;
    let new = wait_until("a new process serves", 90, || {
        serving(service).filter(|pid| *pid != old).inspect(|pid| {
            let _ = u32::try_from(*pid).map(|pid| lab.keep(pid));
        })
    })
    .map_err(|error| error.to_string())?;
    wait_until("the old process ends", 60, || has_ended(old).then_some(()))
        .map_err(|error| error.to_string())?;
    if serving(service) != Some(new) || service.service_status()["state"] != "ready" {
        return Err(format!("{new} does not serve: {:#}", service.service_status()));
    }
    let after = revisions(service);
    for (period, counter) in before {
        let now = after.iter().find(|(other, _)| *other == period).map(|(_, counter)| *counter);
        if now.is_some_and(|now| now <= counter) {
            return Err(format!("period {period}: {now:?} does not follow {counter}"));
        }
    }
    Ok(())
}
