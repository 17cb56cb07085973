//! arti's configuration: the `[arti]` tables of ours, checked, with our own defaults put in.
//!
//! Ours are: where state lies (`storage.*` belongs to the state directory and is refused), full
//! vanguards unless another mode is asked for (arti's `auto` means lite even for services), no
//! circuits in advance for a client that we do not have, and no end of tries to get a directory.

use std::path::Path;

use arti_client::TorClientConfig;
use tor_config::load::ResolutionResults;
use tor_config::{ConfigurationSource, ConfigurationSources, sources::MustRead};
use tor_hscrypto::pk::HsId;
use tor_netdoc::doc::netstatus::NetParams;
use tor_netdoc::types::policy::AddrPortPattern;

use crate::limits;

/// What is wrong with the `[arti]` tables.
#[derive(Debug, thiserror::Error)]
pub enum ArtiSettingsError {
    /// A key that RustBalance sets itself.
    #[error("[arti] {key}: RustBalance keeps this in its state_dir; remove the key")]
    Ours {
        /// The key below `[arti]`.
        key: String,
    },
    /// A key that arti does not know.
    #[error("[arti] {key}: no such key in arti 0.47; look for a typing error or remove it")]
    Unknown {
        /// The key below `[arti]`.
        key: String,
    },
    /// arti refuses a value.
    #[error("[arti]: {problem}; correct the value, or remove the key")]
    Refused {
        /// arti's own words.
        problem: String,
    },
}

/// A checked arti configuration.
#[derive(Clone, Debug)]
pub struct ArtiSettings {
    /// What every manager of the stack reads.
    config: TorClientConfig,
    /// Parameters that replace the consensus's (testing networks).
    override_net_params: NetParams<i32>,
    /// Addresses that guards may have (`path_rules.reachable_addrs`).
    reachable: Vec<AddrPortPattern>,
    /// How much the queues of circuits and streams may hold (`system.memory`).
    memory: tor_memquota::Config,
    /// Whether the user said so.
    memory_is_set: bool,
    /// Whether another process may hold arti's state.
    shares_state: bool,
}

impl ArtiSettings {
    /// Check `tables` (what stands below `[arti]`) and put our defaults in. Touches no file.
    ///
    /// `state_dir` is RustBalance's state directory.
    ///
    /// # Errors
    /// One error for each key that is wrong.
    pub fn check(
        tables: &toml::Table,
        state_dir: &Path,
    ) -> Result<ArtiSettings, Vec<ArtiSettingsError>> {
        let mut errors = Vec::new();
        let mut table = tables.clone();
        for key in ["storage"] {
            if table.remove(key).is_some() {
                errors.push(ArtiSettingsError::Ours { key: key.to_owned() });
            }
        }
        put_defaults(&mut table, state_dir);
        match resolve(&table) {
            Ok(settings) if errors.is_empty() => Ok(settings),
            Ok(_) => Err(errors),
            Err(more) => {
                errors.extend(more);
                Err(errors)
            }
        }
    }

    /// Addresses that guards may have, as the user restricted them.
    pub(super) fn reachable(&self) -> &[AddrPortPattern] {
        &self.reachable
    }

    /// The same, for a process that takes over from another: the other holds arti's state until it
    /// ends, and this one reads it until then.
    #[must_use]
    pub fn sharing_state(self) -> ArtiSettings {
        ArtiSettings { shares_state: true, ..self }
    }

    /// Whether another process may hold arti's state.
    pub(super) fn shares_state(&self) -> bool {
        self.shares_state
    }

    /// How much the queues of circuits and streams may hold.
    pub(super) fn memory(&self) -> &tor_memquota::Config {
        &self.memory
    }

