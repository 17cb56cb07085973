//! Somebody who asks a service for rendezvous as no honest client does: circuits that never carry a
//! stream, and rendezvous points that do not answer.
//!
//! It has a Tor stack of its own, that of the library, on a thread of its own, and takes the
//! service's descriptor from a C tor client.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rand::seq::IndexedRandom as _;
use rustbalance::onion::config::OnionAddress;
use rustbalance::onion::foreign::ForeignKeys;
use rustbalance::runtime::{self, CoreGroup, CoreId, Driver};
use rustbalance::tor::stack::CircuitPool;
use rustbalance::tor::{ArtiSettings, GuardPlan, TorStack};
use rustbalance_lab::{Client, Lab};
use tor_bytes::Writeable as _;
use tor_cell::relaycell::hs::AuthKeyType;
use tor_cell::relaycell::hs::intro_payload::{IntroduceHandshakePayload, OnionKey};
use tor_cell::relaycell::msg::{AnyRelayMsg, Body as _, EstablishRendezvous, Introduce1};
use tor_circmgr::ClientOnionServiceDataTunnel;
use tor_hscrypto::pk::{HsId, HsIdKey};
use tor_hscrypto::{RendCookie, Subcredential};
use tor_linkspec::{CircTarget as _, EncodedLinkSpec, OwnedChanTarget, OwnedCircTarget};
use tor_llcrypto::pk::curve25519;
use tor_netdir::{NetDir, Timeliness};
use tor_netdoc::doc::hsdesc::IntroPointDesc;
use tor_proto::client::circuit::handshake::hs_ntor::{HsNtorClientState, HsNtorServiceInfo};
use tor_proto::{MetaCellDisposition, MsgHandler};

/// What is named in an introduction.
#[derive(Clone, Copy, Debug)]
pub enum Meeting {
    /// A rendezvous point with a circuit, over which no stream is begun.
    Silent,
    /// A relay that is none: whatever listens there says nothing.
    Nowhere(SocketAddr),
}

/// Introductions that go on until this is dropped, and with it the circuits.
pub struct Introducer {
    /// Set at the end.
    over: Arc<AtomicBool>,
    /// Introductions that a point has acknowledged.
    sent: Arc<AtomicUsize>,
    /// Why the last one failed that did.
    failed: Arc<Mutex<String>>,
    /// What does it.
    thread: Option<JoinHandle<()>>,
}

/// So many introductions are on their way at a time.
const AT_ONCE: usize = 6;
/// Longest time for one of them.
const PATIENCE: Duration = Duration::from_secs(30);

impl Introducer {
    /// Introduce oneself again and again, each of [`AT_ONCE`] no more often than once in `pace`.
    pub fn start(
        lab: &Lab,
        client: &Client,
        onion: &str,
        meeting: Meeting,
        pace: Duration,
    ) -> Introducer {
        let mut control = client.control().expect("tor answers");
        let descriptor = control.fetch_descriptor(onion).expect("it is published") + "\n";
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let failed = Arc::new(Mutex::new(String::new()));
        let tables = format!("{}\n[arti.vanguards]\nmode = \"disabled\"\n", lab.arti_toml());
        let shared = (Arc::clone(&over), Arc::clone(&sent), Arc::clone(&failed));
        let onion = onion.to_owned();
        let thread = std::thread::spawn(move || {
            let files = tempfile::tempdir().expect("a temporary directory can be made");
            let driver = Driver::new().expect("a driver can be made");
            driver.block_on(run(
                &tables,
                files.path(),
                (&onion, &descriptor),
                meeting,
                pace,
                shared,
            ));
        });
        Introducer { over, sent, failed, thread: Some(thread) }
    }

    /// Introductions so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Why the last one failed that did.
    pub fn failure(&self) -> String {
        self.failed.lock().expect("no panic").clone()
    }
}

