//! Where the areas meet: this is the only folder that knows them all.
//!
//! ```text
//!   start -- state_dir (lock, format)
//!     |----- thread `control`: control_core (stack, publishers, admin socket, drain)
//!     '----- threads `data-N`: data_core (one instance of every service, plane)
//! ```
//!
//! [`Launch`] prepares a start from a configuration; [`start`] returns at once with a [`Running`].
//! The binary and an embedding program use the same handle. Nothing here installs a signal handler,
//! a logger or an allocator.

mod control_core;
mod data_core;
#[cfg(feature = "fault-injection")]
mod fault;
pub mod launch;
pub mod options;
mod running;
mod start;
pub mod state_dir;
mod status;

pub use self::launch::{Launch, LaunchError, Notice};
pub use self::options::{Options, ServiceOptions};
pub use self::running::{Progress, Running, UnknownService};
pub use self::start::{StartError, start};
