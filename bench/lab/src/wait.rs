//! Waiting for conditions, telling people how far it is, and looking for what is missing.

use std::io::{IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Wait until `condition` gives something, and give it back.
///
/// # Errors
/// When it has not within `seconds`.
pub fn wait_until<T>(
    what: &str,
    seconds: u64,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {seconds} s");
        }
        std::thread::sleep(POLL);
    }
}

/// A port on 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Packages of Debian that programs come in.
const PACKAGES: [(&str, &str); 7] = [
    ("tor", "tor"),
    ("tor-gencert", "tor"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("onionbalance", "onionbalance"),
    ("ip", "iproute2"),
    ("curl", "curl"),
];

/// Check that these programs are installed.
///
/// # Errors
/// Names what is missing, and the package that it comes in.
pub fn require(programs: &[&str]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<_> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin".into(), "/sbin".into()]);
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| !places.iter().any(|place| place.join(program).is_file()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let known = |program: &str| PACKAGES.iter().find(|(name, _)| *name == program);
    let mut packages: Vec<&str> = missing
        .iter()
        .map(|program| known(program).map_or(*program, |(_, package)| *package))
        .collect();
    packages.sort_unstable();
    packages.dedup();
    bail!("missing: {}; run: apt-get install {}", missing.join(", "), packages.join(" "));
}

/// Tells how long something takes: a line that moves on a terminal, a line now and then elsewhere.
pub struct Progress {
    /// What is being done.
    what: String,
    /// How long it takes as a rule.
    expected: Duration,
    /// When it began.
    started: Instant,
    /// When it was last told.
    told: Option<Instant>,
    /// Say nothing.
    quiet: bool,
}

impl Progress {
    /// Begin.
    pub fn new(what: &str, expected_seconds: u64, quiet: bool) -> Progress {
        let expected = Duration::from_secs(expected_seconds);
        Progress { what: what.to_owned(), expected, started: Instant::now(), told: None, quiet }
    }

    /// Tell how far it is.
    pub fn tell(&mut self, text: &str) {
        let terminal = std::io::stderr().is_terminal();
        let pause = Duration::from_secs(if terminal { 1 } else { 5 });
        if self.quiet || self.told.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.told = Some(Instant::now());
        let elapsed = self.started.elapsed();
        let left = self.expected.saturating_sub(elapsed).as_secs();
        let (start, end) = if terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let what = &self.what;
        let seconds = elapsed.as_secs();
        let _ =
            write!(std::io::stderr(), "{start}{what}: {text} ({seconds} s, ~{left} s left){end}");
    }

    /// It is done.
    pub fn done(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        let start = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let seconds = self.started.elapsed().as_secs_f32();
        let _ = writeln!(std::io::stderr(), "{start}{}: {text} ({seconds:.1} s)", self.what);
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
