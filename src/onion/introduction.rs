//! From INTRODUCE2 to a rendezvous: refuse replays, decrypt, hand to a core.
//!
//! Runs on the core whose point received the message. It costs about a twentieth of what serving
//! the rendezvous costs (proposal 327: 0.26 ms against 5.3 ms in C tor), so it is the rendezvous
//! that is balanced, not this.

use std::sync::Arc;
use std::time::Instant;

use tor_bytes::Reader;
use tor_cell::relaycell::hs::intro_payload::{IntroduceHandshakePayload, OnionKey};
use tor_netdir::Timeliness;
use tor_proto::client::circuit::handshake::hs_ntor;
use tor_protover::Protocols;

use super::intro::Introduction;
use super::rendezvous::RendezvousRequest;
use super::service::Service;
use crate::runtime::Mailbox;
use crate::tor::stack::CircuitPool;

/// Why an INTRODUCE2 led to nothing. All of these are counted; none is logged above debug, since
/// whoever reaches an introduction point can cause them at will.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntroductionError {
    /// The message was accepted before.
    #[error("replayed INTRODUCE2")]
    Replay,
    /// The cookie's rendezvous was begun before.
    #[error("rendezvous cookie seen before")]
    CookieSeen,
    /// It does not decrypt under any live subcredential, or its contents make no sense.
    #[error("INTRODUCE2 does not decrypt")]
    Invalid,
    /// It asks for a key type or a capability that we did not advertise.
    #[error("INTRODUCE2 asks for what we did not advertise")]
    Unsupported,
    /// The rendezvous point's link specifiers are not usable.
    #[error("unusable rendezvous point")]
    BadTarget,
    /// No directory.
    #[error("no usable directory")]
    NoDirectory,
    /// Memory is short.
    #[error("memory is short: no new client is served")]
    NoMemory,
    /// No core can take another client.
    #[error("no core can take another client")]
    Overloaded,
}

/// Decrypt what comes through one core's points, for as long as the future is polled.
pub(super) async fn run(
    service: &Arc<Service>,
    instance: usize,
    pool: &CircuitPool,
    introductions: &Mailbox<Introduction>,
) {
    loop {
        let introduction = introductions.recv().await;
        let counters = &service.seats()[instance].counters;
        if let Err(error) = accept(service, instance, pool, &introduction) {
            tracing::debug!(instance, "introduction: {error}");
            match error {
                IntroductionError::Replay | IntroductionError::CookieSeen => {
                    counters.note_replay_refused();
                }
                // Counted where memory is.
                IntroductionError::NoMemory => {}
                IntroductionError::Overloaded => counters.note_queue_full(),
                _ => counters.note_introduction_invalid(),
            }
        }
        // One message, one turn: sockets and circuits of this core go on under a flood.
        tokio::task::yield_now().await;
    }
}

/// Take one INTRODUCE2 as far as a core's queue.
fn accept(
    service: &Arc<Service>,
    instance: usize,
    pool: &CircuitPool,
    introduction: &Introduction,
) -> Result<(), IntroductionError> {
    use IntroductionError as E;
    let Introduction { keys, message } = introduction;
    if service.overload.refuses() {
        return Err(E::NoMemory);
    }
    let body = message.encrypted_body();
    if keys.seen.contains(body) {
        return Err(E::Replay);
    }
    let (key_generator, rendezvous1, plaintext) = hs_ntor::server_receive_intro(
        &mut rand::rng(),
        &keys.ntor,
        &keys.session_id(),
        &service.subcredentials(),
        message.encoded_header(),
        body,
    )
    .map_err(|_| E::Invalid)?;
    if !keys.seen.insert(body) {
        return Err(E::Replay);
    }
    // Rubbish does not wear a point out: it costs its sender nothing.
    keys.count_introduction();
    // Not required to be exhausted: the payload is padded.
    let payload: IntroduceHandshakePayload =
        Reader::from_slice(&plaintext).extract().map_err(|_| E::Invalid)?;
    let OnionKey::NtorOnionKey(onion_key) = payload.onion_key() else {
        return Err(E::Unsupported);
    };
    let protocols = negotiated(&payload)?;
    let netdir = pool.directory().netdir(Timeliness::Timely).map_err(|_| E::NoDirectory)?;
    let target = netdir
        .circ_target_from_verbatim_linkspecs(payload.link_specifiers(), onion_key)
        .map_err(|_| E::BadTarget)?;
    let now = Instant::now();
    if !service.cookies.insert((*payload.cookie()).into(), now) {
        return Err(E::CookieSeen);
    }
    let request = RendezvousRequest {
        target,
        key_generator,
        cookie: *payload.cookie(),
        rendezvous1,
        protocols,
        received: now,
    };
    service.dispatch(instance, request).map(|_| ()).map_err(|_| {
        service.cookies.forget(&(*payload.cookie()).into());
        E::Overloaded
    })
}

/// Capabilities for the virtual hop: congestion control when the client asked for it, nothing
/// else. Never `RELAY_CRYPT_CGO`: tor-proto 0.47 builds `HsV3` layers for the virtual hop whatever
/// is negotiated, so the two ends would not understand each other. We do not advertise it.
fn negotiated(payload: &IntroduceHandshakePayload) -> Result<Protocols, IntroductionError> {
    if payload.subprotocol_request_extension().is_some() {
        return Err(IntroductionError::Unsupported);
    }
    match payload.cc_request_extension() {
        Some(_) => Ok([tor_protover::named::FLOWCTRL_CC].into_iter().collect()),
        None => Ok(Protocols::new()),
    }
}
