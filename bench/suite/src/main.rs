//! `suite`: RustBalance beside what people run today, on one private Tor network, in one run.
//!
//! Subjects take turns (A B C, B C A, ...), two of them are C tor twice, which shows the noise. CPU
//! is that of whole process trees; every body's hash is checked; a round in which a request failed
//! is void for all, and said so.

mod bench;
mod bounds;
mod cost;
mod inside;
mod plane;
mod plot;
mod report;
mod sample;
mod site;
mod subject;
mod suites;
mod syscalls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use rustbalance_lab::Size;

use self::bench::{Bench, C_TORS, Level};
use self::site::Site;
use self::subject::{Kind, Subject};
use self::suites::{self as suite, bytes, clients, flood, memory, rendezvous, scale, start};

/// Compare RustBalance with C tor, and with C tor, OnionBalance and HAProxy together.
///
/// Brings a private Tor network up on this machine, lets the subjects take turns, and writes raw
/// data (JSON lines), a report and pictures to a new directory. Nothing touches the public Tor
/// network. Without SUITE all suites run; with --quick all but `plane`.
#[derive(Parser)]
#[command(
    name = "bench/run",
    after_help = "Examples:\n  \
    bench/run --quick            everything in a quarter of an hour\n  \
    bench/run bytes rendezvous   two suites, thoroughly\n  \
    bench/run --check            and exit with 1 when a bound of the specification is broken"
)]
struct Arguments {
    /// Everything smaller: a quarter of an hour in all
    #[arg(long)]
    quick: bool,
    /// Everything once and as small as can be: shows that the suites work, measures nothing
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Exit with 1 when a bound of docs/SPECIFICATION.md does not hold
    #[arg(long, conflicts_with = "smoke")]
    check: bool,
    /// The rustbalance binary, built with `cargo build --release`
    #[arg(long, default_value = "target/release/rustbalance")]
    rustbalance: PathBuf,
    /// Compare the epoll driver as well
    #[arg(long)]
    epoll: bool,
    /// Rounds of the suites that measure running subjects
    #[arg(long)]
    rounds: Option<usize>,
    /// Where raw data and report go; must not be there
    #[arg(long, required_unless_present = "report")]
    out: Option<PathBuf>,
    /// Measure nothing: write the report of this run's directory again, from its raw data
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "smoke", "check", "suites"])]
    report: Option<PathBuf>,
    /// What to run
    #[arg(value_name = "SUITE")]
    suites: Vec<Suite>,
}

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// CPU for a payload byte, system calls for a megabyte
    Bytes,
    /// CPU for a new client, new clients a second, time until served
    Rendezvous,
    /// Memory for each of many clients on one core
    Clients,
    /// Memory of many instances beside as many daemons
    Memory,
    /// More introductions than can be served
    Flood,
    /// Start to first served request, and a restart under clients
    Start,
    /// A mix that holds the model of costs to account, and what it predicts
    Scale,
    /// From listeners to backends without Tor, beside HAProxy and nginx
    Plane,
}