impl Drop for Introducer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if ended.is_some_and(|ended| ended.is_err()) && !std::thread::panicking() {
            panic!("the introducer panicked");
        }
    }
}

/// When to end, how many were sent, and what failed last.
type Shared = (Arc<AtomicBool>, Arc<AtomicUsize>, Arc<Mutex<String>>);

/// What one introduction needs.
struct Tools {
    /// Circuits.
    pool: CircuitPool,
    /// The service's points.
    points: Vec<IntroPointDesc>,
    /// What makes the handshake this service's.
    subcredential: Subcredential,
    /// What is named.
    meeting: Meeting,
}

/// The introducer's thread.
async fn run(
    tables: &str,
    files: &std::path::Path,
    (onion, descriptor): (&str, &str),
    meeting: Meeting,
    pace: Duration,
    (over, sent, failed): Shared,
) {
    // The process's TLS provider, as every program with arti in it needs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let say = |what: &str| what.clone_into(&mut failed.lock().expect("no panic"));
    CoreGroup::new().enter(CoreId::data(0));
    say("it has no directory yet");
    let tables: toml::Table = tables.parse().expect("the lab writes TOML");
    let arti = tables["arti"].as_table().expect("it is a table");
    let settings = ArtiSettings::check(arti, files).expect("the tables are arti's");
    let stack = TorStack::new(&settings, GuardPlan::new(1, 0), None).expect("a stack can be made");
    stack.bootstrap().await.expect("the lab has a directory");
    let pool = stack.circuit_pool().expect("the core runs");
    say("it has a directory");
    let netdir = pool.directory().netdir(Timeliness::Timely).expect("it was bootstrapped");
    let (points, subcredential) = read(onion, descriptor, &netdir);
    drop(netdir);
    say("it has read the descriptor");
    let tools = Tools { pool, points, subcredential, meeting };
    let worker = || async {
        let mut kept = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let turn = runtime::sleep(pace);
            match runtime::timeout(PATIENCE, introduce(&tools)).await {
                Ok(Ok(circuit)) => {
                    kept.extend(circuit);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(error)) => *failed.lock().expect("no panic") = error,
                Err(_) => *failed.lock().expect("no panic") = "it took too long".to_owned(),
            }
            turn.await;
        }
    };
    futures::future::join_all((0..AT_ONCE).map(|_| worker())).await;
}

/// The points of a service, and its subcredential, from the descriptor of one of its periods.
fn read(onion: &str, descriptor: &str, netdir: &NetDir) -> (Vec<IntroPointDesc>, Subcredential) {
    let address: OnionAddress = onion.parse().expect("it is an address");
    let id: HsId = onion.parse().expect("it is an address");
    let key = HsIdKey::try_from(id).expect("it is a key");
    let periods = netdir.hs_all_time_periods();
    let of_period = periods.iter().find_map(|params| {
        let period = params.time_period();
        let keys = ForeignKeys::derive(address, period).ok()?;
        let found = keys.read(descriptor, netdir, SystemTime::now());
        let points = found.inspect_err(|error| eprintln!("{period:?}: {error}")).ok()?.points;
        let (_, subcredential) = key.compute_blinded_key(period).ok()?;
        Some((points, subcredential))
    });
    of_period.expect("it is a descriptor of one of the live periods")
}

/// Tells of the first message, and takes all of them.
struct First(Option<tokio::sync::oneshot::Sender<()>>);

impl MsgHandler for First {
    fn handle_msg(&mut self, _: AnyRelayMsg) -> tor_proto::Result<MetaCellDisposition> {
        if let Some(first) = self.0.take() {
            // Nobody may wait any more.
            let _ = first.send(());
        }
        Ok(MetaCellDisposition::Consumed)
    }
}

