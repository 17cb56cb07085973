//! The report of a run: one page that answers, then every figure.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::bench::{C_TOR, C_TORS, Level};
use crate::bounds::Verdict;
use crate::plot::{self, Bar};
use crate::sample::{Sample, Summary, summary};
use crate::subject::Kind;
use crate::suites::{bytes, clients, memory, rendezvous, scale};

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// All that was measured.
    pub samples: &'a [Sample],
    /// How thorough it was.
    pub level: Level,
}

/// Write `README.md` and the pictures into the run's directory; gives the text.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path, run: Run<'_>, verdicts: &[Verdict], command: &str) -> Result<String> {
    let samples = run.samples;
    let mut text = format!("# {}\n\n`{command}`\n\n", title(dir));
    text.push_str(&machine());
    if run.level == Level::Smoke {
        text.push_str("\n**A smoke run: it shows that the suites work and measures nothing.**\n");
    }
    text.push_str("\n## In one page\n\n");
    text.push_str(&answers(run));
    text.push_str(&better_and_worse(samples));
    if !verdicts.is_empty() {
        text.push_str("\n## Bounds of docs/SPECIFICATION.md\n\n");
        text.push_str(&bounds(verdicts));
    }
    text.push_str("\n## What larger machines would carry\n\n");
    let scale = scale::report(samples, run.level);
    text.push_str(if scale.is_empty() { "The suites for it were not run.\n" } else { &scale });
    text.push_str(&claims(run));
    text.push_str("\n## Every figure\n\nMedian (least to most) of the rounds that count.\n");
    text.push_str(&tables(samples));
    text.push_str(&void(samples));
    pictures(dir, run, &mut text)?;
    std::fs::write(dir.join("README.md"), &text)?;
    Ok(text)
}

/// The run's name.
fn title(dir: &Path) -> String {
    dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The machine and the programs.
fn machine() -> String {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        let text = output.map(|output| {
            let both = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&both).lines().next().unwrap_or_default().to_owned()
        });
        text.unwrap_or_else(|| format!("{program}: not there"))
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} x {model}, Linux {}; {}; {}; {}; {}. Everything runs on this one machine: relays, \
         clients and subjects share its cores.\n",
        kernel.trim(),
        first_line("tor", &["--version"]),
        first_line("haproxy", &["-v"]),
        first_line("nginx", &["-v"]),
        first_line("onionbalance", &["--version"]),
    )
}

/// Is it cheaper, and by what ratio?
fn answers(run: Run<'_>) -> String {
    let samples = run.samples;
    let ours = Kind::rustbalance(2).name();
    let classic = Kind::Classic { daemons: 2 }.name();
    let streams = run.level.pick(2, 4, 4);
    let down = bytes::case_name(true, streams);
    let up = bytes::case_name(false, streams);
    let rows: [(&str, &str, &str, &str); 4] = [
        ("CPU for a byte, down", bytes::NAME, &down, "cpu_ns_per_byte"),
        ("CPU for a byte, up", bytes::NAME, &up, "cpu_ns_per_byte"),
        ("CPU for a new client", rendezvous::NAME, rendezvous::SATURATED, "cpu_ms_per_client"),
        ("time until served, p50", rendezvous::NAME, rendezvous::OPEN_LOOP, "served_ms_p50"),
    ];
    let mut text = format!(
        "| {ours} | C tor | {classic} | to C tor | to all three programs | A/A |\n\
         |---|---|---|---|---|---|\n"
    )
    .replacen("| ", "| what | ", 1)
    .replacen("|---|", "|---|---|", 1);
    for (what, suite, case, figure) in rows {
        let of = |subjects: &[&str]| summary(samples, suite, case, subjects, figure);
        let (own, tor, all) = (of(&[&ours]), of(&C_TORS), of(&[&classic]));
        let noise = ratio(of(&[C_TORS[1]]), of(&[C_TOR]));
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {} | {} | {} | {noise} |",
            value(own),
            value(tor),
            value(all),
            cheaper(own, tor),
            cheaper(own, all)
        );
    }
    text.push_str(&memory_answer(run));
    text
}

/// The line on memory.
fn memory_answer(run: Run<'_>) -> String {
    let mut text = String::new();
    for count in memory::counts(run.level) {
        let case = memory::case_name(*count);
        let of = |subject: &str| {
            let figure = "memory_mb_after_work";
            summary(run.samples, memory::NAME, &case, &[subject], figure)
        };
        let (own, tor) = (of("RustBalance"), of(C_TOR));
        if own.is_some() {
            let _ = writeln!(
                text,
                "| MB for {case}, beside as many daemons | {} | {} | - | {} | - | - |",
                value(own),
                value(tor),
                cheaper(own, tor)
            );
        }
    }
    text
}

