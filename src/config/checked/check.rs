//! From what was typed to what it means: the top of the file, `[turbo]` and `[admin]`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::service::check_service;
use super::{
    ADMIN_SOCKET_DEFAULT, Admin, Config, Instances, Log, LogFormat, Service, Stacks, Turbo, listen,
};
use crate::config::address;
use crate::config::memory::MemoryMax;
use crate::config::place;
use crate::config::problem::Problem;
use crate::config::raw::{RawAdmin, RawConfig, RawLog, RawTurbo};
use crate::config::reader::{At, Scalar};
use crate::limits::{
    CPU_NUMBER_MAX, DRAIN_SECONDS_DEFAULT, DRAIN_SECONDS_MAX, INSTANCES_MAX, MEMORY_BYTES_MIN,
    SERVICES_MAX, SPIN_MICROSECONDS_MAX,
};
use crate::plane::config::BackendAddress;

/// What the checks of all tables share.
pub(super) struct Checker<'a> {
    /// The directory of the configuration file.
    pub base: PathBuf,
    /// What is wrong so far.
    pub problems: &'a mut Vec<Problem>,
    /// What looks wrong so far.
    pub warnings: Vec<String>,
    /// Whether clients come to this machine: then every service needs a port.
    pub serves: bool,
}

impl Checker<'_> {
    /// A number in its range, or `default` where none was typed.
    pub(super) fn number<T>(
        &mut self,
        typed: Option<&At<i64>>,
        range: RangeInclusive<T>,
        default: T,
    ) -> T
    where
        T: Copy + PartialOrd + TryFrom<i64> + std::fmt::Display,
    {
        let Some(typed) = typed else { return default };
        match T::try_from(typed.value) {
            Ok(number) if range.contains(&number) => number,
            _ => {
                self.problems.push(typed.problem(
                    format!("{} is out of range", typed.value),
                    format!("write a number from {} to {}", range.start(), range.end()),
                ));
                default
            }
        }
    }

    /// Whether a problem with a key, or with what is in it, was found already: then there is no
    /// need to say that nothing good is there.
    pub(super) fn reported(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key.starts_with(key))
    }

    /// An address to connect to or listen at, below the configuration file's directory where it is
    /// a relative path; a host name only where it is `allowed`.
    pub(super) fn address(
        &mut self,
        typed: &At<String>,
        allowed: &[String],
    ) -> Option<BackendAddress> {
        match address::parse_backend(&typed.value, &self.base, allowed) {
            Ok(address) => Some(address),
            Err(error) => {
                let typed_text = typed.value.escape_debug();
                let reason = format!("\"{typed_text}\": {}", error.reason());
                self.problems.push(typed.problem(reason, error.fix()));
                None
            }
        }
    }

    /// A path below the configuration file's directory, where it is relative.
    pub(super) fn path(&mut self, typed: &At<String>) -> PathBuf {
        if typed.value.is_empty() {
            let fix = "write a path or remove the key";
            self.problems.push(typed.problem("the path is empty", fix));
        }
        self.base.join(&typed.value)
    }
}

/// Check a whole file; `None` where a problem left nothing to go on with.
pub(super) fn check(raw: RawConfig, file: &Path, problems: &mut Vec<Problem>) -> Option<Config> {
    // Absolute, so that what is printed means the same wherever it is read.
    let base = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let base = base.parent().map(Path::to_owned).unwrap_or_default();
    let serves = serves(&raw);
    let mut checker = Checker { base, problems, warnings: Vec::new(), serves };
    let state_dir = match &raw.state_dir {
        Some(typed) => checker.path(typed),
        None => place::default_state_dir(),
    };
    let drain = checker.number(raw.drain_s.as_ref(), 0..=DRAIN_SECONDS_MAX, DRAIN_SECONDS_DEFAULT);
    let memory_max = check_memory(raw.memory_max.as_ref(), &mut checker);
    let services = check_services(&raw, &mut checker);
    let listens = match &services {
        Some(services) => listen::check_listens(&raw, services, &mut checker),
        None => Vec::new(),
    };
    let served = services.as_deref().unwrap_or_default();
    let ctor = super::ctor::check_ctor(&raw.ctor, &state_dir, served, &mut checker);
    let remotes = raw.services.iter().all(|service| !service.remotes.is_empty());
    let elsewhere = ctor.instances > 0 || remotes;
    let turbo = check_turbo(&raw.turbo, !raw.services.is_empty(), elsewhere, &mut checker);
    let admin = check_admin(&raw.admin, &state_dir, &mut checker);
    let log = check_log(raw.log, &mut checker);
    let warnings = std::mem::take(&mut checker.warnings);
    Some(Config {
        file: Some(file.to_owned()),
        state_dir,
        drain: Duration::from_secs(drain),
        memory_max,
        services: services?,
        listens,
        turbo: turbo?,
        ctor,
        arti: raw.arti,
        admin,
        log,
        warnings,
    })
}

