//! One C tor process: its start, what it writes to its log, its end.
//!
//! It is started with the path of its torrc and nothing else, in an environment of its own: tor
//! would tell our systemd that *it* is ready. It ends with us: it polls for our process
//! (`__OwningControllerProcess`), and the control connection that owns it closes when we die.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::BufReader;
use tokio::process::{Child, ChildStdout, Command};

use super::lines::Lines;
use crate::base::redact::REDACTED;
use crate::limits;
use crate::runtime::pinning;

/// A running daemon.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number, for the log.
    number: u16,
    /// The process; killed when this is dropped.
    child: Child,
    /// What it writes; `None` once it has closed it.
    output: Option<Lines<BufReader<ChildStdout>>>,
    /// Whether it has answered at its control port. What it writes before that is about its
    /// configuration, and the operator shall see it.
    pub(super) is_up: bool,
    /// The last warning before that.
    pub(super) complaint: Option<String>,
}

impl Process {
    /// Start `binary` with this torrc, on this CPU alone.
    pub(super) fn start(
        number: u16,
        binary: &Path,
        torrc: &Path,
        cpu: Option<usize>,
    ) -> std::io::Result<Process> {
        let mut child = Command::new(binary)
            .arg("--defaults-torrc")
            .arg("/dev/null")
            .arg("-f")
            .arg(torrc)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/nonexistent")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C at our terminal is for us: we drain first.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // Before it has threads: they have what the first one has.
        if let (Some(cpu), Some(pid)) = (cpu, child.id())
            && let Err(error) = pinning::pin_process(pid, cpu)
        {
            tracing::warn!(daemon = number, "{error}; the daemon runs unpinned");
        }
        let output = child.stdout.take();
        let output = output.map(|out| Lines::new(BufReader::new(out), limits::CTOR_LINE_BYTES_MAX));
        Ok(Process { number, child, output, is_up: false, complaint: None })
    }

    /// Pass on what it writes, until it has ended.
    pub(super) async fn run(&mut self) -> std::io::Result<ExitStatus> {
        loop {
            let Some(output) = &mut self.output else { return self.child.wait().await };
            // It ends with its output; what is left in there is read first.
            match output.next().await {
                Ok(Some(line)) => self.pass_on(&line),
                _ => self.output = None,
            }
        }
    }

    /// A line of its log in ours. Addresses and relays are only in debug lines.
    fn pass_on(&mut self, line: &str) {
        tracing::debug!(daemon = self.number, "tor: {line}");
        let is_warning = line.contains("[warn]") || line.contains("[err]");
        if is_warning && !self.is_up {
            let text = scrubbed(line);
            tracing::warn!(daemon = self.number, "tor: {text}");
            // tor's last word is that there were others before.
            if !text.contains("see warnings above") {
                self.complaint = Some(text);
            }
        }
    }

    /// End it: as its own SIGTERM does, and by force if that takes too long.
    pub(super) async fn end(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile; its number is its own until it was waited for.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let patience = Duration::from_millis(limits::CTOR_END_MS_MAX);
        let ended = tokio::time::timeout(patience, self.run()).await;
        if ended.is_err() {
            tracing::warn!(daemon = self.number, "the daemon does not end; it is killed");
            let _ = self.child.kill().await;
        }
    }
}

/// A line of tor's log without onion addresses, IP addresses and fingerprints of relays, and of a
/// length to read.
fn scrubbed(line: &str) -> String {
    // What stands before the severity is a time, which our own log has.
    let line = line.find('[').map_or(line, |at| &line[at..]);
    let line: String = line.chars().take(limits::CTOR_LOG_CHARS_MAX).collect();
    let words = line.split(' ').map(|word| if is_telling(word) { REDACTED } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether a word tells who somebody is.
fn is_telling(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let parts = || bare.split(|c: char| !c.is_ascii_alphanumeric());
    let hex = |part: &str| part.len() >= 40 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let base32 = |part: &str| {
        part.len() == 56 && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
    };
    let ip = |text: &str| {
        text.parse::<std::net::IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok()
    };
    word.contains(".onion")
        || word.starts_with('$')
        || parts().any(|part| hex(part) || base32(part))
        || ip(bare)
        || ip(word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && !"[]:".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::scrubbed;

    #[test]
    fn a_line_tells_nobodys_name() {
        let onion = "a".repeat(56);
        let line = format!(
            "Nov 28 03:11:22.000 [warn] Failed $0123456789ABCDEF0123456789ABCDEF01234567~nick at \
             127.0.0.1:9001, [2001:db8::1]:443 for {onion} and {onion}.onion (10.0.0.1) in /var"
        );
        assert_eq!(
            scrubbed(&line),
            "[warn] Failed [redacted] at [redacted] [redacted] for [redacted] and [redacted] \
             [redacted] in /var"
        );
        assert_eq!(scrubbed("[warn] Unknown option 'x'."), "[warn] Unknown option 'x'.");
        assert!(scrubbed(&"long ".repeat(1000)).len() < 1000);
    }
}
