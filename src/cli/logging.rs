//! Where the binary's log goes, in which form, and how much of it.
//!
//! It goes to standard error ([`super::log_writer`]): for people on a terminal, as journald's
//! fields ([`super::journal`]) where standard error is the journal's, else as JSON lines; `[log]
//! format` says otherwise. Equal warnings of libraries are told once a minute
//! ([`super::log_repeats`]).
//! By default with our own lines from `info` up and arti's from `warn` up; `[log] level` and, above
//! it, `RUSTBALANCE_LOG` take tracing's directives, for example
//! `rustbalance=debug,tor_guardmgr=info`.

use std::io::{IsTerminal as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::journal::{Journal, JournalLayer};
use super::log_repeats::OneAMinute;
use super::log_writer::{self, LogWriter};
use crate::base::redact::scrub;
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

/// Standard output.
pub const STDOUT: u8 = 1;
/// Standard error.
const STDERR: u8 = 2;

/// Whether this descriptor leads to the journal: systemd says so with the socket's device and
/// inode (systemd.exec(5), `$JOURNAL_STREAM`).
pub fn is_journal(descriptor: u8) -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(opened) = std::fs::metadata(format!("/proc/self/fd/{descriptor}")) else { return false };
    journal == format!("{}:{}", opened.dev(), opened.ino())
}

/// Writes lines of events; without what identifies somebody, unless they are for debugging.
struct Lines(&'static LogWriter);

/// One line.
struct Line {
    /// Where it goes.
    writer: &'static LogWriter,
    /// Whether through [`scrub`].
    scrubbed: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { writer: self.0, scrubbed: true }
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> Line {
        Line { writer: self.0, scrubbed: *metadata.level() <= tracing::Level::INFO }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut writer = self.writer;
        match self.scrubbed {
            true => writer.write_all(scrub(&String::from_utf8_lossy(line)).as_bytes())?,
            false => writer.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Start the log. Does nothing when there is one already.
///
/// # Errors
/// A sentence, when its thread cannot be started.
pub fn init(log: &Log) -> Result<(), String> {
    let format = match log.format {
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Human,
        LogFormat::Auto if is_journal(STDERR) => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    };
    let journal = match format {
        LogFormat::Journald => Journal::open().ok(),
        _ => None,
    };
    let for_journal = journal.is_some();
    let for_people = format == LogFormat::Human;
    // It would tell its own errors on standard error by `eprintln!`, which panics where that has
    // gone.
    let writer = LogWriter::of_process(journal).map_err(|error| format!("the log: {error}"))?;
    let lines = || fmt::layer().with_writer(Lines(writer)).log_internal_errors(false);
    let layer = match (for_journal, for_people) {
        (true, _) => JournalLayer::new(writer).boxed(),
        (false, true) => lines().boxed(),
        (false, false) => lines().json().boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter(log));
    let registry = tracing_subscriber::registry().with(filter).with(OneAMinute::new());
    if registry.with(layer).try_init().is_ok() {
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
        Some(true) => log_writer::line(text),
        None => say(text),
    }
}

/// Tell the operator what looks wrong, in the same way.
pub fn warn(text: &dyn std::fmt::Display) {
    match FOR_PEOPLE.get() {
        Some(false) => tracing::warn!(target: "rustbalance", "{text}"),
        Some(true) => log_writer::line(&format_args!("warning: {text}")),
        None => say(&format_args!("warning: {text}")),
    }
}

/// Tell the operator in words. Whoever reads may have gone, which is no reason to panic as
/// `eprintln!` does.
pub fn say(text: &dyn std::fmt::Display) {
    let text = format!("rustbalance: {text}\n");
    // Who asked at a terminal knows the address; the journal is kept, and read by others.
    let text = if is_journal(STDERR) { scrub(&text) } else { text.as_str().into() };
    let _ = std::io::stderr().write_all(text.as_bytes());
}
