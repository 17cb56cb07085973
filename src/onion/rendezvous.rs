//! The rendezvous: a circuit to the point that the client chose, and a session over it.
//!
//! Each core takes requests from its own queue, builds at most
//! [`limits::RENDEZVOUS_BUILDING_MAX`] circuits at a time ([`super::slots`] says which are given up
//! for newer ones), and keeps at most [`limits::RENDEZVOUS_OPEN_MAX`] open. See rend-spec-v3,
//! sections 3.3 and 4.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tor_cell::relaycell::msg::Rendezvous1;
use tor_circmgr::ServiceOnionServiceDataTunnel;
use tor_circmgr::build::onion_circparams_from_netparams;
use tor_hscrypto::RendCookie;
use tor_linkspec::OwnedCircTarget;
use tor_linkspec::verbatim::VerbatimLinkSpecCircTarget;
use tor_netdir::Timeliness;
use tor_proto::client::circuit::handshake::hs_ntor::HsNtorHkdfKeyGenerator;
use tor_proto::client::circuit::handshake::{HandshakeRole, RelayProtocol};
use tor_protover::Protocols;

use super::service::{Seat, Service};
use super::session::{ServeStream, Session};
use super::slots::{Slot, Slots};
use crate::limits;
use crate::runtime;
use crate::tor::load::LaunchError;
use crate::tor::stack::CircuitPool;
use crate::tor::turns::Purpose;

/// A client that waits at a rendezvous point. Made by the core that decrypted the INTRODUCE2,
/// served by the core it was handed to.
pub(super) struct RendezvousRequest {
    /// The rendezvous point, with the link specifiers exactly as the client gave them.
    pub(super) target: VerbatimLinkSpecCircTarget<OwnedCircTarget>,
    /// Makes the keys of the virtual hop.
    pub(super) key_generator: HsNtorHkdfKeyGenerator,
    /// The client's cookie.
    pub(super) cookie: RendCookie,
    /// The handshake's answer, which RENDEZVOUS1 carries.
    pub(super) rendezvous1: Vec<u8>,
    /// Capabilities of the virtual hop.
    pub(super) protocols: Protocols,
    /// When the INTRODUCE2 was decrypted.
    pub(super) received: Instant,
}

impl std::fmt::Debug for RendezvousRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RendezvousRequest([redacted])")
    }
}

