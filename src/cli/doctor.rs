//! `rustbalance doctor`: what would go wrong on this machine, before it does.
//!
//! Each finding is a line: `ok`, `warn` or `fail`, what was looked at, what was found, and what to
//! do. Exits with 1 when anything fails. Starts and writes nothing.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit};

use super::args::{DoctorArgs, EXIT_FAILED};
use crate::app::state_dir::StateDir;
use crate::config::Config;
use crate::runtime::pinning;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    /// As it should be.
    Ok,
    /// It works, but worse than it could.
    Warn,
    /// It will not work.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// How bad it is.
    grade: Grade,
    /// What was looked at.
    what: &'static str,
    /// What was found, and what to do.
    text: String,
}

/// A finding.
fn finding(grade: Grade, what: &'static str, text: impl Into<String>) -> Finding {
    Finding { grade, what, text: text.into() }
}

/// Run the command.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let mut findings = vec![clock(), io(), cores(), quota(), descriptors(), core_dumps(), memory()];
    let config = match &args.config {
        Some(file) => match Config::load(file) {
            Ok(config) => Some(config),
            Err(error) => {
                findings.push(finding(Grade::Fail, "configuration", error.to_string()));
                None
            }
        },
        None => Some(Config::from_backends(&[], true)),
    };
    if let Some(config) = config {
        findings.push(state_dir(&config.state_dir));
        for problem in super::check::key_problems(&config) {
            findings.push(finding(Grade::Fail, "key", problem));
        }
        if let Err(errors) = super::validate_arti(&config.arti) {
            findings.extend(errors.into_iter().map(|text| finding(Grade::Fail, "arti", text)));
        }
    }
    let mut out = std::io::stdout().lock();
    for one in &findings {
        let grade = format!("{:?}", one.grade).to_lowercase();
        // A reader that has gone wants no more.
        let _ = writeln!(out, "{grade:<5} {:<14} {}", one.what, one.text);
    }
    match findings.iter().map(|one| one.grade).max() {
        Some(Grade::Fail) => ExitCode::from(EXIT_FAILED),
        _ => ExitCode::SUCCESS,
    }
}

/// Whether the kernel believes its clock.
fn clock() -> Finding {
    let year_2025 = std::time::Duration::from_secs(1_735_689_600);
    if std::time::SystemTime::now() < std::time::UNIX_EPOCH + year_2025 {
        return finding(Grade::Fail, "clock", "the clock is before 2025; set it, then run NTP");
    }
    let synchronized = Path::new("/run/systemd/timesync/synchronized").exists();
    match synchronized {
        true => finding(Grade::Ok, "clock", "set by NTP; its skew is learnt from relays"),
        false => finding(
            Grade::Warn,
            "clock",
            "no sign of systemd-timesyncd; make sure that chrony or another NTP client runs: \
             nothing is published when the clock is 5 minutes off",
        ),
    }
}

/// What the data cores wait on.
fn io() -> Finding {
    finding(Grade::Ok, "io", "epoll; this version has no io_uring driver yet")
}

/// The CPUs.
fn cores() -> Finding {
    let cores = pinning::available_cores();
    match cores.len() {
        0 => finding(Grade::Fail, "cores", "the kernel tells no CPU that may be used"),
        1 => finding(Grade::Warn, "cores", "one CPU: one instance, which shares it with control"),
        many => finding(Grade::Ok, "cores", format!("{many} CPUs may be used")),
    }
}

/// The cgroup's CPU quota.
fn quota() -> Finding {
    let quota = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").unwrap_or_default();
    match quota_cpus(&quota) {
        Some(cpus) if cpus < pinning::available_cores().len() as f64 => finding(
            Grade::Warn,
            "cpu quota",
            format!("the cgroup allows {cpus:.1} CPUs; set [turbo] instances to that"),
        ),
        _ => finding(Grade::Ok, "cpu quota", "none below the number of CPUs"),
    }
}

/// How many CPUs a `cpu.max` allows; `None` for no limit.
fn quota_cpus(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// Open files.
fn descriptors() -> Finding {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < 65_536 => finding(
            Grade::Warn,
            "open files",
            format!("at most {hard}, one for each stream; raise it (systemd: LimitNOFILE=1048576)"),
        ),
        Ok((_, hard)) => finding(Grade::Ok, "open files", format!("up to {hard}")),
        Err(error) => finding(Grade::Warn, "open files", format!("cannot tell: {error}")),
    }
}

/// Core dumps: `run` switches them off for itself.
fn core_dumps() -> Finding {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let text = match pattern.trim().starts_with('|') {
        true => "a handler collects them, but `run` switches them off for itself",
        false => "`run` switches them off for itself",
    };
    finding(Grade::Ok, "core dumps", text)
}

/// Locked memory, which a later version keeps keys in.
fn memory() -> Finding {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft < 1 << 20 => finding(
            Grade::Warn,
            "locked memory",
            format!("{soft} bytes; this version does not lock memory: use encrypted swap or none"),
        ),
        Ok(_) => finding(
            Grade::Ok,
            "locked memory",
            "there is room; this version does not lock memory: use encrypted swap or none",
        ),
        Err(error) => finding(Grade::Warn, "locked memory", format!("cannot tell: {error}")),
    }
}

/// The state directory.
fn state_dir(path: &Path) -> Finding {
    match StateDir::check(path) {
        Ok(()) if path.exists() => {
            finding(Grade::Ok, "state_dir", format!("{} can be used", path.display()))
        }
        Ok(()) => {
            finding(Grade::Ok, "state_dir", format!("{} will be made", path.display()))
        }
        Err(error) => finding(Grade::Fail, "state_dir", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::quota_cpus;

    #[test]
    fn a_quota_is_read_as_the_kernel_writes_it() {
        assert_eq!(quota_cpus("150000 100000\n"), Some(1.5));
        assert_eq!(quota_cpus("max 100000\n"), None);
        assert_eq!(quota_cpus(""), None);
    }
}
