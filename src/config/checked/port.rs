//! From what was typed to what it means: `[[service.port]]`, its backends and how they are checked.

use std::net::IpAddr;
use std::time::Duration;

use super::address;
use super::check::Checker;
use crate::config::raw::{RawBackend, RawCheck, RawPort};
use crate::config::reader::{At, Scalar};
use crate::limits::{
    ALLOWED_NAMES_MAX, BACKEND_CONNECT_SECONDS_MAX, BACKEND_CONNECTIONS_MAX, BACKEND_QUEUE_DEFAULT,
    BACKEND_QUEUE_MAX, BACKEND_QUEUE_SECONDS_DEFAULT, BACKEND_SLOW_START_SECONDS_MAX,
    BACKEND_WEIGHT_MAX, BACKENDS_PER_PORT_MAX, CHECK_FALL_DEFAULT, CHECK_INTERVAL_SECONDS_DEFAULT,
    CHECK_INTERVAL_SECONDS_MAX, CHECK_RISE_DEFAULT, CHECK_RISE_FALL_MAX,
    CHECK_TIMEOUT_SECONDS_DEFAULT, HALF_CLOSE_SECONDS_DEFAULT, HOST_NAME_CHARS_MAX,
    ONION_CHECK_SECONDS_DEFAULT, RESOLVE_SECONDS_DEFAULT, RESOLVE_SECONDS_MAX,
    STREAM_IDLE_SECONDS_MAX,
};
use crate::plane::config::{
    BackendAddress, BackendConfig, Balance, CheckConfig, CheckRequest, PortConfig, PortTarget,
    ProxyProtocol, Verdict,
};

