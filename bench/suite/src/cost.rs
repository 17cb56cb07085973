//! What processes cost, seen from outside: CPU of whole process trees, memory, the machine's load.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// Processes that are one subject, with all their descendants.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The processes at its top.
    pub roots: Vec<u32>,
}

impl Tree {
    /// User and system time so far. Exact to the nanosecond for what runs, to the clock tick for
    /// children that have ended and were waited for.
    pub fn cpu(&self) -> Duration {
        self.pids().into_iter().map(|pid| clock(pid) + reaped(pid)).sum()
    }

    /// Resident memory in bytes; pages that several processes share are divided among them
    /// (`Pss` of proc_pid_smaps_rollup), so that many daemons are not charged many times.
    pub fn memory_bytes(&self) -> u64 {
        self.pids().into_iter().map(pss_bytes).sum()
    }

    /// Every process of it that runs now.
    pub fn pids(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut waiting = self.roots.clone();
        while let Some(pid) = waiting.pop() {
            waiting.extend(children(pid));
            found.push(pid);
        }
        found
    }
}

/// A process's CPU clock: all its threads, ended ones as well.
fn clock(pid: u32) -> Duration {
    let Ok(pid) = i32::try_from(pid) else { return Duration::ZERO };
    clock_getcpuclockid(Pid::from_raw(pid))
        .and_then(ClockId::now)
        .map_or(Duration::ZERO, Duration::from)
}

/// Time of children that a process has waited for: `cutime + cstime` of proc_pid_stat(5).
fn reaped(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(") ") else { return Duration::ZERO };
    // Fields 16 and 17, of which the first two are cut off; 100 ticks a second on every Linux.
    let ticks = fields.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Direct children of a process, whichever of its threads made them.
fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().map(|task| task.path().join("children"));
    let texts = lists.filter_map(|path| std::fs::read_to_string(path).ok());
    let pids = |text: String| -> Vec<u32> {
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    texts.flat_map(pids).collect()
}

/// `Pss` of a process.
fn pss_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kb.unwrap_or_default() * 1024
}

/// What the whole machine was busy with: everything but idle and waiting for a disk, over all CPUs.
pub fn machine_busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(line) = stat.lines().next() else { return Duration::ZERO };
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let busy = ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    Duration::from_millis(10 * busy.map(|(_, ticks)| ticks).sum::<u64>())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::{Tree, machine_busy};

    #[test]
    fn a_busy_process_costs_what_it_takes_and_the_machine_too() {
        let tree = Tree { roots: vec![std::process::id()] };
        let (before, machine) = (tree.cpu(), machine_busy());
        let mut sum = 0_u64;
        while tree.cpu() - before < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(machine_busy() - machine >= Duration::from_millis(30));
        assert!(tree.memory_bytes() > 100_000);
    }

    #[test]
    fn children_belong_to_the_tree() {
        let sleeps = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn();
        let mut child = sleeps.expect("sleep is everywhere");
        let pids = Tree { roots: vec![std::process::id()] }.pids();
        child.kill().expect("it runs");
        child.wait().expect("it ended");
        assert!(pids.contains(&child.id()));
    }

    #[test]
    fn what_is_gone_costs_nothing() {
        let mut child = Command::new("true").spawn().expect("true is everywhere");
        child.wait().expect("it ends");
        let tree = Tree { roots: vec![child.id()] };
        assert_eq!(tree.cpu(), Duration::ZERO);
        assert_eq!(tree.memory_bytes(), 0);
    }
}
