//! `rb-load`: put load on an onion service of one's own.
//!
//! Arguments become a plan, the library carries it out, and its report is printed. What goes wrong
//! before the first request ends with an exit code of `sysexits.h` and a sentence.

mod arguments;
mod csv;
mod text;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use clap::error::ErrorKind;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustbalance_load::{Error, Observer, Plan, PlanError, Progress, Report, Sample, run_until};
use tokio::signal::unix::{SignalKind, signal};

use arguments::Arguments;
use csv::Csv;

/// Exit codes, after `sysexits.h`.
const EX_FAILED: u8 = 1;
const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;
const EX_SOFTWARE: u8 = 70;
const EX_CANTCREAT: u8 = 73;

/// How long a run must last before it tells its progress.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);

/// How often it does where nobody watches.
const PROGRESS_UNWATCHED: Duration = Duration::from_secs(10);

/// Descriptors besides the clients': the runtime's, the standard ones, the CSV file, and a margin
/// for connections that are closing while their successors open.
const DESCRIPTORS_BESIDES: u64 = 64;

/// What ends the program early: an exit code and its cause.
type Refusal = (u8, anyhow::Error);

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is there to be told when even this cannot be printed.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EX_USAGE),
            };
        }
    };
    match load(&arguments) {
        Ok(code) => code,
        Err((code, error)) => {
            eprintln!("rb-load: {error:#}");
            ExitCode::from(code)
        }
    }
}

/// Do it.
fn load(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let plan = arguments.plan().map_err(|error| (EX_USAGE, error.into()))?;
    allow_descriptors(&plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .map_err(|error| (EX_SOFTWARE, error))?;
    let csv = match &arguments.csv {
        Some(path) => {
            Some(Csv::create(path).map_err(|error| (EX_CANTCREAT, csv_error(path, error)))?)
        }
        None => None,
    };
    let mut watch = Watch::new(csv);
    let run = async { run_until(plan, &mut watch, interrupted()?).await.map_err(refusal) };
    let report = runtime.block_on(run);
    watch.clear_line();
    let written = watch.csv.map_or(Ok(()), Csv::finish);
    if let (Err(_), Some(path)) = (&report, &arguments.csv) {
        // It is ours and has no row: the next run may want its name.
        let _ = std::fs::remove_file(path);
    }
    let report = report?;
    print(arguments, &report).map_err(|error| (EX_CANTCREAT, error))?;
    if let (Err(error), Some(path)) = (written, &arguments.csv) {
        return Err((EX_CANTCREAT, csv_error(path, error)));
    }
    Ok(match report.failed == 0 && report.succeeded > 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EX_FAILED),
    })
}

/// A sentence on a CSV file that cannot be had.
fn csv_error(path: &std::path::Path, error: std::io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        std::io::ErrorKind::AlreadyExists => " (it is never overwritten: choose another name)",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("cannot write {}{advice}", path.display()))
}

/// Why a run did not begin, with its exit code.
fn refusal(error: Error) -> Refusal {
    match error {
        Error::Plan(error) => (EX_USAGE, error.into()),
        Error::Proxy { .. } => {
            let what = format!("{:#}", anyhow::Error::new(error));
            let fix = "start tor, or name the port that SocksPort in its configuration names";
            (EX_UNAVAILABLE, anyhow!("{what}; {fix}"))
        }
        error => (EX_SOFTWARE, error.into()),
    }
}

/// Let the process have the descriptors that its clients need.
fn allow_descriptors(plan: &Plan) -> Result<(), Refusal> {
    let needed = u64::try_from(plan.clients).unwrap_or(u64::MAX) + DESCRIPTORS_BESIDES;
    let limits = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files");
    let (soft, hard) = limits.map_err(|error| (EX_SOFTWARE, error))?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        let error = PlanError::Descriptors { clients: plan.clients, needed, allowed: hard };
        return Err((EX_USAGE, error.into()));
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard)
        .context("cannot raise the limit of open files")
        .map_err(|error| (EX_SOFTWARE, error))
}

/// Ready at Ctrl-C or SIGTERM. The handlers stand when it returns.
fn interrupted() -> Result<impl Future<Output = ()>, Refusal> {
    let listen = |kind| {
        let stream = signal(kind).context("cannot listen for signals");
        stream.map_err(|error| (EX_SOFTWARE, error))
    };
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Print the report.
fn print(arguments: &Arguments, report: &Report) -> anyhow::Result<()> {
    let text = match arguments.json {
        true => serde_json::to_string_pretty(report).context("cannot write JSON")? + "\n",
        false => text::report(report),
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot print the report")
}

/// Write to standard error; a run goes on where that is closed.
fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Who hears of the run: writes the CSV file and tells the progress.
struct Watch {
    csv: Option<Csv>,
    is_terminal: bool,
    /// When the progress was told last.
    told: Duration,
    /// Whether a line of progress stands on the terminal.
    has_line: bool,
}

impl Watch {
    /// Nothing told yet.
    fn new(csv: Option<Csv>) -> Watch {
        let is_terminal = std::io::stderr().is_terminal();
        Watch { csv, is_terminal, told: Duration::ZERO, has_line: false }
    }

    /// Take the line of progress off the terminal.
    fn clear_line(&mut self) {
        if std::mem::take(&mut self.has_line) {
            tell("\r\x1b[K");
        }
    }
}

impl Observer for Watch {
    fn progress(&mut self, progress: &Progress) {
        let line = text::progress(progress);
        if self.is_terminal && progress.elapsed >= PROGRESS_AFTER {
            // The line takes the place of the last one.
            tell(&format!("\r{line}\x1b[K"));
            self.has_line = true;
        } else if !self.is_terminal && progress.elapsed >= self.told + PROGRESS_UNWATCHED {
            tell(&format!("{line}\n"));
            self.told = progress.elapsed;
        }
    }

    fn sample(&mut self, sample: &Sample) {
        if let Some(csv) = &mut self.csv {
            csv.add(sample);
        }
    }
}
