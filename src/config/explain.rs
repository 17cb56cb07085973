//! The effective configuration as TOML with comments: what `check --explain` prints. It can be read
//! back as a configuration file. No key's contents and no password is in it.

use std::fmt::Write;
use std::path::Path;

use super::checked::{Config, Instances, LogFormat, Service, Stacks};
use crate::base::redact::REDACTED;
use crate::onion::config::RemoteConfig;
use crate::plane::config::{
    BackendAddress, BackendConfig, CheckConfig, CheckRequest, CircuitLimits, ListenConfig,
    OverLimit, PortConfig, PortTarget, ProxyProtocol, Rate, Verdict,
};

/// Print a configuration.
pub fn explain(config: &Config) -> String {
    let mut text = String::new();
    write_config(config, &mut text).expect("a String takes all that is written to it");
    text
}

/// The whole file.
fn write_config(config: &Config, out: &mut String) -> std::fmt::Result {
    match &config.file {
        Some(file) => writeln!(out, "# The effective configuration of {}.", file.display())?,
        None => writeln!(out, "# The effective configuration of the command line.")?,
    }
    writeln!(out, "# Defaults are filled in and paths are complete.\n")?;
    writeln!(out, "state_dir = {}", quoted_path(&config.state_dir))?;
    writeln!(out, "drain_s = {}", config.drain.as_secs())?;
    writeln!(out, "memory_max = \"{}\"", config.memory_max)?;
    for service in &config.services {
        write_service(config, service, out)?;
    }
    config.listens.iter().try_for_each(|listen| write_listen(listen, out))?;
    write_turbo(config, out)?;
    write_ctor(config, out)?;
    writeln!(out, "\n[admin]")?;
    writeln!(out, "socket = {}  # always on", quoted_path(&config.admin_socket()))?;
    match config.onionbalance_socket() {
        Some(path) => writeln!(out, "onionbalance_socket = {}", quoted_path(&path))?,
        None => writeln!(out, "# onionbalance_socket is not set: there is none")?,
    }
    write_log(config, out)?;
    if !config.arti.is_empty() {
        let mut arti = toml::Value::Table(config.arti.clone());
        redact(&mut arti);
        let whole = toml::Table::from_iter([("arti".to_owned(), arti)]);
        let printed = toml::to_string(&whole).map_err(|_| std::fmt::Error)?;
        writeln!(out, "\n# arti's own configuration, as it was written\n{}", printed.trim_end())?;
    }
    Ok(())
}

/// `[[service]]`
fn write_service(config: &Config, service: &Service, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[[service]]")?;
    writeln!(out, "name = {}", quoted(&service.name))?;
    let key = quoted_path(&config.key_file(service));
    match &service.key_path {
        Some(_) => writeln!(out, "key = {key}")?,
        None => writeln!(out, "# key is not set: {key}, made at the first start")?,
    }
    writeln!(out, "intro_points_per_instance = {}", service.intro_points_per_instance)?;
    writeln!(out, "intro_points_max = {}  # in the descriptor", service.intro_points_max)?;
    writeln!(out, "distinct_descriptors = {}", service.distinct_descriptors)?;
    let verify = service.verify_interval.unwrap_or_default().as_secs();
    writeln!(out, "verify_interval_s = {verify}  # what all HSDirs hold; 0: only when asked")?;
    let theft = service.theft_check_interval.unwrap_or_default().as_secs();
    writeln!(out, "theft_check_s = {theft}  # whether one HSDir has another's; 0: never")?;
    match &service.intro_dos {
        Some(dos) => {
            writeln!(out, "dos_rate_per_second = {}  # INTRODUCE2 cells", dos.rate_per_second)?;
            writeln!(out, "dos_burst = {}  # INTRODUCE2 cells", dos.burst)?;
        }
        None => writeln!(out, "# dos_rate_per_second is not set: the relays' default holds")?,
    }
    writeln!(out, "streams_per_circuit_max = {}", service.streams_per_circuit_max)?;
    write_limits(&service.circuit_limits, out)?;
    if !service.remotes.is_empty() {
        let interval = &service.remote_interval;
        writeln!(out, "remote_interval_min_s = {}", interval.min.as_secs())?;
        writeln!(out, "remote_interval_max_s = {}", interval.max.as_secs())?;
    }
    service.ports.iter().try_for_each(|port| write_port(port, out))?;
    service.remotes.iter().try_for_each(|remote| write_remote(remote, out))
}

