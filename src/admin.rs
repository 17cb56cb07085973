//! The admin socket: what the service tells, and to whom.
//!
//! A unix socket in the state directory, 0600: whoever may read the master key may ask. One
//! request is one line of JSON (`{"command":"status"}`), one answer is one line of JSON. Runs on
//! the control core; asks its [`StatusSource`] and knows no other area.

pub mod client;
mod server;
pub mod status;

pub use self::server::{AdminError, serve};

/// Where answers come from.
pub trait StatusSource: Send + Sync + 'static {
    /// The status of everything.
    fn status(&self) -> status::ProcessStatus;
}
