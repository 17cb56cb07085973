//! Two network namespaces joined by a veth pair: relays on one side, everybody else on the other,
//! each with an address of its own.
//!
//! On loopback, tor's connections all come from 127.0.0.1 (it ignores `OutboundBindAddress`
//! there), so the guards' DoS defence would take the whole network for one offender. Here it meets
//! the addresses that it would meet in life. Nothing leaves the machine.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::keeper::Keeper;
use crate::wait::require;

/// The pair. Named at random, so that several labs run side by side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Namespaces {
    /// The relays' namespace.
    relays: String,
    /// Everybody else's.
    services: String,
    /// The veth end in each.
    veth: String,
}

/// Service addresses handed out by this process. The lab's holder starts at 1; an attached handle
/// starts higher, see [`Namespaces::add_service_address`].
static SERVICE_ADDRESSES: AtomicU32 = AtomicU32::new(0);

/// Run `ip` with these arguments.
fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .context("cannot run ip; install iproute2")?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    bail!("ip {arguments}: {}; network namespaces need root", error.trim());
}

impl Namespaces {
    /// Make the pair; the keeper removes it.
    pub(crate) fn create(keeper: &Keeper) -> Result<Namespaces> {
        require(&["ip"])?;
        let number: u32 = rand::rng().random_range(0..100_000);
        let namespaces = Namespaces {
            relays: format!("rblab{number}r"),
            services: format!("rblab{number}s"),
            veth: format!("rbl{number}"),
        };
        let Namespaces { relays, services, veth } = &namespaces;
        keeper.undo(&format!("ip netns delete {relays}; ip netns delete {services}"))?;
        ip(&format!("netns add {relays}"))?;
        ip(&format!("netns add {services}"))?;
        ip(&format!(
            "link add {veth}r netns {relays} type veth peer name {veth}s netns {services}"
        ))?;
        for (namespace, end) in [(relays, 'r'), (services, 's')] {
            ip(&format!("-n {namespace} link set lo up"))?;
            ip(&format!("-n {namespace} link set {veth}{end} up"))?;
        }
        ip(&format!("-n {services} address add 10.250.0.1/32 dev {veth}s"))?;
        ip(&format!("-n {services} route add 10.0.0.0/8 dev {veth}s src 10.250.0.1"))?;
        ip(&format!("-n {relays} address add 10.251.0.1/32 dev {veth}r"))?;
        ip(&format!("-n {relays} route add 10.250.0.0/16 dev {veth}r"))?;
        Ok(namespaces)
    }

    /// An address for relay `number`, in a /16 of its own.
    pub(crate) fn add_relay_address(&self, number: usize) -> Result<String> {
        let address = format!("10.{}.0.1", 20 + number);
        ip(&format!("-n {} address add {address}/32 dev {}r", self.relays, self.veth))?;
        Ok(address)
    }

    /// An address for a client or service.
    ///
    /// # Errors
    /// When there are no more.
    pub fn add_service_address(&self) -> Result<String> {
        for _ in 0..100 {
            let turn = SERVICE_ADDRESSES.fetch_add(1, Ordering::Relaxed) + 2;
            let address = format!("10.250.{}.{}", turn / 250, 1 + turn % 250);
            // Another process that uses this lab may have taken it.
            if ip(&format!("-n {} address add {address}/32 dev {}s", self.services, self.veth))
                .is_ok()
            {
                return Ok(address);
            }
        }
        bail!("no address left in the service side's namespace")
    }

    /// A command in the relays' namespace.
    pub(crate) fn relay_command(&self, program: &str) -> Command {
        inside(&self.relays, program)
    }

    /// A command in the service side's namespace.
    pub(crate) fn service_command(&self, program: &str) -> Command {
        inside(&self.services, program)
    }
}

/// A command inside a namespace. `ip netns exec` replaces itself by the program, so the process
/// number is the program's.
fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}
