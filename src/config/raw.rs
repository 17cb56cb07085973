//! The configuration as it was typed: every key optional, each with its line. No meaning yet.

use toml::de::DeTable;

use super::problem::Problem;
use super::reader::{At, Document, Scalar, TableReader, TextOrTable};
use super::schema;

/// A whole file.
#[derive(Debug, Default)]
pub(super) struct RawConfig {
    /// `state_dir`
    pub state_dir: Option<At<String>>,
    /// `drain_s`
    pub drain_s: Option<At<i64>>,
    /// `memory_max`
    pub memory_max: Option<At<String>>,
    /// `[[service]]`
    pub services: Vec<RawService>,
    /// `[turbo]`
    pub turbo: RawTurbo,
    /// `[ctor]`
    pub ctor: RawCtor,
    /// `[[listen]]`
    pub listens: Vec<RawListen>,
    /// `[arti]`, for the Tor stack to check.
    pub arti: toml::Table,
    /// `[admin]`
    pub admin: RawAdmin,
    /// `[log]`
    pub log: RawLog,
}

/// `[[service]]`
#[derive(Debug)]
pub(super) struct RawService {
    /// Where the table stands.
    pub place: At<()>,
    /// `name`
    pub name: Option<At<String>>,
    /// `key`
    pub key: Option<At<String>>,
    /// `intro_points_per_instance`
    pub intro_points_per_instance: Option<At<i64>>,
    /// `intro_points_max`
    pub intro_points_max: Option<At<i64>>,
    /// `distinct_descriptors`
    pub distinct_descriptors: Option<At<bool>>,
    /// `verify_interval_s`
    pub verify_interval_s: Option<At<i64>>,
    /// `theft_check_s`
    pub theft_check_s: Option<At<i64>>,
    /// `dos_rate_per_second`
    pub dos_rate_per_second: Option<At<i64>>,
    /// `dos_burst`
    pub dos_burst: Option<At<i64>>,
    /// `streams_per_circuit_max`
    pub streams_per_circuit_max: Option<At<i64>>,
    /// `streams_per_circuit_per_second`
    pub streams_per_circuit_per_second: Option<At<i64>>,
    /// `streams_per_circuit_burst`
    pub streams_per_circuit_burst: Option<At<i64>>,
    /// `bytes_per_circuit_per_second`
    pub bytes_per_circuit_per_second: Option<At<i64>>,
    /// `bytes_per_circuit_burst`
    pub bytes_per_circuit_burst: Option<At<i64>>,
    /// `over_limit`
    pub over_limit: Option<At<String>>,
    /// `allow_unknown_ports`
    pub allow_unknown_ports: Option<At<bool>>,
    /// `remote_interval_min_s`
    pub remote_interval_min_s: Option<At<i64>>,
    /// `remote_interval_max_s`
    pub remote_interval_max_s: Option<At<i64>>,
    /// `[[service.port]]`
    pub ports: Vec<RawPort>,
    /// `[[service.remote]]`
    pub remotes: Vec<RawRemote>,
}

/// `[[service.remote]]`
#[derive(Debug)]
pub(super) struct RawRemote {
    /// Where the table stands.
    pub place: At<()>,
    /// `address`
    pub address: Option<At<String>>,
    /// `name`
    pub name: Option<At<String>>,
    /// `weight`
    pub weight: Option<At<i64>>,
    /// `probe`
    pub probe: Option<At<bool>>,
}

/// `[[service.port]]`
#[derive(Debug)]
pub(super) struct RawPort {
    /// Where the table stands.
    pub place: At<()>,
    /// `virtual`
    pub virtual_ports: Option<At<Scalar>>,
    /// `balance`
    pub balance: Option<At<String>>,
    /// `backends`
    pub backends: Option<At<Vec<RawBackend>>>,
    /// `allow_hostnames`
    pub allow_hostnames: Option<At<Vec<At<String>>>>,
    /// `resolve_interval_s`
    pub resolve_interval_s: Option<At<i64>>,
    /// `hello`
    pub hello: Option<At<bool>>,
    /// `connect_timeout_s`
    pub connect_timeout_s: Option<At<i64>>,
    /// `queue_max`
    pub queue_max: Option<At<i64>>,
    /// `queue_timeout_s`
    pub queue_timeout_s: Option<At<i64>>,
    /// `slow_start_s`
    pub slow_start_s: Option<At<i64>>,
    /// `idle_timeout_s`
    pub idle_timeout_s: Option<At<i64>>,
    /// `half_close_timeout_s`
    pub half_close_timeout_s: Option<At<i64>>,
    /// `proxy_protocol`
    pub proxy_protocol: Option<At<String>>,
    /// `[service.port.check]`
    pub check: Option<RawCheck>,
}

