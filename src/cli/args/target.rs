//! Which running service is meant, by the options that it was started with.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::import::onionbalance::OnionBalance;
use crate::config::{Config, ConfigError};

/// Which running service is meant.
#[derive(Debug, Args)]
pub struct Target {
    /// The configuration file of the running service
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,

    /// The config.yaml of OnionBalance or GoBalance that it runs, alone or with --config
    #[arg(long, value_name = "CONFIG.yaml", conflicts_with = "socket")]
    pub onionbalance: Option<PathBuf>,

    /// The admin socket of the running service
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// The configuration that `--config` and `--onionbalance` make together, as in `run`; `None`
/// without both.
pub fn configuration(
    config: Option<&Path>,
    onionbalance: Option<&Path>,
) -> Option<Result<Config, ConfigError>> {
    match (onionbalance, config) {
        (Some(file), base) => {
            Some(OnionBalance::load(file).and_then(|found| found.into_config(base, None)))
        }
        (None, Some(file)) => Some(Config::load(file)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::configuration;

    const INSTANCE: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";

    /// Proves that a service that runs OnionBalance's file with a base of ours is found by the same
    /// two files: the base alone is no configuration, as it has no service.
    #[test]
    fn the_two_files_of_run_find_its_socket_together() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (base, yaml) = (directory.path().join("base.toml"), directory.path().join("c.yaml"));
        std::fs::write(&base, "state_dir = \"here\"\n").expect("it is ours");
        let text = format!("services:\n- key: k\n  instances:\n  - address: {INSTANCE}\n");
        std::fs::write(&yaml, text).expect("it is ours");
        let socket = |config, onionbalance| {
            let found = configuration(config, onionbalance).expect("a file is named");
            found.map(|config| config.admin_socket()).map_err(|error| error.to_string())
        };
        let expected = directory.path().join("here/admin.sock");
        assert_eq!(socket(Some(&*base), Some(&*yaml)), Ok(expected));
        assert!(socket(Some(&*base), None).expect_err("no service").contains("service"));
        assert!(socket(None, Some(&*yaml)).is_ok());
        assert!(configuration(None, None).is_none());
    }
}