/// Figures that are compared, whether less of them is better, and what they are called.
const COMPARED: [(&str, bool, &str); 14] = [
    ("cpu_ns_per_byte", true, "CPU for a byte"),
    ("mbps", false, "throughput while the machine is shared"),
    ("syscalls_per_megabyte", true, "system calls for a megabyte"),
    ("cpu_ms_per_client", true, "CPU for a new client"),
    ("clients_per_second", false, "new clients a second"),
    ("served_ms_p50", true, "time until served, median"),
    ("served_ms_p99", true, "time until served, 99th percentile"),
    ("memory_kb_per_circuit", true, "memory for a circuit"),
    ("cpu_ms_per_request", true, "CPU for a request on a held circuit"),
    ("memory_mb_after_work", true, "memory after work"),
    ("seconds_to_served", true, "start to first served request"),
    ("seconds_without_service", true, "time without service over a restart"),
    ("cpu_ms_per_rendezvous", true, "CPU for an introduction with its rendezvous"),
    ("honest_served_percent", false, "honest clients served under a flood"),
];
/// A difference up to this is none.
const SAME: f64 = 0.05;

/// What is better and what is worse than C tor, each case by itself.
fn better_and_worse(samples: &[Sample]) -> String {
    let ours = [Kind::rustbalance(2).name(), "RustBalance".to_owned(), Kind::rustbalance(1).name()];
    let (mut better, mut worse, mut same) = (String::new(), String::new(), String::new());
    let mut seen = BTreeSet::new();
    for sample in samples {
        for (figure, less, name) in COMPARED {
            let (suite, case) = (sample.suite, &sample.case);
            let of = |subjects: &[&str]| summary(samples, suite, case, subjects, figure);
            let own = ours.iter().find_map(|subject| of(&[subject]));
            let (Some(own), Some(tor)) = (own, of(&C_TORS)) else { continue };
            if !seen.insert((suite, case.clone(), figure)) {
                continue;
            }
            let ratio = own.median / tor.median;
            let gain = if less { 1.0 - ratio } else { ratio - 1.0 };
            let place = match gain {
                gain if gain > SAME => &mut better,
                gain if gain < -SAME => &mut worse,
                _ => &mut same,
            };
            let _ = writeln!(
                place,
                "* {suite}, {case}: {name} {:.2} against {:.2}, {ratio:.2} x",
                own.median, tor.median
            );
        }
    }
    let part = |title: &str, list: String| match list.is_empty() {
        true => String::new(),
        false => format!("\n### {title}\n\n{list}"),
    };
    part("Worse than C tor", worse)
        + &part("Better than C tor", better)
        + &part("The same, within 5 %", same)
}

/// A median, or a dash.
fn value(summary: Option<Summary>) -> String {
    summary.map_or("-".to_owned(), |summary| format!("{:.2}", summary.median))
}

/// A ratio, or a dash.
fn ratio(of: Option<Summary>, to: Option<Summary>) -> String {
    match (of, to) {
        (Some(of), Some(to)) => format!("{:.2}", of.median / to.median),
        _ => "-".to_owned(),
    }
}

/// A ratio, with a word that says what it means.
fn cheaper(of: Option<Summary>, to: Option<Summary>) -> String {
    let (Some(ours), Some(theirs)) = (of, to) else { return "-".to_owned() };
    let word = if ours.median < theirs.median { "cheaper" } else { "**dearer**" };
    format!("{} {word}", ratio(of, to))
}

/// The bounds.
fn bounds(verdicts: &[Verdict]) -> String {
    let mut text = "| bound | measured | at most | holds |\n|---|---|---|---|\n".to_owned();
    for verdict in verdicts {
        let holds = if verdict.holds() { "yes" } else { "**NO**" };
        let Verdict { name, measured, at_most } = verdict;
        let _ = writeln!(text, "| `{name}` | {measured:.2} | {at_most:.2} | {holds} |");
    }
    text
}

/// Claims of the feature plan, beside what was measured here and what follows from it.
fn claims(run: Run<'_>) -> String {
    let samples = run.samples;
    let ours = Kind::rustbalance(2).name();
    let model = scale::Model::of(samples, &[&ours], run.level);
    let Some(model) = model else { return String::new() };
    let one = Kind::rustbalance(1).name();
    let case = clients::case_name(run.level);
    let kb = summary(samples, clients::NAME, &case, &[&one], "memory_kb_per_circuit");
    let mut text = "\n## The plan's claims\n\nUsers are circuits that are held open; Mbps are \
        payload through Tor's cryptography (HTTP is the backend's work and is not in it).\n\n\
        | cores | claimed users | memory they would take, GB | claimed Mbps | Mbps *predicted* by \
        this machine's cores |\n|---|---|---|---|---|\n"
        .to_owned();
    for (cores, users, mbps) in [(1, 2000, 60), (4, 8000, 240), (16, 32_000, 1000)] {
        let memory =
            kb.map_or("-".to_owned(), |kb| format!("{:.1}", kb.median * f64::from(users) / 1e6));
        let predicted = model.gbps(f64::from(cores)) * 1e3;
        let _ = writeln!(text, "| {cores} | {users} | {memory} | {mbps} | *{predicted:.0}* |");
    }
    if let Some(kb) = kb {
        let held = clients::held(run.level);
        let _ = writeln!(
            text,
            "\nMeasured: {held} circuits on one core at {:.0} kB each, all of them served.",
            kb.median
        );
    }
    text
}

