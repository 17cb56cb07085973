//! `rustbalance run`: serve until told to stop.
//!
//! Everything that can be refused is refused before anything is written: configuration, key files,
//! state directory, arti's tables. Standard output carries two facts, a line each: `onion ADDRESS`
//! and `ready`; where it is the journal, the address is redacted as in the log. Everything else
//! goes to standard error.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::allocator;
use super::args::{EXIT_CONFIG, EXIT_FAILED, RunArgs};
use super::log_writer;
use super::logging::{self, STDOUT, is_journal, tell, warn};
use super::passed;
use super::signals::{Asked, Held, Signals};
use super::systemd::{Notifier, feed_watchdog, hung_bound};
use crate::app::{Changes, Launch, LaunchError, Notice, PassedSockets, Progress, Running};
use crate::base::redact::REDACTED;
use crate::config::Config;

/// Why a run did not come to its orderly end.
enum Failure {
    /// The configuration is wrong: one sentence each.
    Config(Vec<String>),
    /// Something failed.
    Failed(String),
}

/// Do it. Signals are `held` until they can be served.
pub fn run(args: &RunArgs, held: Option<Held>) -> ExitCode {
    let end = serve(args, held);
    log_writer::flush();
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(errors)) => {
            for error in errors {
                logging::say(&error);
            }
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Failure::Failed(error)) => {
            logging::say(&error);
            ExitCode::FAILURE
        }
    }
}

/// Check everything, start, and wait for the end.
fn serve(args: &RunArgs, held: Option<Held>) -> Result<(), Failure> {
    // Before a thread runs, and before a file is opened.
    let (sockets, useless) = passed::take(args.take_over).map_err(Failure::Failed)?;
    let failed =
        |error: std::io::Error| Failure::Failed(format!("cannot listen for signals: {error}"));
    let driver =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let signals = {
        let _context = driver.enter();
        Signals::new().map_err(failed)?
    };
    drop(held);
    let config = args.config().map_err(Failure::Config)?;
    logging::check(&config.log).map_err(|error| Failure::Config(vec![error]))?;
    logging::init(&config.log).map_err(Failure::Failed)?;
    for warning in config.warnings.iter().chain(&useless) {
        warn(warning);
    }
    super::process::prepare();
    let drain = config.drain;
    let launch = Launch::new(config)
        .io(args.io)
        .sockets(sockets.clone())
        .trim(allocator::trim)
        .take_over(args.take_over);
    let running = launch.start(|notice| told("", notice)).map_err(|error| match error {
        LaunchError::Config(errors) => Failure::Config(errors),
        LaunchError::Failed(error) => Failure::Failed(error),
    })?;
    let following = async {
        let signals = signals.with_interrupt().map_err(failed)?;
        follow(&running, signals, (drain, &sockets), args).await.map_err(Failure::Failed)
    };
    driver.block_on(following)
}

/// Tell what somebody may want to know of a start or a change, after `prefix`.
fn told(prefix: &str, notice: Notice) {
    match notice {
        Notice::Warning(warning) => warn(&format_args!("{prefix}{warning}")),
        Notice::NewKey(path) => tell(&format_args!("{prefix}made a new key: {}", path.display())),
    }
}

/// Read the configuration again, and let what can change do so. What is wrong changes nothing.
fn reload(running: &Running, args: &RunArgs) {
    let refused = |errors: Vec<String>| {
        warn(&"SIGHUP: the configuration is wrong, and nothing has changed");
        errors.iter().for_each(|error| warn(error));
    };
    let config = match read_again(args) {
        Ok(config) => config,
        Err(errors) => return refused(errors),
    };
    let changes = match running.apply(&config, |notice| told("SIGHUP: ", notice)) {
        Ok(changes) => changes,
        Err(LaunchError::Config(errors)) => return refused(errors),
        Err(LaunchError::Failed(error)) => return refused(vec![error]),
    };
    logging::set_level(&config.log);
    let Changes { added, changed, removed, listeners } = changes;
    for (names, what) in [(added, "comes"), (changed, "changes"), (removed, "goes")] {
        names.iter().for_each(|name| tell(&format_args!("SIGHUP: service {name:?} {what}")));
    }
    if listeners {
        tell(&"SIGHUP: listeners come or go");
    }
    tell(&"SIGHUP: services, listeners and the log's level are as the configuration says now");
}

