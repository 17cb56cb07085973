//! What a start needs: everything checked, nothing to be looked up any more.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::daemons::DaemonOptions;
use super::memory::MemoryBudget;
use crate::onion::ServiceSettings;
use crate::plane::config::{CircuitLimits, ListenConfig, PortConfig};
use crate::plane::handler::Handlers;
use crate::plane::passed::PassedSockets;
use crate::runtime::Io;
use crate::runtime::pinning::Plan;
use crate::tor::ArtiSettings;
use crate::vault::MasterKey;

/// One service.
pub struct ServiceOptions {
    /// Introduction points and limits.
    pub settings: ServiceSettings,
    /// Virtual ports and what is behind them.
    pub ports: Vec<PortConfig>,
    /// What a client's circuit may do.
    pub circuit_limits: CircuitLimits,
    /// The service's identity.
    pub master: MasterKey,
}

/// Everything that [`super::start`] needs.
pub struct Options {
    /// Where state is kept.
    pub state_dir: PathBuf,
    /// The services, at least one.
    pub services: Vec<ServiceOptions>,
    /// Backends inside this process.
    pub handlers: Handlers,
    /// Listeners for clients that other programs bring.
    pub listens: Vec<ListenConfig>,
    /// Sockets that somebody else has bound for them.
    pub sockets: PassedSockets,
    /// What drives the data cores' sockets; see [`crate::runtime::driver::choose`].
    pub io: Io,
    /// Whether a data core for which no ring can be made runs on epoll.
    pub io_falls_back: bool,
    /// How long a data core that has nothing to do looks around before it sleeps.
    pub spin: Duration,
    /// Which core runs what.
    pub plan: Plan,
    /// Whether each data core carries an instance of every service; without, they serve what comes
    /// to listeners.
    pub in_process: bool,
    /// C tor daemons that this process runs.
    pub daemons: DaemonOptions,
    /// Tor stacks, at most one an instance: 1 shares everything.
    pub stacks: u16,
    /// Local addresses that links go out from, one after the other for the stacks; empty for
    /// whichever the kernel chooses.
    pub source_addresses: Vec<Ipv4Addr>,
    /// Memory that the process may hold.
    pub memory: MemoryBudget,
    /// arti's configuration.
    pub arti: ArtiSettings,
    /// Where the admin socket is; `None` for none.
    pub admin_socket: Option<PathBuf>,
    /// Where status is told as OnionBalance tells it; `None` for nowhere.
    pub onionbalance_socket: Option<PathBuf>,
    /// How long open streams are served after [`super::Running::drain`].
    pub drain: Duration,
}