/// `[[service.remote]]`
fn write_remote(remote: &RemoteConfig, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[[service.remote]]")?;
    writeln!(out, "address = \"{}\"", remote.address)?;
    writeln!(out, "name = {}", quoted(&remote.name))?;
    writeln!(out, "weight = {}", remote.weight)?;
    writeln!(out, "probe = {}", remote.probe)
}

/// What a circuit may do a second.
fn write_limits(limits: &CircuitLimits, out: &mut String) -> std::fmt::Result {
    for (what, rate) in [("streams", &limits.streams), ("bytes", &limits.bytes)] {
        match rate {
            Some(Rate { per_second, burst }) => {
                writeln!(out, "{what}_per_circuit_per_second = {per_second}")?;
                writeln!(out, "{what}_per_circuit_burst = {burst}")?;
            }
            None => writeln!(out, "# {what}_per_circuit_per_second is not set: no limit")?,
        }
    }
    let over = match limits.over {
        OverLimit::End => "end",
        OverLimit::Close => "close",
    };
    writeln!(out, "over_limit = {}", quoted(over))?;
    writeln!(out, "allow_unknown_ports = {}", limits.allow_unknown_ports)
}

/// `[[service.port]]`
fn write_port(port: &PortConfig, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[[service.port]]")?;
    match port.virtual_first == port.virtual_last {
        true => writeln!(out, "virtual = {}", port.virtual_first)?,
        false => writeln!(out, "virtual = \"{}-{}\"", port.virtual_first, port.virtual_last)?,
    }
    match &port.target {
        PortTarget::Hello => writeln!(out, "hello = true  # the built-in page")?,
        PortTarget::Backends(backends) => {
            writeln!(out, "balance = {}", quoted(port.balance.name()))?;
            writeln!(out, "backends = [")?;
            for BackendConfig { address, weight, backup, connections_max, lane } in backends {
                let address = quoted(&address.to_string());
                write!(out, "    {{ address = {address}, weight = {weight}, backup = {backup}")?;
                match lane {
                    Verdict::Normal => {}
                    Verdict::Preferred => write!(out, ", lane = \"preferred\"")?,
                    Verdict::Banned => write!(out, ", lane = \"banned\"")?,
                }
                match connections_max {
                    Some(most) => writeln!(out, ", connections_max = {most} }},")?,
                    None => writeln!(out, " }},")?,
                }
            }
            writeln!(out, "]")?;
            write_names(port, backends, out)?;
        }
    }
    writeln!(out, "connect_timeout_s = {}", port.connect_timeout.as_secs())?;
    writeln!(out, "queue_max = {}  # streams", port.queue_max)?;
    writeln!(out, "queue_timeout_s = {}", port.queue_timeout.as_secs())?;
    let idle = port.idle_timeout.unwrap_or_default();
    writeln!(out, "idle_timeout_s = {}  # 0: never", idle.as_secs())?;
    writeln!(out, "half_close_timeout_s = {}", port.half_close_timeout.as_secs())?;
    writeln!(out, "slow_start_s = {}", port.slow_start.as_secs())?;
    let proxy_protocol = match port.proxy_protocol {
        Some(ProxyProtocol::V1) => "v1",
        Some(ProxyProtocol::V2) => "v2",
        None => "",
    };
    writeln!(out, "proxy_protocol = {}", quoted(proxy_protocol))?;
    match &port.check {
        Some(check) => write_check(check, out),
        None => writeln!(out, "# no [service.port.check]: streams alone tell who is down"),
    }
}

/// Names that are looked up, where there are some.
fn write_names(
    port: &PortConfig,
    backends: &[BackendConfig],
    out: &mut String,
) -> std::fmt::Result {
    let name = |one: &BackendConfig| match &one.address {
        BackendAddress::Name { host, .. } => Some(quoted(host)),
        _ => None,
    };
    let names: Vec<String> = backends.iter().filter_map(name).collect();
    if names.is_empty() {
        return Ok(());
    }
    writeln!(out, "allow_hostnames = [{}]  # looked up past Tor", names.join(", "))?;
    writeln!(out, "resolve_interval_s = {}", port.resolve_interval.as_secs())
}

