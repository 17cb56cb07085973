//! The stream plane: brings the streams of clients to backends.
//!
//! ```text
//!   base::stream::IncomingStream --port?--> port::choose --connect--> relay --> end
//!                     |                          |  |  refused: another backend
//!                     |                          |  '-- all full: wait in the queue
//!                     '-- unknown port:          '-- none left: END
//!                         the circuit closes
//!
//!   health::watch (control core) --up or down--> backend
//!   front (listeners) --handoff--> the same, with sockets of the kernel's: forward, not relay
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
//! | no such port, and `allow_unknown_ports` | DONE, as from C tor services | connection refused |
//! | every backend refused | CONNECTREFUSED | connection refused |
//! | the last backend tried was silent | TIMEOUT | TTL expired |
//! | no descriptor, port or memory left here | RESOURCELIMIT | general failure |
//! | every backend has all connections it may, for too long | RESOURCELIMIT | general failure |
//!
//! A circuit that asks for a port that is not served closes, unless `allow_unknown_ports` is set: a
//! scan of ports costs a circuit for each. It is what C tor (`HiddenServiceAllowUnknownPorts 0`)
//! and arti do, and what clients see is the same: the circuit's DESTROY, with reason NONE.
//!
//! EXITPOLICY would be "not allowed by ruleset", and INTERNAL makes clients give up the circuit.

mod backend;
pub(crate) mod buffers;
pub mod config;
mod forward;
pub mod front;
mod gate;
pub mod handler;
pub mod handoff;
pub mod health;
mod hello;
mod idle;
mod name;
pub mod passed;
mod pipes;
mod port;
mod proxy_protocol;
mod queue;
pub mod reach;
mod select;
pub mod status;
mod stream;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use self::backend::{Backend, ConnectError, Place};
use self::config::{BackendAddress, CircuitLimits, PortConfig, PortTarget, Verdict};
use self::forward::Patience;
use self::front::{FrontClient, FrontStream};
use self::gate::{Gates, Pass, Refused};
use self::port::{Choice, Port};
use self::queue::Waiting;
use self::reach::{Reach, Way};
use self::select::Set;
use self::status::{BackendOrder, BackendStatus, CircuitsStatus};
pub use self::stream::StreamOutcome;
use crate::base::counters::{InstanceCounters, OpenGuard};
use crate::base::stream::{Apart, CircuitId, ClientStream, EndReason, IncomingStream};
use crate::limits;
use crate::plane::buffers::Buffer;
use crate::runtime::{self, net, time};

/// The ports of one service.
#[derive(Debug)]
pub struct Plane {
    /// In the order of the configuration. Read once for a stream, which keeps what it has read.
    ports: RwLock<Arc<[Port]>>,
    /// What backends may be that are no sockets.
    reach: Reach,
    /// Streams of this plane share circuits to other onion services with each other alone.
    apart: Apart,
    /// What circuits may do, and what is said of them.
    gates: Arc<Gates>,
    /// Tells who checks backends that they are others now, or that the plane is gone.
    changed: watch::Sender<()>,
    /// Whether somebody checks them.
    watched: AtomicBool,
}

impl Plane {
    /// A plane for these ports, all of whose backends are sockets.
    pub fn new(ports: Vec<PortConfig>) -> Arc<Plane> {
        Plane::with_reach(ports, Reach::default())
    }

    /// A plane for these ports, whose backends may be something else as well.
    pub fn with_reach(ports: Vec<PortConfig>, reach: Reach) -> Arc<Plane> {
        let (gates, changed) = (Gates::new(CircuitLimits::default()), watch::Sender::default());
        let watched = AtomicBool::new(false);
        let (ports_now, apart) = (RwLock::default(), Apart::from_all_others());
        let plane = Plane { ports: ports_now, reach, apart, gates, changed, watched };
        plane.set_ports(ports);
        Arc::new(plane)
    }

