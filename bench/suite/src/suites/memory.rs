//! `memory`: what an instance takes, beside as many C tor daemons.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustbalance_lab::client::fresh_user;

use crate::bench::{Bench, C_TOR, Level, cost_of};
use crate::cost::Tree;
use crate::sample::{Sample, Values};
use crate::site::{Site, all_at_once};
use crate::subject::{Kind, Subject};

/// The suite's name.
pub const NAME: &str = "memory";

/// How many instances, or daemons.
pub fn counts(level: Level) -> &'static [usize] {
    level.pick(&[1], &[1, 2], &[1, 2, 4, 8, 16])
}

/// Rounds: each starts every process anew and takes minutes, and what is measured is memory, which
/// differs little from run to run.
const ROUNDS: usize = 1;

/// What a case is called.
pub fn case_name(count: usize) -> String {
    format!("{count} instance{}", if count == 1 { "" } else { "s" })
}

/// Steps that it takes.
pub fn steps(level: Level) -> usize {
    counts(level).len() * ROUNDS
}

/// Measure.
///
/// # Errors
/// When a subject does not start or results cannot be written.
pub fn run(bench: &mut Bench) -> Result<()> {
    for round in 0..ROUNDS {
        for count in counts(bench.level) {
            let case = case_name(*count);
            for daemons in [false, true] {
                let measured = one(bench, *count, daemons);
                let (values, void) = match measured {
                    Ok(values) => (values, None),
                    Err(error) => (Values::new(), Some(format!("{error:#}"))),
                };
                let subject = if daemons { C_TOR } else { "RustBalance" }.to_owned();
                let case = case.clone();
                bench.record(Sample { suite: NAME, case, subject, round, values, void })?;
            }
            bench.step(&format!("{NAME}, {case}"));
        }
    }
    Ok(())
}

/// Start so many, have them do the same work, and see what they take.
fn one(bench: &Bench, count: usize, daemons: bool) -> Result<Values> {
    let (site, started) = (&bench.site, Instant::now());
    let kind = if daemons { Kind::CTor } else { Kind::rustbalance(count) };
    let processes = if daemons { count } else { 1 };
    let subjects = (0..processes).map(|_| kind.start(site)).collect::<Result<Vec<_>>>()?;
    for subject in &subjects {
        site.wait_until_served(&subject.onion)?;
    }
    let served = started.elapsed().as_secs_f64();
    let roots = subjects.iter().flat_map(|subject| subject.tree.roots.clone()).collect();
    let tree = Tree { roots };
    let idle = tree.memory_bytes() as f64;
    // What it does with nobody asking, publishing included.
    let span = Duration::from_millis(bench.level.pick(200, 4000, 10_000));
    let ((), at_rest) = cost_of(&tree, || {
        std::thread::sleep(span);
        Ok(())
    })?;
    work(site, &subjects, count, bench.level)?;
    let worked = tree.memory_bytes() as f64;
    Ok(Values::from([
        ("memory_mb_idle", idle / 1e6),
        ("memory_mb_after_work", worked / 1e6),
        ("seconds_until_served", served),
        ("idle_cpu_ms_per_second", at_rest.cpu_seconds * 1e3 / at_rest.seconds),
    ]))
}

/// For each instance: new clients, and a body of some megabytes for some of them.
fn work(site: &Site, subjects: &[Subject], count: usize, level: Level) -> Result<()> {
    let clients = level.pick(2, 20, 20) * count;
    let body = site.body(level.pick(10_000, 1_000_000, 1_000_000))?;
    all_at_once(clients, 4, |at| {
        let onion = &subjects[at % subjects.len()].onion;
        match at % 4 {
            0 => site.download(at, onion, &fresh_user(), &body),
            _ => site.fetch_page(at, onion, &fresh_user()).map(|_| ()),
        }
    })
}