/// One introduction; the circuit to its rendezvous point, if it has one.
async fn introduce(tools: &Tools) -> Result<Option<ClientOnionServiceDataTunnel>, String> {
    let text = |error: &dyn std::fmt::Debug| format!("{error:?}");
    let netdir = tools.pool.directory().netdir(Timeliness::Timely).map_err(|e| text(&e))?;
    let cookie: RendCookie = rand::random();
    let (circuit, specs, key) = match tools.meeting {
        Meeting::Silent => {
            let launched = tools.pool.circuits().get_or_launch_client_rend(&netdir).await;
            let (tunnel, relay) = launched.map_err(|e| text(&e))?;
            let specs = relay.linkspecs().map_err(|e| text(&e))?;
            let key = *relay.ntor_onion_key();
            let (sender, established) = tokio::sync::oneshot::channel();
            let last = tunnel.last_hop().map_err(|e| text(&e))?;
            let message = EstablishRendezvous::new(cookie).into();
            tunnel
                .start_conversation(Some(message), First(Some(sender)), last)
                .await
                .map_err(|e| text(&e))?;
            established.await.map_err(|e| text(&e))?;
            (Some(tunnel), specs, key)
        }
        Meeting::Nowhere(address) => {
            let (specs, key) = nowhere(address);
            (None, specs, key)
        }
    };
    let point = tools.points.choose(&mut rand::rng()).expect("there is one");
    let target = netdir
        .circ_target_from_verbatim_linkspecs(point.link_specifiers(), point.ipt_ntor_key())
        .map_err(|e| text(&e))?;
    let launched = tools.pool.circuits().get_or_launch_client_intro(&netdir, target).await;
    let tunnel = launched.map_err(|e| text(&e))?;
    let message = introduce1(point, tools.subcredential, (cookie, specs, key));
    let (sender, acknowledged) = tokio::sync::oneshot::channel();
    let last = tunnel.last_hop().map_err(|e| text(&e))?;
    tunnel
        .start_conversation(Some(message.into()), First(Some(sender)), last)
        .await
        .map_err(|e| text(&e))?;
    acknowledged.await.map_err(|e| text(&e))?;
    Ok(circuit)
}

/// What describes a relay at this address, which has made-up keys.
fn nowhere(address: SocketAddr) -> (Vec<EncodedLinkSpec>, curve25519::PublicKey) {
    let mut relay = OwnedCircTarget::builder();
    let key = curve25519::PublicKey::from(rand::random::<[u8; 32]>());
    relay.ntor_onion_key(key).protocols(Default::default());
    let identity = rand::random::<[u8; 32]>();
    let mut place = OwnedChanTarget::builder();
    place
        .addrs(vec![address])
        .ed_identity(identity.into())
        .rsa_identity(rand::random::<[u8; 20]>().into());
    *relay.chan_target() = place;
    let relay = relay.build().expect("all of it is there");
    (relay.linkspecs().expect("they can be encoded"), key)
}

/// INTRODUCE1 for this point (rend-spec-v3, section 3.2).
fn introduce1(
    point: &IntroPointDesc,
    subcredential: Subcredential,
    (cookie, specs, key): (RendCookie, Vec<EncodedLinkSpec>, curve25519::PublicKey),
) -> Introduce1 {
    let with = |body: Vec<u8>| {
        let session = point.ipt_sid_key().as_bytes().to_vec();
        Introduce1::new(AuthKeyType::ED25519_SHA3_256, session, body)
    };
    let mut header = Vec::new();
    with(Vec::new()).encode_onto(&mut header).expect("it can be encoded");
    let payload = IntroduceHandshakePayload::new(cookie, OnionKey::NtorOnionKey(key), specs, None);
    let mut plaintext = Vec::new();
    payload.write_onto(&mut plaintext).expect("it can be encoded");
    let service = HsNtorServiceInfo::new(
        point.svc_ntor_key().clone(),
        point.ipt_sid_key().clone(),
        subcredential,
    );
    let state = HsNtorClientState::new(&mut rand::rng(), service);
    with(state.client_send_intro(&header, &plaintext).expect("it can be encrypted"))
}
