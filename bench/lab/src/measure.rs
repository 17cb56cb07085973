//! What a process costs, seen from outside: CPU, memory, connections to relays.

use std::collections::HashMap;

use crate::Relay;

/// Clock ticks a second (`getconf CLK_TCK`; 100 on every Linux that matters).
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process and all its descendants, in seconds. Children that have ended
/// and were waited for are counted with their parent.
pub fn cpu_seconds(pid: u32) -> f64 {
    let mut total = own_ticks(pid);
    for child in children(pid) {
        total += cpu_seconds(child) * TICKS_PER_SECOND;
    }
    total / TICKS_PER_SECOND
}

/// `utime + stime + cutime + cstime` of one process, in ticks.
fn own_ticks(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(") ") else { return 0.0 };
    let fields: Vec<&str> = fields.split(' ').collect();
    // Fields 14 to 17 of proc(5), of which the first two are cut off.
    fields.iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum()
}

/// Direct children of a process.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process has ended (one that nobody has waited for yet has, too).
pub fn has_ended(pid: impl std::fmt::Display) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
}

/// Resident memory of a process, in bytes.
pub fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().next()).and_then(|kb| kb.parse().ok());
    kb.unwrap_or(0_u64) * 1024
}

/// User and system time of each thread of a process in seconds, by name.
pub fn thread_cpu_seconds(pid: u32) -> HashMap<String, f64> {
    let mut threads = HashMap::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return threads };
    for task in tasks.flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let Some((name, fields)) = stat.rsplit_once(") ") else { continue };
        let name = name.split_once('(').map_or(name, |(_, name)| name).to_owned();
        let ticks: f64 =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        *threads.entry(name).or_insert(0.0) += ticks / TICKS_PER_SECOND;
    }
    threads
}

/// Established TCP connections of a process to each relay's OR port, by nickname.
pub fn connections_to_relays(pid: u32, relays: &[Relay]) -> HashMap<String, usize> {
    let mut by_nickname = HashMap::new();
    for (_, nickname) in links(pid, relays) {
        *by_nickname.entry(nickname).or_insert(0) += 1;
    }
    by_nickname
}

/// Established TCP connections of a process to the relays' OR ports: from which local address to
/// which relay's nickname.
pub fn links(pid: u32, relays: &[Relay]) -> Vec<(String, String)> {
    let mut links = Vec::new();
    let inodes = socket_inodes(pid);
    // The file shows the sockets of the process's own namespace.
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(remote), Some(state), Some(inode)) =
            (fields.get(1), fields.get(2), fields.get(3), fields.get(9))
        else {
            continue;
        };
        let established = *state == "01";
        if !established || !inodes.contains(&inode.to_string()) {
            continue;
        }
        let (Some(local), Some(remote)) = (parse_address(local), parse_address(remote)) else {
            continue;
        };
        let local = local.split(':').next().unwrap_or_default().to_owned();
        if let Some(relay) = relays.iter().find(|relay| relay.or_address() == remote) {
            links.push((local, relay.nickname.clone()));
        }
    }
    links
}

/// Inodes of the sockets that a process holds.
fn socket_inodes(pid: u32) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    files
        .flatten()
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}

/// An address of `/proc/net/tcp`: hexadecimal, the bytes of the address in host order.
fn parse_address(text: &str) -> Option<String> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?.to_le_bytes();
    let port = u16::from_str_radix(port, 16).ok()?;
    let [a, b, c, d] = address;
    Some(format!("{a}.{b}.{c}.{d}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::{cpu_seconds, parse_address, rss_bytes};

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_address("0100007F:1388").as_deref(), Some("127.0.0.1:5000"));
    }

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        let mut sum = 0_u64;
        while cpu_seconds(pid) < 0.01 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(rss_bytes(pid) > 100_000);
    }
}
