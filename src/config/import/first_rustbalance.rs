//! `config.toml` of the first RustBalance (of early 2026): a node of a cluster, whose C tor daemon
//! carried a copy of the service, and which joined each client with another onion service.
//!
//! | its table | what becomes of it |
//! |---|---|
//! | `[master]` | the service and its key |
//! | `[target]` | a port with an onion service as its backend; with `use_tls` it is to be named |
//! | `[[backends]]` of its first months | remote instances |
//! | `[publish] max_intro_points` | `intro_points_max` |
//! | `[health] http_probe_*` | `[service.port.check]` |
//! | every other key | a warning with what to do, see `fates`; no value is shown |

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::beside;
use crate::config::address::{onion_alone, parse_backend_argument};
use crate::config::checked::read_file;
use crate::config::explain::{quoted, quoted_path};
use crate::config::problem::{ConfigError, Problem};
use crate::limits::{BACKEND_CONNECT_SECONDS_MAX, INTRO_POINTS_MAX, REMOTES_MAX};
use crate::onion::config::RemoteConfig;
use crate::plane::config::BackendAddress;

mod fates;
#[cfg(test)]
mod tests;

/// Where the file lies when its directory is given.
const FILE_NAME: &str = "config.toml";

/// The port of the service, which it had fixed, and the target's where none was written.
const PORT_DEFAULT: i64 = 80;

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
    /// The service behind it, unless there are remote instances alone.
    target: Option<Target>,
    /// The path and the seconds of health checks.
    check: Option<(String, i64)>,
    /// Instances whose descriptors it fetched.
    remotes: Vec<RemoteConfig>,
    /// What looks wrong, or has no equal here, one sentence each.
    pub warnings: Vec<String>,
}

/// What each client was joined with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// An onion service, as a backend of ours.
    Onion(BackendAddress),
    /// The same, but with TLS, which it spoke itself and we do not.
    Tls,
    /// Whatever cannot be read as one.
    Unknown,
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
        let target = reader.target(&mut warnings);
        reader.warn(&mut warnings);
        match key {
            Some(key) if reader.problems.is_empty() => Ok(FirstRustBalance {
                file: file.to_owned(),
                key,
                onion,
                intro_points_max,
                target: target.or_else(|| remotes.is_empty().then_some(Target::Unknown)),
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
        if let Some(target) = &self.target {
            self.write_port(target, out)?;
        }
        for remote in &self.remotes {
            writeln!(out, "\n[[service.remote]]")?;
            writeln!(out, "address = {}", quoted(&remote.address.to_string()))?;
            writeln!(out, "name = {}", quoted(&remote.name))?;
        }
        match self.target.is_some() {
            true => writeln!(out, "\n[turbo]\ninstances = \"auto\"  # one for each core"),
            false => writeln!(out, "\n[turbo]\ninstances = 0  # the remote instances serve"),
        }
    }

    /// `[[service.port]]`
    fn write_port(&self, target: &Target, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n[[service.port]]\nvirtual = {PORT_DEFAULT}")?;
        match target {
            Target::Onion(address) => {
                out.push_str(ONION);
                writeln!(out, "backends = [{}]", quoted(&address.to_string()))?;
            }
            Target::Tls => out.push_str(TLS),
            Target::Unknown => out.push_str(UNKNOWN),
        }
        let Some((path, seconds)) = &self.check else { return Ok(()) };
        writeln!(out, "\n[service.port.check]\nkind = \"http\"\npath = {}", quoted(path))?;
        let most = i64::try_from(BACKEND_CONNECT_SECONDS_MAX).expect("it is a small number");
        let seconds = (*seconds).clamp(1, most);
        match target {
            // Over Tor, that is shorter than a circuit takes.
            Target::Onion(_) => writeln!(out, "# http_probe_timeout_secs was {seconds}; here 60"),
            _ => writeln!(out, "timeout_s = {seconds}"),
        }
    }
}

/// Before a backend that is an onion service.
const ONION: &str = "\
# [target]: another onion service. Where its server is on this machine or beside it, name that
# in its place, as in \"127.0.0.1:8080\": it saves a second way through Tor.
";

/// In the place of backends, where the target wanted TLS.
const TLS: &str = "\
# [target] had use_tls: the first RustBalance spoke TLS to it. RustBalance passes bytes as they
# are, so name a server that speaks HTTP itself, as in \"127.0.0.1:8080\"; or write virtual = 443
# and the target as ADDRESS.onion:443, and clients speak TLS with it. Until then this file is
# refused.
backends = []
";

/// In the place of backends, where there is no target.
const UNKNOWN: &str = "\
# There is no [target] with an onion address. Name the server itself here, as in \"127.0.0.1:8080\":
# until then this file is refused.
backends = []
";

/// What everybody should know who goes on with the file.
const HEAD: &str = "\
# Made from the first RustBalance's configuration by `rustbalance import rustbalance-v0`. What is
# different:
#
# * No tor beside it, no control port, no SOCKS port: RustBalance is its own Tor client.
# * It rewrote HTTP: Host, Location, the domains of cookies. RustBalance changes no byte, so the
#   server has to answer to the service's own address.
# * It wrote secret keys into its log at the level info. Whoever may have read that log may have the
#   service's key: then make a new one (rustbalance key new), which is a new address.
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
            let address = match onion_alone(address) {
                Ok(address) => address,
                Err(error) => {
                    self.problems.push(Problem::nowhere(&key, error.reason(), error.fix()));
                    continue;
                }
            };
            match RemoteConfig::new(&address, number) {
                Ok(remote) if remotes.iter().all(|other| other.address != remote.address) => {
                    remotes.push(remote);
                }
                Ok(_) => {}
                Err(reason) => {
                    let fix = "write the instance's address, <56 characters>.onion";
                    self.problems.push(Problem::nowhere(&key, reason, fix));
                }
            }
        }
        remotes
    }

    /// `[target]`
    fn target(&mut self, warnings: &mut Vec<String>) -> Option<Target> {
        self.tables.get("target")?;
        let address = self.text("target", "onion_address");
        let port = match self.value("target", "port") {
            None => PORT_DEFAULT,
            Some(_) => self.integer("target", "port")?,
        };
        let tls = self.value("target", "use_tls").cloned();
        if !matches!(tls, None | Some(Value::Boolean(_))) {
            self.wrong("target", "use_tls", "true or false");
        }
        if tls == Some(Value::Boolean(true)) {
            let text = "target.use_tls: RustBalance passes bytes as they are and speaks no TLS; \
                        the printed file says what can be named in its place";
            warnings.push(text.to_owned());
            return Some(Target::Tls);
        }
        let typed = format!("{}:{port}", address.unwrap_or_default().to_lowercase());
        match parse_backend_argument(&typed) {
            Ok(address @ BackendAddress::Onion { .. }) => Some(Target::Onion(address)),
            _ => {
                let text = "target: onion_address and port are no onion address with a port; name \
                            the server itself in `backends`";
                warnings.push(text.to_owned());
                Some(Target::Unknown)
            }
        }
    }

    /// Every key that has no equal here, with what to do about it.
    fn warn(&self, warnings: &mut Vec<String>) {
        warnings.extend(fates::warnings(&self.tables));
        if self.tables.contains_key("backends") {
            warnings.push(
                "backends: each needs `HiddenServiceOnionBalanceInstance 1` in its torrc, and \
                 the service's address in its ob_config"
                    .to_owned(),
            );
        }
    }
}
