//! The admin socket: what the service tells, and to whom.
//!
//! A unix socket in the state directory, 0600: whoever may read the master key may ask. One
//! request is one line of JSON (`{"command":"status"}` or `{"command":"descriptor"}`), one answer
//! is one line of JSON; `{"error":"..."}` is the answer to what is not understood.
//! `{"command":"verify"}` asks HSDirs first, and takes its time.
//! `{"command":"backend"}` with an address and an order takes a backend out or puts it back,
//! `{"command":"circuit"}` with a circuit's id closes that circuit, or says something of it. With
//! `{"command":"handover"}` a new process takes over from this one ([`succession`]). Lines, time
//! and connections are bounded. Runs on the control core; asks its [`StatusSource`] and knows no
//! other area.

#[cfg(feature = "admin")]
pub mod client;
#[cfg(feature = "admin")]
pub mod onionbalance;
#[cfg(feature = "admin")]
mod server;
pub mod status;
#[cfg(feature = "admin")]
pub mod succession;

#[cfg(feature = "admin")]
pub use self::server::{AdminError, Place, check, serve};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use self::status::{PublishedDescriptor, PublishedStatus, VerifiedStatus};
pub use crate::base::stream::CircuitId;
pub use crate::plane::status::{BackendOrder, Verdict};

/// What is wanted of a backend, and of which one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackendRequest {
    /// Its address, as status shows it.
    pub address: String,
    /// The service; `None`: every one.
    #[serde(default)]
    pub service: Option<String>,
    /// The virtual port; `None`: every one.
    #[serde(default)]
    pub port: Option<u16>,
    /// What is wanted.
    pub order: BackendOrder,
}

/// What is said of a client's circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictRequest {
    /// Which circuit.
    pub circuit: CircuitId,
    /// What.
    pub verdict: Verdict,
    /// For how long.
    pub lifetime: std::time::Duration,
}

/// Where answers come from.
pub trait StatusSource: Send + Sync + 'static {
    /// The status of everything.
    fn status(&self) -> status::ProcessStatus;

    /// Who can hand the service over; by default nobody.
    #[cfg(feature = "admin")]
    fn succession(&self) -> Option<&dyn succession::Succession> {
        None
    }

    /// Do what is wanted of backends, and say how many were meant: by default, of none.
    fn order_backend(&self, request: &BackendRequest) -> usize {
        let _ = request;
        0
    }

    /// Say something of a client's circuit for so long; to how many services. By default to none.
    fn set_verdict(&self, request: &VerdictRequest) -> usize {
        let _ = request;
        0
    }

    /// Close a client's circuit, by its id; whether it was open. By default none is.
    fn close_circuit(&self, circuit: CircuitId) -> BoxFuture<'static, bool> {
        let _ = circuit;
        futures::future::ready(false).boxed()
    }

    /// The published descriptors of each service. By default without their HSDirs.
    fn descriptors(&self) -> Vec<PublishedStatus> {
        let descriptor = |descriptor| PublishedDescriptor {
            descriptor,
            documents: Vec::new(),
            hsdirs: Vec::new(),
        };
        let service = |one: status::ServiceStatus| PublishedStatus {
            service: one.name,
            onion: one.onion,
            descriptors: one.descriptors.into_iter().map(descriptor).collect(),
        };
        self.status().services.into_iter().map(service).collect()
    }

    /// Ask the HSDirs of each service, or of the one with this name, what they hold. By default of
    /// none.
    fn verify(&self, service: Option<String>) -> BoxFuture<'static, Vec<VerifiedStatus>> {
        let _ = service;
        futures::future::ready(Vec::new()).boxed()
    }
}

#[cfg(all(test, feature = "admin"))]
mod tests;