/// Every figure of every case.
fn tables(samples: &[Sample]) -> String {
    let mut text = String::new();
    let mut seen = BTreeSet::new();
    for sample in samples {
        if !seen.insert((sample.suite, sample.case.clone())) {
            continue;
        }
        let same =
            || samples.iter().filter(|one| one.suite == sample.suite && one.case == sample.case);
        let figures: BTreeSet<&str> = same().flat_map(|one| one.values.keys().copied()).collect();
        let mut subjects: Vec<&str> = Vec::new();
        for one in same() {
            if !subjects.contains(&one.subject.as_str()) {
                subjects.push(&one.subject);
            }
        }
        let _ = write!(text, "\n### {}: {}\n\n| subject |", sample.suite, sample.case);
        for figure in &figures {
            let _ = write!(text, " {} |", figure.replace('_', " "));
        }
        let _ = writeln!(text, " rounds |\n|---|{}---|", "---|".repeat(figures.len()));
        for subject in subjects {
            let _ = write!(text, "| {subject} |");
            let mut rounds = 0;
            for figure in &figures {
                let found = summary(samples, sample.suite, &sample.case, &[subject], figure);
                rounds = rounds.max(found.map_or(0, |found| found.count));
                let _ = write!(text, " {} |", spread(found));
            }
            let _ = writeln!(text, " {rounds} |");
        }
    }
    text
}

/// Median with its spread.
fn spread(summary: Option<Summary>) -> String {
    match summary {
        None => "-".to_owned(),
        Some(one) if one.count == 1 => format!("{:.2}", one.median),
        Some(one) => format!("{:.2} ({:.2} to {:.2})", one.median, one.least, one.most),
    }
}

/// Rounds that do not count.
fn void(samples: &[Sample]) -> String {
    let reasons: BTreeSet<_> = samples
        .iter()
        .filter_map(|one| Some((one.suite, &one.case, one.round, one.void.as_ref()?)))
        .collect();
    let mut text = "\n## Void rounds\n\n".to_owned();
    if reasons.is_empty() {
        text.push_str("None.\n");
    }
    for (suite, case, round, why) in reasons {
        let why = why.lines().next().unwrap_or_default();
        let _ = writeln!(text, "* {suite}, {case}, round {}: {why}", round + 1);
    }
    text
}

/// The pictures, and their names at the end of the text.
fn pictures(dir: &Path, run: Run<'_>, text: &mut String) -> Result<()> {
    let samples = run.samples;
    let streams = run.level.pick(2, 4, 4);
    let down = bytes::case_name(true, streams);
    let cases: [(&str, &str, &str, &str, &str); 3] = [
        ("bytes", bytes::NAME, &down, "cpu_ns_per_byte", "CPU-ns for a payload byte"),
        (
            "rendezvous",
            rendezvous::NAME,
            rendezvous::SATURATED,
            "cpu_ms_per_client",
            "CPU-ms for a new client",
        ),
        (
            "served",
            rendezvous::NAME,
            rendezvous::OPEN_LOOP,
            "served_ms_p50",
            "ms until a new client is served, median",
        ),
    ];
    for (name, suite, case, figure, unit) in cases {
        let mut names: Vec<String> = Vec::new();
        for one in samples.iter().filter(|one| one.suite == suite && one.case == case) {
            if !names.contains(&one.subject) {
                names.push(one.subject.clone());
            }
        }
        names.sort();
        let bars: Vec<Bar> = names
            .iter()
            .enumerate()
            .filter_map(|(series, subject)| {
                let summary = summary(samples, suite, case, &[subject], figure)?;
                Some(Bar { label: String::new(), series, summary })
            })
            .collect();
        if bars.is_empty() {
            continue;
        }
        let path = dir.join(format!("{name}.svg"));
        plot::bars(&path, &format!("{suite}: {case}"), unit, &names, &bars)?;
        let _ = write!(text, "\n![{unit}]({name}.svg)\n");
    }
    Ok(())
}
