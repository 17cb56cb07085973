//! From INTRODUCE2 to a rendezvous: refuse replays, decrypt, hand to a core.
//!
//! Runs on the core whose point received the message. It costs about a twentieth of what serving
//! the rendezvous costs (proposal 327: 0.26 ms against 5.3 ms in C tor), so it is the rendezvous
//! that is balanced, not this.
//!
//! Whatever a client can write is decrypted and parsed here, one message at a time, and a panic on
//! one costs that one. The header alone, which is not encrypted and which the point's relay has
//! parsed before, is parsed by tor-proto in the circuit's reactor: 0.47 gives a handler no
//! undecoded message. A panic there would cost the point, which comes back.

use std::panic::AssertUnwindSafe;
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
use crate::base::counters::InstanceCounters;
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
    /// A fault of ours.
    #[error("the introduction's code panicked")]
    Panicked,
}

/// Decrypt what comes through one core's points, for as long as the future is polled.
pub(super) async fn run(
    service: &Arc<Service>,
    instance: usize,
    pool: &CircuitPool,
    introductions: &Mailbox<Introduction>,
) {
    let counters = &service.seats()[instance].counters;
    take_all(introductions, counters, |one| accept(service, instance, pool, one)).await;
}

/// Have each introduction accepted, and count what became of those that were not.
async fn take_all(
    introductions: &Mailbox<Introduction>,
    counters: &InstanceCounters,
    accept: impl Fn(&Introduction) -> Result<(), IntroductionError>,
) {
    loop {
        let introduction = introductions.recv().await;
        // Nothing of ours is left half changed: what is shared is behind locks that outlive it.
        let accepted = std::panic::catch_unwind(AssertUnwindSafe(|| accept(&introduction)));
        if let Err(error) = accepted.unwrap_or(Err(IntroductionError::Panicked)) {
            count(&error, counters);
        }
        // One message, one turn: sockets and circuits of this core go on under a flood.
        tokio::task::yield_now().await;
    }
}

/// Count why an introduction led to nothing.
fn count(error: &IntroductionError, counters: &InstanceCounters) {
    use IntroductionError as E;
    tracing::debug!("introduction: {error}");
    match error {
        E::Replay | E::CookieSeen => counters.note_replay_refused(),
        // Counted where memory is.
        E::NoMemory => {}
        E::Overloaded => counters.note_queue_full(),
        E::NoDirectory => counters.note_introduction_no_directory(),
        E::Panicked => {
            counters.note_introduction_panicked();
            tracing::error!("a fault in this program: an introduction panicked; others go on");
        }
        E::Invalid | E::Unsupported | E::BadTarget => counters.note_introduction_invalid(),
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use futures::FutureExt as _;
    use tor_bytes::Reader;
    use tor_cell::relaycell::msg::{Body as _, Introduce2};

    use super::{Introduction, IntroductionError, count, take_all};
    use crate::base::counters::InstanceCounters;
    use crate::onion::intro::PointKeys;
    use crate::runtime::Mailbox;

    /// A message as a relay sends it (rend-spec-v3, section 3.2.1): no legacy key, a key of type 2,
    /// no extension, and what is encrypted.
    fn message() -> Introduce2 {
        let body = [&[0; 20][..], &[2, 0, 32], &[1; 32], &[0], &[7; 200]].concat();
        Introduce2::decode_from_reader(&mut Reader::from_slice(&body)).expect("it is well-formed")
    }

    #[test]
    fn a_panic_costs_one_introduction() {
        let (introductions, keys) = (Mailbox::new(4), PointKeys::generate());
        let (counters, accepted) = (InstanceCounters::default(), Cell::new(0));
        for _ in 0..3 {
            let one = Introduction { keys: Arc::clone(&keys), message: message() };
            assert!(introductions.push(one).is_ok());
        }
        let accept = |_: &Introduction| {
            accepted.set(accepted.get() + 1);
            assert_ne!(accepted.get(), 2, "a fault");
            Ok(())
        };
        let driver = crate::runtime::Driver::new().expect("a driver can be made");
        driver.block_on(async {
            let all = take_all(&introductions, &counters, accept);
            let mut all = std::pin::pin!(all.fuse());
            while !introductions.is_empty() || accepted.get() < 3 {
                assert!((&mut all).now_or_never().is_none());
            }
        });
        assert_eq!(accepted.get(), 3);
        assert_eq!(counters.introductions_panicked_total(), 1);
        assert_eq!(counters.introductions_invalid_total(), 0);
    }

    #[test]
    fn what_is_no_fault_of_the_client_is_not_counted_as_invalid() {
        use IntroductionError as E;
        let counters = InstanceCounters::default();
        for error in [E::Invalid, E::Unsupported, E::BadTarget] {
            count(&error, &counters);
        }
        for error in [E::NoDirectory, E::NoMemory, E::Overloaded, E::Panicked] {
            count(&error, &counters);
        }
        assert_eq!(counters.introductions_invalid_total(), 3);
        assert_eq!(counters.introductions_no_directory_total(), 1);
        assert_eq!(counters.introductions_panicked_total(), 1);
    }
}
