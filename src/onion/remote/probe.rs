//! Whether an introduction point is still there: the question that every client asks, INTRODUCE1,
//! over a circuit of its own, with a body that nobody can decrypt.
//!
//! The relay looks up the point by its key and answers at once (rend-spec-v3, section 3.3): it has
//! no such point, or it has passed the message on. The instance drops what it cannot decrypt, at a
//! twentieth of what serving a client costs. No descriptor tells as much: HSDirs keep the one of an
//! instance that has died for three hours.

use std::time::Duration;

use rand::Rng as _;
use tokio::sync::oneshot;
use tor_cell::relaycell::RelayMsg as _;
use tor_cell::relaycell::hs::{AuthKeyType, IntroduceAckStatus};
use tor_cell::relaycell::msg::{AnyRelayMsg, Introduce1};
use tor_llcrypto::pk::ed25519;
use tor_netdir::Timeliness;
use tor_netdoc::doc::hsdesc::IntroPointDesc;
use tor_proto::{MetaCellDisposition, MsgHandler, TargetHop};

use crate::limits;
use crate::runtime;
use crate::tor::stack::CircuitPool;
use crate::tor::turns::Purpose;

/// What became of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// The relay has the point.
    There,
    /// The relay does not know it.
    Gone,
    /// Nobody answered: that says nothing of the point.
    Unknown,
}

/// Waits for the answer, inside the circuit's reactor.
struct AckHandler(Option<oneshot::Sender<IntroduceAckStatus>>);

impl MsgHandler for AckHandler {
    fn handle_msg(&mut self, message: AnyRelayMsg) -> tor_proto::Result<MetaCellDisposition> {
        match (message, self.0.take()) {
            (AnyRelayMsg::IntroduceAck(ack), Some(answer)) => {
                // Whoever asked may have given up.
                let _ = answer.send(ack.status());
                Ok(MetaCellDisposition::ConversationFinished)
            }
            (other, _) => {
                let command = other.cmd();
                Err(tor_proto::Error::CircProto(format!("unexpected {command} at a probe")))
            }
        }
    }
}

/// Ask whether `point` is there.
pub(super) async fn probe(pool: &CircuitPool, point: &IntroPointDesc) -> Presence {
    if let Err(error) = pool.turn(Purpose::Look).await {
        tracing::debug!("probe of an introduction point: {error}");
        return Presence::Unknown;
    }
    let deadline = Duration::from_millis(limits::PROBE_MS_MAX);
    match runtime::timeout(deadline, ask(pool, point)).await {
        Ok(Ok(IntroduceAckStatus::NOT_RECOGNIZED)) => Presence::Gone,
        Ok(Ok(IntroduceAckStatus::SUCCESS)) => Presence::There,
        Ok(Ok(status)) => {
            tracing::debug!("probe of an introduction point: {status}");
            Presence::Unknown
        }
        Ok(Err(error)) => {
            tracing::debug!("probe of an introduction point: {error}");
            Presence::Unknown
        }
        Err(_) => Presence::Unknown,
    }
}

/// See [`probe`].
async fn ask(pool: &CircuitPool, point: &IntroPointDesc) -> Result<IntroduceAckStatus, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let netdir = pool.directory().netdir(Timeliness::Timely).map_err(|error| text(&error))?;
    let target = netdir
        .circ_target_from_verbatim_linkspecs(point.link_specifiers(), point.ipt_ntor_key())
        .map_err(|error| text(&error))?;
    let tunnel = pool.circuits().get_or_launch_client_intro(&netdir, target);
    let tunnel = pool.build(tunnel).await.map_err(|error| text(&error))?;
    let _open = pool.count_open(&tunnel.unique_id());
    drop(netdir);
    let key: &ed25519::PublicKey = point.ipt_sid_key().as_ref();
    let mut body = vec![0; limits::PROBE_BODY_BYTES];
    rand::rng().fill_bytes(&mut body);
    let message = Introduce1::new(AuthKeyType::ED25519_SHA3_256, key.as_bytes().to_vec(), body);
    let (sender, answer) = oneshot::channel();
    let handler = AckHandler(Some(sender));
    let _conversation = tunnel
        .start_conversation(Some(message.into()), handler, TargetHop::LastHop)
        .await
        .map_err(|error| text(&error))?;
    answer.await.map_err(|_| "the circuit closed before INTRODUCE_ACK".to_owned())
}
