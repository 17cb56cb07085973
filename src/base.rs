//! What every area uses and no area owns: counters, the stream trait, secret bytes, redaction,
//! sockets in the file system, warnings that would fill the log.

pub mod counters;
pub mod overload;
pub mod redact;
pub mod repeats;
pub mod secret;
pub mod socket_file;
pub mod stream;
