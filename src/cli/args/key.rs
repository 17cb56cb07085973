//! `rustbalance key`: what may be written.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `key`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rustbalance key new master.key\n  \
    rustbalance key import /var/lib/tor/site/hs_ed25519_secret_key master.key\n  \
    rustbalance key import onionbalance.pem master.key\n  \
    rustbalance key show master.key\n  \
    rustbalance key show --published-by gobalance master.key\n\n\
    A key file must belong to the user who runs RustBalance (or root), have mode 0600, and nobody\n\
    else may write to any directory on the way to it; secrets that systemd, Kubernetes or Docker\n\
    mount are read as well. Existing files are never overwritten.")]
pub struct KeyArgs {
    /// What to do with a key.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What to do with a key.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a new key and print its onion address
    New {
        /// The file to make
        file: PathBuf,
    },
    /// Copy a key of tor (hs_ed25519_secret_key), OnionBalance (PEM) or the first RustBalance (a
    /// bare seed of 32 bytes) into a new file
    Import {
        /// The key to read
        source: PathBuf,
        /// The file to make, in tor's form
        file: PathBuf,
        /// The program that has published under it: whether its descriptors give the key away
        #[arg(long, value_name = "PROGRAM")]
        published_by: Option<Published>,
    },
    /// Print the onion address and the form of a key, never the key
    Show {
        /// The key to read
        file: PathBuf,
        /// The program that has published under it: whether its descriptors give the key away
        #[arg(long, value_name = "PROGRAM")]
        published_by: Option<Published>,
    },
}

/// A program that may have given a key away. A key does not say who has published under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Published {
    /// GoBalance, which signed with a nonce that everybody can compute.
    Gobalance,
}
