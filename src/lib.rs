//! RustBalance: one onion address on every core of a machine.
pub mod base { #[path="/tmp/stub/counters.rs"] pub mod counters; #[path="/tmp/stub/stream.rs"] pub mod stream; }
pub mod limits;
pub mod onion;
pub mod runtime;
pub mod tor;
#[path="/tmp/stub/vault.rs"] pub mod vault;
