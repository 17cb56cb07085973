//! The `rustbalance` binary: the allocator, and the command line.

use std::process::ExitCode;

/// Of every thread of the process.
#[global_allocator]
static ALLOCATOR: rustbalance::cli::Allocator = rustbalance::cli::Allocator;

fn main() -> ExitCode {
    rustbalance::cli::main()
}
