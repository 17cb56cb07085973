//! `config.yaml` of OnionBalance 0.2 and GoBalance: frontends with their keys, and the instances
//! whose introduction points they publish.
//!
//! ```yaml
//! services:
//! - key: frontend.key          # relative to this file
//!   instances:
//!   - address: <56 characters>.onion
//!     name: node1              # optional
//! status-socket-location: /run/onionbalance/control     # optional
//! ```
//!
//! OnionBalance reads no other keys: they are told of, and passed over, as it does.

use std::path::{Path, PathBuf};

use super::beside;
use super::yaml::{self, Entry, Node, Value};
use crate::config::address::onion_alone;
use crate::config::checked::{self, Config, read_file};
use crate::config::explain::{quoted, quoted_path};
use crate::config::problem::{ConfigError, Problem};
use crate::config::raw::{self, RawConfig};
use crate::limits::{REMOTES_MAX, SERVICE_NAME_CHARS_MAX, SERVICES_MAX};
use crate::onion::config::RemoteConfig;
use crate::plane::config::BackendAddress;

#[cfg(test)]
mod tests;
mod text;

/// What `config.yaml` says.
#[derive(Clone, Debug)]
pub struct OnionBalance {
    /// The file.
    file: PathBuf,
    /// At least one.
    pub services: Vec<Frontend>,
    /// Where status is told.
    pub status_socket: Option<PathBuf>,
    /// What is passed over, with its line: one sentence each.
    pub warnings: Vec<String>,
}

/// One of its services.
#[derive(Clone, Debug)]
pub struct Frontend {
    /// What we call it: OnionBalance has no names for services.
    pub name: String,
    /// Its key file, absolute.
    pub key: PathBuf,
    /// At least one; no two with one address.
    pub instances: Vec<RemoteConfig>,
}

/// What in-process instances beside the others shall serve, on virtual port 80.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// These servers.
    Backends(Vec<BackendAddress>),
    /// The built-in page.
    Hello,
}

/// In-process instances beside those of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProcess {
    /// How many; `None`: one for each core.
    pub instances: Option<u16>,
    /// What they serve.
    pub target: Served,
}

/// Reads the document, noting everything that is wrong.
struct Reader<'a> {
    /// The file.
    file: &'a Path,
    /// What is wrong.
    problems: Vec<Problem>,
    /// What is passed over.
    warnings: Vec<String>,
}

impl OnionBalance {
    /// Read and check a file.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong in it.
    pub fn load(file: &Path) -> Result<OnionBalance, ConfigError> {
        OnionBalance::from_text(&read_file(file)?, file)
    }

    /// Check the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn from_text(text: &str, file: &Path) -> Result<OnionBalance, ConfigError> {
        let document =
            yaml::read(text).map_err(|problem| ConfigError::wrong(file, vec![problem]))?;
        let mut reader = Reader { file, problems: Vec::new(), warnings: Vec::new() };
        let (mut services, mut status_socket) = (Vec::new(), None);
        let keys = ["services", "status-socket-location"];
        if let Some(top) = reader.map(&document, "", &keys) {
            services = reader.services(&document, top);
            let typed = reader.text(top, "", "status-socket-location", false);
            status_socket = typed.map(|(_, typed)| beside(Path::new(""), typed));
        }
        let Reader { problems, warnings, .. } = reader;
        match problems.is_empty() {
            true => Ok(OnionBalance { file: file.to_owned(), services, status_socket, warnings }),
            false => Err(ConfigError::wrong(file, problems)),
        }
    }

    /// The configuration that serves the same. With `base`, a file of ours, everything but the
    /// services is as that says; without, it is the default, and there are no in-process instances
    /// but those of `in_process`.
    ///
    /// # Errors
    /// What is wrong in `base`, or does not go together.
    pub fn into_config(
        self,
        base: Option<&Path>,
        in_process: Option<&InProcess>,
    ) -> Result<Config, ConfigError> {
        let (raw, mut problems) = match base {
            Some(base) => raw::read(&read_file(base)?),
            None => (RawConfig::default(), Vec::new()),
        };
        let file = base.unwrap_or(&self.file).to_owned();
        let whole = |problem: &Problem| problem.key.is_empty();
        if problems.iter().any(whole) {
            return Err(ConfigError::wrong(&file, problems));
        }
        if let Some(service) = raw.services.first() {
            let reason = "the services are those of OnionBalance's configuration";
            let fix =
                "take [[service]] out here, or convert with `rustbalance import onionbalance`";
            problems.push(service.place.problem(reason, fix));
            return Err(ConfigError::wrong(&file, problems));
        }
        let (ours, unexpected) = raw::read(&self.to_toml(in_process));
        debug_assert!(unexpected.is_empty(), "{unexpected:?}");
        problems.extend(unexpected);
        let raw = joined(raw, ours);
        let checked = checked::from_raw(raw, &file, problems);
        let mut config = checked.map_err(|error| match base {
            Some(_) => error,
            None => without_lines(error),
        })?;
        let prefixed = |warning: String| format!("{}:{warning}", self.file.display());
        config.warnings.extend(self.warnings.into_iter().map(prefixed));
        Ok(config)
    }
}

