//! One introduction point: its keys, and how it is established at a relay.
//!
//! The circuit's handler runs inside the circuit's reactor: it puts INTRODUCE2 into a bounded
//! queue and does nothing else. A full queue is counted. See rend-spec-v3, sections 3.1 and 3.2.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::{Notify, oneshot};
use tor_cell::relaycell::hs::est_intro::{DosParams, EstablishIntroDetails};
use tor_cell::relaycell::msg::{AnyRelayMsg, Introduce2, Unrecognized};
use tor_cell::relaycell::{RelayCmd, RelayMsg as _};
use tor_circmgr::ServiceOnionServiceIntroTunnel;
use tor_hscrypto::pk::{HsIntroPtSessionIdKey, HsSvcNtorKeypair};
use tor_linkspec::{CircTarget, OwnedCircTarget};
use tor_llcrypto::pk::ed25519;
use tor_netdoc::doc::hsdesc::IntroPointDesc;
use tor_proto::{MetaCellDisposition, MsgHandler, TargetHop};

use super::config::IntroDos;
use super::replay::SeenMessages;
use crate::base::counters::InstanceCounters;
use crate::limits;
use crate::runtime::{self, Full, Mailbox};
use crate::tor::load::{LaunchError, OpenCircuit};
use crate::tor::stack::CircuitPool;
use crate::tor::turns::Purpose;

/// Why a point could not be established.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntroError {
    /// No directory that could be built by.
    #[error("no usable directory: {0}")]
    Directory(#[source] tor_netdir::Error),
    /// The circuit could not be built.
    #[error("cannot build a circuit to the introduction point: {0}")]
    Circuit(#[source] Box<LaunchError>),
    /// ESTABLISH_INTRO could not be made or sent.
    #[error("cannot send ESTABLISH_INTRO: {0}")]
    Send(#[source] Box<tor_circmgr::Error>),
    /// The circuit has no key to bind ESTABLISH_INTRO to.
    #[error("the circuit has no binding key")]
    NoBindingKey,
    /// ESTABLISH_INTRO could not be encoded.
    #[error("cannot encode ESTABLISH_INTRO: {0}")]
    Encode(String),
    /// The relay cannot be described to clients.
    #[error("cannot describe the relay: {0}")]
    Describe(String),
    /// The relay did not answer in time.
    #[error("no INTRO_ESTABLISHED in time")]
    NoAnswer,
    /// The circuit closed before the answer.
    #[error("the circuit closed before INTRO_ESTABLISHED")]
    Closed,
}

impl IntroError {
    /// Whether nothing was asked of the relay.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            IntroError::Circuit(error) => matches!(**error, LaunchError::Braked),
            other => matches!(other, IntroError::Directory(_)),
        }
    }
}

/// The keys of one introduction point, and what belongs to them. Never leaves the core that made
/// it; fresh for each point.
pub(super) struct PointKeys {
    /// Names the point to its relay, and signs ESTABLISH_INTRO.
    session_id: ed25519::Keypair,
    /// Decrypts INTRODUCE2.
    pub(super) ntor: HsSvcNtorKeypair,
    /// What names them.
    pub(super) seen: SeenMessages,
    /// INTRODUCE2 that were accepted.
    introductions: AtomicU32,
    /// How many are before the point is replaced.
    introductions_max: u32,
    /// Rings once when they have.
    pub(super) worn_out: Notify,
}

impl std::fmt::Debug for PointKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PointKeys([redacted])")
    }
}

impl PointKeys {
    /// Fresh keys.
    pub(super) fn generate() -> Arc<PointKeys> {
        let mut rng = rand::rng();
        let bounds = limits::INTRODUCTIONS_PER_POINT_MIN..=limits::INTRODUCTIONS_PER_POINT_MAX;
        Arc::new(PointKeys {
            session_id: ed25519::Keypair::generate(&mut rng),
            ntor: HsSvcNtorKeypair::generate(&mut rng),
            seen: SeenMessages::default(),
            introductions: AtomicU32::new(0),
            introductions_max: rng.random_range(bounds),
            worn_out: Notify::new(),
        })
    }

    /// The public half of the session id.
    pub(super) fn session_id(&self) -> HsIntroPtSessionIdKey {
        HsIntroPtSessionIdKey::from(self.session_id.verifying_key())
    }

    /// Count an INTRODUCE2; ring when it was the last one for these keys.
    pub(super) fn count_introduction(&self) {
        let before = self.introductions.fetch_add(1, Ordering::Relaxed);
        if before.saturating_add(1) == self.introductions_max {
            self.worn_out.notify_one();
        }
    }
}

/// An INTRODUCE2 on its way to decryption, on the same core.
pub(super) struct Introduction {
    /// The point it came through.
    pub(super) keys: Arc<PointKeys>,
    /// The message.
    pub(super) message: Introduce2,
}

/// A point that is up. Dropping it closes its circuit.
pub(super) struct EstablishedPoint {
    /// The circuit.
    pub(super) tunnel: ServiceOnionServiceIntroTunnel,
    /// What clients need to know of it.
    pub(super) description: IntroPointDesc,
    /// Counts its circuit.
    _open: OpenCircuit,
}

