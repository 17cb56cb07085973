//! How much memory there is for this process, and how much of it it holds.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cgroup;

/// Whether memory is short: said by the one that watches it, read by sockets.
static SHORT: AtomicBool = AtomicBool::new(false);

/// Memory is short, or no more: sockets receive less ahead of their readers meanwhile.
pub fn set_short(short: bool) {
    SHORT.store(short, Ordering::Relaxed);
}

/// Whether memory is short.
pub(super) fn is_short() -> bool {
    SHORT.load(Ordering::Relaxed)
}

/// Memory that this process may come to hold, in bytes: the machine's, or what its cgroup or one
/// above it grants (`memory.max` of version 2, `memory.limit_in_bytes` of version 1).
pub fn available_bytes() -> Option<u64> {
    let machine = machine_bytes(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let granted = granted_below(Path::new(cgroup::MOUNT), &cgroup::own());
    machine.into_iter().chain(granted).min()
}

/// Memory that this process holds, in bytes: its resident pages, without those of files.
pub fn held_bytes() -> Option<u64> {
    held(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// `MemTotal` of proc_meminfo(5).
fn machine_bytes(meminfo: &str) -> Option<u64> {
    kibibytes(meminfo, "MemTotal:")
}

/// `RssAnon` and `RssShmem` of proc_pid_status(5).
fn held(status: &str) -> Option<u64> {
    let shared = kibibytes(status, "RssShmem:").unwrap_or(0);
    kibibytes(status, "RssAnon:").map(|own| own + shared)
}

/// The value of a line such as `MemTotal:  24000 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = rest.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

/// See [`available_bytes`].
fn granted_below(root: &Path, own: &str) -> Option<u64> {
    cgroup::smallest(root, own, "memory", |group| {
        let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
        let text = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
        // Version 2 writes "max" for no limit, version 1 a number beyond every machine.
        text.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::{available_bytes, granted_below, held, held_bytes, machine_bytes};

    #[test]
    fn the_kernels_numbers_are_read() {
        assert_eq!(machine_bytes("MemTotal:       24000 kB\nMemFree: 1 kB\n"), Some(24_576_000));
        assert_eq!(machine_bytes("nonsense"), None);
        let status = "VmRSS:\t 900 kB\nRssAnon:\t 300 kB\nRssFile:\t 598 kB\nRssShmem:\t 2 kB\n";
        assert_eq!(held(status), Some(302 * 1024));
        let (held, available) = (held_bytes(), available_bytes());
        assert!(held > Some(1 << 20) && held < available, "{held:?} {available:?}");
    }

    #[test]
    fn the_smallest_grant_on_the_way_to_the_root_counts() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let write = |group: &str, name: &str, text: &str| {
            let group = root.path().join(group);
            std::fs::create_dir_all(&group).expect("a new directory");
            std::fs::write(group.join(name), text).expect("a new file");
        };
        let own = "0::/system.slice/rb.service\n";
        write("system.slice/rb.service", "memory.max", "max\n");
        assert_eq!(granted_below(root.path(), own), None);
        write("system.slice", "memory.max", "5000000\n");
        assert_eq!(granted_below(root.path(), own), Some(5_000_000));
        write("system.slice/rb.service", "memory.max", "4000000\n");
        assert_eq!(granted_below(root.path(), own), Some(4_000_000));
        write("memory/job", "memory.limit_in_bytes", "3000000\n");
        assert_eq!(granted_below(root.path(), "5:memory:/job\n"), Some(3_000_000));
        assert_eq!(granted_below(root.path(), "5:cpu:/job\n"), None);
    }
}
