//! `rustbalance circuit`: ban a client's circuit, prefer it, close it.

use std::process::ExitCode;
use std::time::Duration;

use super::args::{CircuitArgs, CircuitCommand, Target, VerdictArgs};
use super::status::show;
use crate::admin::{Verdict, VerdictRequest, client};
use crate::base::stream::CircuitId;

/// Run it.
pub fn run(args: &CircuitArgs) -> ExitCode {
    match &args.command {
        CircuitCommand::Ban(VerdictArgs { circuit, seconds, target }) => {
            say(*circuit, Verdict::Banned, *seconds, target, "is banned")
        }
        CircuitCommand::Prefer(VerdictArgs { circuit, seconds, target }) => {
            say(*circuit, Verdict::Preferred, *seconds, target, "is preferred")
        }
        CircuitCommand::Forget { circuit, target } => {
            say(*circuit, Verdict::Normal, 0, target, "is as any other")
        }
        CircuitCommand::Close { circuit, target } => show(
            target,
            |socket| client::close_circuit(socket, *circuit),
            |()| Ok(format!("{circuit} is closed\n")),
        ),
    }
}

/// Say something of a circuit.
fn say(
    circuit: CircuitId,
    verdict: Verdict,
    seconds: u64,
    target: &Target,
    what: &str,
) -> ExitCode {
    let lifetime = Duration::from_secs(seconds);
    let request = VerdictRequest { circuit, verdict, lifetime };
    show(
        target,
        |socket| client::set_verdict(socket, &request),
        |()| {
            Ok(match verdict {
                Verdict::Normal => format!("{circuit} {what}\n"),
                _ => format!("{circuit} {what} for {seconds} s\n"),
            })
        },
    )
}
