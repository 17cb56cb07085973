//! `rustbalance status`: ask the running service, and show what it says. The other commands that
//! ask show in the same way.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::{EXIT_CONFIG, EXIT_FAILED, StatusArgs, Target, configuration};
use crate::admin::client::{self, AskError};
use crate::admin::status::{ProcessStatus, ServiceStatus};
use crate::config::Config;
use crate::limits;

/// Run `status`.
pub fn run(args: &StatusArgs) -> ExitCode {
    show(&args.target, client::status, |status| match args.json {
        true => json(status),
        false => Ok(human(status)),
    })
}

/// Ask, and print what `render` makes of the answer.
pub(super) fn show<T>(
    target: &Target,
    ask: impl FnOnce(&Path) -> Result<T, AskError>,
    render: impl FnOnce(&T) -> serde_json::Result<String>,
) -> ExitCode {
    show_and_judge(target, ask, render, |_| true)
}

/// As [`show`]; the exit code says whether the answer is good.
pub(super) fn show_and_judge<T>(
    target: &Target,
    ask: impl FnOnce(&Path) -> Result<T, AskError>,
    render: impl FnOnce(&T) -> serde_json::Result<String>,
    is_good: impl FnOnce(&T) -> bool,
) -> ExitCode {
    let socket = match socket(target) {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let answer = match ask(&socket) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("rustbalance: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let text = render(&answer).unwrap_or_else(|error| error.to_string());
    // A reader that has gone (`| head`) wants no more.
    let _ = write!(std::io::stdout(), "{text}");
    match is_good(&answer) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_FAILED),
    }
}

/// The socket that is meant.
fn socket(target: &Target) -> Result<PathBuf, String> {
    if let Some(socket) = &target.socket {
        return Ok(socket.clone());
    }
    match configuration(target.config.as_deref(), target.onionbalance.as_deref()) {
        Some(config) => config.map(|config| config.admin_socket()).map_err(|e| e.to_string()),
        None => Ok(Config::from_backends(&[], true).admin_socket()),
    }
}

/// Pretty JSON with a final newline.
pub(super) fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n")
}

/// The status for people.
fn human(status: &ProcessStatus) -> String {
    let mut text = String::new();
    for service in &status.services {
        text.push_str(&service.summary);
        text.push('\n');
        let state = format!("{:?}", service.state).to_lowercase();
        match &service.reason {
            Some(reason) => text.push_str(&format!("{}: {state} ({reason})\n\n", service.name)),
            None => text.push_str(&format!("{}: {state}\n\n", service.name)),
        }
        text.push_str(&table(&instances(service)));
        text.push('\n');
        text.push_str(&descriptors(service));
        text.push('\n');
        text.push_str(&table(&backends(service)));
        text.push('\n');
    }
    text.push_str(&table(&links(status)));
    if !status.daemons.is_empty() {
        text.push('\n');
        text.push_str(&table(&daemons(status)));
    }
    let skew = clock_skew(status.clock_skew_ms);
    let memory = &status.memory;
    text.push_str(&format!(
        "\nmemory {} of {}{}\n",
        bytes(memory.held_bytes),
        bytes(memory.max_bytes),
        if memory.refusing { ", new clients are refused" } else { "" }
    ));
    text.push_str(&format!("version {}, io {}, clock skew {skew}\n", status.version, status.io));
    text
}

/// How far the clock is off, and what to do.
fn clock_skew(skew_ms: Option<i64>) -> String {
    let Some(skew) = skew_ms else { return "not known".to_owned() };
    match skew {
        _ if skew.unsigned_abs() < limits::CLOCK_SKEW_WARN_MS => format!("{skew} ms"),
        ..0 => format!("{skew} ms: it is fast, set it"),
        _ => format!("{skew} ms: it is slow, set it"),
    }
}

/// Rows of a table; the first is the head.
pub(super) type Rows = Vec<Vec<String>>;

/// A number that may not be known.
pub(super) fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// An amount of bytes for people.
pub(super) fn bytes(value: Option<u64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut amount = value as f64;
    let mut unit = 0;
    while amount >= 1000.0 && unit + 1 < units.len() {
        amount /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value} B"),
        _ => format!("{amount:.1} {}", units[unit]),
    }
}

/// A row from texts.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.into_iter().map(str::to_owned).collect()
}

/// The instances of a service.
fn instances(service: &ServiceStatus) -> Rows {
    let head = [
        "instance",
        "engine",
        "core",
        "state",
        "points",
        "introductions",
        "rendezvous",
        "open",
        "streams",
        "in",
        "out",
        "handed off",
    ];
    let mut rows = vec![row(head)];
    rows.extend(service.instances.iter().map(|one| {
        vec![
            one.id.to_string(),
            format!("{:?}", one.engine).to_lowercase(),
            number(one.core.map(u64::from)),
            format!("{:?}", one.state).to_lowercase(),
            one.intro_points.to_string(),
            number(one.introductions_total),
            number(one.rendezvous_total),
            number(one.rendezvous_open),
            number(one.streams_total),
            bytes(one.bytes_in_total),
            bytes(one.bytes_out_total),
            number(one.handed_off_total),
        ]
    }));
    rows
}

