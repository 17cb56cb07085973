//! The plane against real sockets; the client's side is a pipe in memory.

mod backends;
mod checks;
mod circuits;
mod cut;
mod faults;
mod front;
mod handler;
mod names;
mod onions;
mod queue;
mod relay;
mod serve;
mod shortage;
mod support;
