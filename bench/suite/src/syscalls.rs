//! How many system calls a subject makes, counted by strace.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustbalance_lab::{require, wait_until};

use crate::cost::Tree;

/// Count the system calls of every thread of a subject while something happens.
///
/// # Errors
/// When strace is missing or may not trace, or when what happens fails.
pub fn count(tree: &Tree, what: impl FnOnce() -> Result<()>) -> Result<u64> {
    require(&["strace"])?;
    let pids = tree.pids();
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-U", "calls,name", "-o"]);
    let report = std::env::temp_dir().join(format!("rustbalance-strace-{}", std::process::id()));
    command.arg(&report);
    for pid in &pids {
        command.arg("-p").arg(pid.to_string());
    }
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut strace = spawned.context("cannot run strace")?;
    let attached = wait_until("strace is attached", 20, || {
        pids.iter().all(|pid| is_traced(*pid)).then_some(())
    });
    let result = attached.and_then(|()| what());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(strace.id())?);
    // It writes its table when it is interrupted.
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    strace.wait()?;
    let table = std::fs::read_to_string(&report).context("strace wrote nothing");
    let _ = std::fs::remove_file(&report);
    result?;
    total(&table?)
}

/// Whether every thread of a process is traced by somebody.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let statuses = tasks.flatten().map(|task| task.path().join("status"));
    statuses.filter_map(|path| std::fs::read_to_string(path).ok()).all(|status| {
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|pid| pid.trim() != "0")
    })
}

/// The number in the line `total` of strace's table.
fn total(table: &str) -> Result<u64> {
    let line = table.lines().rev().find(|line| line.trim_end().ends_with("total"));
    let calls = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    match calls {
        Some(calls) => Ok(calls),
        None => bail!("strace counted nothing; its table: {table}"),
    }
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_is_the_last_line() {
        let table = "    calls syscall\n--------- ----------------\n      100 writev\n\
                     --------- ----------------\n      123 total\n";
        assert_eq!(total(table).ok(), Some(123));
        assert!(total("nothing").is_err());
    }
}
