//! `start`: from a start to the first request that is served, and what clients see of a restart.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustbalance_lab::client::fresh_user;

use crate::bench::{Bench, Level};
use crate::sample::{Sample, Values};
use crate::site::{Site, all_at_once};
use crate::subject::{Kind, Subject};

/// The suite's name.
pub const NAME: &str = "start";
/// The case of a start with a new key.
pub const START: &str = "start";
/// The case of a restart under clients.
pub const RESTART: &str = "restart";

/// Who is started.
fn kinds(level: Level) -> Vec<Kind> {
    let mut kinds = vec![Kind::rustbalance(level.pick(1, 2, 2))];
    kinds.extend((level != Level::Smoke).then_some(Kind::CTor));
    kinds.extend((level != Level::Smoke).then_some(Kind::Classic { daemons: 2 }));
    kinds
}

/// Rounds: each starts every process anew.
fn rounds(level: Level) -> usize {
    level.pick(1, 1, 3)
}

/// Steps that it takes.
pub fn steps(level: Level) -> usize {
    kinds(level).len() * rounds(level)
}

/// Measure.
///
/// # Errors
/// When results cannot be written.
pub fn run(bench: &mut Bench) -> Result<()> {
    for round in 0..rounds(bench.level) {
        for kind in kinds(bench.level) {
            let measured = one(bench, &kind);
            let subject = kind.name();
            match measured {
                Ok((start, restart)) => {
                    for (case, values) in [(START, Some(start)), (RESTART, restart)] {
                        let Some(values) = values else { continue };
                        let (case, subject) = (case.to_owned(), subject.clone());
                        let void = None;
                        bench.record(Sample { suite: NAME, case, subject, round, values, void })?;
                    }
                }
                Err(error) => {
                    let void = Some(format!("{error:#}"));
                    bench.say(&format!("void: {subject}: {error:#}"));
                    let (case, values) = (START.to_owned(), Values::new());
                    bench.record(Sample { suite: NAME, case, subject, round, values, void })?;
                }
            }
            bench.step(&format!("{NAME}, {}", kind.name()));
        }
    }
    Ok(())
}

/// Start one, wait for the first request that is served, restart it where that is one process.
fn one(bench: &Bench, kind: &Kind) -> Result<(Values, Option<Values>)> {
    let started = Instant::now();
    let mut subject = kind.start(&bench.site)?;
    while bench.site.fetch_page(0, &subject.onion, &fresh_user()).is_err() {
        anyhow::ensure!(started.elapsed() < Duration::from_secs(240), "it is never reachable");
    }
    let mut start = Values::from([("seconds_to_served", started.elapsed().as_secs_f64())]);
    start.extend(subject.ready.map(|ready| ("seconds_to_ready", ready.as_secs_f64())));
    // Clients that hold the old descriptor may ask for a minute and more in vain.
    let restart = match kind {
        Kind::Classic { .. } => None,
        _ if bench.level == Level::Smoke => None,
        _ => Some(restart(&bench.site, &mut subject)?),
    };
    Ok((start, restart))
}

/// How long before the restart clients ask, so that they hold the descriptor.
const BEFORE: Duration = Duration::from_secs(3);
/// How long after it everything must go well again.
const AFTER: Duration = Duration::from_secs(5);

/// Kill a service at once and start it again, while clients go on asking.
fn restart(site: &Site, subject: &mut Subject) -> Result<Values> {
    let onion = subject.onion.clone();
    let ended = AtomicBool::new(false);
    // When each request began, when it ended, and whether it was served.
    let requests = Mutex::new(Vec::new());
    let started = Instant::now();
    let mut killed_at = Duration::ZERO;
    std::thread::scope(|scope| -> Result<()> {
        let asking = scope.spawn(|| {
            all_at_once(usize::MAX, 4, |at| {
                anyhow::ensure!(!ended.load(Ordering::Relaxed), "it is over");
                let began = started.elapsed();
                let served = site.fetch_page(at, &onion, &fresh_user()).is_ok();
                let request = (began, started.elapsed(), served);
                requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(request);
                Ok(())
            })
        });
        let waited = |until: Duration| std::thread::sleep(until.saturating_sub(started.elapsed()));
        waited(BEFORE);
        killed_at = started.elapsed();
        let result = subject.restart(site);
        while result.is_ok() && started.elapsed() < killed_at + Duration::from_secs(180) {
            let list = requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let back = list.iter().find(|(began, _, served)| *began > killed_at && *served);
            let back = back.map(|(_, ended, _)| *ended);
            drop(list);
            if back.is_some_and(|back| started.elapsed() > back + AFTER) {
                break;
            }
            waited(started.elapsed() + Duration::from_millis(100));
        }
        ended.store(true, Ordering::Relaxed);
        // It ends with the error that ended it.
        let _ = asking.join();
        result
    })?;
    let list = requests.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let failed = list.iter().filter(|(_, _, served)| !served).count();
    let back = list.iter().filter(|(began, _, served)| *began > killed_at && *served);
    let back = back.map(|(_, ended, _)| *ended).min();
    let Some(back) = back else { anyhow::bail!("nobody was served after the restart") };
    Ok(Values::from([
        ("seconds_without_service", (back - killed_at).as_secs_f64()),
        ("requests_failed", failed as f64),
        ("requests", list.len() as f64),
    ]))
}