/// `[service.port.check]`
#[derive(Debug)]
pub(super) struct RawCheck {
    /// `kind`
    pub kind: Option<At<String>>,
    /// `path`
    pub path: Option<At<String>>,
    /// `host`
    pub host: Option<At<String>>,
    /// `interval_s`
    pub interval_s: Option<At<i64>>,
    /// `timeout_s`
    pub timeout_s: Option<At<i64>>,
    /// `rise`
    pub rise: Option<At<i64>>,
    /// `fall`
    pub fall: Option<At<i64>>,
}

/// One of `backends`
#[derive(Debug)]
pub(super) struct RawBackend {
    /// Where it stands.
    pub place: At<()>,
    /// The text, or `address`
    pub address: Option<At<String>>,
    /// `weight`
    pub weight: Option<At<i64>>,
    /// `backup`
    pub backup: Option<At<bool>>,
    /// `connections_max`
    pub connections_max: Option<At<i64>>,
    /// `lane`
    pub lane: Option<At<String>>,
}

/// `[turbo]`
#[derive(Debug, Default)]
pub(super) struct RawTurbo {
    /// `enabled`
    pub enabled: Option<At<bool>>,
    /// `instances`
    pub instances: Option<At<Scalar>>,
    /// `stacks`
    pub stacks: Option<At<Scalar>>,
    /// `source_addresses`
    pub source_addresses: Option<At<Vec<At<String>>>>,
    /// `cores`
    pub cores: Option<At<Vec<At<i64>>>>,
    /// `spin_us`
    pub spin_us: Option<At<i64>>,
}

/// `[ctor]`
#[derive(Debug, Default)]
pub(super) struct RawCtor {
    /// `instances`
    pub instances: Option<At<i64>>,
    /// `binary`
    pub binary: Option<At<String>>,
    /// `extra_torrc`
    pub extra_torrc: Option<At<String>>,
}

/// `[[listen]]`
#[derive(Debug)]
pub(super) struct RawListen {
    /// Where the table stands.
    pub place: At<()>,
    /// `address`
    pub address: Option<At<String>>,
    /// `service`
    pub service: Option<At<String>>,
    /// `virtual`
    pub virtual_port: Option<At<i64>>,
    /// `proxy_protocol`
    pub proxy_protocol: Option<At<bool>>,
    /// `backlog`
    pub backlog: Option<At<i64>>,
}

/// `[admin]`
#[derive(Debug, Default)]
pub(super) struct RawAdmin {
    /// `socket`
    pub socket: Option<At<String>>,
    /// `onionbalance_socket`
    pub onionbalance_socket: Option<At<String>>,
    /// `listen`
    pub listen: Option<At<String>>,
}

/// `[log]`
#[derive(Debug, Default)]
pub(super) struct RawLog {
    /// `level`
    pub level: Option<At<String>>,
    /// `format`
    pub format: Option<At<String>>,
}

/// Read a file's text: what could be read, and all that is wrong with syntax, types and keys.
pub(super) fn read(text: &str) -> (RawConfig, Vec<Problem>) {
    let mut document = Document::new(text);
    let (parsed, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map(|span| span.start);
        let line = at.map(|byte| document.line(byte));
        let key = at.and_then(|byte| key_near(text, byte));
        let key = key.map_or_else(String::new, |key| format!(", at {key}"));
        let reason = format!("this is not TOML ({}{key})", error.message().replace('\n', ", "));
        let fix = "correct the line; see https://toml.io".to_owned();
        document.problems.push(Problem { line, key: String::new(), reason, fix });
    }
    if !document.problems.is_empty() {
        // What the parser guessed after an error would only bring wrong advice.
        return (RawConfig::default(), document.problems);
    }
    let raw = read_top(&TableReader::top(parsed.get_ref(), &mut document), text, &mut document);
    (raw, document.problems)
}