/// The configuration, checked anew.
fn read_again(args: &RunArgs) -> Result<Config, Vec<String>> {
    let config = args.config()?;
    logging::check(&config.log).map_err(|error| vec![error])?;
    Ok(config)
}

/// Tell how far things are, and pass signals on, until the end.
async fn follow(
    running: &Running,
    mut signals: Signals,
    (drain, sockets): (Duration, &PassedSockets),
    args: &RunArgs,
) -> Result<(), String> {
    let mut progress = running.progress();
    let mut teller = Teller::new();
    let mut systemd = Notifier::default();
    let mut watchdog = std::pin::pin!(feed_watchdog(running));
    let mut hung = std::pin::pin!(running.hung_cores(hung_bound()));
    let mut ends = 0;
    loop {
        let now = progress.borrow_and_update().clone();
        teller.tell(&now);
        if !now.handed_over {
            systemd.tell(&now, args.take_over);
        }
        if let Some(ended) = now.ended {
            return if ended.is_empty() { Ok(()) } else { Err(ended) };
        }
        tokio::select! {
            () = tokio::time::sleep(TELL_INTERVAL), if teller.owes(&now) => {}
            changed = progress.changed() => {
                changed.map_err(|_| "the control core died".to_owned())?;
            }
            () = &mut watchdog, if !now.handed_over => {}
            hung = &mut hung => end_hung(&hung),
            asked = signals.next() => {
                match asked {
                    Asked::End => {}
                    Asked::Reload => {
                        systemd.reloading();
                        reload(running, args);
                        systemd.reloaded();
                        continue;
                    }
                    Asked::Upgrade => {
                        super::process::start_successor(sockets);
                        continue;
                    }
                }
                ends += 1;
                if ends > 1 {
                    // As asked for: at once. The descriptors go with the process.
                    log_writer::flush();
                    std::process::exit(0);
                }
                tell(&"draining; once more ends at once");
                systemd.stopping(drain);
                running.drain();
            }
        }
    }
}

/// End the process, since these cores hang: whoever supervises it starts it anew. Nothing else can
/// be done about a thread.
fn end_hung(cores: &[String]) -> ! {
    let cores = cores.join(", ");
    let seconds = hung_bound().as_secs();
    tracing::error!("not alive for {seconds} s: {cores}; the process ends, to be started anew");
    log_writer::flush();
    std::process::exit(EXIT_FAILED.into());
}

/// Says each thing once.
struct Teller {
    /// Whether standard output is the journal, which is kept and read by others.
    in_journal: bool,
    /// When the start began.
    started: Instant,
    /// The addresses that were told.
    told_onions: Vec<String>,
    /// Whether `ready` was told.
    told_ready: bool,
    /// The last text that was told, and when.
    last: (String, Instant),
}

/// Progress is told at most this often.
const TELL_INTERVAL: Duration = Duration::from_secs(2);

impl Teller {
    /// Nothing was told.
    fn new() -> Teller {
        let now = Instant::now();
        Teller {
            in_journal: is_journal(STDOUT),
            started: now,
            told_onions: Vec::new(),
            told_ready: false,
            last: (String::new(), now),
        }
    }

    /// Whether there is something that was not told yet.
    fn owes(&self, progress: &Progress) -> bool {
        !progress.text.is_empty() && self.last.0 != progress.text
    }

    /// Tell what is new.
    fn tell(&mut self, progress: &Progress) {
        let mut facts = std::io::stdout().lock();
        for onion in &progress.onions {
            if !self.told_onions.contains(onion) {
                match self.in_journal {
                    true => drop(writeln!(facts, "onion {REDACTED}")),
                    false => drop(writeln!(facts, "onion {onion}")),
                }
            }
        }
        self.told_onions.clone_from(&progress.onions);
        if progress.ready && !self.told_ready {
            self.told_ready = true;
            let _ = writeln!(facts, "ready");
            let seconds = self.started.elapsed().as_secs_f32();
            tell(&format_args!("ready after {seconds:.1} s"));
        }
        // Whoever reads may have gone; that is no reason to stop serving.
        let _ = facts.flush();
        if self.owes(progress) && self.last.1.elapsed() >= TELL_INTERVAL {
            tell(&format_args!("{:?}: {}", progress.state, progress.text));
            self.last = (progress.text.clone(), Instant::now());
        }
    }
}
