//! `bytes`: CPU for a payload byte, and system calls for a megabyte.

use anyhow::{Result, ensure};

use crate::bench::{Bench, Cost, cost_of};
use crate::sample::Values;
use crate::site::{Site, all_at_once};
use crate::subject::Subject;
use crate::syscalls;

/// The suite's name.
pub const NAME: &str = "bytes";

/// Directions and numbers of streams.
fn cases(bench: &Bench) -> Vec<(bool, usize)> {
    let streams: &[usize] = bench.level.pick(&[2], &[4], &[1, 4, 16, 64]);
    let mut cases: Vec<_> = streams.iter().map(|count| (true, *count)).collect();
    let up: &[usize] = bench.level.pick(&[2], &[4], &[1, 4, 16, 64]);
    cases.extend(up.iter().map(|count| (false, *count)));
    cases
}

/// What a case is called.
pub fn case_name(down: bool, streams: usize) -> String {
    let plural = if streams == 1 { "" } else { "s" };
    format!("{}, {streams} stream{plural}", if down { "down" } else { "up" })
}

/// What the case is called in which system calls are counted.
pub fn calls_case_name(streams: usize) -> String {
    format!("system calls, down, {streams} streams")
}

/// Steps that it takes.
pub fn steps(level: crate::bench::Level) -> usize {
    level.pick(3, 2 * 5 + 1, 8 * 5 + 1)
}

/// Measure.
///
/// # Errors
/// When results cannot be written.
pub fn run(bench: &mut Bench, subjects: &[Subject], rounds: usize) -> Result<()> {
    let megabytes = bench.level.pick(1, 12, 16);
    let idle = bench.idle;
    for (down, streams) in cases(bench) {
        let bytes = megabytes * 1_000_000 / streams;
        bench.interleave(NAME, &case_name(down, streams), rounds, subjects, |site, subject| {
            let (cost, inside) = transfer(site, subject, down, streams, bytes)?;
            let total = (bytes * streams) as f64;
            let mut values = Values::from([
                ("cpu_ns_per_byte", cost.cpu_seconds * 1e9 / total),
                ("machine_cpu_ns_per_byte", cost.machine_above(idle) * 1e9 / total),
                ("mbps", total * 8.0 / cost.seconds / 1e6),
                ("cores", cost.cpu_seconds / cost.seconds),
            ]);
            values.extend(inside);
            Ok(values)
        })?;
    }
    // Tracing slows everything, so this is a pass of its own whose times count nowhere.
    let (streams, megabytes) = bench.level.pick((2, 1), (16, 8), (16, 32));
    let bytes = megabytes * 1_000_000 / streams;
    let case = calls_case_name(streams);
    bench.interleave(NAME, &case, 1, subjects, |site, subject| {
        let users = site.warm_up(&subject.onion, streams)?;
        let body = site.body(bytes)?;
        let calls = syscalls::count(&subject.tree, || {
            all_at_once(streams, streams, |at| site.download(at, &subject.onion, &users[at], &body))
        })?;
        let total = (bytes * streams) as f64 / 1e6;
        Ok(Values::from([("syscalls_per_megabyte", calls as f64 / total)]))
    })
}

/// Move as many bytes over each of several streams at once; what it cost, and what the subject says
/// of its own threads.
fn transfer(
    site: &Site,
    subject: &Subject,
    down: bool,
    streams: usize,
    bytes: usize,
) -> Result<(Cost, Values)> {
    // The circuits are there before the clock starts.
    let users = site.warm_up(&subject.onion, streams)?;
    let body = site.body(bytes)?;
    let before = subject.inside(site)?;
    let ((), cost) = cost_of(&subject.tree, || {
        all_at_once(streams, streams, |at| match down {
            true => site.download(at, &subject.onion, &users[at], &body),
            false => site.upload(at, &subject.onion, &users[at], bytes),
        })
    })?;
    ensure!(cost.cpu_seconds > 0.0, "the subject's CPU time cannot be read");
    let inside = match (before, subject.inside(site)?) {
        (Some(before), Some(after)) => after.since(&before),
        _ => Values::new(),
    };
    Ok((cost, inside))
}
