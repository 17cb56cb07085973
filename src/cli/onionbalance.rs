//! `run --onionbalance`: OnionBalance's configuration and environment, as this program takes them.
//!
//! | variable | here |
//! |---|---|
//! | `ONIONBALANCE_CONFIG` | the file, where `--onionbalance` has no value |
//! | `ONIONBALANCE_STATUS_SOCKET_LOCATION` | the status socket, before the file's |
//! | `ONIONBALANCE_LOG_LEVEL` | the log's level, unless a configuration of ours has one |
//! | every other one | a warning |

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::args::RunArgs;
use crate::config::import::onionbalance::{InProcess, OnionBalance, Served};
use crate::config::{Config, ConfigError, Log};

/// What the names of OnionBalance's variables begin with.
const PREFIX: &str = "ONIONBALANCE_";
/// Its configuration.
const CONFIG: &str = "ONIONBALANCE_CONFIG";
/// Its configuration where nothing names one.
const CONFIG_DEFAULT: &str = "config.yaml";
/// Its status socket.
const STATUS_SOCKET: &str = "ONIONBALANCE_STATUS_SOCKET_LOCATION";
/// The level of its log.
const LOG_LEVEL: &str = "ONIONBALANCE_LOG_LEVEL";
/// What has no meaning here, and why.
const MEANINGLESS: [(&str, &str); 2] = [
    (
        "ONIONBALANCE_TOR_CONTROL_SOCKET",
        "there is no tor beside RustBalance, so that no control port is asked",
    ),
    ("ONIONBALANCE_LOG_LOCATION", "the log goes to standard error, and from there to the journal"),
];

/// OnionBalance's variables.
struct Environment(Vec<(String, OsString)>);

/// The configuration of `run --onionbalance FILE`.
///
/// # Errors
/// Everything that is wrong, one sentence each.
pub(super) fn config(file: Option<&Path>, args: &RunArgs) -> Result<Config, Vec<String>> {
    let ours = |(name, value): (OsString, OsString)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
        Some((name, value))
    };
    let environment = Environment(std::env::vars_os().filter_map(ours).collect());
    let in_process = in_process(args)?;
    let lines = |error: ConfigError| -> Vec<String> {
        error.to_string().lines().map(str::to_owned).collect()
    };
    let config = OnionBalance::load(&environment.file(file))
        .and_then(|found| found.into_config(args.config.as_deref(), in_process.as_ref()))
        .map_err(lines)?;
    Ok(environment.apply(config))
}

/// In-process instances beside those of the file, if somebody has asked for some.
fn in_process(args: &RunArgs) -> Result<Option<InProcess>, Vec<String>> {
    let target = match (args.hello, args.backend.is_empty()) {
        (true, _) => Served::Hello,
        (false, false) => Served::Backends(args.backend.clone()),
        (false, true) if args.instances.is_none() => return Ok(None),
        (false, true) => {
            let error = "--instances: OnionBalance's configuration does not say what instances in \
                         this process shall serve; give a --backend, or convert it with \
                         `rustbalance import onionbalance` and add [[service.port]]";
            return Err(vec![error.to_owned()]);
        }
    };
    Ok(Some(InProcess { instances: args.instances, target }))
}

impl Environment {
    /// The value of a variable; one that is empty is none.
    fn value(&self, name: &str) -> Option<&OsStr> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// The file that is meant.
    fn file(&self, typed: Option<&Path>) -> PathBuf {
        match (typed, self.value(CONFIG)) {
            (Some(typed), _) => typed.to_owned(),
            (None, Some(named)) => PathBuf::from(named),
            (None, None) => PathBuf::from(CONFIG_DEFAULT),
        }
    }

    /// `config` with what the environment says over it.
    fn apply(&self, mut config: Config) -> Config {
        if let Some(socket) = self.value(STATUS_SOCKET) {
            let socket = PathBuf::from(socket);
            let socket = std::path::absolute(&socket).unwrap_or(socket);
            config.admin.onionbalance_socket = Some(socket);
        }
        if let Some(level) = self.value(LOG_LEVEL)
            && config.log.level == Log::default().level
        {
            match directives(&level.to_string_lossy()) {
                Some(directives) => config.log.level = directives,
                None => config.warnings.push(format!(
                    "{LOG_LEVEL}: there is no level {level:?}; write debug, info, warning, error \
                     or critical"
                )),
            }
        }
        let known = [CONFIG, STATUS_SOCKET, LOG_LEVEL];
        for (name, _) in self.0.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            let why = MEANINGLESS.iter().find(|(other, _)| other == name).map(|(_, why)| *why);
            let why = why.unwrap_or("neither OnionBalance nor RustBalance reads it");
            config.warnings.push(format!("{name}: it has no effect: {why}"));
        }
        config
    }
}

/// The directives of our log for a level of OnionBalance's.
fn directives(level: &str) -> Option<String> {
    Some(match level.to_lowercase().as_str() {
        "debug" => "warn,rustbalance=debug,tor_netdir=error".to_owned(),
        "info" => Log::default().level,
        "warning" | "warn" => "warn,tor_netdir=error".to_owned(),
        "error" | "critical" | "fatal" => "error".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{CONFIG, Environment, LOG_LEVEL, STATUS_SOCKET};
    use crate::config::Config;

    /// An environment.
    fn environment(variables: &[(&str, &str)]) -> Environment {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).into());
        Environment(variables.iter().map(own).collect())
    }

    #[test]
    fn the_file_is_the_typed_one_then_the_environments_then_the_default() {
        let named = environment(&[(CONFIG, "/etc/ob.yaml")]);
        assert_eq!(named.file(Some(Path::new("a.yaml"))), Path::new("a.yaml"));
        assert_eq!(named.file(None), Path::new("/etc/ob.yaml"));
        assert_eq!(environment(&[(CONFIG, "")]).file(None), Path::new("config.yaml"));
    }

    #[test]
    fn what_makes_sense_is_done_and_the_rest_is_told() {
        let plain = || Config::from_backends(&[], true);
        let config = environment(&[
            (STATUS_SOCKET, "/run/ob/control"),
            (LOG_LEVEL, "WARNING"),
            ("ONIONBALANCE_TOR_CONTROL_SOCKET", "/run/tor/control"),
            ("ONIONBALANCE_RUN_DIRECTORY", "/run/ob"),
        ])
        .apply(plain());
        assert_eq!(config.onionbalance_socket(), Some(PathBuf::from("/run/ob/control")));
        assert_eq!(config.log.level, "warn,tor_netdir=error");
        let [control, run] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert!(control.starts_with("ONIONBALANCE_TOR_CONTROL_SOCKET: "), "{control}");
        assert!(run.starts_with("ONIONBALANCE_RUN_DIRECTORY: "), "{run}");

        let mut with_level = plain();
        with_level.log.level = "info".to_owned();
        let kept = environment(&[(LOG_LEVEL, "debug")]).apply(with_level);
        assert_eq!(kept.log.level, "info");
        let wrong = environment(&[(LOG_LEVEL, "loud")]).apply(plain());
        assert!(wrong.warnings[0].contains("loud"), "{:?}", wrong.warnings);
        assert_eq!(environment(&[]).apply(plain()).warnings, [""; 0]);
    }
}