    /// Serve these ports from now on. Streams that are open go on with the backends that they have;
    /// a backend that stays keeps its counters.
    pub fn set_ports(&self, ports: Vec<PortConfig>) {
        let mut place = self.ports.write().unwrap_or_else(PoisonError::into_inner);
        let port = |config: PortConfig| {
            let same: Vec<&Port> =
                place.iter().filter(|old| old.serves(config.virtual_first)).collect();
            let queue = same.first().map_or_else(Arc::default, |old| Arc::clone(&old.queue));
            let backend = |address: &BackendAddress| {
                let mut known = same.iter().flat_map(|old| &old.members);
                match known.find(|known| known.backend.address() == address) {
                    Some(known) => Arc::clone(&known.backend),
                    None => Arc::new(Backend::new(address.clone(), &self.reach, self.apart)),
                }
            };
            Port::new(config, queue, backend)
        };
        let ports: Arc<[Port]> = ports.into_iter().map(port).collect();
        *place = ports;
        self.changed.send_replace(());
    }

    /// Give backends of this address, at this port or at every one, streams or no more; the number
    /// of those that are meant. A reload does not change it.
    pub fn set_order(&self, address: &str, port: Option<u16>, order: BackendOrder) -> usize {
        let ports = self.ports();
        let meant = ports.iter().filter(|one| port.is_none_or(|port| one.serves(port)));
        let backends = meant.flat_map(|one| &one.members).map(|member| &member.backend);
        let of_address = |one: &&Arc<Backend>| one.address().to_string() == address;
        backends.filter(of_address).map(|one| one.set_order(order)).count()
    }

    /// These limits hold for every client circuit from its next stream on.
    pub fn set_circuit_limits(&self, limits: CircuitLimits) {
        self.gates.set_limits(limits);
    }

    /// The limits that hold for every client circuit.
    pub fn circuit_limits(&self) -> CircuitLimits {
        (*self.gates.limits()).clone()
    }

    /// The virtual ports that are served: the first and the last of each range.
    pub fn virtual_ports(&self) -> Vec<(u16, u16)> {
        let ports = self.ports();
        ports.iter().map(|one| (one.config.virtual_first, one.config.virtual_last)).collect()
    }

    /// Say something of a client's circuit for so long: it holds from its next stream on. `false`
    /// when as many circuits as may be are banned already.
    pub fn set_verdict(&self, circuit: CircuitId, verdict: Verdict, lifetime: Duration) -> bool {
        self.gates.set_verdict(circuit, verdict, lifetime)
    }

    /// A client's circuit has closed: nothing is remembered of it, and nothing said of it holds.
    pub fn circuit_closed(&self, circuit: CircuitId) {
        self.gates.forget(circuit);
    }

    /// Whether a circuit that is banned closes, and not its next streams alone.
    pub fn closes_circuits(&self) -> bool {
        self.gates.closes_circuits()
    }

    /// What limits and verdicts have led to.
    pub fn circuits(&self) -> CircuitsStatus {
        self.gates.status()
    }

