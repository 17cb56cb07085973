//! The keys of every table: what may be written, and what a misspelt key may have meant.

/// One table of the configuration.
#[derive(Debug)]
pub(super) struct Table {
    /// As written in a heading; empty for the top of the file.
    pub heading: &'static str,
    /// Its keys.
    pub keys: &'static [&'static str],
}

/// The top of the file.
pub(super) const TOP: Table = Table {
    heading: "",
    keys: &[
        "state_dir",
        "drain_s",
        "memory_max",
        "service",
        "turbo",
        "ctor",
        "listen",
        "arti",
        "admin",
        "log",
    ],
};

/// A service.
pub(super) const SERVICE: Table = Table {
    heading: "[[service]]",
    keys: &[
        "name",
        "key",
        "intro_points_per_instance",
        "intro_points_max",
        "distinct_descriptors",
        "dos_rate_per_second",
        "dos_burst",
        "streams_per_circuit_max",
        "streams_per_circuit_per_second",
        "streams_per_circuit_burst",
        "bytes_per_circuit_per_second",
        "bytes_per_circuit_burst",
        "over_limit",
        "allow_unknown_ports",
        "verify_interval_s",
        "theft_check_s",
        "remote_interval_min_s",
        "remote_interval_max_s",
        "port",
        "remote",
    ],
};

/// A virtual port, or a range of them.
pub(super) const PORT: Table = Table {
    heading: "[[service.port]]",
    keys: &[
        "virtual",
        "balance",
        "backends",
        "allow_hostnames",
        "resolve_interval_s",
        "hello",
        "connect_timeout_s",
        "queue_max",
        "queue_timeout_s",
        "idle_timeout_s",
        "half_close_timeout_s",
        "slow_start_s",
        "proxy_protocol",
        "check",
    ],
};

/// How a port's backends are checked.
pub(super) const CHECK: Table = Table {
    heading: "[service.port.check]",
    keys: &["kind", "path", "host", "interval_s", "timeout_s", "rise", "fall"],
};

/// A backend in its long form.
pub(super) const BACKEND: Table = Table {
    heading: "backends",
    keys: &["address", "weight", "backup", "connections_max", "lane"],
};

/// A remote instance.
pub(super) const REMOTE: Table =
    Table { heading: "[[service.remote]]", keys: &["address", "name", "weight", "probe"] };

/// In-process instances.
pub(super) const TURBO: Table = Table {
    heading: "[turbo]",
    keys: &["enabled", "instances", "stacks", "source_addresses", "cores", "spin_us"],
};

/// C tor daemons.
pub(super) const CTOR: Table =
    Table { heading: "[ctor]", keys: &["instances", "binary", "extra_torrc"] };

/// A front for C tor daemons.
pub(super) const LISTEN: Table = Table {
    heading: "[[listen]]",
    keys: &["address", "service", "virtual", "proxy_protocol", "backlog"],
};

/// How RustBalance is watched and steered.
pub(super) const ADMIN: Table =
    Table { heading: "[admin]", keys: &["socket", "onionbalance_socket", "listen"] };

/// The log.
pub(super) const LOG: Table = Table { heading: "[log]", keys: &["level", "format"] };

/// Every table but the top of the file.
pub(super) const TABLES: &[&Table] =
    &[&SERVICE, &PORT, &CHECK, &BACKEND, &REMOTE, &TURBO, &CTOR, &LISTEN, &ADMIN, &LOG];

/// What somebody who wrote `unknown` in `table` should do.
pub(super) fn advice(table: &Table, unknown: &str) -> String {
    if let Some(near) = nearest(table.keys, unknown) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = TABLES.iter().find(|other| other.keys.contains(&unknown));
    if let Some(other) = elsewhere {
        return format!("it belongs to {}", other.heading);
    }
    format!("remove it; the keys here are {}", table.keys.join(", "))
}

/// The key that is a typing error away from `unknown`: one edit for every three characters.
fn nearest(keys: &'static [&'static str], unknown: &str) -> Option<&'static str> {
    let edits_max = (unknown.chars().count() / 3).max(1);
    keys.iter()
        .map(|key| (edits(key, unknown), *key))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, key)| key)
}

/// Characters to insert, remove, replace or swap with their neighbour to get from `a` to `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let width = b.len() + 1;
    let mut cost = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let at = |i: usize, j: usize| i * width + j;
            cost[at(i, j)] = if i == 0 || j == 0 {
                i + j
            } else {
                let differs = usize::from(a[i - 1] != b[j - 1]);
                let mut least = (cost[at(i - 1, j)] + 1)
                    .min(cost[at(i, j - 1)] + 1)
                    .min(cost[at(i - 1, j - 1)] + differs);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(cost[at(i - 2, j - 2)] + 1);
                }
                least
            };
        }
    }
    cost[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::{PORT, SERVICE, TOP, TURBO, advice, edits};

    #[test]
    fn edits_count_what_a_typist_did() {
        assert_eq!(edits("key", "key"), 0);
        assert_eq!(edits("key", "kye"), 1);
        assert_eq!(edits("virtual", "virtal"), 1);
        assert_eq!(edits("", "abc"), 3);
    }

    #[test]
    fn advice_names_the_nearest_key_or_the_right_table() {
        assert_eq!(advice(&TOP, "sate_dir"), "did you mean `state_dir`?");
        assert_eq!(advice(&PORT, "backend"), "did you mean `backends`?");
        assert_eq!(advice(&TURBO, "enabeld"), "did you mean `enabled`?");
        assert_eq!(advice(&SERVICE, "virtual"), "it belongs to [[service.port]]");
        assert!(advice(&TURBO, "zzz").starts_with("remove it; the keys here are enabled,"));
    }
}
