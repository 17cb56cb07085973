//! What a RustBalance process does inside: the CPU of each of its threads, and from its own status
//! which core served how much payload and which core carries the link. From both follows what the
//! link costs apart from the streams.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::sample::Values;

/// The least share of the payload that cores without the link must have served for the two costs to
/// be told apart.
const SHARE_MIN: f64 = 0.15;

/// The share of all links' bytes that one core must have carried to count as the one that carries
/// the link: others are kept open by directory requests or by a guard that was left.
const LINK_SHARE_MIN: f64 = 0.95;

/// One look at a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inside {
    /// CPU time of each data core's thread.
    data: BTreeMap<u64, Duration>,
    /// CPU time of all other threads.
    control: Duration,
    /// Payload that each data core served so far, both directions, in bytes.
    payload: BTreeMap<u64, u64>,
    /// Bytes of the links that each data core carries, both directions.
    links: BTreeMap<u64, u64>,
}

impl Inside {
    /// Look at the process `pid`, which runs with this configuration.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn look(rustbalance: &Path, config: &Path, pid: u32) -> Result<Inside> {
        let output = std::process::Command::new(rustbalance)
            .args(["status", "--json", "--config"])
            .arg(config)
            .output()
            .context("cannot run rustbalance status")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let mut inside = Inside::default();
        inside.threads(pid);
        inside.status(&status);
        Ok(inside)
    }

    /// CPU time of the threads: the first field of `/proc/PID/task/TID/schedstat`, in ns.
    fn threads(&mut self, pid: u32) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks.map(|task| task.path()) {
            let read = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
            let (name, stat) = (read("comm"), read("schedstat"));
            let time = stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default();
            let time = Duration::from_nanos(time);
            match name.trim().strip_prefix("data-").and_then(|core| core.parse().ok()) {
                Some(core) => *self.data.entry(core).or_default() += time,
                None => self.control += time,
            }
        }
    }

    /// Payload and links.
    fn status(&mut self, status: &Value) {
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        for service in list(status, "services") {
            for instance in list(&service, "instances") {
                let Some(core) = instance["core"].as_u64() else { continue };
                let total = |name: &str| instance[name].as_u64().unwrap_or_default();
                *self.payload.entry(core).or_default() +=
                    total("bytes_in_total") + total("bytes_out_total");
            }
        }
        for link in list(status, "links") {
            let Some(core) = link["core"].as_u64() else { continue };
            let total = |name: &str| link[name].as_u64().unwrap_or_default();
            *self.links.entry(core).or_default() +=
                total("bytes_in_total") + total("bytes_out_total");
        }
    }

    /// The core that carried (nearly) all that went over links since an earlier look.
    fn link_core(&self, earlier: &Inside) -> Option<u64> {
        let carried = |core: &u64| -> f64 {
            let before = earlier.links.get(core).copied().unwrap_or_default();
            // A link that has closed takes its count along.
            self.links.get(core).copied().unwrap_or_default().saturating_sub(before) as f64
        };
        let all: f64 = self.links.keys().map(carried).sum();
        self.links.keys().copied().find(|core| carried(core) > LINK_SHARE_MIN * all)
    }

    /// What happened since an earlier look: the control core's part of the CPU in percent, and,
    /// where one core of several carries the link and others served enough, CPU-ns for a
    /// payload byte of the streams by themselves and of the link by itself.
    pub fn since(&self, earlier: &Inside) -> Values {
        let mut values = Values::new();
        let ns = |core: u64| {
            let now = self.data.get(&core).copied().unwrap_or_default();
            now.saturating_sub(earlier.data.get(&core).copied().unwrap_or_default()).as_nanos()
                as f64
        };
        let bytes = |core: u64| {
            let now = self.payload.get(&core).copied().unwrap_or_default();
            now.saturating_sub(earlier.payload.get(&core).copied().unwrap_or_default()) as f64
        };
        let cores: Vec<u64> = self.data.keys().copied().collect();
        let control = self.control.saturating_sub(earlier.control).as_nanos() as f64;
        let all: f64 = control + cores.iter().map(|core| ns(*core)).sum::<f64>();
        values.insert("control_core_percent", 100.0 * control / all.max(1.0));
        let Some(link) = self.link_core(earlier) else { return values };
        let others = || cores.iter().copied().filter(|core| *core != link);
        let total: f64 = cores.iter().map(|core| bytes(*core)).sum();
        let elsewhere: f64 = others().map(bytes).sum();
        if total > 0.0 && elsewhere > SHARE_MIN * total && elsewhere < (1.0 - SHARE_MIN) * total {
            let stream = others().map(ns).sum::<f64>() / elsewhere;
            values.insert("stream_ns_per_byte", stream);
            values.insert("link_ns_per_byte", (ns(link) - stream * bytes(link)) / total);
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Inside;

    fn inside(data: &[(u64, u64)], payload: &[(u64, u64)], links: &[(u64, u64)]) -> Inside {
        Inside {
            data: data.iter().map(|(core, ns)| (*core, Duration::from_nanos(*ns))).collect(),
            control: Duration::from_nanos(100),
            payload: payload.iter().copied().collect(),
            links: links.iter().copied().collect(),
        }
    }

    #[test]
    fn link_and_streams_are_told_apart() {
        let before = inside(&[(0, 1000), (1, 1000)], &[(0, 0), (1, 50)], &[(0, 10), (1, 5)]);
        // 30 ns a byte for streams, 10 for the link: core 0 serves 100 bytes, core 1 300.
        let data = [(0, 1000 + 3000 + 4000), (1, 1000 + 9000)];
        let after = inside(&data, &[(0, 100), (1, 350)], &[(0, 500), (1, 6)]);
        let values = after.since(&before);
        assert!((values["stream_ns_per_byte"] - 30.0).abs() < 1e-9);
        assert!((values["link_ns_per_byte"] - 10.0).abs() < 1e-9);
        assert!(values["control_core_percent"].abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_told() {
        let before = inside(&[(0, 0), (1, 0)], &[(0, 0), (1, 0)], &[]);
        let all_on_one = inside(&[(0, 9), (1, 1)], &[(0, 100), (1, 0)], &[(0, 100)]);
        assert!(!all_on_one.since(&before).contains_key("link_ns_per_byte"));
        let two_links = inside(&[(0, 9), (1, 9)], &[(0, 100), (1, 100)], &[(0, 90), (1, 110)]);
        assert!(!two_links.since(&before).contains_key("link_ns_per_byte"));
    }

    #[test]
    fn a_status_document_is_read() {
        let status = serde_json::json!({
            "links": [
                { "core": 1, "bytes_in_total": 4, "bytes_out_total": 5 },
                { "core": 1, "bytes_in_total": 1, "bytes_out_total": 0 }
            ],
            "services": [{ "instances": [
                { "core": 0, "bytes_in_total": 1, "bytes_out_total": 2 },
                { "core": 1, "bytes_in_total": 3, "bytes_out_total": null },
                { "core": null }
            ] }]
        });
        let mut inside = Inside::default();
        inside.status(&status);
        assert_eq!(inside.payload.into_iter().collect::<Vec<_>>(), [(0, 3), (1, 3)]);
        assert_eq!(inside.links.into_iter().collect::<Vec<_>>(), [(1, 10)]);
    }
}
