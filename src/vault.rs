//! The vault: the master key, which is the onion service's identity.
//!
//! ```text
//!   key file --the whole way, or a platform--> bytes --tor or PEM--> MasterKey
//!                                                                        | for a time period
//!              public key, subcredential, counter key, certificates <-- PeriodSigner
//! ```
//!
//! Called by `app` (loads the key), `onion::period` (has descriptors certified) and `cli::key`. It
//! hands out signatures and never a key: the master's scalar stands once in memory, a blinded one
//! for as long as it signs. Nothing here signs with a bare scalar: the only way to a signature is
//! an expanded key, scalar and nonce prefix together, through arti's key types.

pub mod address;
pub mod error;
pub mod file;
mod format;
pub mod guard;
pub mod key;
mod pem;
pub mod period;
mod stack;

#[cfg(test)]
mod tests;

pub use self::address::{OnionAddress, OnionAddressError};
pub use self::error::{KeyError, KeyFormatError};
pub use self::format::KeyFormat;
pub use self::guard::Guard;
pub use self::key::MasterKey;
pub use self::period::{PeriodSigner, SignError};
