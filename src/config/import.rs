//! Configurations of other programs: what they say, in our words.
//!
//! ```text
//!   config.yaml --yaml--> OnionBalance --to_toml--> text for people, or with
//!                                                   a base file: Config
//!   config.toml (the first RustBalance) --> text for people
//! ```
//!
//! Called by `cli`. Reads the files that it is given and nothing else: keys are the vault's to
//! read.

pub mod first_rustbalance;
pub mod onionbalance;
mod yaml;

use std::path::{Path, PathBuf};

/// A path below the directory of `file`, absolute where the working directory is known.
fn beside(file: &Path, path: &str) -> PathBuf {
    let below = file.parent().unwrap_or(Path::new("")).join(path);
    std::path::absolute(&below).unwrap_or(below)
}
