//! The bounds that docs/SPECIFICATION.md promises, and whether a run holds them.
//!
//! The document is read, not copied: each row of its table *Checked by `bench/run --check`* is
//! ``| `name` | what | at most 1.60 | ...``.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::bench::{C_TOR, C_TORS};
use crate::sample::{Sample, Summary, summary};
use crate::subject::Kind;
use crate::suites::{bytes, memory, plane, rendezvous, start};

/// What one bound is about.
struct Rule {
    /// Its name in the document.
    name: &'static str,
    /// The suite that measures it.
    suite: &'static str,
    /// The measured value, `None` when the suite did not measure it.
    measure: fn(&[Sample]) -> Option<f64>,
}

/// A bound, and what was measured.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// What may not be exceeded.
    pub at_most: f64,
    /// What was measured; no number when every round was void.
    pub measured: f64,
}

impl Verdict {
    /// Whether the bound holds.
    pub fn holds(&self) -> bool {
        // A value that is no number holds no bound.
        self.measured <= self.at_most
    }
}

/// RustBalance with two instances and two stacks.
pub fn two_stacks() -> Kind {
    Kind::RustBalance { instances: 2, stacks: 2, vanguards: "lite", io: "auto" }
}

/// Ratio of the medians of RustBalance and of both C tors.
fn to_c_tor(samples: &[Sample], suite: &str, case: &str, kind: &Kind, figure: &str) -> Option<f64> {
    let of = |subjects: &[&str]| summary(samples, suite, case, subjects, figure);
    let (ours, theirs): (Summary, Summary) = (of(&[&kind.name()])?, of(&C_TORS)?);
    Some(ours.median / theirs.median)
}

/// Ratio of the medians of our listener and of the best HAProxy.
fn to_haproxy(samples: &[Sample], case: &str, figure: &str) -> Option<f64> {
    let of = |subjects: &[&str]| summary(samples, plane::NAME, case, subjects, figure);
    let theirs = plane::HAPROXIES.iter().filter_map(|names| of(names)).map(|one| one.median);
    Some(of(&[plane::OURS])?.median / theirs.reduce(f64::min)?)
}

/// What stands between a listener and a backend.
fn rules_of_plane() -> [Rule; 5] {
    let suite = plane::NAME;
    [
        Rule {
            name: "plane.bytes",
            suite,
            measure: |samples| to_haproxy(samples, plane::BULK, "cpu_ms_per_gigabyte"),
        },
        Rule {
            name: "plane.connections",
            suite,
            measure: |samples| to_haproxy(samples, plane::CONNECTIONS, "cpu_us_per_connection"),
        },
        Rule {
            name: "plane.p999",
            suite,
            measure: |samples| to_haproxy(samples, plane::OPEN_LOOP, "ms_p999"),
        },
        Rule {
            name: "plane.killed",
            suite,
            measure: |samples| {
                let (case, figure) = (plane::KILLED, "new_connections_lost");
                Some(summary(samples, plane::NAME, case, &[plane::OURS], figure)?.median)
            },
        },
        Rule {
            name: "plane.idle",
            suite,
            measure: |samples| {
                let figure = "memory_kb_per_pair";
                let ours = summary(samples, plane::NAME, plane::IDLE, &[plane::OURS], figure)?;
                Some(ours.median)
            },
        },
    ]
}

/// All rules.
fn rules() -> Vec<Rule> {
    let mut rules = rules_of_tor();
    rules.extend(rules_of_plane());
    rules
}

