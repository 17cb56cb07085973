//! `clients`: many clients that hold their circuits open at once: memory for each, and whether all
//! are still served.

use std::time::Instant;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use rustbalance_lab::client::fresh_user;

use crate::bench::{Bench, Level, cost_of};
use crate::sample::{Sample, Values};
use crate::site::{Site, all_at_once};
use crate::subject::{Kind, Subject};

/// The suite's name.
pub const NAME: &str = "clients";

/// How many clients hold a circuit.
pub fn held(level: Level) -> usize {
    level.pick(4, 500, 2000)
}

/// What the case is called.
pub fn case_name(level: Level) -> String {
    format!("{} circuits held open on one core", held(level))
}

/// Rounds: each starts every process anew and takes minutes, and what is measured is memory, which
/// differs little from run to run.
const ROUNDS: usize = 1;

/// Steps that it takes.
pub fn steps() -> usize {
    2 * ROUNDS
}

/// Measure.
///
/// # Errors
/// When results cannot be written.
pub fn run(bench: &mut Bench) -> Result<()> {
    for round in 0..ROUNDS {
        for kind in [Kind::rustbalance(1), Kind::CTor] {
            let measured = one(bench, &kind);
            let (values, void) = match measured {
                Ok(values) => (values, None),
                Err(error) => (Values::new(), Some(format!("{error:#}"))),
            };
            if let Some(why) = &void {
                bench.say(&format!("void: {}: {why}", kind.name()));
            }
            let (case, subject) = (case_name(bench.level), kind.name());
            bench.record(Sample { suite: NAME, case, subject, round, values, void })?;
            bench.step(&format!("{NAME}, {}", kind.name()));
        }
    }
    Ok(())
}

/// Open the circuits, see what they take, and ask once more through each of them.
fn one(bench: &Bench, kind: &Kind) -> Result<Values> {
    let (site, clients) = (&bench.site, held(bench.level));
    let subject = kind.start(site)?;
    site.wait_until_served(&subject.onion)?;
    let before = subject.tree.memory_bytes() as f64;
    let users: Vec<String> = (0..clients).map(|_| fresh_user()).collect();
    let started = Instant::now();
    all_at_once(clients, 16, |at| site.fetch_page(at, &subject.onion, &users[at]).map(|_| ()))
        .context("while the circuits were opened")?;
    let seconds = started.elapsed().as_secs_f64();
    let after = subject.tree.memory_bytes() as f64;
    // A C tor client keeps a circuit for ten minutes after its last stream began.
    let (first_bytes, cost) = cost_of(&subject.tree, || again(site, &subject, &users))?;
    let ms = |quantile: f64| first_bytes.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Values::from([
        ("memory_kb_per_circuit", (after - before) / 1e3 / clients as f64),
        ("memory_mb_before", before / 1e6),
        ("memory_mb_after", after / 1e6),
        ("circuits_per_second", clients as f64 / seconds),
        ("first_byte_ms_p50", ms(0.5)),
        ("first_byte_ms_p99", ms(0.99)),
        ("cpu_ms_per_request", cost.cpu_seconds * 1e3 / clients as f64),
    ]))
}

/// One more request through each circuit that is held; microseconds until the first byte.
fn again(site: &Site, subject: &Subject, users: &[String]) -> Result<Histogram<u64>> {
    let waits = std::sync::Mutex::new(Histogram::<u64>::new_with_bounds(1, 120_000_000, 3)?);
    all_at_once(users.len(), 16, |at| {
        let waited = site.fetch_page(at, &subject.onion, &users[at])?;
        let mut waits = waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        waits.saturating_record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
        Ok(())
    })?;
    Ok(waits.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
