//! How a new process is made to take over from the one that runs, and what has to be true then.
//!
//! One loss is C tor's own, and is told from all others by what the client says itself. At the
//! start of a time period it forgets the descriptor that it has; a request that has chosen an
//! introduction point by then looks the point up in the new descriptor, and is given up where that
//! has others: `consider_sending_introduce1` in its `hs_client.c`. The lab's periods are 8 minutes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustbalance_lab::measure::has_ended;
use rustbalance_lab::{Lab, wait_until};

use crate::service::{Service, Spec};

/// The process that answers on the admin socket.
pub fn serving(service: &Service) -> Option<u64> {
    service.try_status()?["pid"].as_u64()
}

/// A process, for signals.
pub fn process(pid: u64) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("pids are small"))
}

/// The highest revision counter of each period that is published.
fn revisions(service: &Service) -> Vec<(u64, u64)> {
    let status = service.service_status();
    let descriptors = status["descriptors"].as_array().expect("a list").clone();
    let number = |one: &serde_json::Value, field: &str| one[field].as_u64().expect("a number");
    descriptors.iter().map(|one| (number(one, "period"), number(one, "revision"))).collect()
}

/// What C tor's client says when it gives a request up for want of the point that it had chosen.
pub const GIVEN_UP: &str = "Unable to find introduction point for service";
/// Requests that come to their end in the time of each upgrade, at least.
const REQUESTS_EACH: usize = 3;

/// Upgrade so many times in a row under requests on fresh circuits; none may fail but for the two
/// causes that docs/operating/upgrade.md names.
pub fn upgrade_under_requests(lab: &Lab, times: usize) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let said = dir.path().join("client.log");
    let torrc = format!("Log [rend]info file {}", said.display());
    let client = lab.client_with("upgrades", &torrc).expect("a client starts");
    let spec = Spec { top_lines: "drain_s = 5".to_owned(), ..Spec::default() };
    let service = Service::start(lab, &spec);
    let (over, ended_requests) = (AtomicBool::new(false), AtomicUsize::new(0));
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
                ended_requests.fetch_add(1, Ordering::Relaxed);
            }
            (fetched, failed)
        });
        let mut ended = Ok(());
        for _ in 0..times {
            let enough = ended_requests.load(Ordering::Relaxed) + REQUESTS_EACH;
            let asked = || (ended_requests.load(Ordering::Relaxed) >= enough).then_some(());
            ended = ended.and_then(|()| upgrade(lab, &service)).and_then(|()| {
                wait_until("clients go on", 120, asked).map_err(|error| error.to_string())
            });
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
    let said = std::fs::read_to_string(&said).expect("the client has written it");
    let given_up = said.matches(GIVEN_UP).count();
    println!("{fetched} requests, {} failed, {given_up} given up by the client", failed.len());
    // C tor's SOCKS error 1 has other causes as well: only so many as it says itself.
    let by_client = failed.iter().filter(|error| error.ends_with("SOCKS error 1")).count();
    // An introduction that is on its way just when the old process's point closes is lost, as
    // docs/operating/upgrade.md says: its client waits in vain. Rare, so not in every upgrade.
    let in_vain = failed.iter().filter(|error| error.contains("no SOCKS answer in time")).count();
    assert!(
        failed.len() == by_client + in_vain && by_client <= given_up && in_vain * 3 <= times,
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
    // Both build circuits slowly, and it drains after the new one has published.
    wait_until("the old process ends", 120, || has_ended(old).then_some(()))
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
