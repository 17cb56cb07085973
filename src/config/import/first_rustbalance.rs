//! `config.toml` of the first RustBalance (of early 2026): a node of a cluster, whose C tor daemon
//! carried a copy of the service, and which joined each client with another onion service.
//!
//! | its table | what becomes of it |
//! |---|---|
//! | `[master]` | the service and its key |
//! | `[target]` | a port whose backends are to be named: the server, not its onion address |
//! | `[[backends]]` of its first months | remote instances |
//! | `[publish] max_intro_points` | `intro_points_max` |
//! | `[health] http_probe_*` | `[service.port.check]` |
//! | `[node]`, `[tor]`, `[coordination]`, `[wireguard]` | nothing; secrets in them are not shown |

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::beside;
use crate::config::checked::read_file;
use crate::config::explain::{quoted, quoted_path};
use crate::config::problem::{ConfigError, Problem};
use crate::limits::{INTRO_POINTS_MAX, REMOTES_MAX};
use crate::onion::config::RemoteConfig;

#[cfg(test)]
mod tests;

/// Where the file lies when its directory is given.
const FILE_NAME: &str = "config.toml";

/// Its tables.
const TABLES: [&str; 8] =
    ["node", "master", "target", "tor", "publish", "health", "coordination", "wireguard"];

/// What `config.toml` says, as far as it goes on.
#[derive(Clone, Debug)]
pub struct FirstRustBalance {
    /// The file.
    pub file: PathBuf,
    /// The key's file, absolute.
    pub key: PathBuf,
    /// The address that the file gives for that key; for comparison.
    pub onion: Option<String>,
    /// Introduction points in a descriptor.
    intro_points_max: Option<u8>,
    /// Whether there is a target, which has no equal here.
    target: bool,
    /// The path and the seconds of health checks.
    check: Option<(String, i64)>,
    /// Instances whose descriptors it fetched.
    remotes: Vec<RemoteConfig>,
    /// What looks wrong, or has no equal here, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads the tables, noting everything that is wrong.
struct Reader {
    /// The whole file.
    tables: Table,
    /// What is wrong.
    problems: Vec<Problem>,
}

impl FirstRustBalance {
    /// Read a file, or the one in a directory.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong in it.
    pub fn load(path: &Path) -> Result<FirstRustBalance, ConfigError> {
        let file = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        FirstRustBalance::from_text(&read_file(&file)?, &file)
    }

    /// Check the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn from_text(text: &str, file: &Path) -> Result<FirstRustBalance, ConfigError> {
        let tables = text.parse::<Table>().map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| before.matches('\n').count() + 1);
            let reason = format!("this is not TOML ({})", error.message().replace('\n', ", "));
            let fix = "correct the line; see https://toml.io".to_owned();
            ConfigError::wrong(file, vec![Problem { line, key: String::new(), reason, fix }])
        })?;
        let mut reader = Reader { tables, problems: Vec::new() };
        let mut warnings = Vec::new();
        let key = reader.text("master", "identity_key_path").map(|typed| beside(file, &typed));
        if key.is_none() && reader.problems.is_empty() {
            let reason = "it is missing, so that there is no service to go on with";
            let fix = "give the config.toml of the first RustBalance";
            reader.problems.push(Problem::nowhere("master.identity_key_path", reason, fix));
        }
        let onion = reader.text("master", "onion_address").map(|typed| typed.to_lowercase());
        let intro_points_max = reader.integer("publish", "max_intro_points").map(|number| {
            let most = i64::from(INTRO_POINTS_MAX);
            if number > most {
                warnings.push(format!(
                    "publish.max_intro_points: C tor clients refuse a descriptor with more than \
                     {most}, so {most} it is"
                ));
            }
            u8::try_from(number.clamp(1, most)).expect("it is a small number")
        });
        let check = reader.check();
        let remotes = reader.remotes();
        let target = reader.tables.contains_key("target");
        reader.warn(&mut warnings);
        match key {
            Some(key) if reader.problems.is_empty() => Ok(FirstRustBalance {
                file: file.to_owned(),
                key,
                onion,
                intro_points_max,
                target: target || remotes.is_empty(),
                check,
                remotes,
                warnings,
            }),
            _ => Err(ConfigError::wrong(file, reader.problems)),
        }
    }

    /// What is nearest to it, as a file of ours. With `imported`, the key is read from there, after
    /// somebody has brought it into a form that we read.
    pub fn to_toml(&self, imported: Option<&Path>) -> String {
        let mut out = HEAD.to_owned();
        self.write(imported, &mut out).expect("a String takes everything");
        out
    }

    /// The file below its head.
    fn write(&self, imported: Option<&Path>, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n[[service]]\nname = \"main\"")?;
        match imported {
            None => writeln!(out, "key = {}", quoted_path(&self.key))?,
            Some(imported) => {
                writeln!(out, "# It was a bare seed of 32 bytes. Bring it into tor's form once:")?;
                let (from, to) = (self.key.display(), imported.display());
                writeln!(out, "#   rustbalance key import {from} {to}")?;
                writeln!(out, "key = {}", quoted_path(imported))?;
            }
        }
        if let Some(points) = self.intro_points_max {
            writeln!(out, "# With more than 16 the vanguards add-on of some clients refuses it.")?;
            writeln!(out, "intro_points_max = {points}")?;
        }
        if self.target {
            self.write_port(out)?;
        }
        for remote in &self.remotes {
            writeln!(out, "\n[[service.remote]]")?;
            writeln!(out, "address = {}", quoted(&remote.address.to_string()))?;
            writeln!(out, "name = {}", quoted(&remote.name))?;
        }
        match self.target {
            true => writeln!(out, "\n[turbo]\ninstances = \"auto\"  # one for each core"),
            false => writeln!(out, "\n[turbo]\ninstances = 0  # the remote instances serve"),
        }
    }

    /// `[[service.port]]`
    fn write_port(&self, out: &mut String) -> std::fmt::Result {
        out.push_str(
            "\n[[service.port]]\nvirtual = 80\n\
             # The first RustBalance joined each client with another onion service ([target]),\n\
             # through the tor beside it. Name the server itself here, as in \"127.0.0.1:8080\":\n\
             # until then this file is refused.\n\
             backends = []\n",
        );
        if let Some((path, seconds)) = &self.check {
            writeln!(out, "\n[service.port.check]\nkind = \"http\"\npath = {}", quoted(path))?;
            writeln!(out, "timeout_s = {seconds}")?;
        }
        Ok(())
    }
}

