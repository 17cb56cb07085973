//! C tor daemons: what is written for them, how they are run, and what they are asked.
//!
//! ```text
//!   daemon (start, back-off, end) --> process (log, CPU)      torrc (text from a value)
//!         '--> control (commands, events) --> lines (bounded)
//! ```
//!
//! Called by `app` alone, which knows the services. Nothing here knows arti, what a descriptor says
//! or a backend; and nothing secret is in what this writes: tor makes its own keys, which are no
//! identity of anybody's.

pub mod control;
pub mod daemon;
mod lines;
mod process;
pub mod torrc;

pub use self::daemon::{Carried, Close, DaemonSettings, Heard};
pub use self::torrc::{HiddenPort, HiddenService, Torrc, TorrcError};