/// The key, or the heading, of the line in which a byte of a text stands that is no TOML; never a
/// value.
fn key_near(text: &str, byte: usize) -> Option<&str> {
    let (before, after) = text.split_at_checked(byte)?;
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    let end = after.find('\n').map_or(text.len(), |end| byte + end);
    let line = text.get(begin..end)?.trim();
    let key = match line.split_once('=') {
        Some((key, _)) => key.trim(),
        None if line.starts_with('[') => line.split_once('#').map_or(line, |(key, _)| key).trim(),
        None => return None,
    };
    let of_a_key = |c: char| c.is_ascii_alphanumeric() || "_-.[]\"' ".contains(c);
    (!key.is_empty() && key.chars().all(of_a_key)).then_some(key)
}

/// The top of the file.
fn read_top<'i>(top: &TableReader<'_, 'i>, text: &str, d: &mut Document<'i>) -> RawConfig {
    let services = top.tables("service", &schema::SERVICE, d);
    let listens = top.tables("listen", &schema::LISTEN, d);
    let arti = if top.is_table_or_absent("arti", d) { arti_table(text) } else { <_>::default() };
    RawConfig {
        state_dir: top.text("state_dir", d),
        drain_s: top.integer("drain_s", d),
        memory_max: top.text("memory_max", d),
        services: services.iter().map(|table| read_service(table, d)).collect(),
        turbo: top.table("turbo", &schema::TURBO, d).map(|t| read_turbo(&t, d)).unwrap_or_default(),
        ctor: top.table("ctor", &schema::CTOR, d).map(|t| read_ctor(&t, d)).unwrap_or_default(),
        listens: listens.iter().map(|table| read_listen(table, d)).collect(),
        arti,
        admin: top.table("admin", &schema::ADMIN, d).map(|t| read_admin(&t, d)).unwrap_or_default(),
        log: top.table("log", &schema::LOG, d).map(|t| read_log(&t, d)).unwrap_or_default(),
    }
}

/// The `[arti]` table of a text that parses, with nothing checked in it.
fn arti_table(text: &str) -> toml::Table {
    let whole: toml::Table = text.parse().unwrap_or_default();
    whole.get("arti").and_then(toml::Value::as_table).cloned().unwrap_or_default()
}

/// Where a table stands.
fn place(table: &TableReader<'_, '_>) -> At<()> {
    At { value: (), line: table.line, key: table.key.clone() }
}

/// `[[service]]`
fn read_service<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawService {
    let ports = table.tables("port", &schema::PORT, d);
    let remotes = table.tables("remote", &schema::REMOTE, d);
    RawService {
        place: place(table),
        name: table.text("name", d),
        key: table.text("key", d),
        intro_points_per_instance: table.integer("intro_points_per_instance", d),
        intro_points_max: table.integer("intro_points_max", d),
        distinct_descriptors: table.boolean("distinct_descriptors", d),
        verify_interval_s: table.integer("verify_interval_s", d),
        theft_check_s: table.integer("theft_check_s", d),
        dos_rate_per_second: table.integer("dos_rate_per_second", d),
        dos_burst: table.integer("dos_burst", d),
        streams_per_circuit_max: table.integer("streams_per_circuit_max", d),
        streams_per_circuit_per_second: table.integer("streams_per_circuit_per_second", d),
        streams_per_circuit_burst: table.integer("streams_per_circuit_burst", d),
        bytes_per_circuit_per_second: table.integer("bytes_per_circuit_per_second", d),
        bytes_per_circuit_burst: table.integer("bytes_per_circuit_burst", d),
        over_limit: table.text("over_limit", d),
        allow_unknown_ports: table.boolean("allow_unknown_ports", d),
        remote_interval_min_s: table.integer("remote_interval_min_s", d),
        remote_interval_max_s: table.integer("remote_interval_max_s", d),
        ports: ports.iter().map(|table| read_port(table, d)).collect(),
        remotes: remotes.iter().map(|table| read_remote(table, d)).collect(),
    }
}

