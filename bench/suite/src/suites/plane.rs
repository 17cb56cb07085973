//! `plane`: what bytes and connections cost between a listener and a backend, beside HAProxy and
//! nginx. No Tor is on this way: each program has one CPU, load and backend have the other.

use std::time::Duration;

use anyhow::Result;

use crate::bench::{Bench, Level, cost_of};
use crate::plane::load::{self, Backend, Killed};
use crate::plane::subject::{Kind, Subject};
use crate::sample::{Sample, Values};

/// The suite's name.
pub const NAME: &str = "plane";
/// Much over few streams.
pub const BULK: &str = "4 streams";
/// One byte over each of many connections.
pub const CONNECTIONS: &str = "new connections";
/// Small questions over kept connections.
pub const QUESTIONS: &str = "498-byte questions on 32 kept connections";
/// New connections at a fixed rate.
pub const OPEN_LOOP: &str = "1000 new connections a second";
/// One of two backends is killed in the midst of new connections and open streams.
pub const KILLED: &str = "a backend killed among 500 new connections a second";
/// Connections that say nothing.
pub const IDLE: &str = "idle connections";
/// Ours.
pub const OURS: &str = "RustBalance, uring";
/// Both ways to run HAProxy, the first of them by its two names: the better one is what bounds are
/// about.
pub const HAPROXIES: [&[&str]; 2] =
    [&["HAProxy, splice", "HAProxy, splice (A/A)"], &["HAProxy, copies"]];

/// Who is compared.
fn kinds(level: Level) -> Vec<Kind> {
    match level {
        Level::Smoke => vec![Kind::RustBalance("auto")],
        _ => vec![
            Kind::Haproxy { splice: true },
            Kind::RustBalance("uring"),
            Kind::Haproxy { splice: false },
            Kind::RustBalance("epoll"),
            Kind::Nginx,
            Kind::Haproxy { splice: true },
        ],
    }
}

