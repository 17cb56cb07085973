//! From what was typed to what it means: `[[service]]` and `[[service.port]]`.

use std::time::Duration;

use super::check::Checker;
use super::{SERVICE_NAME_DEFAULT, Service};
use crate::config::address::parse_backend;
use crate::config::raw::{RawBackend, RawPort, RawService};
use crate::config::reader::{At, Scalar};
use crate::limits::{
    BACKEND_CONNECT_SECONDS_DEFAULT, BACKEND_CONNECT_SECONDS_MAX, BACKENDS_PER_PORT_MAX,
    INTRO_DOS_BURST_DEFAULT, INTRO_DOS_MAX, INTRO_POINTS_DEFAULT, INTRO_POINTS_MAX,
    INTRO_POINTS_PER_INSTANCE_DEFAULT, PORTS_PER_SERVICE_MAX, SERVICE_NAME_CHARS_MAX,
    STREAMS_PER_CIRCUIT_DEFAULT, STREAMS_PER_CIRCUIT_MAX,
};
use crate::onion::config::IntroDos;
use crate::plane::config::{BackendAddress, PortConfig, PortTarget};

/// Check one `[[service]]`; `None` where a problem left nothing to go on with.
pub(super) fn check_service(raw: &RawService, checker: &mut Checker<'_>) -> Option<Service> {
    let name = check_name(raw.name.as_ref(), checker);
    let intro_points_per_instance = checker.number(
        raw.intro_points_per_instance.as_ref(),
        1..=INTRO_POINTS_MAX,
        INTRO_POINTS_PER_INSTANCE_DEFAULT,
    );
    let intro_points_max =
        checker.number(raw.intro_points_max.as_ref(), 1..=INTRO_POINTS_MAX, INTRO_POINTS_DEFAULT);
    let intro_dos = check_intro_dos(raw, checker);
    let streams_per_circuit_max = checker.number(
        raw.streams_per_circuit_max.as_ref(),
        1..=STREAMS_PER_CIRCUIT_MAX,
        STREAMS_PER_CIRCUIT_DEFAULT,
    );
    let (each, all) = (intro_points_per_instance, intro_points_max);
    if each > all {
        let typed = raw.intro_points_per_instance.as_ref().or(raw.intro_points_max.as_ref());
        let place = typed.map_or(raw.place.clone(), |typed| typed.with(()));
        let reason = format!("one instance would keep {each} introduction points of {all} in all");
        let fix = "write at most intro_points_max for intro_points_per_instance";
        checker.problems.push(place.problem(reason, fix));
    }
    let key_path = raw.key.as_ref().map(|typed| checker.path(typed));
    let ports = check_ports(raw, checker)?;
    Some(Service {
        name,
        key_path,
        intro_points_per_instance,
        intro_points_max,
        intro_dos,
        streams_per_circuit_max,
        ports,
    })
}

/// A name is part of file names in the state directory, so it is kept simple.
fn check_name(typed: Option<&At<String>>, checker: &mut Checker<'_>) -> String {
    let Some(typed) = typed else { return SERVICE_NAME_DEFAULT.to_owned() };
    let name = &typed.value;
    let simple = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let good = !name.is_empty()
        && name.len() <= SERVICE_NAME_CHARS_MAX
        && !name.starts_with('-')
        && name.chars().all(simple);
    if !good {
        let fix = format!(
            "write 1 to {SERVICE_NAME_CHARS_MAX} of the characters a-z, A-Z, 0-9, - and _, the \
             first no -"
        );
        checker.problems.push(typed.problem(format!("\"{name}\" is no name for a service"), fix));
    }
    name.clone()
}

/// The DoS extension is on where a rate is configured.
fn check_intro_dos(raw: &RawService, checker: &mut Checker<'_>) -> Option<IntroDos> {
    let Some(typed) = &raw.dos_rate_per_second else {
        if let Some(burst) = &raw.dos_burst {
            let reason = "a burst does nothing without a rate";
            let fix = "write dos_rate_per_second as well, or remove the key";
            checker.problems.push(burst.problem(reason, fix));
        }
        return None;
    };
    let rate_per_second = checker.number(Some(typed), 1..=INTRO_DOS_MAX, 1);
    let default = INTRO_DOS_BURST_DEFAULT.max(rate_per_second);
    let burst = checker.number(raw.dos_burst.as_ref(), 1..=INTRO_DOS_MAX, default);
    if let Some(typed) = &raw.dos_burst
        && burst < rate_per_second
    {
        let reason = format!("the burst {burst} is below the rate of {rate_per_second} a second");
        let fix = format!("write at least {rate_per_second}");
        checker.problems.push(typed.problem(reason, fix));
    }
    Some(IntroDos { rate_per_second, burst })
}

