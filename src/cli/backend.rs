//! `rustbalance backend`: show the backends of the running service, take one out, put it back.

use std::process::ExitCode;

use super::args::{BackendArgs, BackendCommand, BackendOrderArgs};
use super::status::{backends, json, show, table};
use crate::admin::status::ServiceStatus;
use crate::admin::{BackendOrder, BackendRequest, client};

/// Run it.
pub fn run(args: &BackendArgs) -> ExitCode {
    match &args.command {
        BackendCommand::List { json: as_json, target } => {
            show(target, client::status, |status| match as_json {
                true => json(&status.services.iter().map(as_value).collect::<Vec<_>>()),
                false => Ok(human(&status.services)),
            })
        }
        BackendCommand::Drain(args) => order(args, BackendOrder::Drain),
        BackendCommand::Maintenance(args) => order(args, BackendOrder::Maintenance),
        BackendCommand::Ready(args) => order(args, BackendOrder::Ready),
    }
}

/// The backends of a service for programs.
fn as_value(service: &ServiceStatus) -> serde_json::Value {
    serde_json::json!({ "service": service.name, "backends": service.backends })
}

/// The backends of every service for people.
fn human(services: &[ServiceStatus]) -> String {
    let one = |service: &ServiceStatus| format!("{}\n{}", service.name, table(&backends(service)));
    services.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Tell the running service.
fn order(args: &BackendOrderArgs, order: BackendOrder) -> ExitCode {
    let request = BackendRequest {
        address: args.address.clone(),
        service: args.service.clone(),
        port: args.port,
        order,
    };
    let state = match order {
        BackendOrder::Ready => "gets streams",
        BackendOrder::Drain => "gets no new stream",
        BackendOrder::Maintenance => "gets no new stream and is not checked",
    };
    show(
        &args.target,
        |socket| client::order_backend(socket, &request),
        |changed| {
            Ok(match changed {
                1 => format!("{} {state}\n", args.address),
                _ => format!("{} {state}, at {changed} ports\n", args.address),
            })
        },
    )
}
