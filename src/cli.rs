//! The command line: one file a subcommand. Called by `main` alone.
//!
//! Exit codes: 0, 1 (failed), 64 (wrong command line), 78 (wrong configuration), as in
//! `sysexits.h`.

mod allocator;
pub mod args;
pub mod backend;
pub mod check;
pub mod circuit;
pub mod ctor;
pub mod descriptor;
pub mod doctor;
pub mod import;
mod journal;
pub mod key;
mod log_repeats;
mod log_writer;
mod logging;
mod onionbalance;
mod passed;
mod process;
pub mod run;
mod signals;
pub mod status;
mod systemd;

use std::io::Write as _;
use std::process::ExitCode;

pub use self::allocator::Allocator;
use self::args::Command;

/// Read the command line and do what it says.
pub fn main() -> ExitCode {
    let held = signals::hold();
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    if let Err(error) = process::no_core_dumps() {
        // Standard error may have gone; the exit code says it as well.
        let _ = writeln!(std::io::stderr(), "rustbalance: cannot switch core dumps off: {error}");
        return ExitCode::FAILURE;
    }
    let held = match cli.command {
        Command::Run(_) => Some(held),
        // The others end as any command does.
        _ => {
            drop(held);
            None
        }
    };
    match cli.command {
        Command::Run(args) => run::run(&args, held),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Descriptor(args) => descriptor::run(&args),
        Command::Backend(args) => backend::run(&args),
        Command::Circuit(args) => circuit::run(&args),
        Command::Ctor(args) => ctor::run(&args),
    }
}