/// The ports of a service, and that no two overlap.
fn check_ports(raw: &RawService, checker: &mut Checker<'_>) -> Option<Vec<PortConfig>> {
    if raw.ports.is_empty() {
        let fix = "add a [[service.port]] with virtual and backends";
        if !checker.reported(&format!("{}.port", raw.place.key)) {
            checker.problems.push(raw.place.problem("the service has no port", fix));
        }
        return None;
    }
    if let Some(beyond) = raw.ports.get(PORTS_PER_SERVICE_MAX) {
        let fix = format!("keep {PORTS_PER_SERVICE_MAX} of them; a range needs one table only");
        checker.problems.push(beyond.place.problem("there are too many ports", fix));
        return None;
    }
    let mut complete = true;
    let mut ports: Vec<PortConfig> = Vec::new();
    let mut taken: Vec<(u16, u16, usize)> = Vec::new();
    for raw in &raw.ports {
        let range = check_virtual(raw, checker);
        if let (Some((first, last)), Some(typed)) = (range, &raw.virtual_ports) {
            let other = taken.iter().find(|(from, to, _)| first <= *to && *from <= last);
            if let Some((from, to, line)) = other {
                let common = first.max(*from)..=last.min(*to);
                let reason = match common.start() == common.end() {
                    true => format!("port {} is taken by line {line}", common.start()),
                    false => format!(
                        "ports {} to {} are taken by line {line}",
                        common.start(),
                        common.end()
                    ),
                };
                checker.problems.push(typed.problem(reason, "give each port once in a service"));
            }
            taken.push((first, last, typed.line));
        }
        let target = check_target(raw, checker);
        let seconds = checker.number(
            raw.connect_timeout_s.as_ref(),
            1..=BACKEND_CONNECT_SECONDS_MAX,
            BACKEND_CONNECT_SECONDS_DEFAULT,
        );
        match (range, target) {
            (Some((virtual_first, virtual_last)), Some(target)) => ports.push(PortConfig {
                virtual_first,
                virtual_last,
                target,
                connect_timeout: Duration::from_secs(seconds),
            }),
            _ => complete = false,
        }
    }
    complete.then_some(ports)
}

/// `virtual`: first and last port.
fn check_virtual(raw: &RawPort, checker: &mut Checker<'_>) -> Option<(u16, u16)> {
    let Some(typed) = &raw.virtual_ports else {
        if !checker.reported(&format!("{}.virtual", raw.place.key)) {
            let fix = "write virtual = 80, the port that clients ask for";
            checker.problems.push(raw.place.problem("the port has no number", fix));
        }
        return None;
    };
    let range = match &typed.value {
        Scalar::Integer(number) => port(&number.to_string()).map(|port| (port, port)),
        Scalar::Text(text) => match text.split_once('-') {
            Some((first, last)) => port(first.trim()).zip(port(last.trim())),
            None => port(text.trim()).map(|port| (port, port)),
        },
    };
    let written = match &typed.value {
        Scalar::Integer(number) => number.to_string(),
        Scalar::Text(text) => format!("\"{text}\""),
    };
    match range {
        Some((first, last)) if first <= last => return Some((first, last)),
        Some((first, last)) => {
            let fix = format!("write \"{last}-{first}\"");
            checker.problems.push(typed.problem(format!("the range {written} is empty"), fix));
        }
        None => {
            let fix = "write a number from 1 to 65535, or a range such as \"8000-8010\"";
            checker.problems.push(typed.problem(format!("{written} is no port"), fix));
        }
    }
    None
}

/// A port number, which is never 0.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// `backends` or `hello`: one of the two.
fn check_target(raw: &RawPort, checker: &mut Checker<'_>) -> Option<PortTarget> {
    let hello = raw.hello.as_ref().is_some_and(|typed| typed.value);
    match (&raw.backends, hello) {
        (None, true) => Some(PortTarget::Hello),
        (Some(typed), true) => {
            let reason = "the port has both backends and hello = true";
            checker.problems.push(typed.problem(reason, "remove one of them"));
            None
        }
        (None, false) => {
            if !checker.reported(&format!("{}.backends", raw.place.key)) {
                let fix = "write backends = [\"127.0.0.1:8080\"], with your server's address";
                checker.problems.push(raw.place.problem("the port has no backends", fix));
            }
            None
        }
        (Some(typed), false) => check_backends(typed, checker).map(PortTarget::Backends),
    }
}

/// The addresses, and that none is there twice.
fn check_backends(
    list: &At<Vec<RawBackend>>,
    checker: &mut Checker<'_>,
) -> Option<Vec<BackendAddress>> {
    if list.value.is_empty() && checker.reported(&list.key) {
        return None;
    }
    if list.value.is_empty() {
        let fix = "write backends = [\"127.0.0.1:8080\"], with your server's address";
        checker.problems.push(list.problem("the list of backends is empty", fix));
        return None;
    }
    if list.value.len() > BACKENDS_PER_PORT_MAX {
        let reason = format!("there are {} backends", list.value.len());
        checker.problems.push(list.problem(reason, format!("keep {BACKENDS_PER_PORT_MAX}")));
        return None;
    }
    let mut complete = true;
    let mut addresses: Vec<BackendAddress> = Vec::new();
    for backend in &list.value {
        let Some(typed) = &backend.address else {
            if !checker.reported(&backend.place.key) {
                let fix = "write address = \"127.0.0.1:8080\" in it";
                checker.problems.push(backend.place.problem("the backend has no address", fix));
            }
            complete = false;
            continue;
        };
        match parse_backend(&typed.value, &checker.base) {
            Ok(address) => {
                let text = address.to_string();
                if addresses.iter().any(|other| other.to_string() == text) {
                    let reason = format!("the backend {text} is in the list already");
                    checker.problems.push(typed.problem(reason, "name each backend once"));
                }
                addresses.push(address);
            }
            Err(error) => {
                let sentence = error.to_string();
                let (reason, fix) = sentence.split_once("; ").unwrap_or((&sentence, "correct it"));
                checker.problems.push(typed.problem(format!("\"{}\": {reason}", typed.value), fix));
                complete = false;
            }
        }
    }
    complete.then_some(addresses)
}
