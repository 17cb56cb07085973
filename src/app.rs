//! Where the areas meet: this is the only folder that knows them all.
//!
//! ```text
//!   start -- state_dir (lock, format)
//!     |----- thread `control`: control_core (stack, publishers, admin socket, drain)
//!     '----- threads `data-N`: data_core (one instance of every service, plane)
//!   reload -- roster (services come, change and go) --> control_core, data_core
//! ```
//!
//! [`Launch`] prepares a start from a configuration; [`start`] returns at once with a [`Running`].
//! The binary and an embedding program use the same handle. Nothing here installs a signal handler,
//! a logger or an allocator.

mod control_core;
mod cores_io;
pub mod daemons;
mod data_core;
mod embed;
#[cfg(feature = "fault-injection")]
mod fault;
mod fronts;
pub mod generate;
pub mod launch;
mod memory;
mod onionbalance;
pub mod options;
pub mod preflight;
mod reload;
mod roster;
mod running;
mod start;
pub mod state_dir;
mod status;
#[cfg(feature = "admin")]
mod succession;
mod wellness;
/// Without the admin socket there is nobody to take over from.
#[cfg(not(feature = "admin"))]
mod succession {
    pub(super) use std::convert::Infallible as Predecessor;
    pub(super) use std::convert::Infallible as Heir;

    use super::control_core::Shared;
    use super::running::Progress;
    use super::state_dir::StateDir;

    pub(super) async fn take_over(
        predecessor: Predecessor,
        _: &Shared,
        _: &StateDir,
    ) -> Result<Heir, String> {
        match predecessor {}
    }

    pub(super) async fn begin(predecessor: &Predecessor, _: &Shared) {
        match *predecessor {}
    }

    pub(super) async fn settle(
        heir: Heir,
        _: tokio::sync::watch::Receiver<Progress>,
        _: &Shared,
    ) -> String {
        match heir {}
    }
}

mod visits;

pub use self::embed::install_crypto;
pub use self::launch::{Launch, LaunchError, Notice};
pub use self::options::{Options, ServiceOptions};
pub use self::reload::{ChangeError, Changes};
pub use self::running::{Progress, Running, UnknownService};
pub use self::start::{StartError, start};
pub use crate::plane::passed::{PassedSocket, PassedSockets};
