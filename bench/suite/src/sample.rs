//! What was measured, and what it says when the rounds are taken together.

use std::collections::BTreeMap;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Named figures, each with its unit in the name.
pub type Values = BTreeMap<&'static str, f64>;

/// One measurement of one subject.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// The suite.
    pub suite: &'static str,
    /// What exactly was done, in words.
    pub case: String,
    /// Who did it.
    pub subject: String,
    /// In which round, from 0.
    pub round: usize,
    /// The figures; empty when it failed.
    pub values: Values,
    /// Why the round does not count, for any of its subjects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub void: Option<String>,
}

/// A sample as a line of raw data has it.
#[derive(Deserialize)]
struct Line {
    /// See [`Sample`].
    suite: String,
    /// See [`Sample`].
    case: String,
    /// See [`Sample`].
    subject: String,
    /// See [`Sample`].
    round: usize,
    /// See [`Sample`]; `null` is what JSON has for a value that is no number.
    values: BTreeMap<String, Option<f64>>,
    /// See [`Sample`].
    void: Option<String>,
}

/// Read the raw data of a run.
///
/// # Errors
/// When the file cannot be read, or is none of ours.
pub fn read(raw: &Path) -> Result<Vec<Sample>> {
    let text = std::fs::read_to_string(raw).with_context(|| format!("{}", raw.display()))?;
    // Names of suites and figures live as long as the program, as those that it measures itself do.
    let name = |name: String| -> &'static str { Box::leak(name.into_boxed_str()) };
    let sample = |line: &str| -> Result<Sample> {
        let Line { suite, case, subject, round, values, void } = serde_json::from_str(line)?;
        let values = values.into_iter().map(|(key, value)| (name(key), value.unwrap_or(f64::NAN)));
        Ok(Sample { suite: name(suite), case, subject, round, values: values.collect(), void })
    };
    text.lines().map(sample).collect::<Result<_>>().context("this is no raw data of a run")
}

/// Median and spread of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle value; the mean of the two middle ones of an even number.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// Of how many.
    pub count: usize,
}

impl Summary {
    /// Of these values; `None` when there is none.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|one| one.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        let median = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
        Some(Summary { median, least, most, count })
    }
}

/// The summary of one figure of one subject in one case, over all rounds that count.
pub fn summary(
    samples: &[Sample],
    suite: &str,
    case: &str,
    subjects: &[&str],
    figure: &str,
) -> Option<Summary> {
    let values: Vec<f64> = samples
        .iter()
        .filter(|one| one.void.is_none() && one.suite == suite && one.case == case)
        .filter(|one| subjects.contains(&one.subject.as_str()))
        .filter_map(|one| one.values.get(figure).copied())
        .collect();
    Summary::of(&values)
}

#[cfg(test)]
mod tests {
    use super::{Sample, Summary, Values, summary};

    #[test]
    fn the_middle_of_odd_and_even_numbers_of_values() {
        let of = |values: &[f64]| Summary::of(values).map(|summary| summary.median);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(of(&[f64::NAN]), None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let raw = dir.path().join("raw.jsonl");
        let sample = Sample {
            suite: "bytes",
            case: "down".to_owned(),
            subject: "C tor".to_owned(),
            round: 3,
            values: Values::from([("x", 1.5), ("y", f64::NAN)]),
            void: Some("why".to_owned()),
        };
        let line = serde_json::to_string(&sample).expect("it is JSON");
        std::fs::write(&raw, format!("{line}\n{line}\n")).expect("there is room");
        let read = super::read(&raw).expect("it is ours");
        assert_eq!(read.len(), 2);
        assert_eq!(serde_json::to_string(&read[1]).expect("it is JSON"), line);
        std::fs::write(&raw, "{}\n").expect("there is room");
        assert!(super::read(&raw).is_err());
    }

    #[test]
    fn void_rounds_do_not_count() {
        let sample = |round: usize, value: f64, void: Option<&str>| Sample {
            suite: "bytes",
            case: "down".to_owned(),
            subject: "C tor".to_owned(),
            round,
            values: Values::from([("x", value)]),
            void: void.map(str::to_owned),
        };
        let samples = [sample(0, 1.0, None), sample(1, 100.0, Some("failed"))];
        let found = summary(&samples, "bytes", "down", &["C tor"], "x");
        assert_eq!(found, Some(Summary { median: 1.0, least: 1.0, most: 1.0, count: 1 }));
        assert_eq!(summary(&samples, "bytes", "up", &["C tor"], "x"), None);
    }
}
