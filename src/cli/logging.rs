//! Where the binary's log goes, in which form, and how much of it.
//!
//! It goes to standard error ([`super::log_writer`]): for people on a terminal, as journald's
//! fields where standard error is the journal's, else as JSON lines; `[log] format` says otherwise.
//! By default with our own lines from `info` up and arti's from `warn` up; `[log] level` and, above
//! it, `RUSTBALANCE_LOG` take tracing's directives, for example
//! `rustbalance=debug,tor_guardmgr=info`.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::log_writer::LogWriter;
use crate::config::{Log, LogFormat};

/// What changes the directives of the log, once there is one.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
/// Whether the log is for people; unset before it is started.
static FOR_PEOPLE: OnceLock<bool> = OnceLock::new();

/// Check directives of the configuration.
///
/// # Errors
/// What is wrong with them, with the key.
pub fn check(log: &Log) -> Result<(), String> {
    let level = &log.level;
    match EnvFilter::try_new(level) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "log.level: {error} in {level:?}; write directives as in \"warn,rustbalance=debug\""
        )),
    }
}

/// The directives that hold.
fn filter(log: &Log) -> EnvFilter {
    // It was checked; `new` passes over what is wrong.
    let configured = || EnvFilter::new(&log.level);
    let Ok(directives) = std::env::var("RUSTBALANCE_LOG") else { return configured() };
    EnvFilter::try_new(&directives).unwrap_or_else(|error| {
        warn(&format_args!("RUSTBALANCE_LOG: {error}; it is ignored"));
        configured()
    })
}

/// Whether standard error leads to the journal: systemd says so with the socket's device and inode.
fn is_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    journal == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// Start the log. Does nothing when there is one already.
///
/// # Errors
/// A sentence, when its thread cannot be started.
pub fn init(log: &Log) -> Result<(), String> {
    let format = match log.format {
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Human,
        LogFormat::Auto if is_journal() => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    let journal = match format {
        LogFormat::Journald => tracing_journald::layer().ok(),
        _ => None,
    };
    let for_people = format == LogFormat::Human;
    // It would tell its own errors on standard error by `eprintln!`, which panics where that has
    // gone.
    let lines = || {
        let writer = LogWriter::of_process().map_err(|error| format!("the log: {error}"))?;
        Ok::<_, String>(fmt::layer().with_writer(move || writer).log_internal_errors(false))
    };
    let layer = match journal {
        Some(journal) => journal.boxed(),
        None if for_people => lines()?.boxed(),
        None => lines()?.json().boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter(log));
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        let _ = FILTER.set(handle);
        let _ = FOR_PEOPLE.set(for_people);
    }
    Ok(())
}

/// Let other directives hold from now on.
pub fn set_level(log: &Log) {
    if let Some(handle) = FILTER.get() {
        let _ = handle.reload(filter(log));
    }
}

/// Tell the operator something that is no event: in words on standard error where the log is for
/// people or is not there yet, else as an event of the log.
pub fn tell(text: &dyn std::fmt::Display) {
    match FOR_PEOPLE.get() {
        Some(false) => tracing::info!(target: "rustbalance", "{text}"),
        _ => say(text),
    }
}

/// Tell the operator what looks wrong, in the same way.
pub fn warn(text: &dyn std::fmt::Display) {
    match FOR_PEOPLE.get() {
        Some(false) => tracing::warn!(target: "rustbalance", "{text}"),
        _ => say(&format_args!("warning: {text}")),
    }
}

/// Tell the operator in words. Whoever reads may have gone, which is no reason to panic as
/// `eprintln!` does.
pub fn say(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "rustbalance: {text}");
}
