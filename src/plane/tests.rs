//! The plane against real sockets; the client's side is a pipe in memory.

mod relay;
mod serve;
mod support;