/// Why a rendezvous failed. Counted; logged at debug, since clients can cause all of these.
#[derive(Debug, thiserror::Error)]
enum RendezvousError {
    /// The client has given up by now.
    #[error("waited too long for a core")]
    TooLate,
    /// No directory.
    #[error("no usable directory: {0}")]
    Directory(#[source] tor_netdir::Error),
    /// No circuit to the rendezvous point.
    #[error("cannot build a circuit to the rendezvous point: {0}")]
    Circuit(#[source] LaunchError),
    /// The consensus's parameters make no circuit.
    #[error("the consensus's circuit parameters are not usable")]
    Parameters,
    /// Newer ones wait, and it was its turn to make room.
    #[error("given up for a newer one")]
    GivenUp,
    /// An attempt, or all together, took too long.
    #[error("no circuit to the rendezvous point in time")]
    Timeout,
    /// The client's end of the circuit could not be set up.
    #[error("cannot {action}: {error}")]
    Handshake {
        /// What was done.
        action: &'static str,
        /// arti's error.
        #[source]
        error: tor_circmgr::Error,
    },
}

/// Serve one core's queue, for as long as the future is polled.
pub(super) async fn run(
    service: &Arc<Service>,
    instance: usize,
    pool: &CircuitPool,
    serve: &impl ServeStream,
) {
    let seat = Arc::clone(&service.seats()[instance]);
    let slots = Slots::new(service.settings.rendezvous_building_max, &seat.counters);
    loop {
        let request = seat.rendezvous.recv().await;
        let (open, young) = (seat.counters.open_rendezvous(), seat.counters.young_rendezvous());
        let slot = slots.take().await;
        let (service, seat, pool, serve) =
            (Arc::clone(service), Arc::clone(&seat), pool.clone(), serve.clone());
        runtime::spawn(async move {
            let cookie = request.cookie.into();
            let deadline = Duration::from_millis(limits::RENDEZVOUS_BUILD_MS_MAX);
            let built = runtime::timeout(deadline, meet(&service, &pool, request, &slot)).await;
            drop(slot);
            match built.unwrap_or(Err(RendezvousError::Timeout)) {
                Ok(session) => {
                    seat.counters.note_rendezvous();
                    session.run(&seat, young, instance, &serve).await;
                }
                Err(error) => {
                    seat.counters.note_rendezvous_failed();
                    match error {
                        RendezvousError::Circuit(LaunchError::Braked) => {
                            seat.counters.note_rendezvous_braked();
                        }
                        RendezvousError::GivenUp => seat.counters.note_rendezvous_given_up(),
                        _ => {}
                    }
                    service.cookies.forget(&cookie);
                    tracing::debug!(instance, "rendezvous: {error}");
                }
            }
            drop(open);
        });
    }
}

/// Build the circuit, set up the client's end and tell the client.
async fn meet(
    service: &Arc<Service>,
    pool: &CircuitPool,
    request: RendezvousRequest,
    slot: &Slot,
) -> Result<Session, RendezvousError> {
    let handshake = |action: &'static str| {
        move |error: tor_circmgr::Error| RendezvousError::Handshake { action, error }
    };
    if request.received.elapsed() > Duration::from_millis(limits::RENDEZVOUS_WAIT_MS_MAX) {
        return Err(RendezvousError::TooLate);
    }
    let netdir = pool.directory().netdir(Timeliness::Timely).map_err(RendezvousError::Directory)?;
    let params = onion_circparams_from_netparams(netdir.params())
        .map_err(|_| RendezvousError::Parameters)?;
    let tunnel = tokio::select! {
        tunnel = build(pool, &netdir, &request.target, slot) => tunnel?,
        () = slot.given_up() => return Err(RendezvousError::GivenUp),
    };
    drop(netdir);
    let rendezvous_point = tunnel.last_hop().map_err(handshake("find the last hop"))?;
    tunnel
        .extend_virtual(
            RelayProtocol::HsV3,
            HandshakeRole::Responder,
            request.key_generator,
            params,
            &request.protocols,
        )
        .await
        .map_err(handshake("add the client as a hop"))?;
    // Streams are allowed before the client can know that we are there.
    let open = pool.count_open(&tunnel.unique_id());
    let session = Session::new(tunnel, service.settings.streams_per_circuit_max, open)
        .await
        .map_err(handshake("accept streams"))?;
    let message = Rendezvous1::new(request.cookie, request.rendezvous1);
    session
        .tunnel()
        .send_raw_msg(message.into(), rendezvous_point)
        .await
        .map_err(handshake("send RENDEZVOUS1"))?;
    Ok(session)
}

/// A circuit to the rendezvous point, tried as often as the consensus says
/// (`hs_service_rendezvous_failures_max`).
async fn build(
    pool: &CircuitPool,
    netdir: &Arc<tor_netdir::NetDir>,
    target: &VerbatimLinkSpecCircTarget<OwnedCircTarget>,
    slot: &Slot,
) -> Result<ServiceOnionServiceDataTunnel, RendezvousError> {
    let patience = Duration::from_millis(limits::RENDEZVOUS_ATTEMPT_MS_MAX);
    let attempts_max: u32 = netdir.params().hs_service_rendezvous_failures_max.into();
    let mut attempt = 1;
    loop {
        let launched = pool.circuits().get_or_launch_svc_rend(netdir, target.clone());
        let error = match pool.launch_within(Purpose::Rendezvous, patience, launched).await {
            Ok(Some(tunnel)) => return Ok(tunnel),
            Ok(None) => RendezvousError::Timeout,
            Err(error @ LaunchError::Braked) => return Err(RendezvousError::Circuit(error)),
            Err(error) => RendezvousError::Circuit(error),
        };
        if attempt >= attempts_max {
            return Err(error);
        }
        tracing::debug!(attempt, "rendezvous circuit: {error}");
        slot.note_failed();
        attempt += 1;
    }
}

impl Seat {
    /// Requests that wait for this core.
    pub fn rendezvous_waiting(&self) -> usize {
        self.rendezvous.len()
    }
}