    /// The ports as they are now.
    fn ports(&self) -> Arc<[Port]> {
        Arc::clone(&self.ports.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serve one stream to its end, on the calling core, and say how it ended.
    ///
    /// Backends are tried one after another until one accepts, for
    /// [`limits::BACKEND_ATTEMPTS_SECONDS_MAX`] at most; only then is the stream accepted. The
    /// module says which END a client gets otherwise.
    pub async fn serve(
        self: Arc<Plane>,
        incoming: impl IncomingStream,
        counters: &Arc<InstanceCounters>,
        instance: u16,
    ) -> StreamOutcome {
        self.serve_by::<Relayed, _>(incoming, counters, instance).await
    }

    /// As [`Plane::serve`], for a client at a listener of the calling data core.
    async fn serve_socket(
        self: Arc<Plane>,
        incoming: FrontStream,
        counters: &Arc<InstanceCounters>,
        instance: u16,
    ) -> StreamOutcome {
        self.serve_by::<Forwarded, _>(incoming, counters, instance).await
    }

    /// See [`Plane::serve`].
    async fn serve_by<J: Join<I::Stream>, I: IncomingStream>(
        &self,
        incoming: I,
        counters: &Arc<InstanceCounters>,
        instance: u16,
    ) -> StreamOutcome {
        let ports = self.ports();
        let virtual_port = incoming.virtual_port();
        match ports.iter().find(|port| port.serves(virtual_port)) {
            None => {
                let refused = self.gates.unknown_port();
                turn_away(incoming, (refused, EndReason::Done), counters).await
            }
            Some(Port { config: PortConfig { target: PortTarget::Hello, .. }, .. }) => {
                let Ok(client) = incoming.accept().await else { return StreamOutcome::ClientGone };
                let _open = counters.open_stream();
                hello::serve(client, counters, instance).await
            }
            Some(port) => {
                let circuit = incoming.circuit_id();
                match self.gates.enter(circuit, port.has_lane(Verdict::Banned)) {
                    Ok(pass) => {
                        self.serve_by_backend::<J, _>(ports, incoming, counters, pass).await
                    }
                    Err(refused) => {
                        let refused = (refused, EndReason::ResourceLimit);
                        turn_away(incoming, refused, counters).await
                    }
                }
            }
        }
    }

    /// See [`Plane::serve`]; `ports` are those of now.
    async fn serve_by_backend<J: Join<I::Stream>, I: IncomingStream>(
        &self,
        mut ports: Arc<[Port]>,
        incoming: I,
        counters: &Arc<InstanceCounters>,
        pass: Pass,
    ) -> StreamOutcome {
        let (circuit, virtual_port) = (incoming.circuit_id(), incoming.virtual_port());
        let until = time::now() + Duration::from_secs(limits::BACKEND_ATTEMPTS_SECONDS_MAX);
        let mut reason = EndReason::ConnectRefused;
        let (mut tried, mut waiting) = (Set::default(), None::<Waiting>);
        loop {
            let Some(port) = ports.iter().find(|port| port.serves(virtual_port)) else {
                return refuse(incoming, EndReason::ConnectRefused, counters).await;
            };
            let left = until.saturating_duration_since(time::now());
            let lane = port.lane(self.gates.verdict(circuit));
            // What was said of its circuit has changed: it waits with others from now on.
            waiting = waiting.filter(|one| one.is_in(lane));
            // A place that is free is for those who have come before.
            let newcomer = waiting.is_none() && tried.is_empty();
            let chosen = match newcomer && port.queue.is_for_others(lane) {
                true => Choice::Full,
                false => port.choose(circuit, lane, &tried),
            };
            match chosen {
                Choice::Take(index, mut place) if !left.is_zero() => {
                    waiting = None;
                    let timeout = port.config.connect_timeout.min(left);
                    let way = (J::WAY, timeout);
                    match place.connect(way, circuit, virtual_port).await {
                        Ok(connection) => {
                            let preface = port.preface(index, circuit, virtual_port);
                            let patience = port.patience();
                            drop(ports);
                            let Ok(client) = incoming.accept().await else {
                                return StreamOutcome::ClientGone;
                            };
                            let held = Held { _place: place, _open: counters.open_stream() };
                            let meter = Meter { counters: Arc::clone(counters), pass };
                            let bytes = (preface, meter, patience);
                            return J::join(client, connection, bytes, held).await;
                        }
                        Err(error) => {
                            let backend = place.backend.address();
                            tracing::debug!(%backend, "backend: {error}");
                            reason = reason_of(&error);
                            tried.insert(index);
                        }
                    }
                }
                Choice::Full => {
                    let (length_max, timeout) = (port.config.queue_max, port.config.queue_timeout);
                    let whose = (incoming.party(), lane);
                    waiting = waiting.or_else(|| port.queue.enter(whose, length_max, timeout));
                    let in_time = match &mut waiting {
                        Some(waiting) => waiting.wait(!tried.is_empty()).await,
                        None => false,
                    };
                    if !in_time {
                        return refuse(incoming, EndReason::ResourceLimit, counters).await;
                    }
                    // What refused it before is left alone by all, or is back: were it not to go
                    // there, it would hold up who waits behind it.
                    (ports, tried) = (self.ports(), Set::default());
                }
                Choice::Take(..) | Choice::None => return refuse(incoming, reason, counters).await,
            }
        }
    }

    /// What status shows of the backends.
    pub fn status(&self) -> Vec<BackendStatus> {
        self.ports().iter().flat_map(Port::status).collect()
    }
}

/// What a stream holds for as long as it is open.
struct Held {
    /// A place at its backend.
    _place: Place,
    /// That it is counted as open.
    _open: OpenGuard,
}

/// Where the bytes of a stream are counted.
struct Meter {
    /// Those of its instance or listener.
    counters: Arc<InstanceCounters>,
    /// Its circuit.
    pass: Pass,
}

impl Meter {
    /// Bytes came from the client.
    fn add_in(&self, bytes: usize) -> Result<(), Refused> {
        self.counters.add_bytes_in(bytes);
        self.pass.note(bytes)
    }

    /// Bytes went to the client.
    fn add_out(&self, bytes: usize) -> Result<(), Refused> {
        self.counters.add_bytes_out(bytes);
        self.pass.note(bytes)
    }
}

/// What goes before a client's bytes, where they are counted, and how long there may be none.
type Bytes = (Option<Buffer>, Meter, Patience);

/// How a client that was accepted is joined with its backend.
trait Join<C: ClientStream>: Send + 'static {
    /// What kind of connection the backend shall have.
    const WAY: Way;

    /// Carry bytes both ways until both sides are done.
    fn join(
        client: C,
        connection: net::Stream,
        bytes: Bytes,
        held: Held,
    ) -> impl Future<Output = StreamOutcome> + Send;
}

/// The client's bytes are in user space: a stream of a Tor circuit.
struct Relayed;

impl<C: ClientStream> Join<C> for Relayed {
    const WAY: Way = Way::Ring;

