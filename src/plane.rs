//! The stream plane: brings the streams of clients to backends.
//!
//! ```text
//!   base::stream::IncomingStream --port?--> backend (round robin) --connect--> relay --> end
//!                     |                          |  refused: the next backend
//!                     '-- unknown port: END      '-- none left: END
//! ```
//!
//! Shared by all cores; each stream is served on the core that carries its circuit. Knows nothing
//! about onions; no lock on the path of a byte.
//!
//! **Reasons of an END** before the stream is open, and what a C tor client makes of them (its
//! `stream_end_reason_to_socks5_response`; it never retries a stream to an onion service):
//!
//! | situation | reason | the client's application sees |
//! |---|---|---|
//! | no such port | CONNECTREFUSED | connection refused, as from C tor services (their DONE) |
//! | every backend refused | CONNECTREFUSED | connection refused |
//! | the last backend tried was silent | TIMEOUT | TTL expired |
//! | no descriptor, port or memory left here | RESOURCELIMIT | general failure |
//!
//! EXITPOLICY would be "not allowed by ruleset", and INTERNAL makes clients give up the circuit.

mod backend;
mod buffers;
pub mod config;
pub mod handler;
mod hello;
pub mod status;
mod stream;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use self::backend::{Backend, ConnectError};
use self::config::{PortConfig, PortTarget};
use self::handler::Handlers;
use self::status::BackendStatus;
pub use self::stream::StreamOutcome;
use crate::base::counters::InstanceCounters;
use crate::base::stream::{EndReason, IncomingStream};
use crate::limits;

/// One virtual port, or a range of them with the same backends.
#[derive(Debug)]
struct Port {
    /// What was configured.
    config: PortConfig,
    /// The backends, in order; none for the built-in page.
    backends: Vec<Arc<Backend>>,
    /// Where round robin goes on.
    next: AtomicUsize,
}

impl Port {
    /// Whether it serves `virtual_port`.
    fn serves(&self, virtual_port: u16) -> bool {
        (self.config.virtual_first..=self.config.virtual_last).contains(&virtual_port)
    }
}

/// The ports of one service.
#[derive(Debug)]
pub struct Plane {
    /// In the order of the configuration. Read once for a stream, which keeps what it has read.
    ports: RwLock<Arc<[Port]>>,
    /// Backends inside this process.
    handlers: Handlers,
}

impl Plane {
    /// A plane for these ports, without handlers.
    pub fn new(ports: Vec<PortConfig>) -> Arc<Plane> {
        Plane::with_handlers(ports, Handlers::default())
    }

    /// A plane for these ports, some of whose backends may be handlers.
    pub fn with_handlers(ports: Vec<PortConfig>, handlers: Handlers) -> Arc<Plane> {
        let plane = Plane { ports: RwLock::new(Arc::new([])), handlers };
        plane.set_ports(ports);
        Arc::new(plane)
    }

    /// Serve these ports from now on. Streams that are open go on with the backends that they have;
    /// a backend that stays keeps its counters.
    pub fn set_ports(&self, ports: Vec<PortConfig>) {
        let mut place = self.ports.write().unwrap_or_else(PoisonError::into_inner);
        let backend = |port: &PortConfig, address: &config::BackendAddress| {
            let same = |old: &&Port| old.serves(port.virtual_first);
            let known = place.iter().filter(same).flat_map(|old| &old.backends);
            match known.into_iter().find(|known| known.address() == address) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Backend::new(address.clone(), &self.handlers)),
            }
        };
        let port = |config: PortConfig| {
            let backends = match &config.target {
                PortTarget::Backends(addresses) => {
                    addresses.iter().map(|address| backend(&config, address)).collect()
                }
                PortTarget::Hello => Vec::new(),
            };
            Port { config, backends, next: AtomicUsize::new(0) }
        };
        let ports: Arc<[Port]> = ports.into_iter().map(port).collect();
        *place = ports;
    }

    /// The ports as they are now.
    fn ports(&self) -> Arc<[Port]> {
        Arc::clone(&self.ports.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serve one stream to its end, on the calling core, and say how it ended.
    ///
    /// Backends are tried in turn until one accepts, for
    /// [`limits::BACKEND_ATTEMPTS_SECONDS_MAX`] at most; only then is the stream accepted. The
    /// module says which END a client gets otherwise.
    pub async fn serve(
        self: Arc<Plane>,
        incoming: impl IncomingStream,
        counters: &Arc<InstanceCounters>,
        instance: u16,
    ) -> StreamOutcome {
        let ports = self.ports();
        let virtual_port = incoming.virtual_port();
        let Some(port) = ports.iter().find(|port| port.serves(virtual_port)) else {
            return refuse(incoming, EndReason::ConnectRefused, counters).await;
        };
        if let PortTarget::Hello = port.config.target {
            let Ok(client) = incoming.accept().await else { return StreamOutcome::ClientGone };
            let _open = counters.open_stream();
            return hello::serve(client, counters, instance).await;
        }
        let first = port.next.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let attempts_max = Duration::from_secs(limits::BACKEND_ATTEMPTS_SECONDS_MAX);
        let mut reason = EndReason::ConnectRefused;
        for turn in 0..port.backends.len() {
            let backend = &port.backends[first.wrapping_add(turn) % port.backends.len()];
            let left = attempts_max.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            let timeout = port.config.connect_timeout.min(left);
            match backend.connect(timeout, incoming.circuit_id(), virtual_port).await {
                Ok(connection) => {
                    let Ok(client) = incoming.accept().await else {
                        return StreamOutcome::ClientGone;
                    };
                    let _open = counters.open_stream();
                    let _busy = backend.count_open();
                    return stream::relay(client, connection, counters).await;
                }
                Err(error) => {
                    tracing::debug!(backend = %backend.address(), "backend: {error}");
                    reason = match error {
                        ConnectError::Timeout => EndReason::Timeout,
                        ConnectError::Exhausted(_) => EndReason::ResourceLimit,
                        ConnectError::Refused(_) => EndReason::ConnectRefused,
                    };
                }
            }
        }
        refuse(incoming, reason, counters).await
    }

    /// What status shows of the backends.
    pub fn status(&self) -> Vec<BackendStatus> {
        let port = |port: &Port| -> Vec<BackendStatus> {
            port.backends.iter().map(|one| one.status(port.config.virtual_first)).collect()
        };
        self.ports().iter().flat_map(port).collect()
    }
}

/// End a stream that was not accepted.
async fn refuse(
    incoming: impl IncomingStream,
    reason: EndReason,
    counters: &InstanceCounters,
) -> StreamOutcome {
    counters.note_stream_refused();
    // A circuit that has closed meanwhile has ended the stream as well.
    let _ = incoming.reject(reason).await;
    StreamOutcome::Refused(reason)
}

#[cfg(test)]
mod tests;
