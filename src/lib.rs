//! RustBalance: one onion address on every core of a machine, and then on many machines.
//!
//! ```text
//!   main -> cli -> app -> every area          config -> base, limits, plane::config, onion::config
//!   onion -> tor, vault, runtime, base        admin  -> base, <area>::status
//!   tor, plane -> runtime, base               vault, runtime -> base
//! ```
//!
//! Where to look:
//!
//! | to learn about | read |
//! |---|---|
//! | what happens at a start, and which thread does what | [`app`] |
//! | introduction points, rendezvous, the merged descriptor | [`onion`] |
//! | links, guards, circuits, the directory | [`tor`] |
//! | executors, pinned threads, queues between cores | [`runtime`] |
//! | streams to backends | [`plane`] |
//! | C tor daemons | [`ctor`] |
//! | the master key | [`vault`] |
//! | every bound | [`limits`] |
//!
//! Embedding: make a [`config::Config`], from a file or from a value of the program's own, and
//! start it with [`app::Launch`]; backends may be [`plane::handler`]s. The library sets no
//! allocator, signal handler, logger or panic hook; the process's rustls provider has to be
//! installed by the program (`rustls::crypto::ring::default_provider().install_default()`).
//! `examples/embed_axum.rs` shows all of it.

pub mod admin;
pub mod app;
pub mod base;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod ctor;
pub mod limits;
pub mod onion;
pub mod plane;
pub mod runtime;
pub mod tor;
pub mod vault;