/// `virtual`: first and last port.
pub(super) fn check_virtual(raw: &RawPort, checker: &mut Checker<'_>) -> Option<(u16, u16)> {
    let Some(typed) = &raw.virtual_ports else {
        if !checker.reported(&format!("{}.virtual", raw.place.key)) {
            let fix = "write virtual = 80, the port that clients ask for";
            checker.problems.push(raw.place.problem("the port has no number", fix));
        }
        return None;
    };
    let range = match &typed.value {
        Scalar::Integer(digits) => port_number(&digits.to_string()).map(|port| (port, port)),
        Scalar::Text(text) => match text.split_once('-') {
            Some((first, last)) => port_number(first.trim()).zip(port_number(last.trim())),
            None => port_number(text.trim()).map(|port| (port, port)),
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
fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// `backends` or `hello`: one of the two.
pub(super) fn check_target(raw: &RawPort, checker: &mut Checker<'_>) -> Option<PortTarget> {
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
        (Some(typed), false) => {
            let allowed = check_allowed(raw.allow_hostnames.as_ref(), checker);
            let target = check_backends(typed, &allowed, checker).map(PortTarget::Backends)?;
            warn_of_names_and_onions(&target, &raw.place, checker);
            Some(target)
        }
    }
}

/// `allow_hostnames`, in lower case.
fn check_allowed(typed: Option<&At<Vec<At<String>>>>, checker: &mut Checker<'_>) -> Vec<String> {
    let Some(typed) = typed else { return Vec::new() };
    if typed.value.len() > ALLOWED_NAMES_MAX {
        let fix = format!("keep {ALLOWED_NAMES_MAX}");
        checker.problems.push(typed.problem("there are too many names", fix));
        return Vec::new();
    }
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    let mut names = Vec::new();
    for one in &typed.value {
        let name = one.value.to_ascii_lowercase();
        let good = !name.is_empty()
            && name.len() <= HOST_NAME_CHARS_MAX
            && name.chars().all(of_a_name)
            && !name.starts_with(['.', '-'])
            && name.parse::<IpAddr>().is_err()
            && !address::is_onion(&name);
        if !good {
            let reason = format!("\"{}\" is no host name", one.value.escape_debug());
            let fix = "write names alone, as in [\"app.internal\"]; addresses need none";
            checker.problems.push(one.problem(reason, fix));
        }
        names.push(name);
    }
    names
}

/// What is allowed, and has a price.
fn warn_of_names_and_onions(target: &PortTarget, place: &At<()>, checker: &mut Checker<'_>) {
    if target.any(|address| matches!(address, BackendAddress::Name { .. })) {
        checker.warnings.push(format!(
            "{}.allow_hostnames: these names are looked up by this machine's resolver, past Tor: \
             whoever sees its queries learns what the service talks to",
            place.key
        ));
    }
    if target.is_far() {
        // Without the address: warnings are in the log.
        checker.warnings.push(format!(
            "{}.backends: another onion service: each stream goes through Tor a second time, and \
             all clients of this service share one circuit to it on each core",
            place.key
        ));
    }
}

/// The backends, and that none is there twice.
fn check_backends(
    list: &At<Vec<RawBackend>>,
    allowed: &[String],
    checker: &mut Checker<'_>,
) -> Option<Vec<BackendConfig>> {
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
    let mut backends: Vec<BackendConfig> = Vec::new();
    for raw in &list.value {
        let Some(backend) = check_backend(raw, allowed, checker) else {
            complete = false;
            continue;
        };
        if backends.iter().any(|other| other.address == backend.address) {
            let reason = format!("the backend {} is in the list already", backend.address);
            let place = raw.address.as_ref().map_or(raw.place.clone(), |typed| typed.with(()));
            checker.problems.push(place.problem(reason, "name each backend once"));
        }
        backends.push(backend);
    }
    if complete && backends.iter().all(|backend| backend.backup) {
        let reason = "every backend is a backup";
        checker.problems.push(list.problem(reason, "remove backup = true from one of them"));
    }
    if complete && backends.iter().all(|backend| backend.lane != Verdict::Normal) {
        let reason = "no backend is for clients of whom nothing is said";
        checker.problems.push(list.problem(reason, "remove lane from one of them"));
    }
    complete.then_some(backends)
}

/// Whose streams a backend gets.
const LANES: [(&str, Verdict); 3] =
    [("normal", Verdict::Normal), ("preferred", Verdict::Preferred), ("banned", Verdict::Banned)];

/// One backend.
fn check_backend(
    raw: &RawBackend,
    allowed: &[String],
    checker: &mut Checker<'_>,
) -> Option<BackendConfig> {
    let Some(typed) = &raw.address else {
        if !checker.reported(&raw.place.key) {
            let fix = "write address = \"127.0.0.1:8080\" in it";
            checker.problems.push(raw.place.problem("the backend has no address", fix));
        }
        return None;
    };
    let address = checker.address(typed, allowed)?;
    let connections_max = raw.connections_max.as_ref();
    Some(BackendConfig {
        address,
        weight: checker.number(raw.weight.as_ref(), 1..=BACKEND_WEIGHT_MAX, 1),
        backup: raw.backup.as_ref().is_some_and(|typed| typed.value),
        connections_max: connections_max
            .map(|typed| checker.number(Some(typed), 1..=BACKEND_CONNECTIONS_MAX, 1)),
        lane: check_choice(raw.lane.as_ref(), &LANES, checker).unwrap_or_default(),
    })
}

/// Everything about a port but which one it is and what is behind it.
pub(super) fn check_port(
    raw: &RawPort,
    (virtual_first, virtual_last): (u16, u16),
    target: PortTarget,
    checker: &mut Checker<'_>,
) -> PortConfig {
    let seconds = |typed: Option<&At<i64>>, range, default, checker: &mut Checker<'_>| {
        Duration::from_secs(checker.number::<u64>(typed, range, default))
    };
    let timeouts = 1..=BACKEND_CONNECT_SECONDS_MAX;
    let far = target.is_far();
    PortConfig {
        virtual_first,
        virtual_last,
        connect_timeout: seconds(
            raw.connect_timeout_s.as_ref(),
            timeouts.clone(),
            target.connect_timeout().as_secs(),
            checker,
        ),
        balance: check_choice(raw.balance.as_ref(), &Balance::NAMES, checker).unwrap_or_default(),
        check: raw.check.as_ref().map(|raw| check_check(raw, far, checker)),
        queue_max: checker.number(
            raw.queue_max.as_ref(),
            0..=BACKEND_QUEUE_MAX,
            BACKEND_QUEUE_DEFAULT,
        ),
        queue_timeout: seconds(
            raw.queue_timeout_s.as_ref(),
            timeouts,
            BACKEND_QUEUE_SECONDS_DEFAULT,
            checker,
        ),
        idle_timeout: match seconds(
            raw.idle_timeout_s.as_ref(),
            0..=STREAM_IDLE_SECONDS_MAX,
            0,
            checker,
        ) {
            Duration::ZERO => None,
            longest => Some(longest),
        },
        half_close_timeout: seconds(
            raw.half_close_timeout_s.as_ref(),
            1..=STREAM_IDLE_SECONDS_MAX,
            HALF_CLOSE_SECONDS_DEFAULT,
            checker,
        ),
        slow_start: seconds(
            raw.slow_start_s.as_ref(),
            0..=BACKEND_SLOW_START_SECONDS_MAX,
            0,
            checker,
        ),
        resolve_interval: seconds(
            raw.resolve_interval_s.as_ref(),
            1..=RESOLVE_SECONDS_MAX,
            RESOLVE_SECONDS_DEFAULT,
            checker,
        ),
        proxy_protocol: check_choice(
            raw.proxy_protocol.as_ref(),
            &[("v1", Some(ProxyProtocol::V1)), ("v2", Some(ProxyProtocol::V2)), ("", None)],
            checker,
        )
        .flatten(),
        target,
    }
}

/// One of several words; `None` where none was typed, or a wrong one.
pub(super) fn check_choice<T: Copy>(
    typed: Option<&At<String>>,
    choices: &[(&str, T)],
    checker: &mut Checker<'_>,
) -> Option<T> {
    let typed = typed?;
    let found = choices.iter().find(|(word, _)| *word == typed.value);
    if found.is_none() {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let reason = format!("there is no \"{}\"", typed.value);
        checker.problems.push(typed.problem(reason, format!("write one of {}", words.join(", "))));
    }
    found.map(|(_, choice)| *choice)
}

/// `[service.port.check]`; what is `far` is asked less often by default, and has longer to answer.
fn check_check(raw: &RawCheck, far: bool, checker: &mut Checker<'_>) -> CheckConfig {
    let (interval_default, timeout_default) = match far {
        true => (ONION_CHECK_SECONDS_DEFAULT, ONION_CHECK_SECONDS_DEFAULT),
        false => (CHECK_INTERVAL_SECONDS_DEFAULT, CHECK_TIMEOUT_SECONDS_DEFAULT),
    };
    let kinds = [("tcp", false), ("http", true)];
    let http = check_choice(raw.kind.as_ref(), &kinds, checker);
    // A path is enough to say that HTTP is meant.
    let http = http.unwrap_or(raw.path.is_some() || raw.host.is_some());
    let request = match http {
        true => CheckRequest::Http {
            path: check_text(raw.path.as_ref(), "/", |text| text.starts_with('/'), checker),
            host: check_text(raw.host.as_ref(), "localhost", |text| !text.is_empty(), checker),
        },
        false => {
            for typed in [&raw.path, &raw.host].into_iter().flatten() {
                let reason = "a TCP check asks for nothing";
                let fix = "write kind = \"http\", or remove the key";
                checker.problems.push(typed.problem(reason, fix));
            }
            CheckRequest::Tcp
        }
    };
    let interval =
        checker.number(raw.interval_s.as_ref(), 1..=CHECK_INTERVAL_SECONDS_MAX, interval_default);
    let timeout =
        checker.number(raw.timeout_s.as_ref(), 1..=BACKEND_CONNECT_SECONDS_MAX, timeout_default);
    let times = 1..=CHECK_RISE_FALL_MAX;
    CheckConfig {
        request,
        interval: Duration::from_secs(interval),
        timeout: Duration::from_secs(timeout),
        rise: checker.number(raw.rise.as_ref(), times.clone(), CHECK_RISE_DEFAULT),
        fall: checker.number(raw.fall.as_ref(), times, CHECK_FALL_DEFAULT),
    }
}

/// A text that goes into the request of a check as it is: printable ASCII without spaces.
fn check_text(
    typed: Option<&At<String>>,
    default: &str,
    good: impl Fn(&str) -> bool,
    checker: &mut Checker<'_>,
) -> String {
    let Some(typed) = typed else { return default.to_owned() };
    if !good(&typed.value) || !typed.value.bytes().all(|byte| byte.is_ascii_graphic()) {
        let reason = format!("\"{}\" cannot be asked for", typed.value.escape_debug());
        let fix = format!("write printable ASCII without spaces, as in \"{default}\"");
        checker.problems.push(typed.problem(reason, fix));
    }
    typed.value.clone()
}