/// Whether there is an instance on this machine, or a listener.
fn serves(raw: &RawConfig) -> bool {
    let none = |typed: &At<Scalar>| typed.value == Scalar::Integer(0);
    // Without turbo there is one instance, whatever else is written.
    let single = raw.turbo.enabled.as_ref().is_some_and(|typed| !typed.value);
    let in_process = single || !raw.turbo.instances.as_ref().is_some_and(none);
    let daemons = raw.ctor.instances.as_ref().is_some_and(|typed| typed.value != 0);
    in_process || daemons || !raw.listens.is_empty()
}

/// `memory_max`
fn check_memory(typed: Option<&At<String>>, checker: &mut Checker<'_>) -> MemoryMax {
    let Some(typed) = typed else { return MemoryMax::default() };
    MemoryMax::parse(&typed.value).unwrap_or_else(|| {
        let reason = format!("\"{}\" is no amount of memory", typed.value);
        let fix = format!(
            "write a part of what there is, as in \"75 %\", or an amount of at least {} MiB, as in \
             \"2 GiB\"",
            MEMORY_BYTES_MIN >> 20
        );
        checker.problems.push(typed.problem(reason, fix));
        MemoryMax::default()
    })
}

/// `[[service]]`, and that no two of them are one.
fn check_services(raw: &RawConfig, checker: &mut Checker<'_>) -> Option<Vec<Service>> {
    if raw.services.is_empty() {
        let (reason, fix) = ("there is no service", "add a [[service]] with a [[service.port]]");
        if !checker.reported("service") {
            checker.problems.push(Problem::nowhere("service", reason, fix));
        }
        return None;
    }
    if let Some(beyond) = raw.services.get(SERVICES_MAX) {
        let fix = format!("keep {SERVICES_MAX} of them");
        checker.problems.push(beyond.place.problem("there are too many services", fix));
        return None;
    }
    let services: Vec<_> =
        raw.services.iter().map(|service| check_service(service, checker)).collect();
    let mut names = HashMap::new();
    let mut keys = HashMap::new();
    for (typed, service) in raw.services.iter().zip(&services) {
        let Some(service) = service else { continue };
        let place = typed.name.as_ref().map_or(typed.place.clone(), |name| name.with(()));
        if let Some(line) = names.insert(service.name.clone(), place.line) {
            let reason =
                format!("the service of line {line} has the name \"{}\" too", service.name);
            checker.problems.push(place.problem(reason, "give each service a name of its own"));
        }
        let (Some(typed), Some(path)) = (&typed.key, &service.key_path) else { continue };
        // The same file by two names is found here if it exists.
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some(line) = keys.insert(path, typed.line) {
            let reason = format!("the service of line {line} has this key too");
            checker.problems.push(typed.problem(reason, "give each service a key of its own"));
        }
    }
    services.into_iter().collect()
}

/// `[log]`
fn check_log(raw: RawLog, checker: &mut Checker<'_>) -> Log {
    let format = raw.format.map_or(LogFormat::Auto, |typed| {
        let known = LogFormat::ALL.iter().find(|(name, _)| *name == typed.value);
        known.map(|(_, format)| *format).unwrap_or_else(|| {
            let reason = format!("\"{}\" is no form of a log", typed.value);
            let fix = "write \"auto\", \"human\", \"json\" or \"journald\"";
            checker.problems.push(typed.problem(reason, fix));
            LogFormat::Auto
        })
    });
    let level = raw.level.map_or_else(|| Log::default().level, |typed| typed.value);
    Log { level, format }
}

/// `[turbo]`
/// `elsewhere`: there are instances that are not in this process.
fn check_turbo(
    raw: &RawTurbo,
    services: bool,
    elsewhere: bool,
    checker: &mut Checker<'_>,
) -> Option<Turbo> {
    let instances = match &raw.instances {
        None => Instances::Auto,
        Some(typed) => check_instances(typed, elsewhere, checker)?,
    };
    let stacks = match &raw.stacks {
        None => Stacks::Number(1),
        Some(typed) => check_stacks(typed, instances, checker)?,
    };
    let source_addresses = raw.source_addresses.as_ref();
    let source_addresses =
        source_addresses.map(|typed| check_sources(typed, checker)).unwrap_or_default();
    let cores = raw.cores.as_ref().map(|typed| check_cores(typed, checker));
    let spin_us = checker.number(raw.spin_us.as_ref(), 0..=SPIN_MICROSECONDS_MAX, 0);
    let enabled = raw.enabled.as_ref().is_none_or(|typed| typed.value);
    if !enabled && services && matches!(instances, Instances::Fixed(2..)) {
        let warning =
            "turbo.enabled is false, so turbo.instances has no effect and one instance runs";
        checker.warnings.push(warning.to_owned());
    }
    let spin = Duration::from_micros(spin_us.into());
    Some(Turbo { enabled, instances, stacks, source_addresses, cores, spin })
}

