//! `rustbalance import`: the configuration of another program, in our words, on standard output.
//! Warnings go to standard error; nothing is written or started.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::{EXIT_CONFIG, EXIT_FAILED, ImportArgs, ImportCommand};
use super::key::GOBALANCE_LEAKS;
use crate::config::ConfigError;
use crate::config::import::first_rustbalance::FirstRustBalance;
use crate::config::import::onionbalance::OnionBalance;
use crate::vault::{KeyError, KeyFormat, KeyFormatError, MasterKey, OnionAddress};

/// Run the command: 0, or 78 where the file cannot be read.
pub fn run(args: &ImportArgs) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    // Where the output cannot be written, nobody can be told so.
    let code = import(&args.command, &mut out, &mut err).unwrap_or(EXIT_FAILED);
    ExitCode::from(code)
}

/// What came of a file: our configuration, and what to say about it.
type Imported = Result<(String, Vec<String>), ConfigError>;

/// [`run`], with its output as arguments.
fn import(
    command: &ImportCommand,
    out: &mut impl Write,
    err: &mut impl Write,
) -> std::io::Result<u8> {
    let imported = match command {
        ImportCommand::Onionbalance { file } => onionbalance(file, false),
        ImportCommand::Gobalance { file } => onionbalance(file, true),
        ImportCommand::RustbalanceV0 { file } => first_rustbalance(file),
    };
    let (text, warnings) = match imported {
        Ok(imported) => imported,
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(EXIT_CONFIG);
        }
    };
    for warning in warnings {
        writeln!(err, "warning: {warning}")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(0)
}

/// Stands above what GoBalance's file becomes.
const GOBALANCE_HEAD: &str = "\
# GoBalance has published under these keys. It gives a key in tor's form (96 bytes) away: whoever
# has kept one of its descriptors can compute it. Make new keys with `rustbalance key new FILE`, and
# move to their addresses: no program makes the old ones safe again. Keys in PEM are not concerned.
#
";

/// `import onionbalance` and `import gobalance`: the files are of one form.
fn onionbalance(file: &Path, is_gobalance: bool) -> Imported {
    let found = OnionBalance::load(file)?;
    let mut warnings: Vec<String> =
        found.warnings.iter().map(|one| format!("{}:{one}", file.display())).collect();
    for service in &found.services {
        let loaded = MasterKey::load_with_format(&service.key);
        // One that cannot be read may be in any form.
        if is_gobalance && !matches!(loaded, Ok((_, KeyFormat::Pem))) {
            let (file, name) = (file.display(), &service.name);
            warnings.push(format!("{file}: service {name:?}: {GOBALANCE_LEAKS}"));
        }
        match loaded {
            Ok((key, _)) => {
                let own = key.onion_address();
                if service.instances.iter().any(|instance| instance.address == own) {
                    warnings.push(format!(
                        "{}: service {:?}: one of its instances has the address of the service \
                         itself; an instance has an address of its own",
                        file.display(),
                        service.name
                    ));
                }
            }
            Err(error) => warnings.push(format!("{}: {error}", file.display())),
        }
    }
    let text = found.to_toml(None);
    let text = if is_gobalance { format!("{GOBALANCE_HEAD}{text}") } else { text };
    Ok((text, warnings))
}

/// `import rustbalance-v0`
fn first_rustbalance(path: &Path) -> Imported {
    let found = FirstRustBalance::load(path)?;
    let file = found.file.display();
    let mut warnings: Vec<String> =
        found.warnings.iter().map(|one| format!("{file}: {one}")).collect();
    let (address, imported) = match MasterKey::load(&found.key) {
        Ok(key) => (Some(key.onion_address()), None),
        Err(KeyError::Format { source: KeyFormatError::BareSeed, .. }) => {
            match MasterKey::load_seed(&found.key) {
                Ok(key) => (Some(key.onion_address()), Some(beside(&found.key))),
                Err(error) => {
                    warnings.push(format!("{file}: master.identity_key_path: {error}"));
                    (None, None)
                }
            }
        }
        Err(error) => {
            warnings.push(format!("{file}: master.identity_key_path: {error}"));
            (None, None)
        }
    };
    if let (Some(address), Some(told)) = (address, &found.onion)
        && told.parse::<OnionAddress>().ok() != Some(address)
    {
        warnings.push(format!(
            "{file}: master.onion_address: the key in identity_key_path has another address; the \
             service will have the key's"
        ));
    }
    Ok((found.to_toml(imported.as_deref()), warnings))
}

/// Where a seed goes in tor's form: beside itself.
fn beside(seed: &Path) -> PathBuf {
    seed.with_file_name("hs_ed25519_secret_key")
}

#[cfg(test)]
mod tests;