impl Suite {
    /// Its name in results.
    fn name(self) -> &'static str {
        match self {
            Suite::Bytes => bytes::NAME,
            Suite::Rendezvous => rendezvous::NAME,
            Suite::Clients => clients::NAME,
            Suite::Memory => memory::NAME,
            Suite::Flood => flood::NAME,
            Suite::Start => start::NAME,
            Suite::Scale => scale::NAME,
            Suite::Plane => suite::plane::NAME,
        }
    }

    /// Steps that it takes.
    fn steps(self, level: Level) -> usize {
        match self {
            Suite::Bytes => bytes::steps(level),
            Suite::Rendezvous => rendezvous::steps(level),
            Suite::Clients => clients::steps(),
            Suite::Memory => memory::steps(level),
            Suite::Flood => flood::steps(level),
            Suite::Start => start::steps(level),
            Suite::Scale => scale::steps(level),
            Suite::Plane => suite::plane::steps(level),
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench/run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Who is compared while all run at once.
fn kinds(level: Level, epoll: bool) -> Vec<Kind> {
    if level == Level::Smoke {
        return vec![Kind::rustbalance(1)];
    }
    let mut kinds = vec![
        Kind::CTor,
        Kind::CTor,
        Kind::rustbalance(2),
        bounds::two_stacks(),
        Kind::rustbalance(1),
        Kind::Classic { daemons: 2 },
    ];
    if level == Level::Full {
        kinds.push(Kind::RustBalance { instances: 2, stacks: 1, vanguards: "full", io: "auto" });
    }
    if epoll {
        kinds.push(Kind::RustBalance { instances: 2, stacks: 1, vanguards: "lite", io: "epoll" });
    }
    kinds
}

/// Measure, report, and say whether the bounds hold.
fn run(arguments: &Arguments) -> Result<bool> {
    let level = match (arguments.smoke, arguments.quick) {
        (true, _) => Level::Smoke,
        (false, true) => Level::Quick,
        (false, false) => Level::Full,
    };
    if let Some(dir) = &arguments.report {
        let samples = sample::read(&dir.join("raw.jsonl"))?;
        return report(dir, report::Run { samples: &samples, level });
    }
    let Some(out) = &arguments.out else { anyhow::bail!("name a directory with --out") };
    let all = Suite::value_variants();
    let suites: Vec<Suite> = match arguments.suites.is_empty() {
        // That one needs no Tor, and takes four minutes of a quarter of an hour.
        true if level == Level::Quick => {
            all.iter().copied().filter(|suite| *suite != Suite::Plane).collect()
        }
        true => all.to_vec(),
        false => all.iter().copied().filter(|suite| arguments.suites.contains(suite)).collect(),
    };
    std::fs::create_dir(out).with_context(|| format!("cannot make {}", out.display()))?;
    // Vanguards full need more relays than the small lab has.
    let size = level.pick(Size::Small, Size::Full, Size::Full);
    let site = Site::start(size, &arguments.rustbalance)?;
    let steps = suites.iter().map(|suite| suite.steps(level)).sum();
    let mut bench = Bench::new(site, level, &out.join("raw.jsonl"), steps)?;
    bench.measure_idle()?;
    let rounds = arguments.rounds.unwrap_or(level.pick(1, 5, 5));
    run_suites(&mut bench, &suites, rounds, arguments.epoll)?;
    // A smoke run shows that everything works: there a void round is a failure.
    let failed = level == Level::Smoke && bench.samples.iter().any(|one| one.void.is_some());
    let holds = report(out, report::Run { samples: &bench.samples, level })?;
    Ok(!failed && (holds || !arguments.check))
}

/// Write the report of a run, show its first page, and say whether the bounds of what it measured
/// hold.
fn report(dir: &Path, run: report::Run<'_>) -> Result<bool> {
    let measured = |suite: &&str| run.samples.iter().any(|one| one.suite == *suite);
    let names = Suite::value_variants().iter().map(|suite| suite.name());
    let names: Vec<&str> = names.filter(measured).collect();
    let document = Path::new("docs/SPECIFICATION.md");
    let verdicts = match run.level {
        Level::Smoke => Vec::new(),
        _ => bounds::check(run.samples, &names, document)?,
    };
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let command = format!("bench/run {command}");
    let text = report::write(dir, run, &verdicts, command.trim())?;
    let page = text.split("\n## Every figure").next().unwrap_or_default();
    println!("{page}\nreport: {}", dir.join("README.md").display());
    Ok(verdicts.iter().all(bounds::Verdict::holds))
}

/// Run the suites: first those that start their own subjects, so that nobody else runs meanwhile.
fn run_suites(bench: &mut Bench, suites: &[Suite], rounds: usize, epoll: bool) -> Result<()> {
    for suite in suites {
        match suite {
            Suite::Start => start::run(bench)?,
            Suite::Memory => memory::run(bench)?,
            Suite::Clients => clients::run(bench)?,
            Suite::Plane => suite::plane::run(bench)?,
            Suite::Bytes | Suite::Rendezvous | Suite::Flood | Suite::Scale => {}
        }
    }
    let shared = [Suite::Bytes, Suite::Rendezvous, Suite::Scale, Suite::Flood];
    if !suites.iter().any(|suite| shared.contains(suite)) {
        return Ok(());
    }
    let mut subjects: Vec<Subject> = bench.start(&kinds(bench.level, epoll))?;
    bench.measure_idle()?;
    for suite in shared.into_iter().filter(|suite| suites.contains(suite)) {
        if matches!(suite, Suite::Scale | Suite::Flood) {
            // One of a kind: the model is of these, and what a flood does depends little on stacks
            // and vanguards.
            let (ours, all) = (Kind::rustbalance(2).name(), Kind::Classic { daemons: 2 }.name());
            let few = [C_TORS[0], C_TORS[1], &ours, &all];
            subjects.retain(|one| bench.level == Level::Smoke || few.contains(&&*one.name));
        }
        match suite {
            Suite::Bytes => bytes::run(bench, &subjects, rounds)?,
            Suite::Rendezvous => rendezvous::run(bench, &subjects, rounds)?,
            Suite::Scale => scale::run(bench, &subjects, rounds)?,
            Suite::Flood => flood::run(bench, &subjects)?,
            Suite::Start | Suite::Memory | Suite::Clients | Suite::Plane => {}
        }
    }
    Ok(())
}
