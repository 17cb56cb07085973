//! The onion service: introduction points and rendezvous on the data cores, one merged descriptor
//! on the control core.
//!
//! ```text
//!  data core                                               control core
//!  ---------                                               ------------
//!  points  -- public halves of the core's points -------->  publisher -- uploads --> HSDirs
//!     ^                                                        |
//!     |  INTRODUCE2                                            | subcredentials of live periods
//!  introduction (decrypt, refuse replays)  <-------------------'
//!     |
//!     |  RendezvousRequest, bounded queue of the least loaded core (`service`)
//!     v
//!  rendezvous -> session -> base::stream, served by `plane` (wired in `app::data_core`)
//! ```
//!
//! Instances have no identity of their own: their points are keys that they made a moment ago, and
//! the only descriptor is the master's. Instances elsewhere ([`guest`]) bring their points from
//! outside, and are merged like any other.

pub mod config;
pub mod descriptor;
pub mod eviction;
pub mod foreign;
pub mod guest;
pub mod hsdir;
pub mod instance;
pub mod intro;
pub mod introduction;
pub mod managed;
mod open;
pub mod period;
pub mod points;
mod published;
pub mod publisher;
pub mod remote;
pub mod rendezvous;
pub mod replay;
pub mod revision;
pub mod ring;
pub mod service;
pub mod session;
mod slots;
mod spread;
pub mod status;

pub use self::config::ServiceSettings;
pub use self::guest::{Guest, GuestConfig};
pub use self::instance::Instance;
pub use self::managed::{ManagedError, ManagedPoints, ManagedReader};
pub use self::publisher::Publisher;
pub use self::service::Service;
pub use self::session::{ServeStream, SessionStream};
