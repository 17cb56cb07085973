//! `rustbalance key`: make, import or show a master key. Never prints one.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::args::{EXIT_FAILED, KeyArgs, KeyCommand, Published};
use crate::vault::{Guard, KeyError, KeyFormat, KeyFormatError, MasterKey};

/// Run the command: 0, or 1 with a sentence on stderr.
pub fn run(args: &KeyArgs) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    match execute(&args.command, &mut out, &mut err) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(err, "rustbalance: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Why a key that GoBalance has published under is nobody's own any more.
pub(super) const GOBALANCE_LEAKS: &str = "GoBalance signs with a nonce that everybody can compute \
    where the key is in tor's form (96 bytes): whoever has kept one of its descriptors can compute \
    the key, and no other program mends that; make a new key with `rustbalance key new FILE` and \
    move to its address";

/// The same of a key that is not in tor's form.
const GOBALANCE_AND_PEM: &str = "GoBalance gives keys away that are in tor's form, and not those \
    in PEM, as this one is; if it has ever had this key in tor's form, make a new key with \
    `rustbalance key new FILE` and move to its address";

/// [`run`], with its output as arguments.
fn execute(command: &KeyCommand, out: &mut impl Write, err: &mut impl Write) -> anyhow::Result<()> {
    match command {
        KeyCommand::New { file } => new(file, out),
        KeyCommand::Import { source, file, published_by } => {
            let format = import(source, file, out)?;
            told(*published_by, format, err)
        }
        KeyCommand::Show { file, published_by } => {
            let format = show(file, out)?;
            told(*published_by, Some(format), err)
        }
    }
}

/// Say whether the descriptors of who published under the key give it away.
fn told(
    published: Option<Published>,
    format: Option<KeyFormat>,
    err: &mut impl Write,
) -> anyhow::Result<()> {
    let Some(Published::Gobalance) = published else { return Ok(()) };
    let text = match format {
        Some(KeyFormat::Pem) => GOBALANCE_AND_PEM,
        _ => GOBALANCE_LEAKS,
    };
    writeln!(err, "warning: {text}").context("cannot print a warning")
}

/// `key new`
fn new(file: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let key = MasterKey::generate();
    key.create_new(file).map_err(one_line)?;
    print(out, &key)
}

/// `key import`: the form that was found; none of a bare seed.
fn import(source: &Path, file: &Path, out: &mut impl Write) -> anyhow::Result<Option<KeyFormat>> {
    let loaded = match MasterKey::load_with_format(source) {
        Err(KeyError::Format { source: KeyFormatError::BareSeed, .. }) => {
            MasterKey::load_seed(source).map(|key| (key, None))
        }
        loaded => loaded.map(|(key, format)| (key, Some(format))),
    };
    let (key, format) = loaded.map_err(one_line)?;
    key.create_new(file).map_err(one_line)?;
    print(out, &key)?;
    Ok(format)
}

/// `key show`: the form.
fn show(file: &Path, out: &mut impl Write) -> anyhow::Result<KeyFormat> {
    let (key, format) = MasterKey::load_with_format(file).map_err(one_line)?;
    print(out, &key)?;
    writeln!(out, "format: {format}").context("cannot print the format")?;
    if let Some(guard) = key.guard().filter(|guard| *guard != Guard::Permissions) {
        writeln!(out, "guard: {guard}").context("cannot print the guard")?;
    }
    Ok(format)
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
