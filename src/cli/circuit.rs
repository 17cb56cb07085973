//! `rustbalance circuit`: close a client's circuit.

use std::process::ExitCode;

use super::args::{CircuitArgs, CircuitCommand};
use super::status::show;
use crate::admin::client;

/// Run it.
pub fn run(args: &CircuitArgs) -> ExitCode {
    let CircuitCommand::Close { circuit, target } = &args.command;
    show(
        target,
        |socket| client::close_circuit(socket, *circuit),
        |()| Ok(format!("{circuit} is closed\n")),
    )
}
