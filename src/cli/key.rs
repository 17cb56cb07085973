//! `rustbalance key`: make, import or show a master key. Never prints one.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::args::{EXIT_FAILED, KeyArgs, KeyCommand};
use crate::vault::{KeyError, KeyFormatError, MasterKey};

/// Run the command: 0, or 1 with a sentence on stderr.
pub fn run(args: &KeyArgs) -> ExitCode {
    match execute(&args.command, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rustbalance: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// [`run`], with its output as an argument.
fn execute(command: &KeyCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        KeyCommand::New { file } => new(file, out),
        KeyCommand::Import { source, file } => import(source, file, out),
        KeyCommand::Show { file } => show(file, out),
    }
}

/// `key new`
fn new(file: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let key = MasterKey::generate();
    key.create_new(file).map_err(one_line)?;
    print(out, &key)
}

/// `key import`
fn import(source: &Path, file: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let key = match MasterKey::load(source) {
        Err(KeyError::Format { source: KeyFormatError::BareSeed, .. }) => {
            MasterKey::load_seed(source)
        }
        loaded => loaded,
    };
    let key = key.map_err(one_line)?;
    key.create_new(file).map_err(one_line)?;
    print(out, &key)
}

/// `key show`
fn show(file: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let (key, format) = MasterKey::load_with_format(file).map_err(one_line)?;
    print(out, &key)?;
    writeln!(out, "format: {format}").context("cannot print the format")
}

/// The onion address on a line of its own, so that a script can take it.
fn print(out: &mut impl Write, key: &MasterKey) -> anyhow::Result<()> {
    writeln!(out, "{}", key.onion_address()).context("cannot print the onion address")
}

/// The vault's sentence alone: it has its cause in it already.
fn one_line(error: KeyError) -> anyhow::Error {
    anyhow::Error::msg(error.to_string())
}

#[cfg(test)]
mod tests;
