//! What is wrong with a configuration: one sentence each, with file, line, key, reason and fix.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; `None` where nothing was written (a missing table, an option of
    /// the command line).
    pub line: Option<usize>,
    /// The key's path, as in `service[0].port[1].virtual`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    /// A problem at a line.
    pub(super) fn at(
        line: usize,
        key: &str,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Problem {
        let (reason, fix) = (reason.into(), fix.into());
        Problem { line: Some(line), key: key.to_owned(), reason, fix }
    }

    /// A problem with something that is not there, or does not come from the file.
    pub(super) fn nowhere(key: &str, reason: impl Into<String>, fix: impl Into<String>) -> Problem {
        Problem { line: None, key: key.to_owned(), reason: reason.into(), fix: fix.into() }
    }
}

/// Why there is no configuration. `Display` is one line for each problem.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "{path}: cannot read the configuration: {source}; give the path of a readable file",
        path = .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error(
        "{path}: it has more than {bytes_max} bytes; give a configuration file",
        path = .path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is allowed.
        bytes_max: usize,
    },
    /// Mistakes, in the order of the file.
    #[error("{}", Lines { file, problems })]
    Wrong {
        /// The file, or `command line`.
        file: PathBuf,
        /// All that is wrong; never empty.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The problems, in the order of the file; empty where the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            ConfigError::Wrong { problems, .. } => problems,
            ConfigError::Read { .. } | ConfigError::TooLarge { .. } => &[],
        }
    }

    /// `problems`, sorted by line.
    pub(super) fn wrong(file: &Path, mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        ConfigError::Wrong { file: file.to_owned(), problems }
    }
}

/// Prints `file:line: key: reason; fix`, one line each.
struct Lines<'a> {
    /// The file.
    file: &'a Path,
    /// What is wrong.
    problems: &'a [Problem],
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{}:", self.file.display())?;
            if let Some(line) = problem.line {
                write!(formatter, "{line}:")?;
            }
            if !problem.key.is_empty() {
                write!(formatter, " {}:", problem.key)?;
            }
            write!(formatter, " {}; {}", problem.reason, problem.fix)?;
        }
        Ok(())
    }
}