/// What everybody should know who goes on with the file.
const HEAD: &str = "\
# Made from the first RustBalance's configuration by `rustbalance import rustbalance-v0`. What is
# different:
#
# * No tor beside it, no control port, no SOCKS port: RustBalance is its own Tor client.
# * [node], [coordination] and [wireguard] have no equal yet. Every node had the master key; now one
#   process publishes, so run this on one machine alone, and end the nodes first.
# * Its revision counters were three times the time, far above those of tor: HSDirs refuse anything
#   lower for up to two days. RustBalance asks them for theirs and goes on from there.
";

impl Reader {
    /// A value of a table.
    fn value(&self, table: &str, key: &str) -> Option<&Value> {
        self.tables.get(table)?.get(key)
    }

    /// Note a wrong type.
    fn wrong(&mut self, table: &str, key: &str, wanted: &str) {
        let reason = format!("this is not {wanted}");
        let key = format!("{table}.{key}");
        self.problems.push(Problem::nowhere(&key, reason, "correct it or take it out"));
    }

    /// A text.
    fn text(&mut self, table: &str, key: &str) -> Option<String> {
        match self.value(table, key)? {
            Value::String(text) if !text.is_empty() => return Some(text.clone()),
            _ => self.wrong(table, key, "a text in quotes"),
        }
        None
    }

    /// A whole number.
    fn integer(&mut self, table: &str, key: &str) -> Option<i64> {
        match self.value(table, key)? {
            Value::Integer(number) => return Some(*number),
            _ => self.wrong(table, key, "a whole number"),
        }
        None
    }

    /// Health checks, if they were switched on.
    fn check(&mut self) -> Option<(String, i64)> {
        let on = self.value("health", "http_probe_enabled").and_then(Value::as_bool);
        if on != Some(true) {
            return None;
        }
        let path = self.text("health", "http_probe_path").unwrap_or_else(|| "/health".to_owned());
        Some((path, self.integer("health", "http_probe_timeout_secs").unwrap_or(5)))
    }

    /// `[[backends]]`
    fn remotes(&mut self) -> Vec<RemoteConfig> {
        let Some(list) = self.tables.get("backends").cloned() else { return Vec::new() };
        let list = list.as_array().cloned().unwrap_or_default();
        let mut remotes: Vec<RemoteConfig> = Vec::new();
        for (number, backend) in list.iter().take(REMOTES_MAX).enumerate() {
            let key = format!("backends[{number}].onion_address");
            let address = backend.get("onion_address").and_then(Value::as_str).unwrap_or_default();
            match RemoteConfig::new(&address.to_lowercase(), number) {
                Ok(remote) if remotes.iter().all(|other| other.address != remote.address) => {
                    remotes.push(remote);
                }
                Ok(_) => {}
                Err(reason) => {
                    self.problems.push(Problem::nowhere(&key, reason, "correct it"));
                }
            }
        }
        remotes
    }

    /// What has no equal here.
    fn warn(&self, warnings: &mut Vec<String>) {
        for table in ["node", "tor", "coordination", "wireguard"] {
            if self.tables.contains_key(table) {
                warnings.push(format!("{table}: has no equal here and is left out"));
            }
        }
        for key in self.tables.keys() {
            let known = TABLES.contains(&key.as_str()) || key == "backends";
            let old = ["local_port", "hidden_service_dir"].contains(&key.as_str());
            if !known && !old {
                warnings.push(format!("{key}: the first RustBalance had no such key"));
            }
        }
        if self.tables.contains_key("target") {
            warnings.push(
                "target: an onion service cannot be a backend; name the server itself in \
                 `backends`"
                    .to_owned(),
            );
        }
        if self.tables.contains_key("backends") {
            warnings.push(
                "backends: each needs `HiddenServiceOnionBalanceInstance 1` in its torrc, and \
                 the service's address in its ob_config"
                    .to_owned(),
            );
        }
    }
}
