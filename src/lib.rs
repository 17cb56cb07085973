//! RustBalance: one onion address on every core of a machine.
#[path="/tmp/stub/admin.rs"] pub mod admin;
pub mod app;
pub mod base { #[path="/tmp/stub/counters.rs"] pub mod counters; #[path="/tmp/stub/stream.rs"] pub mod stream; #[path="/work/main/src/base/secret.rs"] pub mod secret; #[path="/work/main/src/base/redact.rs"] pub mod redact; }
pub mod limits;
pub mod onion;
#[path="/tmp/stub/plane.rs"] pub mod plane;
pub mod runtime;
pub mod tor;
pub mod vault;
