//! The vault: the master key, which is the onion service's identity.
//!
//! ```text
//!   key file --owner, mode, directory--> bytes --tor or PEM--> MasterKey --blind--> period keys
//! ```
//!
//! Called by `app` (loads the key), `onion::publisher` (blinds and signs) and `cli::key`. The key
//! never leaves the control core. Nothing here signs with a bare scalar: the only way to a
//! signature is an expanded key, scalar and nonce prefix together, through arti's key types.

pub mod address;
pub mod error;
pub mod file;
mod format;
pub mod key;

#[cfg(test)]
mod tests;

pub use self::address::{OnionAddress, OnionAddressError};
pub use self::error::{KeyError, KeyFormatError};
pub use self::format::KeyFormat;
pub use self::key::MasterKey;
