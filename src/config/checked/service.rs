//! From what was typed to what it means: `[[service]]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::Checker;
use super::port::check_choice;
use super::remote::{check_interval, check_remotes};
use super::{SERVICE_NAME_DEFAULT, Service, port};
use crate::config::raw::RawService;
use crate::config::reader::At;
use crate::limits::{
    CIRCUIT_RATE_MAX, INTRO_DOS_BURST_DEFAULT, INTRO_DOS_MAX, INTRO_POINTS_DEFAULT,
    INTRO_POINTS_MAX, INTRO_POINTS_PER_INSTANCE_DEFAULT, PORTS_PER_SERVICE_MAX,
    SERVICE_NAME_CHARS_MAX, STREAMS_PER_CIRCUIT_DEFAULT, STREAMS_PER_CIRCUIT_MAX,
    THEFT_CHECK_SECONDS_DEFAULT, THEFT_CHECK_SECONDS_MAX, THEFT_CHECK_SECONDS_MIN,
    VERIFY_SECONDS_MAX, VERIFY_SECONDS_MIN,
};
use crate::onion::config::IntroDos;
use crate::plane::config::{CircuitLimits, OverLimit, PortConfig, Rate};

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
    let verify = VERIFY_SECONDS_MIN..=VERIFY_SECONDS_MAX;
    let verify_interval = check_interval_or_0(raw.verify_interval_s.as_ref(), verify, 0, checker);
    let theft = THEFT_CHECK_SECONDS_MIN..=THEFT_CHECK_SECONDS_MAX;
    let default = THEFT_CHECK_SECONDS_DEFAULT;
    let theft_check_interval =
        check_interval_or_0(raw.theft_check_s.as_ref(), theft, default, checker);
    let intro_dos = check_intro_dos(raw, checker);
    let streams_per_circuit_max = checker.number(
        raw.streams_per_circuit_max.as_ref(),
        1..=STREAMS_PER_CIRCUIT_MAX,
        STREAMS_PER_CIRCUIT_DEFAULT,
    );
    let circuit_limits = CircuitLimits {
        // By default the circuit's own limit, which holds for those of instances alone, is enough.
        streams_max: raw.streams_per_circuit_max.as_ref().map(|_| streams_per_circuit_max),
        streams: check_rate(
            raw.streams_per_circuit_per_second.as_ref(),
            raw.streams_per_circuit_burst.as_ref(),
            checker,
        ),
        bytes: check_rate(
            raw.bytes_per_circuit_per_second.as_ref(),
            raw.bytes_per_circuit_burst.as_ref(),
            checker,
        ),
        over: check_choice(raw.over_limit.as_ref(), &OVER_LIMIT, checker).unwrap_or_default(),
        allow_unknown_ports: raw.allow_unknown_ports.as_ref().is_some_and(|typed| typed.value),
    };
    let (each, all) = (intro_points_per_instance, intro_points_max);
    if each > all {
        let typed = raw.intro_points_per_instance.as_ref().or(raw.intro_points_max.as_ref());
        let place = typed.map_or(raw.place.clone(), |typed| typed.with(()));
        let reason = format!("one instance would keep {each} introduction points of {all} in all");
        let fix = "write at most intro_points_max for intro_points_per_instance";
        checker.problems.push(place.problem(reason, fix));
    }
    let key_path = raw.key.as_ref().map(|typed| checker.path(typed));
    let remotes = check_remotes(raw, checker);
    let remote_interval = check_interval(raw, checker);
    let ports = check_ports(raw, checker)?;
    Some(Service {
        name,
        key_path,
        intro_points_per_instance,
        intro_points_max,
        distinct_descriptors: raw.distinct_descriptors.as_ref().is_none_or(|typed| typed.value),
        verify_interval,
        theft_check_interval,
        intro_dos,
        streams_per_circuit_max,
        circuit_limits,
        ports,
        remotes,
        remote_interval,
    })
}

/// Often enough, not too often, or 0: never by itself.
fn check_interval_or_0(
    typed: Option<&At<i64>>,
    range: RangeInclusive<u64>,
    default: u64,
    checker: &mut Checker<'_>,
) -> Option<Duration> {
    let seconds = match typed {
        Some(typed) if typed.value == 0 => 0,
        typed => checker.number(typed, range, default),
    };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// What follows when a circuit goes over a limit.
const OVER_LIMIT: [(&str, OverLimit); 2] = [("end", OverLimit::End), ("close", OverLimit::Close)];

/// So much a second; ten seconds' worth at once, unless something else is typed.
fn check_rate(
    per_second: Option<&At<i64>>,
    burst: Option<&At<i64>>,
    checker: &mut Checker<'_>,
) -> Option<Rate> {
    let Some(typed) = per_second else {
        if let Some(burst) = burst {
            let reason = "a burst does nothing without a rate";
            let fix = "write the key that ends with per_second as well, or remove this one";
            checker.problems.push(burst.problem(reason, fix));
        }
        return None;
    };
    let per_second = checker.number(Some(typed), 1..=CIRCUIT_RATE_MAX, 1);
    let burst = checker.number(burst, 1..=CIRCUIT_RATE_MAX, per_second.saturating_mul(10));
    Some(Rate { per_second, burst })
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
        if !checker.serves {
            return Some(Vec::new());
        }
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
        let range = port::check_virtual(raw, checker);
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
        match (range, port::check_target(raw, checker)) {
            (Some(range), Some(target)) => {
                ports.push(port::check_port(raw, range, target, checker))
            }
            _ => complete = false,
        }
    }
    complete.then_some(ports)
}
