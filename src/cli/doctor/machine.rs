//! What `doctor` looks at on the machine: each check reads, and a function that reads nothing
//! judges.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit};

use super::{Finding, Grade, finding};
use crate::limits;
use crate::runtime::ring::{self, ProbeError};
use crate::runtime::{memory, pinning};

/// Signs of a running NTP client. Whether the kernel believes its clock, adjtimex(2), cannot be
/// asked without `unsafe`.
const NTP_SIGNS: &[(&str, &str)] = &[
    ("/run/systemd/timesync/synchronized", "systemd-timesyncd has set it"),
    ("/run/chrony/chronyd.pid", "chronyd runs"),
    ("/run/chronyd.pid", "chronyd runs"),
    ("/run/ntpd.pid", "ntpd runs"),
    ("/run/openntpd.pid", "ntpd runs"),
];

/// The oldest kernel that this version is tested on: Debian 12's.
const KERNEL_TESTED: (u32, u32) = (6, 1);

/// Descriptors that a busy service needs: one for each stream, and some.
const DESCRIPTORS_WANTED: u64 = 65_536;

/// Memory for a core's instance and some 2,000 clients of it, in megabytes.
const MEGABYTES_PER_CORE_WANTED: u64 = 300;

/// Bytes of locked memory that keys and rings will need.
const LOCKED_WANTED: u64 = 1 << 20;

/// Everything.
pub(super) fn findings() -> Vec<Finding> {
    let cpus = pinning::available_cores().len();
    let mut findings = vec![
        clock(SystemTime::now(), ntp_sign()),
        kernel(&read("/proc/sys/kernel/osrelease")),
        io_uring(
            &ring::probe(),
            &read("/proc/sys/kernel/osrelease"),
            &read("/proc/sys/kernel/io_uring_disabled"),
            &read("/proc/self/status"),
        ),
        cores(cpus),
        quota(cpus, pinning::quota_cpus()),
        memory(memory::available_bytes(), cpus),
        numa(&read("/sys/devices/system/node/online")),
        randomness(&read("/proc/sys/kernel/random/entropy_avail")),
        core_dumps(&read("/proc/sys/kernel/core_pattern")),
    ];
    let limit = |what, resource, judge: fn(u64) -> Finding| match getrlimit(resource) {
        Ok((soft, hard)) => judge(if what == "open files" { hard } else { soft }),
        Err(error) => finding(Grade::Warn, what, format!("cannot tell: {error}")),
    };
    findings.push(limit("open files", Resource::RLIMIT_NOFILE, descriptors));
    findings.push(limit("locked memory", Resource::RLIMIT_MEMLOCK, locked_memory));
    findings
}

/// A file of the kernel's; nothing where there is none.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What says that an NTP client runs.
fn ntp_sign() -> Option<&'static str> {
    NTP_SIGNS.iter().find(|(path, _)| Path::new(path).exists()).map(|(_, text)| *text)
}

/// The clock.
fn clock(now: SystemTime, sign: Option<&str>) -> Finding {
    let year_2025 = UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    match sign {
        _ if now < year_2025 => {
            finding(Grade::Fail, "clock", "it says a year before 2025 -> set it, and run NTP")
        }
        Some(sign) => finding(
            Grade::Ok,
            "clock",
            format!("{sign}; how far it is off is learnt from relays when running"),
        ),
        None => finding(
            Grade::Warn,
            "clock",
            "no sign of an NTP client -> install chrony or systemd-timesyncd (a virtual machine \
             may have its host's clock): nothing is published once it is 5 minutes fast, as \
             several relays, or one and the consensus, tell",
        ),
    }
}

/// The kernel.
fn kernel(release: &str) -> Finding {
    let tested = format!("{}.{}", KERNEL_TESTED.0, KERNEL_TESTED.1);
    match version(release) {
        None => finding(Grade::Warn, "kernel", "no Linux, or /proc is not mounted"),
        Some(version) if version < KERNEL_TESTED => finding(
            Grade::Warn,
            "kernel",
            format!("{release}; tested from {tested} -> use a newer one if something is odd"),
        ),
        Some(_) => finding(Grade::Ok, "kernel", release),
    }
}