/// The descriptors of a service, as a table.
fn descriptors(service: &ServiceStatus) -> String {
    let head = ["period", "revision", "points", "size", "HSDirs", "published"];
    let mut rows = vec![row(head)];
    rows.extend(service.descriptors.iter().map(|one| {
        vec![
            one.period.to_string(),
            one.revision.to_string(),
            one.intro_points.to_string(),
            bytes(Some(one.size_bytes)),
            format!("{}/{}", one.hsdirs_ok, one.hsdirs_total),
            one.published_at.clone(),
        ]
    }));
    table(&rows)
}

/// The backends of a service.
pub(super) fn backends(service: &ServiceStatus) -> Rows {
    let mut rows = vec![row(["port", "backend", "state", "open", "failed", "check"])];
    rows.extend(service.backends.iter().map(|one| {
        vec![
            one.virtual_port.to_string(),
            one.address.clone(),
            format!("{:?}", one.state).to_lowercase(),
            one.open.to_string(),
            one.failed_total.to_string(),
            one.check.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    rows
}

/// The links of the process.
fn links(status: &ProcessStatus) -> Rows {
    let mut rows = vec![row(["link to guard", "stack", "core", "in", "out"])];
    rows.extend(status.links.iter().map(|one| {
        vec![
            one.guard.to_string(),
            one.stack.to_string(),
            one.core.map_or_else(|| "control".to_owned(), |core| core.to_string()),
            bytes(Some(one.bytes_in_total)),
            bytes(Some(one.bytes_out_total)),
        ]
    }));
    rows
}

/// The guards of the daemons that the process runs.
fn daemons(status: &ProcessStatus) -> Rows {
    let mut rows = vec![row(["daemon", "links to its guards"])];
    rows.extend(status.daemons.iter().map(|one| {
        let guards: Vec<String> = one.guards.iter().map(u64::to_string).collect();
        vec![one.name.clone(), guards.join(" ")]
    }));
    rows
}

/// Columns as wide as their widest cell.
pub(super) fn table(rows: &Rows) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{bytes, human, table};
    use crate::admin::status::ProcessStatus;

    /// The document as `docs/operating/status.md` shows it; one instance is a remote one.
    const DOCUMENT: &str = r#"{ "version": "0.1.0", "turbo": true, "io": "epoll",
      "clock_skew_ms": null,
      "links": [ { "stack": 0, "core": 0, "guard": 1, "circuits": 40, "bytes_in_total": 1500,
        "bytes_out_total": 2, "creates_refused_total": 0 } ],
      "services": [ { "name": "main", "onion": "x.onion", "state": "degraded",
        "reason": "no guard answers",
        "summary": "Aggregating 1/2 Instances. Master Onion: x.onion",
        "instances": [
          { "id": 0, "engine": "arti", "core": 0, "state": "serving", "intro_points": 3,
            "introductions_total": 125, "rendezvous_open": 4, "rendezvous_total": 120,
            "streams_open": 4, "streams_total": 130, "bytes_in_total": 1,
            "bytes_out_total": 2500000, "handed_off_total": 7 },
          { "id": 1, "engine": "remote", "core": null, "state": "starting", "intro_points": 0,
            "introductions_total": null, "rendezvous_open": null, "rendezvous_total": null,
            "streams_open": null, "streams_total": null, "bytes_in_total": null,
            "bytes_out_total": null, "handed_off_total": null } ],
        "descriptors": [ { "period": 20779, "revision": 123, "variants": 1, "intro_points": 6,
          "size_bytes": 14000, "hsdirs_ok": 8, "hsdirs_total": 8,
          "published_at": "2026-01-01T00:00:00Z" } ],
        "backends": [ { "virtual": 80, "address": "127.0.0.1:8080", "state": "up", "open": 3,
          "failed_total": 0 } ] } ] }"#;

    #[test]
    fn people_read_the_summary_first_then_the_reason_and_a_dash_for_what_is_not_known() {
        let status: ProcessStatus = serde_json::from_str(DOCUMENT).expect("the contract");
        let text = human(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Aggregating 1/2 Instances. Master Onion: x.onion");
        assert_eq!(lines[1], "main: degraded (no guard answers)");
        let cells = |start: &str| -> Vec<&str> {
            let line = lines.iter().find(|line| line.starts_with(start));
            line.unwrap_or_else(|| panic!("no {start:?} in\n{text}")).split_whitespace().collect()
        };
        assert_eq!(cells("0         arti")[2..5], ["0", "serving", "3"]);
        assert!(text.contains("2.5 MB"), "{text}");
        let remote = cells("1         remote");
        assert!(remote[5..].iter().all(|cell| *cell == "-"), "{remote:?}");
        assert_eq!(cells("80    127.0.0.1:8080"), ["80", "127.0.0.1:8080", "up", "3", "0", "-"]);
        assert!(text.ends_with("clock skew not known\n"), "{text}");
    }

    #[test]
    fn a_clock_that_is_off_is_told_in_words() {
        let texts = [Some(12), Some(-600_000), Some(61_000), None].map(super::clock_skew);
        let expected = [
            "12 ms",
            "-600000 ms: it is fast, set it",
            "61000 ms: it is slow, set it",
            "not known",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn amounts_are_short_and_tables_are_aligned() {
        assert_eq!(bytes(Some(999)), "999 B");
        assert_eq!(bytes(Some(14_433)), "14.4 kB");
        assert_eq!(bytes(None), "-");
        let rows =
            vec![vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a    bb\nccc\n");
    }
}
