//! What every area uses and no area owns: counters, the stream trait, secret bytes, redaction.

pub mod counters;
pub mod overload;
pub mod redact;
pub mod secret;
pub mod stream;
