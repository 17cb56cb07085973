//! RustBalance as its users meet it: the real binary beside a private Tor network of C tor nodes,
//! reached by a stock C tor client, with a real nginx behind.
//!
//! The lab is the one that `RUSTBALANCE_LAB_DIR` names, or a new one; run with one test thread, as
//! `scripts/test` does, since two cores carry the network as well.

#[path = "end_to_end/arti.rs"]
mod arti;
#[path = "end_to_end/arti_client.rs"]
mod arti_client;
#[path = "end_to_end/backends.rs"]
mod backends;
#[path = "end_to_end/classic.rs"]
mod classic;
#[path = "end_to_end/cores.rs"]
mod cores;
#[path = "end_to_end/daemon.rs"]
mod daemon;
#[path = "end_to_end/daemons.rs"]
mod daemons;
#[path = "end_to_end/descriptor.rs"]
mod descriptor;
#[path = "support/drop_in.rs"]
mod drop_in;
#[path = "end_to_end/embed.rs"]
mod embed;
#[path = "end_to_end/exhaustion.rs"]
mod exhaustion;
#[path = "end_to_end/faults.rs"]
mod faults;
#[path = "end_to_end/filter.rs"]
mod filter;
#[path = "end_to_end/introducer.rs"]
mod introducer;
#[path = "end_to_end/listeners.rs"]
mod listeners;
#[path = "end_to_end/machine.rs"]
mod machine;
#[path = "end_to_end/onionbalance.rs"]
mod onionbalance;
#[expect(dead_code, reason = "shared with the long tests, which use all of it")]
#[path = "end_to_end/recovery.rs"]
mod recovery;
#[path = "end_to_end/reload.rs"]
mod reload;
#[path = "end_to_end/secrets.rs"]
mod secrets;
#[path = "end_to_end/serve.rs"]
mod serve;
#[path = "end_to_end/service.rs"]
mod service;
#[path = "end_to_end/systemd.rs"]
mod systemd;
#[path = "end_to_end/upgrade.rs"]
mod upgrade;
#[path = "end_to_end/upgrading.rs"]
mod upgrading;

use std::sync::OnceLock;

use rustbalance_lab::{Client, Lab, Size};

/// One lab and one client for all tests.
fn lab() -> &'static (Lab, Client) {
    static LAB: OnceLock<(Lab, Client)> = OnceLock::new();
    LAB.get_or_init(|| {
        let lab = Lab::shared(Size::Small).expect("a lab can be had");
        let client = lab.client("test").expect("a client starts");
        (lab, client)
    })
}