    /// The same with at most so many bytes in the queues of circuits, unless the user said how
    /// many.
    #[must_use]
    pub fn bounded(mut self, bytes: u64) -> ArtiSettings {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX - 1);
        if !self.memory_is_set
            && let Ok(memory) = tor_memquota::ConfigBuilder::default().max(bytes).build()
        {
            self.memory = memory;
        }
        self
    }

    /// The configuration in the form that arti's managers take.
    pub(super) fn config(&self) -> &TorClientConfig {
        &self.config
    }

    /// Parameters that replace the consensus's.
    pub(super) fn override_net_params(&self) -> &NetParams<i32> {
        &self.override_net_params
    }

    /// Whether arti will keep its state below `state_dir`: nobody else may be able to change that
    /// directory or one above it. Nothing is made; a directory that is not there yet is fine.
    ///
    /// # Errors
    /// A sentence with what is wrong.
    pub fn check_state_dir(&self, state_dir: &Path) -> Result<(), String> {
        match self.config.fs_mistrust().verifier().require_directory().check(state_dir) {
            Ok(()) | Err(fs_mistrust::Error::NotFound(_)) => Ok(()),
            Err(error) => Err(format!(
                "state_dir {}: {}; other users must not be able to change it or what is above it, \
                 so mend that or name another place with --state-dir or state_dir",
                state_dir.display(),
                report(&error)
            )),
        }
    }

    /// The vanguard mode in force: `full`, `lite` or `disabled`.
    pub fn vanguards(&self) -> String {
        let config: &tor_guardmgr::VanguardConfig = self.config.as_ref();
        config.mode().to_string()
    }
}