/// `turbo.instances`
fn check_instances(
    typed: &At<Scalar>,
    elsewhere: bool,
    checker: &mut Checker<'_>,
) -> Option<Instances> {
    match &typed.value {
        Scalar::Text(text) if text == "auto" => Some(Instances::Auto),
        Scalar::Integer(0) if elsewhere => Some(Instances::Fixed(0)),
        Scalar::Integer(0) => {
            let reason = "0 instances serve nobody: a service has no remote instance";
            let fix = "write \"auto\" or a number from 1, or run daemons ([ctor]), or add a \
                 [[service.remote]] to each service";
            checker.problems.push(typed.problem(reason, fix));
            None
        }
        Scalar::Integer(number) => {
            let number = checker.number(Some(&typed.with(*number)), 1..=INSTANCES_MAX, 1);
            Some(Instances::Fixed(number))
        }
        Scalar::Text(text) => {
            let fix = format!("write \"auto\" or a number from 1 to {INSTANCES_MAX}");
            checker.problems.push(typed.problem(format!("\"{text}\" is no number"), fix));
            None
        }
    }
}

/// `turbo.stacks`
fn check_stacks(
    typed: &At<Scalar>,
    instances: Instances,
    checker: &mut Checker<'_>,
) -> Option<Stacks> {
    match &typed.value {
        Scalar::Text(text) if text == "per-instance" => Some(Stacks::PerInstance),
        Scalar::Integer(number) => {
            let number = checker.number(Some(&typed.with(*number)), 1..=INSTANCES_MAX, 1);
            if let Instances::Fixed(instances) = instances
                && number > instances.max(1)
            {
                let reason = format!("{number} stacks are more than the {instances} instances");
                let fix = "write \"per-instance\" or a smaller number";
                checker.problems.push(typed.problem(reason, fix));
            }
            Some(Stacks::Number(number))
        }
        Scalar::Text(text) => {
            let fix = "write \"per-instance\" or a number from 1";
            checker.problems.push(typed.problem(format!("\"{text}\" is no number"), fix));
            None
        }
    }
}

/// `turbo.source_addresses`
fn check_sources(typed: &At<Vec<At<String>>>, checker: &mut Checker<'_>) -> Vec<Ipv4Addr> {
    let mut sources = Vec::new();
    for typed in &typed.value {
        let address = typed.value.parse::<Ipv4Addr>().ok();
        let usable = address.filter(|address| {
            !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
        });
        match usable {
            Some(address) if !sources.contains(&address) => sources.push(address),
            Some(address) => {
                let reason = format!("{address} is in the list already");
                checker.problems.push(typed.problem(reason, "name each address once"));
            }
            None => {
                let reason = format!("\"{}\" is no IPv4 address of a machine", typed.value);
                let fix = "write addresses of this machine, as in [\"192.0.2.1\", \"192.0.2.2\"]";
                checker.problems.push(typed.problem(reason, fix));
            }
        }
    }
    sources
}

/// `turbo.cores`
fn check_cores(typed: &At<Vec<At<i64>>>, checker: &mut Checker<'_>) -> Vec<usize> {
    if typed.value.is_empty() && !checker.reported(&typed.key) {
        let fix = "name at least one CPU or remove the key";
        checker.problems.push(typed.problem("there is no CPU in the list", fix));
    }
    let mut cores = Vec::new();
    for typed in &typed.value {
        let core = usize::from(checker.number(Some(typed), 0..=CPU_NUMBER_MAX, 0));
        let in_range = usize::try_from(typed.value) == Ok(core);
        if cores.contains(&core) && in_range {
            let reason = format!("CPU {core} is in the list already");
            checker.problems.push(typed.problem(reason, "name each CPU once"));
        }
        cores.push(core);
    }
    cores
}

/// `[admin]`
fn check_admin(raw: &RawAdmin, state_dir: &Path, checker: &mut Checker<'_>) -> Admin {
    if let (None, Err(error)) =
        (&raw.socket, address::check_unix_path(&state_dir.join(ADMIN_SOCKET_DEFAULT)))
    {
        let fix = "use a shorter state_dir, or write a path for the socket";
        checker.problems.push(Problem::nowhere("admin.socket", error.reason(), fix));
    }
    for place in [raw.socket.as_ref(), raw.onionbalance_socket.as_ref()].into_iter().flatten() {
        if place.value.is_empty() {
            let fix = "write a path or remove the key";
            checker.problems.push(place.problem("the path is empty", fix));
        }
        if let Err(error) = address::check_unix_path(&state_dir.join(&place.value)) {
            let fix = "use a shorter path; it is below state_dir unless it begins with a slash";
            checker.problems.push(place.problem(error.reason(), fix));
        }
    }
    let socket = raw.socket.as_ref().map_or(ADMIN_SOCKET_DEFAULT, |typed| &typed.value);
    let onionbalance_socket = raw.onionbalance_socket.as_ref();
    if let Some(other) = onionbalance_socket.filter(|other| other.value == socket) {
        let fix = "give each socket a path of its own";
        checker.problems.push(other.problem("the admin socket has this path", fix));
    }
    Admin {
        onionbalance_socket: onionbalance_socket.map(|typed| PathBuf::from(&typed.value)),
        socket: PathBuf::from(socket),
    }
}
