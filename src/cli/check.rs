//! `rustbalance check`: is a configuration right? Reads the file and the keys; writes and starts
//! nothing.

use std::io::Write;
use std::process::ExitCode;

use super::args::{CheckArgs, EXIT_CONFIG, EXIT_FAILED, configuration};
use crate::app::launch::existing_keys;
use crate::config::explain;

/// Run the command. `validate_arti` checks what stands below `[arti]`; its errors are sentences
/// that name the key there.
///
/// Exits with 0, or with 78 where anything is wrong.
pub fn run(
    args: &CheckArgs,
    validate_arti: impl Fn(&toml::Table) -> Result<(), Vec<String>>,
) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    // Where the output cannot be written, nobody can be told so.
    let code = check(args, validate_arti, &mut out, &mut err).unwrap_or(EXIT_FAILED);
    ExitCode::from(code)
}

/// [`run`], with its output as arguments.
fn check(
    args: &CheckArgs,
    validate_arti: impl Fn(&toml::Table) -> Result<(), Vec<String>>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> std::io::Result<u8> {
    // clap asks for one of them.
    let config = configuration(args.config.as_deref(), args.onionbalance.as_deref());
    let Some(config) = config else { return Ok(EXIT_CONFIG) };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(EXIT_CONFIG);
        }
    };
    let file = args.onionbalance.iter().chain(&args.config).next().map(|file| file.display());
    let file = file.expect("one of them was read");
    let mut problems = validate_arti(&config.arti).err().unwrap_or_default();
    problems.extend(super::logging::check(&config.log).err());
    let keys = existing_keys(&config).unwrap_or_else(|wrong| {
        problems.extend(wrong);
        Vec::new()
    });
    problems.extend(crate::app::daemons::check(&config));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    for warning in config.warnings.iter().chain(&config.machine_warnings(cpus)) {
        writeln!(err, "{file}: warning: {warning}")?;
    }
    for problem in &problems {
        writeln!(err, "{file}: {problem}")?;
    }
    if !problems.is_empty() {
        return Ok(EXIT_CONFIG);
    }
    if args.explain {
        write!(out, "{}", explain::explain(&config))?;
        writeln!(out, "\n# What keeps other users from the keys:")?;
        for (service, key) in config.services.iter().zip(keys) {
            match key.and_then(|key| key.guard()) {
                Some(guard) => writeln!(out, "# service {:?}: {guard}", service.name)?,
                None => writeln!(out, "# service {:?}: there is no key yet", service.name)?,
            }
        }
    } else {
        writeln!(out, "{file}: the configuration is right")?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