/// Major and minor version of a release such as `6.1.0-37-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether io_uring can be used, and if not, what forbids it as far as the kernel tells.
fn io_uring(
    tried: &Result<(), ProbeError>,
    release: &str,
    disabled: &str,
    status: &str,
) -> Finding {
    let Err(error) = tried else {
        return finding(Grade::Ok, "io_uring", "works, each data core runs on one".to_owned());
    };
    let filtered = status
        .lines()
        .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"));
    let found = match disabled {
        "2" => "kernel.io_uring_disabled = 2 forbids it",
        "1" => "kernel.io_uring_disabled = 1 leaves it to CAP_SYS_ADMIN and kernel.io_uring_group",
        _ if version(release).is_none_or(|version| version < (6, 1)) => "Linux 6.1 is needed",
        _ if filtered => "a seccomp filter (container?) may forbid it",
        _ => "nothing is known that forbids it",
    };
    let text = format!("{error} ({found}): data cores run on epoll");
    finding(Grade::Warn, "io_uring", text)
}

/// The CPUs.
fn cores(cpus: usize) -> Finding {
    match cpus {
        0 => finding(
            Grade::Fail,
            "cores",
            "the kernel names no CPU that may be used -> look at the cpuset of the container",
        ),
        1 => finding(
            Grade::Warn,
            "cores",
            "1 CPU: one instance, which shares it with the control core -> use two or more",
        ),
        2 | 3 => {
            let text = format!("{cpus} CPUs may be used; the control core shares the first");
            finding(Grade::Ok, "cores", text)
        }
        _ => {
            let text = format!("{cpus} CPUs may be used; the control core gets one for itself");
            finding(Grade::Ok, "cores", text)
        }
    }
}

/// The cgroup's CPU time.
fn quota(cpus: usize, quota: Option<f64>) -> Finding {
    match quota {
        Some(granted) if granted < cpus as f64 => finding(
            Grade::Warn,
            "cpu quota",
            format!(
                "the cgroup grants {granted:.1} of {cpus} CPUs; every circuit waits when they are \
                 used up -> raise CPUQuota (systemd) or --cpus (containers), or name fewer \
                 [turbo] cores"
            ),
        ),
        _ => finding(Grade::Ok, "cpu quota", "none below the number of CPUs"),
    }
}

/// NUMA nodes, as the kernel lists them: `0`, `0-1`, `0,2-3`.
fn numa(online: &str) -> Finding {
    match online.contains(['-', ',']) {
        true => finding(
            Grade::Warn,
            "numa",
            format!(
                "nodes {online}: memory of another node is slower -> keep [turbo] cores on one"
            ),
        ),
        false => finding(Grade::Ok, "numa", "one node"),
    }
}

/// The kernel's random numbers.
fn randomness(available: &str) -> Finding {
    match available.parse::<u32>() {
        Ok(bits) if bits < 128 => finding(
            Grade::Warn,
            "randomness",
            format!("only {bits} bits yet -> wait, or install rng-tools: a key needs 256"),
        ),
        Ok(_) => finding(Grade::Ok, "randomness", "the kernel's generator is ready"),
        Err(_) => finding(Grade::Ok, "randomness", "the kernel's (it does not say how much)"),
    }
}

/// Listeners over TCP: what becomes of connections that the kernel has accepted ahead for one that
/// closes. The setting is one of the network namespace, and those of containers begin with 0.
pub(super) fn listeners() -> Finding {
    listener_migration(&read("/proc/sys/net/ipv4/tcp_migrate_req"))
}

/// See [`listeners`].
fn listener_migration(migrate: &str) -> Finding {
    match migrate {
        "0" => finding(
            Grade::Warn,
            "listeners",
            "net.ipv4.tcp_migrate_req = 0: connections that the kernel accepted ahead are reset \
             when a listener closes, as in an upgrade -> sysctl net.ipv4.tcp_migrate_req=1, in the \
             network namespace of the service, gives them to another core or process",
        ),
        "" => finding(
            Grade::Warn,
            "listeners",
            "cannot tell net.ipv4.tcp_migrate_req -> Linux 5.14 has it; it is to be 1",
        ),
        _ => finding(
            Grade::Ok,
            "listeners",
            format!("net.ipv4.tcp_migrate_req = {migrate}: no connection is lost with a listener"),
        ),
    }
}

