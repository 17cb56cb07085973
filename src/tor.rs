//! The Tor stack: directory, guards and vanguards, links, circuit pools, and arti's configuration.
//!
//! Built once by `app::start` on the control core and shared by every core of the process: one
//! guard set, one vanguard set, one link to a guard. `onion` asks it for circuits; nothing here
//! knows what our own onion services are.

pub mod config;
pub mod load;
pub mod network;
mod partition;
mod sharing;
mod skew;
pub mod stack;
mod state;
pub mod status;
pub mod turns;
mod visit;

pub use self::config::{ArtiSettings, ArtiSettingsError};
pub use self::partition::GuardPlan;
pub use self::stack::{StackError, TorStack};
pub use self::turns::GuardShare;
pub use self::visit::OnionClient;
