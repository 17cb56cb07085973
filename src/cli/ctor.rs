//! `rustbalance ctor`: the classic stack of C tor daemons, OnionBalance and HAProxy, written down
//! for whoever runs the parts.

use std::io::Write;
use std::process::ExitCode;

use super::args::{CtorArgs, CtorCommand, EXIT_CONFIG, EXIT_FAILED, GenerateArgs};
use super::logging::{say, warn};
use crate::app::generate::{GenerateError, Request, generate};
use crate::config::{Config, ConfigError};
use crate::runtime::pinning;

/// Run the command: 0, 1 with a sentence on stderr, or 78 where the configuration is wrong.
pub fn run(args: &CtorArgs) -> ExitCode {
    let CtorCommand::Generate(args) = &args.command;
    match execute(args, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, errors)) => {
            errors.iter().for_each(|error| say(error));
            ExitCode::from(code)
        }
    }
}

/// [`run`], with its output as an argument.
fn execute(args: &GenerateArgs, out: &mut impl Write) -> Result<(), (u8, Vec<String>)> {
    let wrong = |errors: Vec<String>| (EXIT_CONFIG, errors);
    let failed = |error: String| (EXIT_FAILED, vec![error]);
    let config = match &args.config {
        Some(file) => Config::load(file).map_err(|error| wrong(lines(&error)))?,
        None => {
            // With a state directory that has no key, each service gets a new one.
            let mut config = Config::from_backends(&args.backend, false);
            config.state_dir.clone_from(&args.directory);
            config
        }
    };
    let extra = match &args.torrc_extra {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| failed(format!("cannot read {}: {error}", file.display())))?,
        None => String::new(),
    };
    let cpus = match &config.turbo.cores {
        Some(cores) => cores.clone(),
        None => pinning::available_cores(),
    };
    let request = Request {
        directory: args.directory.clone(),
        daemons: args.instances,
        cpus,
        debian: args.debian,
        extra,
    };
    for warning in &config.warnings {
        warn(warning);
    }
    let report = generate(&config, &request).map_err(|error| match error {
        GenerateError::Config(errors) => wrong(errors),
        error => failed(error.to_string()),
    })?;
    for warning in &report.warnings {
        warn(warning);
    }
    let printed = report.onions.iter().try_for_each(|onion| writeln!(out, "{onion}"));
    printed.map_err(|error| failed(format!("cannot print the onion address: {error}")))?;
    say(&format_args!("wrote {} daemons; {} says how it goes on", report.daemons, {
        report.readme.display()
    }));
    Ok(())
}

/// A configuration's problems, a sentence each.
fn lines(error: &ConfigError) -> Vec<String> {
    error.to_string().lines().map(str::to_owned).collect()
}
