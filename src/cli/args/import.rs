//! `rustbalance import`: what may be written.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `import --help` begins with this.
pub(super) const LONG: &str = "Print what another program's configuration is in ours, with \
    comments that say what is different; start and write nothing.\n\n\
    Warnings go to stderr. Exits with 0, or with 78 and one line on stderr for each thing that \
    cannot be read: file, line, key, reason and what to do.";

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rustbalance import onionbalance /etc/onionbalance/config.yaml > rustbalance.toml\n  \
    rustbalance import gobalance /etc/gobalance/config.yaml > rustbalance.toml\n  \
    rustbalance import rustbalance-v0 /etc/rustbalance > rustbalance.toml\n  \
    rustbalance check --config rustbalance.toml")]
pub struct ImportArgs {
    /// Whose configuration it is.
    #[command(subcommand)]
    pub command: ImportCommand,
}

/// Whose configuration it is.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// config.yaml of OnionBalance
    Onionbalance {
        /// The file
        #[arg(value_name = "CONFIG.yaml")]
        file: PathBuf,
    },
    /// config.yaml of GoBalance, whose descriptors give keys in tor's form away
    Gobalance {
        /// The file
        #[arg(value_name = "CONFIG.yaml")]
        file: PathBuf,
    },
    /// config.toml of the first RustBalance
    #[command(name = "rustbalance-v0")]
    RustbalanceV0 {
        /// The file, or the directory in which it is
        #[arg(value_name = "CONFIG")]
        file: PathBuf,
    },
}