    async fn join(
        client: C,
        connection: net::Stream,
        (preface, meter, patience): Bytes,
        held: Held,
    ) -> StreamOutcome {
        let _held = held;
        stream::relay(client, connection, preface, meter, patience).await
    }
}

/// The client is a socket of the kernel's. It goes on as a task of its own: what led to its backend
/// needs memory that an idle stream shall not hold.
struct Forwarded;

impl Join<FrontClient> for Forwarded {
    const WAY: Way = Way::Kernel;

    async fn join(
        client: FrontClient,
        connection: net::Stream,
        (preface, meter, patience): Bytes,
        held: Held,
    ) -> StreamOutcome {
        let backend = match connection {
            net::Stream::Kernel(backend) => backend,
            other => {
                let _held = held;
                return stream::relay(client, other, preface, meter, patience).await;
            }
        };
        let (client, live, circuit) = client.into_parts();
        runtime::spawn(async move {
            let _held = (held, live);
            // What became of the stream is in the counters.
            let _ = forward::forward((client, &circuit), backend, preface, meter, patience).await;
        });
        StreamOutcome::Forwarded
    }
}

/// What a client hears when this was the last attempt.
fn reason_of(error: &ConnectError) -> EndReason {
    match error {
        ConnectError::Timeout => EndReason::Timeout,
        ConnectError::Exhausted(_) => EndReason::ResourceLimit,
        ConnectError::Refused(_) => EndReason::ConnectRefused,
    }
}

/// A circuit has gone over a limit, is banned, or asks for a port that is not served: end the
/// stream, or close the circuit.
async fn turn_away(
    incoming: impl IncomingStream,
    (refused, reason): (Refused, EndReason),
    counters: &InstanceCounters,
) -> StreamOutcome {
    if !refused.close {
        return refuse(incoming, reason, counters).await;
    }
    counters.note_stream_refused();
    incoming.close_circuit();
    StreamOutcome::Refused(reason)
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
