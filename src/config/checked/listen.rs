//! From what was typed to what it means: `[[listen]]`.

use super::Service;
use super::check::Checker;
use crate::config::raw::{RawConfig, RawListen};
use crate::limits::{LISTEN_BACKLOG_DEFAULT, LISTEN_BACKLOG_MAX, LISTENS_MAX};
use crate::plane::config::{BackendAddress, ListenConfig};

/// All listeners, each of which leads to a port of one of `services`.
pub(super) fn check_listens(
    raw: &RawConfig,
    services: &[Service],
    checker: &mut Checker<'_>,
) -> Vec<ListenConfig> {
    if let Some(beyond) = raw.listens.get(LISTENS_MAX) {
        let fix = format!("keep {LISTENS_MAX} of them");
        checker.problems.push(beyond.place.problem("there are too many listeners", fix));
        return Vec::new();
    }
    let mut listens: Vec<ListenConfig> = Vec::new();
    for raw in &raw.listens {
        let Some(listen) = check_listen(raw, services, checker) else { continue };
        if listens.iter().any(|other| other.address == listen.address) {
            let place = raw.address.as_ref().map_or(raw.place.clone(), |typed| typed.with(()));
            let reason = format!("another [[listen]] has the address {}", listen.address);
            checker.problems.push(place.problem(reason, "give each an address of its own"));
        }
        listens.push(listen);
    }
    listens
}

/// One of them.
fn check_listen(
    raw: &RawListen,
    services: &[Service],
    checker: &mut Checker<'_>,
) -> Option<ListenConfig> {
    let address = check_address(raw, checker);
    let service = check_service(raw, services, checker);
    let proxy_protocol = raw.proxy_protocol.as_ref().is_some_and(|typed| typed.value);
    let virtual_port = raw.virtual_port.as_ref();
    let virtual_port = virtual_port.map(|typed| checker.number(Some(typed), 1..=u16::MAX, 80));
    let service = service?;
    let serves = |port| {
        let mut ports = service.ports.iter();
        ports.any(|one| (one.virtual_first..=one.virtual_last).contains(&port))
    };
    match (&raw.virtual_port, virtual_port) {
        (Some(typed), Some(port)) if !serves(port) => {
            let reason = format!("the service {:?} has no port {port}", service.name);
            let fix = "write one of its virtual ports, or add a [[service.port]]";
            checker.problems.push(typed.problem(reason, fix));
        }
        (None, _) if !proxy_protocol => {
            let reason = "nothing says which port of the service is meant";
            let fix = "write virtual = 80; only a PROXY header would name one";
            checker.problems.push(raw.place.problem(reason, fix));
        }
        _ => {}
    }
    Some(ListenConfig {
        address: address?,
        service: service.name.clone(),
        virtual_port,
        proxy_protocol,
        backlog: checker.number(
            raw.backlog.as_ref(),
            1..=LISTEN_BACKLOG_MAX,
            LISTEN_BACKLOG_DEFAULT,
        ),
    })
}

/// `address`
fn check_address(raw: &RawListen, checker: &mut Checker<'_>) -> Option<BackendAddress> {
    let Some(typed) = &raw.address else {
        if !checker.reported(&raw.place.key) {
            let fix = "write address = \"127.0.0.1:8090\" or \"unix:/run/rustbalance/front.sock\"";
            checker.problems.push(raw.place.problem("the listener has no address", fix));
        }
        return None;
    };
    let address = checker.address(typed, &[])?;
    match &address {
        BackendAddress::Handler(_) => {
            let reason = format!("\"{}\": nobody connects to a handler", typed.value);
            checker.problems.push(typed.problem(reason, "write an IP address and port"));
            return None;
        }
        BackendAddress::UnixAbstract(_) => {
            let reason = format!(
                "\"{}\": an abstract socket has no owner and no mode, and a process that takes \
                 over could not have it",
                typed.value
            );
            checker.problems.push(typed.problem(reason, "write unix: with the path of a file"));
            return None;
        }
        BackendAddress::Localhost { port } => {
            let reason = format!("\"{}\" is two addresses, and a listener has one", typed.value);
            let fix = format!("write 127.0.0.1:{port} or [::1]:{port}, or a [[listen]] for each");
            checker.problems.push(typed.problem(reason, fix));
            return None;
        }
        BackendAddress::Onion { .. } | BackendAddress::Name { .. } => {
            let reason = format!("\"{}\" is no address of this machine", typed.value);
            checker.problems.push(typed.problem(reason, "write an IP address and port"));
            return None;
        }
        BackendAddress::Tcp(ip) if !ip.ip().is_loopback() => checker.warnings.push(format!(
            "{}: {ip} may be reached from other machines, past Tor and without its protection; \
             write a loopback address or unix:PATH",
            typed.key
        )),
        _ => {}
    }
    Some(address)
}

/// `service`: the only one there is, unless it is named.
fn check_service<'s>(
    raw: &RawListen,
    services: &'s [Service],
    checker: &mut Checker<'_>,
) -> Option<&'s Service> {
    match (&raw.service, services) {
        (None, [only]) => Some(only),
        (None, _) => {
            let fix = "write service = with the name of one of the services";
            checker.problems.push(raw.place.problem("nothing says which service is meant", fix));
            None
        }
        (Some(typed), _) => {
            let found = services.iter().find(|service| service.name == typed.value);
            if found.is_none() {
                let names: Vec<&str> = services.iter().map(|one| one.name.as_str()).collect();
                let reason = format!("there is no service \"{}\"", typed.value);
                let fix = format!("write one of {}", names.join(", "));
                checker.problems.push(typed.problem(reason, fix));
            }
            found
        }
    }
}
