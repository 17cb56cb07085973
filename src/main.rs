//! The `rustbalance` binary: the allocator, and the command line.

use std::process::ExitCode;

/// Every thread of a data core allocates for each cell: mimalloc's per-thread heaps take no lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rustbalance::cli::main()
}
