//! `flame TITLE`: what `perf script` prints on standard input, as a flame graph on standard output.
//! `perf/record` is what people call.

use std::io::{BufReader, BufWriter};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use inferno::collapse::Collapse as _;
use inferno::{collapse, flamegraph};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flame: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Read, fold, draw.
fn run() -> Result<()> {
    let title = std::env::args().nth(1).context("the first argument is the title")?;
    let mut folded = Vec::new();
    collapse::perf::Folder::from(collapse::perf::Options::default())
        .collapse(BufReader::new(std::io::stdin().lock()), &mut folded)
        .context("standard input is not what `perf script` prints")?;
    let mut options = flamegraph::Options::default();
    options.title = title;
    let lines = std::str::from_utf8(&folded)?.lines();
    flamegraph::from_lines(&mut options, lines, BufWriter::new(std::io::stdout().lock()))
        .context("cannot draw")
}