/// Set `table[path] = value` unless the user did.
fn put_default(table: &mut toml::Table, path: &[&str], value: toml::Value) {
    let Some((key, above)) = path.split_last() else { return };
    let mut place = table;
    for step in above {
        let below = place
            .entry((*step).to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(below) = below else { return };
        place = below;
    }
    place.entry((*key).to_owned()).or_insert(value);
}

/// Put our defaults beside what the user wrote.
fn put_defaults(table: &mut toml::Table, state_dir: &Path) {
    let arti_dir = state_dir.join("arti");
    // A literal path: `~` and `${...}` in a directory's name mean themselves.
    let literal = |path: &Path| {
        let mut literal = toml::Table::new();
        literal.insert("literal".to_owned(), path.display().to_string().into());
        toml::Value::Table(literal)
    };
    put_default(table, &["storage", "state_dir"], literal(&arti_dir.join("state")));
    put_default(table, &["storage", "cache_dir"], literal(&arti_dir.join("cache")));
    put_default(table, &["vanguards", "mode"], "full".into());
    // No network is a state to wait in.
    let attempts = i64::from(limits::DIRECTORY_ATTEMPTS_MAX).into();
    put_default(table, &["download_schedule", "retry_bootstrap", "attempts"], attempts);
    // No client of ours will ask for an exit: build none in advance.
    put_default(table, &["preemptive_circuits", "disable_at_threshold"], 0.into());
    let no_ports = toml::Value::Array(Vec::new());
    put_default(table, &["preemptive_circuits", "initial_predicted_ports"], no_ports);
}

/// Let arti read and check the tables.
fn resolve(table: &toml::Table) -> Result<ArtiSettings, Vec<ArtiSettingsError>> {
    let refused = |problem: String| vec![ArtiSettingsError::Refused { problem }];
    let text = toml::to_string(table).map_err(|error| refused(error.to_string()))?;
    let mut sources = ConfigurationSources::new_empty();
    sources.push_source(ConfigurationSource::from_verbatim(text), MustRead::MustRead);
    let tree = sources.load().map_err(|error| refused(report(&error)))?;
    let resolved: ResolutionResults<TorClientConfig> =
        tor_config::load::resolve_return_results(&tree, &Default::default())
            .map_err(|error| refused(report(&error)))?;
    let unknown: Vec<_> = resolved
        .unrecognized
        .iter()
        .map(|key| ArtiSettingsError::Unknown { key: key.to_string() })
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let config = resolved.value;
    let reachable = reachable_addresses(table);
    let (memory, memory_is_set) = queue_memory(table).map_err(refused)?;
    let directory = config.dir_mgr_config().map_err(|error| refused(report(&error)))?;
    let override_net_params = directory.override_net_params;
    let shares_state = false;
    Ok(ArtiSettings { config, override_net_params, reachable, memory, memory_is_set, shares_state })
}

/// What the user wrote as `system.memory`, which arti has checked and hides, and whether it was
/// written; by default what C tor takes as `MaxMemInQueues` for this machine.
fn queue_memory(table: &toml::Table) -> Result<(tor_memquota::Config, bool), String> {
    let system = table.get("system").and_then(toml::Value::as_table);
    let written = system.and_then(|system| system.get("memory"));
    let builder = match written {
        Some(memory) => memory.clone().try_into().map_err(|error| error.to_string())?,
        None => tor_memquota::ConfigBuilder::default(),
    };
    let memory = builder.build().map_err(|error| report(&error))?;
    Ok((memory, written.is_some()))
}

/// What the user wrote as `path_rules.reachable_addrs`: arti has checked it and hides it.
fn reachable_addresses(table: &toml::Table) -> Vec<AddrPortPattern> {
    let rules = table.get("path_rules").and_then(toml::Value::as_table);
    let listed =
        rules.and_then(|rules| rules.get("reachable_addrs")).and_then(toml::Value::as_array);
    let parse = |one: &toml::Value| one.as_str()?.parse().ok();
    match listed {
        Some(listed) => listed.iter().filter_map(parse).collect(),
        None => vec![AddrPortPattern::new_all()],
    }
}

/// What is wrong with `<56 characters>.onion`, if anything is.
pub fn onion_address_problem(text: &str) -> Option<String> {
    text.parse::<HsId>().err().map(|error| report(&error))
}

/// An error and all that caused it, in one line.
pub(crate) fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::ArtiSettings;

    fn check(text: &str) -> Result<ArtiSettings, Vec<String>> {
        let table: toml::Table = text.parse().expect("the test's TOML is well-formed");
        ArtiSettings::check(&table, Path::new("/nonexistent/rustbalance"))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn vanguards_are_full_unless_asked_otherwise() {
        assert_eq!(check("").expect("no table is a fine table").vanguards(), "full");
        let lite = check("[vanguards]\nmode = \"lite\"").expect("lite is a mode");
        assert_eq!(lite.vanguards(), "lite");
    }

    #[test]
    fn arti_never_gives_up_a_directory_unless_asked_to() {
        let attempts = |text: &str| {
            let settings = check(text).expect("it is well-formed");
            let directory = settings.config().dir_mgr_config().expect("it is complete");
            directory.schedule.retry_bootstrap().n_attempts()
        };
        assert_eq!(attempts(""), u32::MAX);
        assert_eq!(attempts("[download_schedule.retry_bootstrap]\nattempts = 7"), 7);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let errors = check("[path_rules]\nipv4_subnet_family_prefxi = 33").expect_err("a typo");
        assert!(errors[0].contains("path_rules.ipv4_subnet_family_prefxi"), "{errors:?}");
        let errors = check("[no_such_table]\nx = 1").expect_err("no such table");
        assert!(errors[0].contains("no_such_table"), "{errors:?}");
    }

    #[test]
    fn storage_is_ours() {
        let errors = check("[storage]\ncache_dir = \"/tmp\"").expect_err("storage is refused");
        assert!(errors[0].contains("state_dir"), "{errors:?}");
    }

    #[test]
    fn a_restriction_of_guards_is_known_to_us_as_well() {
        let free = check("").expect("no table is a fine table");
        assert_eq!(free.reachable(), ["*:*".parse().expect("a pattern")]);
        let bound = check("[path_rules]\nreachable_addrs = [\"192.0.2.0/24:443\"]");
        let bound = bound.expect("it is a pattern");
        assert_eq!(bound.reachable(), ["192.0.2.0/24:443".parse().expect("a pattern")]);
    }

    #[test]
    fn the_memory_of_queues_is_bounded_as_configured_or_as_c_tor_does() {
        let free = check("").expect("no table is a fine table");
        let bound = check("[system.memory]\nmax = \"300 MB\"").expect("it is an amount");
        assert_ne!(free.memory(), bound.memory());
        let unlimited = tor_memquota::ConfigBuilder::default().max(usize::MAX).build();
        assert_ne!(*free.memory(), unlimited.expect("it is off"));
        check("[system.memory]\nmax = \"some\"").expect_err("no amount");
        let kept = bound.clone().bounded(100_000_000);
        assert_eq!(kept.memory(), bound.memory(), "what the user wrote holds");
        assert_ne!(free.clone().bounded(100_000_000).memory(), free.memory());
    }

    #[test]
    fn a_wrong_value_is_refused_in_artis_words() {
        let errors = check("[vanguards]\nmode = \"some\"").expect_err("no such mode");
        assert!(errors[0].contains("vanguards.mode"), "{errors:?}");
    }
}
