//! What processes cost, seen from outside: CPU of whole process trees, memory, the machine's load.

use std::collections::BTreeMap;
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

    /// Resident memory in bytes, as it would be on a machine of its own: what is private to each
    /// process, and each page of a file that processes of this tree share once. Processes outside
    /// of it, such as relays that run the same program, make it neither more nor less.
    pub fn memory_bytes(&self) -> u64 {
        let mut shared = BTreeMap::new();
        let private: u64 = self.pids().into_iter().map(|pid| private_bytes(pid, &mut shared)).sum();
        private + shared.values().sum::<u64>()
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

/// Where a mapping of a file begins: the file's name and the offset in it.
type Region = (String, String);

/// Resident bytes of a process that are its own; those that it may share are put into `shared`, the
/// most for each region. See proc_pid_smaps(5).
fn private_bytes(pid: u32, shared: &mut BTreeMap<Region, u64>) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut private = 0;
    let mut region = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        match first.strip_suffix(':') {
            // "address perms offset dev inode path"; what has no path is memory without a file.
            None => {
                let offset = words.nth(1).unwrap_or_default().to_owned();
                let path = words.nth(2).filter(|path| path.starts_with('/'));
                region = path.map(|path| (path.to_owned(), offset));
            }
            Some(field) => {
                let kb = words.next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default();
                match (field, &region) {
                    ("Private_Clean" | "Private_Dirty", _) => private += kb * 1024,
                    ("Shared_Clean" | "Shared_Dirty", None) => private += kb * 1024,
                    ("Shared_Clean", Some(region)) => {
                        let most = shared.entry(region.clone()).or_default();
                        *most = (*most).max(kb * 1024);
                    }
                    _ => {}
                }
            }
        }
    }
    private
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
    fn a_file_that_two_processes_map_counts_once() {
        let sleep = || Command::new("sleep").arg("60").stdin(Stdio::null()).spawn();
        let mut pair = [sleep().expect("it is everywhere"), sleep().expect("it is everywhere")];
        let ids = [pair[0].id(), pair[1].id()];
        // They have to have come as far as sleeping.
        let asleep = |pid: u32| {
            let wchan = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            wchan.contains("(sleep) S")
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !ids.iter().all(|pid| asleep(*pid)) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let one = Tree { roots: vec![ids[0]] }.memory_bytes();
        let both = Tree { roots: ids.to_vec() }.memory_bytes();
        for child in &mut pair {
            child.kill().expect("it runs");
            child.wait().expect("it ended");
        }
        assert!(one > 500_000, "libc alone has more: {one}");
        assert!(both > one && both < one * 3 / 2, "{one} and {both}");
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
