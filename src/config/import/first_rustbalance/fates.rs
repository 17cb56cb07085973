//! What becomes of each key of the first RustBalance's file: it goes on, or a sentence says why not
//! and what to do. No value is shown: some are secrets.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// What becomes of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It is in the file that is printed, or a warning of its own names it.
    GoesOn,
    /// It has no equal: why, and what to do.
    LeftOut(&'static str),
    /// Nobody read it.
    NeverWas,
}

/// Every key that the first RustBalance read; those outside of all tables have an empty table.
const KEYS: &[(&str, &[&str], Fate)] = &[
    ("master", &["onion_address", "identity_key_path"], Fate::GoesOn),
    ("target", &["onion_address", "port", "use_tls"], Fate::GoesOn),
    ("publish", &["max_intro_points"], Fate::GoesOn),
    ("health", &["http_probe_enabled", "http_probe_path", "http_probe_timeout_secs"], Fate::GoesOn),
    ("backends", &["onion_address"], Fate::GoesOn),
    (
        "",
        &["local_port", "hidden_service_dir"],
        Fate::LeftOut(
            "RustBalance carries the service itself: take the HiddenServiceDir out of tor's torrc",
        ),
    ),
    (
        "node",
        &["hidden_service_dir"],
        Fate::LeftOut(
            "instances have no onion address of their own: take the HiddenServiceDir out of tor's \
             torrc",
        ),
    ),
    (
        "node",
        &["id", "priority"],
        Fate::LeftOut(
            "one process publishes and none is elected: run this on one machine, and end the other \
             nodes first",
        ),
    ),
    (
        "node",
        &["clock_skew_tolerance_secs"],
        Fate::LeftOut("the limits are fixed: keep the clock right (NTP); `doctor` looks at it"),
    ),
    (
        "tor",
        &["control_host", "control_port", "control_password", "socks_port"],
        Fate::LeftOut(
            "no tor is needed beside RustBalance: close its control port, and end it if nothing \
             else uses it",
        ),
    ),
    (
        "publish",
        &["refresh_interval_secs"],
        Fate::LeftOut(
            "nothing to do: a descriptor is published when it changes and before it expires",
        ),
    ),
    (
        "publish",
        &["takeover_grace_secs"],
        Fate::LeftOut("no node takes over yet: have systemd start the process anew"),
    ),
    (
        "health",
        &["descriptor_max_age_secs"],
        Fate::LeftOut(
            "nothing to do: a remote instance is left out when its descriptor expires or it fails \
             its probe",
        ),
    ),
    (
        "coordination",
        &[
            "mode",
            "heartbeat_interval_secs",
            "heartbeat_timeout_secs",
            "lease_duration_secs",
            "backoff_jitter_secs",
        ],
        Fate::LeftOut("there is no cluster yet: run this on one machine, and end the others first"),
    ),
    (
        "coordination",
        &["cluster_token", "join_secret"],
        Fate::LeftOut(
            "it opens nothing here: end every node, since whoever has it may join one and get the \
             key",
        ),
    ),
    (
        "wireguard",
        &[
            "interface",
            "listen_port",
            "tunnel_ip",
            "private_key",
            "public_key",
            "external_endpoint",
            "peers",
        ],
        Fate::LeftOut("no tunnel is needed: take its interface down, and close its port"),
    ),
    (
        "backends",
        &["name"],
        Fate::LeftOut("instances get numbers: write it as `name` in [[service.remote]]"),
    ),
];

/// A sentence for each fate of keys that do not go on, with all its keys.
pub(super) fn warnings<'a>(file: &'a Table) -> Vec<String> {
    let mut told: BTreeMap<(&str, Fate), Vec<String>> = BTreeMap::new();
    let mut tell = |table: &'a str, key: &str| {
        let name = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        let names = told.entry((table, fate(table, key))).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    };
    for (key, value) in file {
        match value {
            _ if !KEYS.iter().any(|(table, ..)| *table == key.as_str()) => tell("", key),
            Value::Table(table) => table.keys().for_each(|below| tell(key, below)),
            Value::Array(list) => {
                let tables = list.iter().filter_map(Value::as_table);
                tables.flat_map(Table::keys).for_each(|below| tell(key, below));
            }
            _ => tell("", key),
        }
    }
    let sentence = |((_, fate), names): ((&str, Fate), Vec<String>)| match fate {
        Fate::GoesOn => None,
        Fate::LeftOut(text) => Some(format!("{}: left out: {text}", names.join(", "))),
        Fate::NeverWas => {
            Some(format!("{}: left out: the first RustBalance had no such key", names.join(", ")))
        }
    };
    told.into_iter().filter_map(sentence).collect()
}

/// What becomes of a key.
fn fate(table: &str, key: &str) -> Fate {
    let of = |(name, keys, _): &&(&str, &[&str], Fate)| *name == table && keys.contains(&key);
    KEYS.iter().find(of).map_or(Fate::NeverWas, |(_, _, fate)| *fate)
}