/// `[[service.remote]]`
fn read_remote<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawRemote {
    RawRemote {
        place: place(table),
        address: table.text("address", d),
        name: table.text("name", d),
        weight: table.integer("weight", d),
        probe: table.boolean("probe", d),
    }
}

/// `[[service.port]]`
fn read_port<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawPort {
    let wanted = "a port, as in 80, or a range, as in \"8000-8010\"";
    let backends = table.texts_or_tables("backends", &schema::BACKEND, d);
    let backends = backends.map(|list| At {
        value: list.value.into_iter().map(|backend| read_backend(backend, d)).collect(),
        line: list.line,
        key: list.key,
    });
    RawPort {
        place: place(table),
        virtual_ports: table.scalar("virtual", wanted, d),
        balance: table.text("balance", d),
        backends,
        allow_hostnames: table.texts("allow_hostnames", d),
        resolve_interval_s: table.integer("resolve_interval_s", d),
        hello: table.boolean("hello", d),
        connect_timeout_s: table.integer("connect_timeout_s", d),
        queue_max: table.integer("queue_max", d),
        queue_timeout_s: table.integer("queue_timeout_s", d),
        slow_start_s: table.integer("slow_start_s", d),
        idle_timeout_s: table.integer("idle_timeout_s", d),
        half_close_timeout_s: table.integer("half_close_timeout_s", d),
        proxy_protocol: table.text("proxy_protocol", d),
        check: table.table("check", &schema::CHECK, d).map(|table| read_check(&table, d)),
    }
}

/// `[service.port.check]`
fn read_check<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawCheck {
    RawCheck {
        kind: table.text("kind", d),
        path: table.text("path", d),
        host: table.text("host", d),
        interval_s: table.integer("interval_s", d),
        timeout_s: table.integer("timeout_s", d),
        rise: table.integer("rise", d),
        fall: table.integer("fall", d),
    }
}

/// One of `backends`
fn read_backend<'i>(backend: TextOrTable<'_, 'i>, d: &mut Document<'i>) -> RawBackend {
    match backend {
        TextOrTable::Text(address) => RawBackend {
            place: address.with(()),
            address: Some(address),
            weight: None,
            backup: None,
            connections_max: None,
            lane: None,
        },
        TextOrTable::Table(table) => RawBackend {
            place: place(&table),
            address: table.text("address", d),
            weight: table.integer("weight", d),
            backup: table.boolean("backup", d),
            connections_max: table.integer("connections_max", d),
            lane: table.text("lane", d),
        },
    }
}

/// `[turbo]`
fn read_turbo<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawTurbo {
    RawTurbo {
        enabled: table.boolean("enabled", d),
        instances: table.scalar("instances", "a whole number or \"auto\"", d),
        stacks: table.scalar("stacks", "a whole number or \"per-instance\"", d),
        source_addresses: table.texts("source_addresses", d),
        cores: table.integers("cores", d),
        spin_us: table.integer("spin_us", d),
    }
}

/// `[ctor]`
fn read_ctor<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawCtor {
    RawCtor {
        instances: table.integer("instances", d),
        binary: table.text("binary", d),
        extra_torrc: table.text("extra_torrc", d),
    }
}

/// `[[listen]]`
fn read_listen<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawListen {
    RawListen {
        place: place(table),
        address: table.text("address", d),
        service: table.text("service", d),
        virtual_port: table.integer("virtual", d),
        proxy_protocol: table.boolean("proxy_protocol", d),
        backlog: table.integer("backlog", d),
    }
}

/// `[admin]`
fn read_admin<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawAdmin {
    RawAdmin {
        socket: table.text("socket", d),
        onionbalance_socket: table.text("onionbalance_socket", d),
        listen: table.text("listen", d),
    }
}

/// `[log]`
fn read_log<'i>(table: &TableReader<'_, 'i>, d: &mut Document<'i>) -> RawLog {
    RawLog { level: table.text("level", d), format: table.text("format", d) }
}