/// Problems without the lines of a text that nobody has typed.
fn without_lines(error: ConfigError) -> ConfigError {
    let ConfigError::Wrong { file, mut problems } = error else { return error };
    problems.iter_mut().for_each(|problem| problem.line = None);
    ConfigError::Wrong { file, problems }
}

/// `base` with the services of `ours`, and with what else `ours` says where `base` does not.
fn joined(mut base: RawConfig, ours: RawConfig) -> RawConfig {
    base.services = ours.services;
    base.turbo.instances = base.turbo.instances.or(ours.turbo.instances);
    base.admin.onionbalance_socket =
        base.admin.onionbalance_socket.or(ours.admin.onionbalance_socket);
    base
}

impl Reader<'_> {
    /// Note what is passed over.
    fn warn(&mut self, line: usize, key: &str, text: &str) {
        self.warnings.push(format!("{line}: {key}: {text}"));
    }

    /// The entries of a map; keys that nobody reads are told of.
    fn map<'n>(&mut self, node: &'n Node, key: &str, known: &[&str]) -> Option<&'n [Entry]> {
        let Value::Map(entries) = &node.value else {
            let reason = format!("there is {} and no map", node.value.kind());
            let fix = format!("write the keys {}", known.join(", "));
            self.problems.push(Problem::at(node.line, key, reason, fix));
            return None;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let text = "OnionBalance does not read this key, and neither do we";
            self.warn(entry.line, &path(key, &entry.key), text);
        }
        Some(entries)
    }

    /// A text with its line; one that is `needed` and not there is a problem.
    fn text<'n>(
        &mut self,
        entries: &'n [Entry],
        key: &str,
        name: &str,
        needed: bool,
    ) -> Option<(usize, &'n str)> {
        let entry = entries.iter().find(|entry| entry.key == name)?;
        match &entry.value.value {
            Value::Text(text) if !text.is_empty() => return Some((entry.line, text)),
            Value::Null | Value::Text(_) if !needed => return None,
            other => {
                let kind = match other {
                    Value::Text(_) => "an empty text",
                    other => other.kind(),
                };
                let reason = format!("there is {kind} where a text should be");
                let key = path(key, name);
                self.problems.push(Problem::at(entry.line, &key, reason, "write it in one line"));
            }
        }
        None
    }

    /// A list with at least one element, which has to be there.
    fn list<'n>(
        &mut self,
        place: &Node,
        entries: &'n [Entry],
        key: &str,
        name: &str,
    ) -> &'n [Node] {
        let key = path(key, name);
        let Some(entry) = entries.iter().find(|entry| entry.key == name) else {
            let fix = "was this file made for OnionBalance or GoBalance?";
            self.problems.push(Problem::at(place.line, &key, "it is missing", fix));
            return &[];
        };
        match &entry.value.value {
            Value::List(list) if !list.is_empty() => list,
            other => {
                let reason = format!("there is {} and no list with an element", other.kind());
                let fix = "write a line for each, with a dash in front";
                self.problems.push(Problem::at(entry.line, &key, reason, fix));
                &[]
            }
        }
    }

    /// `services`
    fn services(&mut self, document: &Node, top: &[Entry]) -> Vec<Frontend> {
        let list = self.list(document, top, "", "services");
        if let Some(beyond) = list.get(SERVICES_MAX) {
            let fix = format!("keep {SERVICES_MAX} of them");
            let reason = "there are too many services";
            self.problems.push(Problem::at(beyond.line, "services", reason, fix));
            return Vec::new();
        }
        let mut services: Vec<Frontend> = Vec::new();
        for (number, node) in list.iter().enumerate() {
            let place = format!("services[{number}]");
            let Some(entries) = self.map(node, &place, &["key", "instances"]) else { continue };
            let instances = self.instances(node, entries, &place);
            let key = self.text(entries, &place, "key", true);
            if key.is_none() && !entries.iter().any(|entry| entry.key == "key") {
                let fix = "name the file of the frontend's key";
                let key = path(&place, "key");
                self.problems.push(Problem::at(node.line, &key, "it is missing", fix));
            }
            let Some((line, key)) = key else { continue };
            let file = beside(self.file, key);
            if services.iter().any(|other| other.key == file) {
                let reason = "another service has this key as well";
                let fix = "give all the instances to one service";
                self.problems.push(Problem::at(line, &path(&place, "key"), reason, fix));
            }
            let taken = |name: &str| services.iter().any(|other| other.name == name);
            let name = name(&file, number, taken);
            services.push(Frontend { name, key: file, instances });
        }
        services
    }

    /// `services[n].instances`
    fn instances(&mut self, place: &Node, entries: &[Entry], key: &str) -> Vec<RemoteConfig> {
        let list = self.list(place, entries, key, "instances");
        let key = path(key, "instances");
        if let Some(beyond) = list.get(REMOTES_MAX) {
            let fix = format!("keep {REMOTES_MAX} of them");
            let reason = "there are too many instances";
            self.problems.push(Problem::at(beyond.line, &key, reason, fix));
            return Vec::new();
        }
        let mut instances: Vec<RemoteConfig> = Vec::new();
        for (number, node) in list.iter().enumerate() {
            let key = format!("{key}[{number}]");
            let Some(entries) = self.map(node, &key, &["address", "name"]) else { continue };
            let Some((line, typed)) = self.text(entries, &key, "address", true) else {
                if !entries.iter().any(|entry| entry.key == "address") {
                    let (key, fix) = (path(&key, "address"), "write the instance's onion address");
                    self.problems.push(Problem::at(node.line, &key, "it is missing", fix));
                }
                continue;
            };
            let address_key = path(&key, "address");
            let address = match onion_alone(typed) {
                Ok(address) if address.ends_with(".onion") => address,
                Ok(address) => format!("{address}.onion"),
                Err(error) => {
                    let problem = Problem::at(line, &address_key, error.reason(), error.fix());
                    self.problems.push(problem);
                    continue;
                }
            };
            let mut remote = match RemoteConfig::new(&address, number) {
                Ok(remote) => remote,
                Err(reason) => {
                    let fix = "copy it from the file `hostname` of the instance's HiddenServiceDir";
                    self.problems.push(Problem::at(line, &address_key, reason, fix));
                    continue;
                }
            };
            if instances.iter().any(|other| other.address == remote.address) {
                let text = "this instance is in the list already; once is enough";
                self.warn(line, &address_key, text);
                continue;
            }
            if let Some((_, name)) = self.text(entries, &key, "name", false)
                && is_instance_name(name)
                && instances.iter().all(|other| other.name != name)
            {
                name.clone_into(&mut remote.name);
            }
            instances.push(remote);
        }
        instances
    }
}

/// The path of a key below another.
fn path(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

/// Whether we can call an instance so: names of our own making are kept for those without one.
fn is_instance_name(name: &str) -> bool {
    let fits = name.chars().count() <= SERVICE_NAME_CHARS_MAX;
    fits && !name.chars().any(char::is_control) && !name.starts_with("remote-")
}

/// What a service is called: as its key file is, unless that would write an onion address into logs
/// and file names, or is no name.
fn name(key: &Path, number: usize, taken: impl Fn(&str) -> bool) -> String {
    let stem = key.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let simple = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    // An address has 56 characters.
    let good = (1..=32).contains(&stem.len()) && !stem.starts_with('-');
    if good && stem.chars().all(simple) && !taken(stem) {
        return stem.to_owned();
    }
    let numbered = |number: usize| format!("service-{number}");
    let free = (number + 1..).map(numbered).find(|name| !taken(name));
    free.expect("there are more numbers than services")
}