/// What the handler inside the circuit's reactor owns.
struct PointHandler {
    /// Told when INTRO_ESTABLISHED comes; `None` afterwards.
    established: Option<oneshot::Sender<()>>,
    /// The point's keys.
    keys: Arc<PointKeys>,
    /// Where INTRODUCE2 go.
    introductions: Mailbox<Introduction>,
    /// Where an overflow is counted.
    counters: Arc<InstanceCounters>,
}

impl MsgHandler for PointHandler {
    fn handle_msg(&mut self, message: AnyRelayMsg) -> tor_proto::Result<MetaCellDisposition> {
        let unexpected = |command: RelayCmd| {
            Err(tor_proto::Error::CircProto(format!("unexpected {command} at an intro circuit")))
        };
        match message {
            AnyRelayMsg::IntroEstablished(_) => match self.established.take() {
                Some(established) => {
                    // The waiting side may have given up: then the circuit is closing anyway.
                    let _ = established.send(());
                    Ok(MetaCellDisposition::Consumed)
                }
                None => unexpected(RelayCmd::INTRO_ESTABLISHED),
            },
            AnyRelayMsg::Introduce2(message) if self.established.is_none() => {
                self.counters.note_introduction();
                let introduction = Introduction { keys: Arc::clone(&self.keys), message };
                if let Err(Full(_)) = self.introductions.push(introduction) {
                    self.counters.note_queue_full();
                }
                Ok(MetaCellDisposition::Consumed)
            }
            other => unexpected(other.cmd()),
        }
    }
}

/// Establish a point with `keys` at `relay`.
///
/// # Errors
/// [`IntroError`]; the circuit is closed then.
pub(super) async fn establish(
    pool: &CircuitPool,
    relay: &OwnedCircTarget,
    keys: &Arc<PointKeys>,
    dos: Option<IntroDos>,
    introductions: &Mailbox<Introduction>,
    counters: &Arc<InstanceCounters>,
) -> Result<EstablishedPoint, IntroError> {
    let netdir =
        pool.directory().netdir(tor_netdir::Timeliness::Timely).map_err(IntroError::Directory)?;
    let description = describe(relay, keys)?;
    let tunnel = pool.circuits().get_or_launch_svc_intro(&netdir, relay.clone());
    let tunnel = pool
        .launch(Purpose::Point, tunnel)
        .await
        .map_err(|error| IntroError::Circuit(Box::new(error)))?;
    drop(netdir);
    let body = establish_intro(&tunnel, relay, keys, dos).await?;
    let message = AnyRelayMsg::Unrecognized(Unrecognized::new(RelayCmd::ESTABLISH_INTRO, body));
    let (established, answer) = oneshot::channel();
    let handler = PointHandler {
        established: Some(established),
        keys: Arc::clone(keys),
        introductions: introductions.clone(),
        counters: Arc::clone(counters),
    };
    let _conversation = tunnel
        .start_conversation(Some(message), handler, TargetHop::LastHop)
        .await
        .map_err(|error| IntroError::Send(Box::new(error)))?;
    let wait = Duration::from_millis(limits::POINT_ESTABLISH_MS_MAX);
    match runtime::timeout(wait, answer).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(IntroError::Closed),
        Err(_) => return Err(IntroError::NoAnswer),
    }
    let _open = pool.count_open(&tunnel.unique_id());
    Ok(EstablishedPoint { tunnel, description, _open })
}

/// The body of ESTABLISH_INTRO, bound to this circuit.
async fn establish_intro(
    tunnel: &ServiceOnionServiceIntroTunnel,
    relay: &OwnedCircTarget,
    keys: &PointKeys,
    dos: Option<IntroDos>,
) -> Result<Vec<u8>, IntroError> {
    let binding = tunnel
        .binding_key(TargetHop::LastHop)
        .await
        .map_err(|error| IntroError::Send(Box::new(error)))?
        .ok_or(IntroError::NoBindingKey)?;
    let mut details = EstablishIntroDetails::new(keys.session_id.verifying_key().into());
    let supported = relay.protovers().supports_named_subver(tor_protover::named::HSINTRO_RATELIM);
    if let (Some(dos), true) = (dos, supported) {
        let in_range = |value: u32| i32::try_from(value).ok();
        if let Ok(params) = DosParams::new(in_range(dos.rate_per_second), in_range(dos.burst)) {
            details.set_extension_dos(params);
        }
    }
    details
        .sign_and_encode(&keys.session_id, binding.hs_mac())
        .map_err(|error| IntroError::Encode(error.to_string()))
}

/// What clients need to know of the point.
fn describe(relay: &OwnedCircTarget, keys: &PointKeys) -> Result<IntroPointDesc, IntroError> {
    let link_specifiers =
        relay.linkspecs().map_err(|error| IntroError::Describe(error.to_string()))?;
    IntroPointDesc::builder()
        .link_specifiers(link_specifiers)
        .ipt_kp_ntor(*relay.ntor_onion_key())
        .kp_hs_ipt_sid(keys.session_id())
        .kp_hss_ntor(keys.ntor.public().clone())
        .build()
        .map_err(|error| IntroError::Describe(error.to_string()))
}
