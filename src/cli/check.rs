//! `rustbalance check`: is a configuration right? Reads the file and the keys, and looks at what
//! `run` looks at before it starts ([`crate::app::preflight`]); writes and starts nothing.

use std::io::Write;
use std::process::ExitCode;

use super::args::{CheckArgs, EXIT_CONFIG, EXIT_FAILED, configuration};
use crate::app::launch::existing_keys;
use crate::app::preflight::{self, Lasts, Problem};
use crate::config::explain;

/// Run the command.
///
/// Exits with 0, or with 78 where anything is wrong that stays wrong. What only stands in the way
/// now, as a listener's address that somebody has, is a warning: the service itself may run, or
/// systemd have bound the address for it.
pub fn run(args: &CheckArgs) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    // Where the output cannot be written, nobody can be told so.
    let code = check(args, &mut out, &mut err).unwrap_or(EXIT_FAILED);
    ExitCode::from(code)
}

/// [`run`], with its output as arguments.
fn check(args: &CheckArgs, out: &mut impl Write, err: &mut impl Write) -> std::io::Result<u8> {
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
    let found = preflight::problems(&config);
    let mut problems: Vec<String> = super::logging::check(&config.log).err().into_iter().collect();
    let mut warnings = config.warnings.clone();
    for Problem { text, lasts, .. } in found {
        match lasts {
            Lasts::Always => problems.push(text),
            Lasts::ForNow => warnings.push(format!("`run` would fail now: {text}")),
            // The service itself.
            Lasts::Running => {}
        }
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    for warning in warnings.iter().chain(&config.machine_warnings(cpus)) {
        writeln!(err, "{file}: warning: {warning}")?;
    }
    for problem in &problems {
        // Those of arti's tables name the file themselves.
        match problem.starts_with(&format!("{file}: ")) {
            true => writeln!(err, "{problem}")?,
            false => writeln!(err, "{file}: {problem}")?,
        }
    }
    if !problems.is_empty() {
        return Ok(EXIT_CONFIG);
    }
    if args.explain {
        write!(out, "{}", explain::explain(&config))?;
        writeln!(out, "\n# What keeps other users from the keys:")?;
        // They were read before, and nothing was wrong with them.
        let keys = existing_keys(&config).unwrap_or_default();
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
