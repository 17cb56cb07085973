//! The command line: one file a subcommand. Called by `main` alone.
//!
//! Exit codes: 0, 1 (failed), 64 (wrong command line), 78 (wrong configuration), as in
//! `sysexits.h`.

pub mod args;
pub mod check;
pub mod doctor;
mod logging;
pub mod key;
mod process;
pub mod run;
pub mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Cli, Command};

/// The configuration is wrong (`EX_CONFIG`).
pub const EXIT_CONFIG: u8 = 78;

/// The command line is wrong (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// Read the command line and do what it says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args, validate_arti),
        Command::Doctor(args) => doctor::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Descriptor(args) => status::descriptor(&args),
    }
}

/// Check the `[arti]` tables of a configuration.
fn validate_arti(table: &toml::Table) -> Result<(), Vec<String>> {
    // Where state lies makes no difference to what is right or wrong.
    crate::tor::ArtiSettings::check(table, Path::new("/"))
        .map(|_| ())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// The admin socket of a state directory.
pub(crate) fn admin_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}