/// `[service.port.check]`
fn write_check(check: &CheckConfig, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[service.port.check]")?;
    match &check.request {
        CheckRequest::Tcp => writeln!(out, "kind = \"tcp\"")?,
        CheckRequest::Http { path, host } => {
            writeln!(out, "kind = \"http\"")?;
            writeln!(out, "path = {}", quoted(path))?;
            writeln!(out, "host = {}", quoted(host))?;
        }
    }
    writeln!(out, "interval_s = {}", check.interval.as_secs())?;
    writeln!(out, "timeout_s = {}", check.timeout.as_secs())?;
    writeln!(out, "rise = {}  # good checks in a row", check.rise)?;
    writeln!(out, "fall = {}  # bad checks in a row", check.fall)
}

/// `[[listen]]`
fn write_listen(listen: &ListenConfig, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[[listen]]")?;
    writeln!(out, "address = {}", quoted(&listen.address.to_string()))?;
    writeln!(out, "service = {}", quoted(&listen.service))?;
    match listen.virtual_port {
        Some(port) => writeln!(out, "virtual = {port}")?,
        None => writeln!(out, "# virtual is not set: the PROXY header names the port")?,
    }
    writeln!(out, "proxy_protocol = {}", listen.proxy_protocol)?;
    writeln!(out, "backlog = {}  # for each core", listen.backlog)
}

/// `[ctor]`
fn write_ctor(config: &Config, out: &mut String) -> std::fmt::Result {
    let ctor = &config.ctor;
    writeln!(out, "\n[ctor]\ninstances = {}", ctor.instances)?;
    writeln!(out, "binary = {}", quoted_path(&ctor.binary))?;
    match &ctor.extra_torrc {
        Some(path) => writeln!(out, "extra_torrc = {}", quoted_path(path)),
        None => writeln!(out, "extra_torrc = \"\""),
    }
}

/// `[turbo]`
fn write_turbo(config: &Config, out: &mut String) -> std::fmt::Result {
    let turbo = &config.turbo;
    writeln!(out, "\n[turbo]")?;
    writeln!(out, "enabled = {}", turbo.enabled)?;
    match turbo.instances {
        Instances::Auto => writeln!(out, "instances = \"auto\"  # one for each core")?,
        Instances::Fixed(instances) => writeln!(out, "instances = {instances}")?,
    }
    match turbo.stacks {
        Stacks::PerInstance => writeln!(out, "stacks = \"per-instance\"")?,
        Stacks::Number(stacks) => writeln!(out, "stacks = {stacks}")?,
    }
    writeln!(
        out,
        "source_addresses = {:?}",
        turbo.source_addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    )?;
    match &turbo.cores {
        Some(cores) => writeln!(out, "cores = {cores:?}")?,
        None => writeln!(out, "# cores is not set: every CPU that the process may use")?,
    }
    writeln!(out, "spin_us = {}", turbo.spin.as_micros())
}

/// `[log]`
fn write_log(config: &Config, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[log]")?;
    writeln!(out, "level = {}", quoted(&config.log.level))?;
    let names = LogFormat::ALL.iter().find(|(_, format)| *format == config.log.format);
    writeln!(out, "format = {}", quoted(names.map_or("auto", |(name, _)| name)))
}

/// A text in TOML's quotes.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A path in TOML's quotes.
pub(super) fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Take bridge lines and passwords in URLs out of arti's tables.
fn redact(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some((_, host)) = rest.rsplit_once('@')
            {
                *text = format!("{scheme}://{REDACTED}@{host}");
            }
        }
        toml::Value::Array(values) => values.iter_mut().for_each(redact),
        toml::Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                match value {
                    toml::Value::String(text) if secret(key) => REDACTED.clone_into(text),
                    toml::Value::Array(values) if secret(key) => {
                        *values = vec![toml::Value::String(REDACTED.to_owned())];
                    }
                    value => redact(value),
                }
            }
        }
        _ => {}
    }
}

/// Whether the values of a key are for nobody else.
fn secret(key: &str) -> bool {
    key == "bridges" || key.contains("password")
}