/// Memory, which `memory_max` bounds.
fn memory(available: Option<u64>, cpus: usize) -> Finding {
    let Some(available) = available else {
        let text = "cannot tell how much there is -> write memory_max as an amount";
        return finding(Grade::Warn, "memory", text);
    };
    let (megabytes, percent) = (available / 1_000_000, limits::MEMORY_PERCENT_DEFAULT);
    let share = megabytes / 100 * u64::from(percent);
    match megabytes / cpus.max(1) as u64 {
        0..MEGABYTES_PER_CORE_WANTED => finding(
            Grade::Warn,
            "memory",
            format!(
                "{megabytes} MB, of which a service may hold {share} ({percent} %): little for \
                 {cpus} cores -> give it more, or lower turbo.instances"
            ),
        ),
        _ => finding(
            Grade::Ok,
            "memory",
            format!("{megabytes} MB, of which a service may hold {share} ({percent} %)"),
        ),
    }
}

/// Core dumps: `run` switches them off for itself.
fn core_dumps(pattern: &str) -> Finding {
    let text = match pattern.starts_with('|') {
        true => "a handler collects them, but `run` switches them off for itself",
        false => "`run` switches them off for itself",
    };
    finding(Grade::Ok, "core dumps", text)
}

/// Open files, by the hard limit, to which `run` raises the soft one.
fn descriptors(hard: u64) -> Finding {
    match hard {
        0..DESCRIPTORS_WANTED => finding(
            Grade::Warn,
            "open files",
            format!(
                "at most {hard}, one for each stream -> raise it (systemd: LimitNOFILE=1048576)"
            ),
        ),
        _ => finding(Grade::Ok, "open files", format!("up to {hard}")),
    }
}

/// Rings for so many data cores, and as many again in an upgrade. How much locked memory each
/// takes, if any, is the kernel's business; the limit is shared by all processes of the user. So
/// they are made, and dropped.
pub(super) fn rings(cores: usize) -> Finding {
    let (made, error) = ring::probe_rings(2 * cores);
    let why = error.map_or_else(String::new, |error| ring::explain(&error));
    rings_possible(made, cores, &why)
}

/// See [`rings`].
fn rings_possible(made: usize, cores: usize, why: &str) -> Finding {
    if made >= 2 * cores {
        let text = format!("{cores} can be made, and as many again for an upgrade");
        return finding(Grade::Ok, "rings", text);
    }
    let lacking = if made < cores {
        format!("{made} of {cores} can be made beside those that there are: the other data cores")
    } else {
        format!("{cores} can be made, but not as many again: in an upgrade some data cores")
    };
    finding(Grade::Warn, "rings", format!("{lacking} run on epoll -> {why}"))
}

