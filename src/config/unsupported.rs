//! Keys of the contract that this version does not carry yet: refused, so that nobody believes
//! they work. When a feature arrives, its entry goes.

use super::problem::Problem;
use super::raw::{RawConfig, RawPort, RawService};
use super::reader::At;

/// What a feature that is missing is answered with.
fn not_yet<T>(place: &At<T>, what: &str, fix: &str) -> Problem {
    place.problem(format!("{what} is not yet supported in this version"), fix)
}

/// Everything in `raw` that this version cannot do.
pub(super) fn problems(raw: &RawConfig) -> Vec<Problem> {
    let mut found = Vec::new();
    raw.services.iter().for_each(|service| service_problems(service, &mut found));

    if let Some(instances) = raw.ctor.instances.as_ref().filter(|instances| instances.value != 0) {
        found.push(not_yet(instances, "running C tor daemons", "write 0 or remove the key"));
    }
    if let Some(extra) = raw.ctor.extra_torrc.as_ref().filter(|extra| !extra.value.is_empty()) {
        found.push(not_yet(extra, "running C tor daemons", "remove the key"));
    }
    for listen in &raw.listens {
        found.push(not_yet(&listen.place, "a front for C tor daemons", "remove [[listen]]"));
    }
    if let Some(listen) = raw.admin.listen.as_ref().filter(|listen| !listen.value.is_empty()) {
        let fix = "remove the key and use `rustbalance status` instead";
        found.push(not_yet(listen, "the HTTP side of the admin interface", fix));
    }
    found
}

/// A service's part.
fn service_problems(service: &RawService, found: &mut Vec<Problem>) {
    for (place, _) in &service.remotes {
        found.push(not_yet(place, "a remote instance", "remove [[service.remote]]"));
    }
    service.ports.iter().for_each(|port| port_problems(port, found));
}

/// A port's part.
fn port_problems(port: &RawPort, found: &mut Vec<Problem>) {
    if let Some(balance) = port.balance.as_ref().filter(|balance| balance.value != "round_robin") {
        let what = format!("balance = \"{}\"", balance.value);
        found.push(not_yet(balance, &what, "write \"round_robin\" or remove the key"));
    }
    for backend in port.backends.iter().flat_map(|list| &list.value) {
        if let Some(weight) = backend.weight.as_ref().filter(|weight| weight.value != 1) {
            found.push(not_yet(weight, "a backend's weight", "write 1 or remove the key"));
        }
        if let Some(backup) = backend.backup.as_ref().filter(|backup| backup.value) {
            found.push(not_yet(backup, "a backup backend", "write false or remove the key"));
        }
        if let Some(connections) = &backend.connections_max {
            found.push(not_yet(connections, "a backend's connections_max", "remove the key"));
        }
    }
}
