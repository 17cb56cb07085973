//! Configuration: what was typed, what it means, and how to show it.
//!
//! ```text
//!   file --toml--> raw (as typed, with lines) --checks--> Config (cannot be wrong) --> explain
//!                        '---- every problem: file, line, key, reason, fix ----'
//! ```
//!
//! Called by `cli` and `app`. Reads the configuration file, writes nothing, and never looks up a
//! host name (an interface's number it does, for the words of an error). Areas do not import this:
//! they are given the parts they need.

pub mod address;
pub mod builder;
pub mod checked;
pub mod explain;
#[cfg(feature = "cli")]
pub mod import;
pub mod memory;
pub mod place;
pub mod problem;
mod raw;
mod reader;
mod schema;
mod unsupported;

#[cfg(test)]
mod tests;

pub use self::checked::{
    Admin, Config, Ctor, Instances, Log, LogFormat, Overrides, Service, Stacks, Turbo,
};
pub use self::problem::{ConfigError, Problem};
