//! The load generator, library and binary, against a SOCKS proxy and web server of its own: no tor
//! and no network is needed.

#[path = "load/binary.rs"]
mod binary;
#[path = "load/failures.rs"]
mod failures;
#[path = "load/loops.rs"]
mod loops;
#[path = "load/server.rs"]
mod server;