/// A case: its name, and what is measured.
type Case = (&'static str, fn(&Bench, &Subject, &Backend) -> Result<Values>);

/// All cases.
const CASES: [Case; 6] = [
    (BULK, bulk),
    (CONNECTIONS, connections),
    (QUESTIONS, questions),
    (OPEN_LOOP, open_loop),
    (KILLED, killed),
    (IDLE, idle),
];

/// Rounds.
fn rounds(level: Level) -> usize {
    level.pick(1, 3, 7)
}

/// Steps that it takes.
pub fn steps(level: Level) -> usize {
    CASES.len() * rounds(level)
}

/// Measure.
///
/// # Errors
/// When a subject does not start or results cannot be written.
pub fn run(bench: &mut Bench) -> Result<()> {
    let pairs = load::allow_pairs();
    bench.say(&format!("descriptors for {pairs} idle pairs"));
    let (answering, silent) = (Backend::start()?, Backend::start_silent()?);
    let start = |kind| Subject::start(kind, &bench.site, [&[&answering], &[&silent]]);
    let mut subjects = kinds(bench.level).into_iter().map(start).collect::<Result<Vec<_>>>()?;
    for at in 1..subjects.len() {
        if subjects[..at].iter().any(|earlier| earlier.name == subjects[at].name) {
            subjects[at].name.push_str(" (A/A)");
        }
    }
    // What a start takes is not what is measured.
    std::thread::sleep(Duration::from_secs(bench.level.pick(1, 8, 8)));
    for (case, measure) in CASES {
        for round in 0..rounds(bench.level) {
            let mut results = Vec::new();
            let mut void = None;
            for turn in 0..subjects.len() {
                let subject = &subjects[(turn + round) % subjects.len()];
                let values = match measure(bench, subject, &silent) {
                    Ok(values) => values,
                    Err(error) => {
                        let why = format!("{}: {error:#}", subject.name);
                        bench.say(&format!("round {} of {case} is void: {why}", round + 1));
                        void = Some(why);
                        Values::new()
                    }
                };
                results.push((subject.name.clone(), values));
            }
            for (subject, values) in results {
                let (case, void) = (case.to_owned(), void.clone());
                bench.record(Sample { suite: NAME, case, subject, round, values, void })?;
            }
            bench.step(&format!("{NAME}, {case}, round {}", round + 1));
        }
    }
    Ok(())
}

/// CPU for a gigabyte.
fn bulk(bench: &Bench, subject: &Subject, _: &Backend) -> Result<Values> {
    let (streams, each) = (4, bench.level.pick(1_000_000, 128_000_000, 256_000_000));
    let ((), cost) = cost_of(&subject.tree, || load::bulk(subject.to, streams, each))?;
    let gigabytes = (streams * each) as f64 / 1e9;
    Ok(Values::from([
        ("cpu_ms_per_gigabyte", cost.cpu_seconds * 1e3 / gigabytes),
        ("gbps", gigabytes * 8.0 / cost.seconds),
    ]))
}

/// CPU for a connection.
fn connections(bench: &Bench, subject: &Subject, _: &Backend) -> Result<Values> {
    let count = bench.level.pick(80, 8_000, 20_000);
    let ((), cost) = cost_of(&subject.tree, || load::connections(subject.to, count))?;
    Ok(Values::from([
        ("cpu_us_per_connection", cost.cpu_seconds * 1e6 / count as f64),
        ("connections_per_cpu_second", count as f64 / cost.cpu_seconds),
    ]))
}

/// CPU for a question and its answer.
fn questions(bench: &Bench, subject: &Subject, _: &Backend) -> Result<Values> {
    let (kept, each) = (32, bench.level.pick(5, 1000, 3000));
    let ((), cost) = cost_of(&subject.tree, || load::questions(subject.to, kept, each))?;
    Ok(Values::from([("cpu_us_per_question", cost.cpu_seconds * 1e6 / (kept * each) as f64)]))
}

/// How long a new client waits.
fn open_loop(bench: &Bench, subject: &Subject, _: &Backend) -> Result<Values> {
    let (rate, span) = (1000.0, Duration::from_millis(bench.level.pick(200, 3000, 10_000)));
    let (times, failed) = load::open_loop(subject.to, rate, span)?;
    anyhow::ensure!(failed == 0, "{failed} were not answered");
    let ms = |percentile: f64| times.value_at_percentile(percentile) as f64 / 1e3;
    Ok(Values::from([
        ("ms_p50", ms(50.0)),
        ("ms_p99", ms(99.0)),
        ("ms_p999", ms(99.9)),
        ("ms_p9999", ms(99.99)),
    ]))
}

/// What is lost of new connections, and which open streams end, when one of two backends is killed.
fn killed(bench: &Bench, subject: &Subject, _: &Backend) -> Result<Values> {
    // A new one, which knows of no failure.
    let (victim, other) = (Backend::start_mortal()?, Backend::start_mortal()?);
    let both = [&victim, &other];
    let subject = Subject::start(subject.kind, &bench.site, [&both, &[&other]])?;
    std::thread::sleep(Duration::from_secs(bench.level.pick(1, 4, 4)));
    let span = Duration::from_millis(bench.level.pick(400, 4000, 10_000));
    let found = load::killed(subject.to, &victim, 500.0, span)?;
    drop(subject);
    other.kill();
    let Killed { ended, lost, total, ms_p99 } = found;
    Ok(Values::from([
        ("open_streams_ended_of_64", ended as f64),
        ("new_connections_lost", lost as f64),
        ("new_connections", total as f64),
        ("ms_p99", ms_p99),
    ]))
}

/// Memory for a pair of connections that say nothing, on the program's side of the kernel.
fn idle(bench: &Bench, subject: &Subject, silent: &Backend) -> Result<Values> {
    // A new one, which has nothing left over from earlier connections.
    let subject = Subject::start(subject.kind, &bench.site, [&[silent], &[silent]])?;
    std::thread::sleep(Duration::from_secs(bench.level.pick(1, 4, 4)));
    let pairs = load::allow_pairs();
    let count = bench.level.pick(50, pairs, pairs);
    silent.let_go();
    let before = subject.tree.memory_bytes() as f64;
    let clients = load::idle(subject.to_silent, silent, count)?;
    let after = subject.tree.memory_bytes() as f64;
    drop(clients);
    silent.let_go();
    std::thread::sleep(Duration::from_millis(500));
    Ok(Values::from([
        ("memory_kb_per_pair", (after - before).max(0.0) / 1e3 / count as f64),
        ("pairs", count as f64),
    ]))
}