/// Locked memory, which a later version keeps keys in.
fn locked_memory(soft: u64) -> Finding {
    let advice = "this version does not lock memory -> use encrypted swap, or none";
    match soft {
        0..LOCKED_WANTED => {
            finding(Grade::Warn, "locked memory", format!("at most {soft} bytes; {advice}"))
        }
        _ => finding(Grade::Ok, "locked memory", format!("there is room; {advice}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::super::Grade;
    use super::*;

    #[test]
    fn a_clock_is_judged_by_its_year_and_by_its_ntp_client() {
        let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(clock(old, Some("chronyd runs")).grade, Grade::Fail);
        assert_eq!(clock(SystemTime::now(), None).grade, Grade::Warn);
        assert_eq!(clock(SystemTime::now(), Some("chronyd runs")).grade, Grade::Ok);
    }

    #[test]
    fn kernels_are_compared_as_numbers() {
        assert_eq!(version("6.1.0-37-amd64"), Some((6, 1)));
        assert_eq!(version("6.18-rc1"), Some((6, 18)));
        assert_eq!(version(""), None);
        assert_eq!(kernel("6.1.0-37-amd64").grade, Grade::Ok);
        assert_eq!(kernel("5.10.0-9-amd64").grade, Grade::Warn);
        assert_eq!(kernel("6.10.1").grade, Grade::Ok);
    }

    #[test]
    fn what_forbids_io_uring_is_named() {
        let refused = Err(ProbeError::Forbidden);
        let text = |release, disabled, status| io_uring(&refused, release, disabled, status).text;
        assert!(text("6.6.0", "2", "").contains("kernel.io_uring_disabled = 2"));
        assert!(text("6.6.0", "1", "").contains("kernel.io_uring_disabled = 1"));
        assert!(text("5.19.0", "", "").contains("Linux 6.1 is needed"));
        assert!(text("6.1.0", "", "Name:\tx\nSeccomp:\t2\n").contains("seccomp"));
        assert!(text("6.1.0", "0", "Seccomp:\t0\nSeccomp_filters:\t2\n").contains("nothing is"));
        assert_eq!(io_uring(&refused, "6.1.0", "0", "").grade, Grade::Warn);
        assert_eq!(io_uring(&Ok(()), "6.1.0", "0", "").grade, Grade::Ok);
    }

    #[test]
    fn cores_quota_and_nodes_are_judged() {
        let grades = [0, 1, 2, 64].map(|cpus| cores(cpus).grade);
        assert_eq!(grades, [Grade::Fail, Grade::Warn, Grade::Ok, Grade::Ok]);
        assert_eq!(quota(4, Some(1.5)).grade, Grade::Warn);
        assert_eq!(quota(4, Some(4.0)).grade, Grade::Ok);
        assert_eq!(quota(4, None).grade, Grade::Ok);
        assert_eq!(numa("0-1").grade, Grade::Warn);
        assert_eq!([numa("0").grade, numa("").grade], [Grade::Ok; 2]);
        let gigabyte = Some(1_000_000_000);
        assert_eq!(
            [memory(gigabyte, 2).grade, memory(gigabyte, 8).grade],
            [Grade::Ok, Grade::Warn]
        );
        assert_eq!(memory(None, 2).grade, Grade::Warn);
    }

    #[test]
    fn listeners_that_lose_connections_are_warned_of() {
        let one = listener_migration("0");
        assert!(one.grade == Grade::Warn && one.text.contains(" -> sysctl net.ipv4"), "{one:?}");
        assert_eq!(listener_migration("1").grade, Grade::Ok);
        assert!(listener_migration("").text.starts_with("cannot tell"));
    }

    #[test]
    fn rings_are_needed_twice_in_an_upgrade() {
        let grades = [8, 9, 7, 4, 3, 0].map(|made| rings_possible(made, 4, "no memory").grade);
        assert_eq!(grades[..2], [Grade::Ok; 2]);
        assert_eq!(grades[2..], [Grade::Warn; 4]);
        let one = rings_possible(3, 4, "no memory");
        assert!(one.text.contains("3 of 4") && one.text.ends_with("no memory"), "{one:?}");
        assert!(rings_possible(4, 4, "no memory").text.contains("in an upgrade"));
    }

    #[test]
    fn limits_and_randomness_are_judged() {
        assert_eq!([descriptors(1024).grade, descriptors(65_536).grade], [Grade::Warn, Grade::Ok]);
        assert_eq!(
            [locked_memory(65_536).grade, locked_memory(8 << 20).grade],
            [Grade::Warn, Grade::Ok]
        );
        assert_eq!([randomness("12").grade, randomness("256").grade], [Grade::Warn, Grade::Ok]);
        assert!(core_dumps("|/usr/lib/systemd/systemd-coredump").text.contains("handler"));
    }

    #[test]
    fn whatever_is_found_says_what_to_do() {
        for one in findings() {
            let says = one.text.contains(" -> ") || one.text.starts_with("cannot tell");
            assert!(one.grade == Grade::Ok || says || one.what == "kernel", "{one:?}");
        }
    }
}