/// Those beside C tor.
fn rules_of_tor() -> Vec<Rule> {
    vec![
        Rule {
            name: "bytes.shared",
            suite: bytes::NAME,
            measure: |samples| {
                let case = bytes::case_name(true, 4);
                to_c_tor(samples, bytes::NAME, &case, &Kind::rustbalance(2), "cpu_ns_per_byte")
            },
        },
        Rule {
            name: "bytes.per-instance",
            suite: bytes::NAME,
            measure: |samples| {
                let case = bytes::case_name(true, 4);
                to_c_tor(samples, bytes::NAME, &case, &two_stacks(), "cpu_ns_per_byte")
            },
        },
        Rule {
            name: "bytes.system-calls",
            suite: bytes::NAME,
            measure: |samples| {
                let (case, kind) = (bytes::calls_case_name(16), Kind::rustbalance(2));
                to_c_tor(samples, bytes::NAME, &case, &kind, "syscalls_per_megabyte")
            },
        },
        Rule {
            name: "rendezvous.shared",
            suite: rendezvous::NAME,
            measure: |samples| {
                let (suite, case) = (rendezvous::NAME, rendezvous::SATURATED);
                to_c_tor(samples, suite, case, &Kind::rustbalance(2), "cpu_ms_per_client")
            },
        },
        Rule {
            name: "rendezvous.per-instance",
            suite: rendezvous::NAME,
            measure: |samples| {
                let (suite, case) = (rendezvous::NAME, rendezvous::SATURATED);
                to_c_tor(samples, suite, case, &two_stacks(), "cpu_ms_per_client")
            },
        },
        Rule {
            name: "memory.two-to-one",
            suite: memory::NAME,
            measure: |samples| {
                let of = |case: &str, subject: &str| {
                    let figure = "memory_mb_after_work";
                    summary(samples, memory::NAME, case, &[subject], figure)
                };
                let two = of(&memory::case_name(2), "RustBalance")?;
                let one = of(&memory::case_name(1), C_TOR)?;
                Some(two.median / one.median)
            },
        },
        Rule {
            name: "start.ready",
            suite: start::NAME,
            measure: |samples| {
                let name = Kind::rustbalance(2).name();
                let (suite, case) = (start::NAME, start::START);
                Some(summary(samples, suite, case, &[&name], "seconds_to_ready")?.median)
            },
        },
    ]
}

/// Compare a run with the bounds of the suites that it ran.
///
/// # Errors
/// When the document lacks a bound.
pub fn check(samples: &[Sample], suites: &[&str], document: &Path) -> Result<Vec<Verdict>> {
    let text = std::fs::read_to_string(document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    let mut verdicts = Vec::new();
    for rule in rules().into_iter().filter(|rule| suites.contains(&rule.suite)) {
        let at_most = bound(&text, rule.name)
            .with_context(|| format!("{} has no bound `{}`", document.display(), rule.name))?;
        // What could not be measured, since every round was void, does not hold.
        let measured = (rule.measure)(samples).unwrap_or(f64::NAN);
        verdicts.push(Verdict { name: rule.name.to_owned(), at_most, measured });
    }
    Ok(verdicts)
}

/// The bound of this name: the number after `at most` in the row that begins with it.
fn bound(document: &str, name: &str) -> Option<f64> {
    let row = format!("| `{name}` |");
    let line = document.lines().find(|line| line.starts_with(&row))?;
    let (_, after) = line.split_once("at most ")?;
    let number = after.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Verdict, bound, rules};

    #[test]
    fn every_rule_stands_in_the_specification() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
        let root = root.expect("the package lies two below the root");
        let text = std::fs::read_to_string(root.join("docs").join("SPECIFICATION.md"))
            .expect("the document is there");
        for rule in rules() {
            assert!(bound(&text, rule.name).is_some_and(|bound| bound > 0.0), "{}", rule.name);
        }
    }

    #[test]
    fn a_bound_is_read_from_its_row() {
        let text = "| `x.y` | what it is | at most 1.45 x C tor | **1.7** |\n";
        assert_eq!(bound(text, "x.y"), Some(1.45));
        assert_eq!(bound(text, "x"), None);
    }

    #[test]
    fn no_number_holds_no_bound() {
        let verdict = |measured| Verdict { name: String::new(), at_most: 1.0, measured };
        assert!(verdict(1.0).holds());
        assert!(!verdict(1.01).holds());
        assert!(!verdict(f64::NAN).holds());
    }
}
