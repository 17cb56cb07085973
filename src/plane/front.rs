//! Listeners: clients that come over a socket and not through an instance of this process. In
//! front of them stand C tor daemons (`HiddenServicePort 80 unix:/run/front.sock`), or another
//! balancer.
//!
//! ```text
//!   core 0:  [SO_REUSEPORT socket] --accept--> which core? --here--> PROXY header --> Plane
//!                                                  '--other--> [queue, bounded] --.
//!   core 1:  [SO_REUSEPORT socket] --accept--> ...                                v
//!                                              PROXY header, on the core that serves it
//! ```
//!
//! The kernel spreads connections over the sockets of a TCP address by a hash, which is even only
//! in the long run; whoever comes first takes those of a unix socket, or of one that was passed to
//! this process ([`super::passed`]). [`super::handoff`] makes it
//! even.
//!
//! A connection that is refused is reset: C tor tells its client that the stream broke, where an
//! orderly end would look like an empty answer.

mod place;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures::io::{AsyncRead, AsyncWrite};
use socket2::{SockRef, Socket};
use tokio::sync::{oneshot, watch};

use self::place::{bind_tcp, can_be_made, is_free, listen_unix, unix_place};
use super::Plane;
use super::handoff::{Arrival, Handoff, Live};
use super::passed::PassedSockets;
use super::proxy_protocol::read::{self, Extent, Facts};
use super::status::ListenStatus;
use crate::base::counters::InstanceCounters;
use crate::base::repeats::Repeats;
use crate::base::socket_file::{self, SocketFile};
use crate::base::stream::{CircuitId, ClientStream, EndReason, IncomingStream, Party};
use crate::limits;
use crate::plane::config::{BackendAddress, ListenConfig};
use crate::runtime::kernel_socket::KernelSocket;
use crate::runtime::{self, ring};

/// Where a listener finds the plane of its service, which changes with a reload; nowhere when a new
/// client has to be refused.
pub type FindPlane = dyn Fn(&str) -> Option<Arc<Plane>> + Send + Sync;

/// One `[[listen]]`, for all cores.
pub struct Front {
    /// What was configured.
    config: ListenConfig,
    /// Its number among listeners.
    number: u16,
    /// Its number among instances, for the ids of circuits.
    instance: u16,
    /// Keeps the address: for TCP a socket that is bound and does not listen, for a unix socket the
    /// listening one; or the listening one that was passed to this process.
    place: Socket,
    /// Whether it was passed, and is not ours alone.
    passed: bool,
    /// Finds the service's plane.
    find: Arc<FindPlane>,
    /// Closes a circuit, where that is ours to do.
    close: Option<Arc<CloseCircuit>>,
    /// Streams and bytes.
    counters: Arc<InstanceCounters>,
    /// Connections that were accepted.
    accepted_total: AtomicU64,
    /// PROXY headers that were wrong, or did not come in time.
    headers_refused_total: AtomicU64,
    /// Warnings of connections that could not be taken, and of sockets that could not be opened.
    repeats: [Repeats; 2],
    /// Numbers of connections that name no circuit.
    next_serial: AtomicU32,
    /// Set when no more connections shall be taken.
    ended: watch::Sender<bool>,
    /// The socket's file, where it is one; another process's, which has replaced it, stays.
    file: Option<SocketFile>,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Front({})", self.config.address)
    }
}

/// What to do about an address that somebody listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupied {
    /// It is an error.
    Refuse,
    /// It is replaced: its process lets go of it. A TCP address is shared until then.
    Replace,
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct FrontError {
    /// Where.
    address: String,
    /// What the system says.
    source: io::Error,
}

/// A listener that has its address, and is not yet there for anybody: dropped, it leaves what was
/// there before as it was.
#[derive(Debug)]
pub struct Prepared(Front);

/// Has the circuit with this number closed by whoever has it, who says whether it was open; where
/// nobody can tell, the sender goes.
pub type CloseCircuit = dyn Fn(u32) -> oneshot::Receiver<bool> + Send + Sync;

impl Prepared {
    /// One whose clients' circuits can be closed.
    #[must_use]
    pub fn closing_by(self, close: Option<Arc<CloseCircuit>>) -> Prepared {
        Prepared(Front { close, ..self.0 })
    }

    /// Be there for whoever connects: where another has the unix socket, in its place.
    ///
    /// # Errors
    /// What `rename(2)` says of the socket's file.
    pub fn take_place(self) -> Result<Arc<Front>, FrontError> {
        let Prepared(mut front) = self;
        if let (Some(beside), BackendAddress::Unix(path)) =
            (front.file.take(), &front.config.address)
        {
            let address = front.config.address.to_string();
            let moved = beside.move_to(path);
            front.file = Some(moved.map_err(|source| FrontError { address, source })?);
        }
        Ok(Arc::new(front))
    }
}

impl Front {
    /// Take the address, or the socket that was passed for it. `number` is that of the listener in
    /// the configuration.
    ///
    /// # Errors
    /// When it is not this machine's, or another program has it.
    pub fn prepare(
        config: ListenConfig,
        number: u16,
        (occupied, passed): (Occupied, &PassedSockets),
        find: Arc<FindPlane>,
    ) -> Result<Prepared, FrontError> {
        let failed = |source| FrontError { address: config.address.to_string(), source };
        let passed = passed.at(&config.address).map_err(failed)?;
        let is_passed = passed.is_some();
        let place = match (passed, &config.address) {
            (Some(socket), _) => Ok((socket, None)),
            (None, BackendAddress::Unix(path)) => listen_unix(path, config.backlog, occupied)
                .map(|(socket, beside)| (socket, Some(beside))),
            (None, BackendAddress::Tcp(address)) => {
                let free = match occupied {
                    Occupied::Refuse => is_free(*address),
                    Occupied::Replace => Ok(()),
                };
                free.and_then(|()| bind_tcp(*address)).map(|socket| (socket, None))
            }
            (None, _) => Err(io::ErrorKind::Unsupported.into()),
        };
        let (place, file) = place.map_err(failed)?;
        Ok(Prepared(Front {
            config,
            number,
            instance: limits::LISTEN_INSTANCE_FIRST.saturating_add(number),
            place,
            passed: is_passed,
            find,
            close: None,
            counters: Arc::default(),
            accepted_total: AtomicU64::new(0),
            headers_refused_total: AtomicU64::new(0),
            repeats: [const { Repeats::new() }; 2],
            next_serial: AtomicU32::new(1),
            ended: watch::channel(false).0,
            file,
        }))
    }

    /// Whether a listener can be opened there, beside nobody else; nothing is opened, nobody can
    /// connect meanwhile, and nothing connects to what is there: that would start the service of a
    /// socket unit.
    ///
    /// # Errors
    /// What [`Front::prepare`] would say, as far as can be told so.
    pub fn check(config: &ListenConfig, passed: &PassedSockets) -> Result<(), FrontError> {
        let failed = |source| FrontError { address: config.address.to_string(), source };
        if passed.at(&config.address).map_err(failed)?.is_some() {
            return Ok(());
        }
        let free = match &config.address {
            BackendAddress::Tcp(address) => is_free(*address),
            BackendAddress::Unix(path) => {
                let taken = |path: &Path| Ok(socket_file::is_listened_on(path));
                unix_place(path, taken).and_then(|()| can_be_made(path))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        free.map_err(failed)
    }

    /// Its number among listeners.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Close a client's circuit, if it may be one of this listener's and those can be closed.
    pub fn close_circuit(&self, circuit: CircuitId) -> Option<oneshot::Receiver<bool>> {
        let close = self.close.as_ref().filter(|_| circuit.instance == self.instance)?;
        Some(close(circuit.serial))
    }

    /// What was configured.
    pub fn config(&self) -> &ListenConfig {
        &self.config
    }

    /// Take no more connections. Those that the kernel has accepted are served, and open ones.
    pub fn end(&self) {
        self.ended.send_replace(true);
        if let Some(file) = &self.file {
            file.remove();
            // Who still knows it is refused, and does not wait for somebody to accept.
            let _ = self.place.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Take connections on the calling data core, until [`Front::end`].
    pub async fn run(self: Arc<Front>, handoff: Arc<Handoff>, core: usize) {
        let mut ended = self.ended.subscribe();
        let taking = async {
            loop {
                match self.listener() {
                    Ok(listener) => self.take(&listener, &handoff, core).await,
                    Err(error) => {
                        let (address, [_, repeats]) = (&self.config.address, &self.repeats);
                        if let Some(more) = repeats.say() {
                            tracing::error!(
                                core,
                                "cannot listen on {address}: {error}; trying again{more}"
                            );
                        }
                        let wait = Duration::from_millis(limits::LISTEN_OPEN_RETRY_MS);
                        runtime::sleep(wait).await;
                    }
                }
                if *self.ended.borrow() {
                    return;
                }
            }
        };
        tokio::select! {
            () = taking => {}
            // A listener that could not be opened waits; one that was opened sees it by itself.
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }

    /// This core's listening socket.
    fn listener(&self) -> io::Result<ring::Listener> {
        let socket = match &self.config.address {
            BackendAddress::Tcp(address) if !self.passed => {
                let socket = bind_tcp(*address)?;
                // Connections have it from their listener: whoever writes to them batches.
                socket.set_tcp_nodelay(true)?;
                socket.listen(i32::try_from(self.config.backlog).unwrap_or(i32::MAX))?;
                socket
            }
            _ => self.place.try_clone()?,
        };
        ring::Listener::of_watched(OwnedFd::from(socket))
    }

    /// Take connections from this listener; comes back when it fails or no more shall be taken.
    async fn take(
        self: &Arc<Front>,
        listener: &ring::Listener,
        handoff: &Arc<Handoff>,
        core: usize,
    ) {
        let mut ended = self.ended.subscribe();
        let mut in_a_row = 0_u32;
        loop {
            // A burst comes as one: those that have come are served before more are taken, and what
            // is needed to begin with one is needed for so many at a time.
            in_a_row = in_a_row.wrapping_add(1);
            if in_a_row.is_multiple_of(limits::LISTEN_IN_A_ROW_MAX) {
                tokio::task::yield_now().await;
            }
            let accepted = tokio::select! {
                biased;
                accepted = std::future::poll_fn(|cx| listener.poll_descriptor(cx)) => accepted,
                _ = ended.wait_for(|ended| *ended) => return,
            };
            match accepted {
                Ok(fd) => {
                    self.accepted_total.fetch_add(1, Ordering::Relaxed);
                    self.place(fd, handoff, core);
                }
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(error) => {
                    // No descriptor is left, say: the kernel keeps who comes meanwhile.
                    let (address, [repeats, _]) = (&self.config.address, &self.repeats);
                    match repeats.say() {
                        Some(more) => {
                            tracing::warn!(core, "cannot accept at {address}: {error}{more}");
                        }
                        None => tracing::debug!(core, "cannot accept at {address}: {error}"),
                    }
                    runtime::sleep(Duration::from_millis(limits::LISTEN_RETRY_MS)).await;
                }
            }
        }
    }

    /// Give a connection to the core that shall serve it.
    fn place(self: &Arc<Front>, fd: OwnedFd, handoff: &Arc<Handoff>, core: usize) {
        let arrival = Arrival { fd, front: Arc::clone(self) };
        let arrival = match handoff.other_than(core) {
            None => arrival,
            Some(other) => match handoff.give(other, arrival) {
                Ok(()) => return self.counters.note_handed_off(),
                Err(arrival) => {
                    self.counters.note_queue_full();
                    arrival
                }
            },
        };
        let live = handoff.count(core);
        runtime::spawn(arrival.serve(live));
    }

    /// Serve a connection to its end, on the calling core.
    pub(super) async fn serve(self: Arc<Front>, fd: OwnedFd, live: Live) {
        let Ok(socket) = KernelSocket::adopt(fd) else { return };
        let facts = match self.read_facts(&socket).await {
            Ok(facts) => facts,
            Err(wrong) => {
                self.headers_refused_total.fetch_add(1, Ordering::Relaxed);
                let address = &self.config.address;
                tracing::debug!(listen = %address, "no PROXY header: {wrong}");
                return reset(&socket);
            }
        };
        let Some(plane) = (self.find)(&self.config.service) else {
            self.counters.note_stream_refused();
            return reset(&socket);
        };
        let serial = facts.circuit.map(|circuit| circuit.serial);
        let serial = serial.unwrap_or_else(|| self.next_serial.fetch_add(1, Ordering::Relaxed));
        // Whatever the header calls it: circuits of two listeners, or of an instance, are two.
        let circuit = CircuitId { instance: self.instance, serial };
        let virtual_port = self.config.virtual_port.or(facts.port).unwrap_or(0);
        let close = facts.circuit.and(self.close.clone()).map(|close| (close, serial));
        let client = FrontClient { socket, live, circuit: Circuit(close) };
        let party =
            facts.circuit.map_or(Party::Listener(self.instance), |_| Party::Circuit(circuit));
        let incoming = FrontStream { client, circuit, party, virtual_port };
        // What became of the stream is in the counters.
        let _ = plane.serve_socket(incoming, &self.counters, self.instance).await;
    }

    /// What the PROXY header of a connection says, where there is to be one.
    async fn read_facts(&self, socket: &KernelSocket) -> Result<Facts, String> {
        if !self.config.proxy_protocol {
            return Ok(Facts::default());
        }
        let patience = Duration::from_secs(limits::PROXY_HEADER_SECONDS);
        let header = runtime::timeout(patience, read_header(socket)).await;
        header.unwrap_or_else(|_| Err("it did not come in time".to_owned()))
    }

    /// What status shows.
    pub fn status(&self) -> ListenStatus {
        let counters = &self.counters;
        ListenStatus {
            address: self.config.address.to_string(),
            service: self.config.service.clone(),
            passed: self.passed,
            accepted_total: self.accepted_total.load(Ordering::Relaxed),
            headers_refused_total: self.headers_refused_total.load(Ordering::Relaxed),
            handed_off_total: counters.handed_off_total(),
            handoff_full_total: counters.queue_full_total(),
            streams_open: counters.streams_open(),
            streams_total: counters.streams_total(),
            streams_refused_total: counters.streams_refused_total(),
            bytes_in_total: counters.bytes_in_total(),
            bytes_out_total: counters.bytes_out_total(),
        }
    }
}

/// Take the PROXY header off a connection, and nothing else. Its room is there only while the
/// socket is looked at: thousands may wait for theirs.
async fn read_header(socket: &KernelSocket) -> Result<Facts, String> {
    let failed = |error: io::Error| error.to_string();
    let look = |cx: &mut Context<'_>| {
        let mut room = [0; limits::PROXY_HEADER_BYTES_MAX];
        let seen = ready!(socket.poll_peek(cx, &mut room)).map_err(failed);
        let extent = |seen: usize| read::extent(&room[..seen]).map_err(|error| error.to_string());
        Poll::Ready(seen.and_then(|seen| Ok((seen, extent(seen)?))))
    };
    let take = |cx: &mut Context<'_>, length: usize| {
        let mut room = [0; limits::PROXY_HEADER_BYTES_MAX];
        let taken = ready!(socket.poll_take(cx, &mut room[..length])).map_err(failed);
        let parse = |taken: usize| read::parse(&room[..taken]).map_err(|error| error.to_string());
        Poll::Ready(taken.and_then(parse))
    };
    let mut seen_before = 0;
    loop {
        match std::future::poll_fn(look).await? {
            (_, Extent::Whole(length)) => {
                return std::future::poll_fn(|cx| take(cx, length)).await;
            }
            (seen, Extent::Partial) if seen == 0 || (seen == seen_before && socket.has_end()) => {
                return Err("it ends too early".to_owned());
            }
            (seen, Extent::Partial) => {
                seen_before = seen;
                socket.wait_for_more();
            }
        }
    }
}

/// Have a connection end with a reset, when it is dropped.
fn reset(socket: &KernelSocket) {
    // A unix socket has none: its peer sees an end.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// A connection that waits for an answer.
pub(super) struct FrontStream {
    /// The connection.
    client: FrontClient,
    /// Whose it is.
    circuit: CircuitId,
    /// Whose turn it takes.
    party: Party,
    /// The port that is wanted.
    virtual_port: u16,
}

#[async_trait]
impl IncomingStream for FrontStream {
    type Stream = FrontClient;

    fn virtual_port(&self) -> u16 {
        self.virtual_port
    }

    fn circuit_id(&self) -> CircuitId {
        self.circuit
    }

    fn party(&self) -> Party {
        self.party
    }

    async fn accept(self) -> io::Result<FrontClient> {
        Ok(self.client)
    }

    async fn reject(self, _: EndReason) -> io::Result<()> {
        reset(&self.client.socket);
        Ok(())
    }

    fn close_circuit(self) {
        self.client.close_circuit();
    }
}

/// A client at a listener.
pub(super) struct FrontClient {
    /// The connection.
    socket: KernelSocket,
    /// That its core serves it.
    live: Live,
    /// Its circuit.
    circuit: Circuit,
}

/// A client's circuit: whoever has it closes it, where that is ours to have done.
pub(super) struct Circuit(Option<(Arc<CloseCircuit>, u32)>);

impl Circuit {
    /// Have it closed. The stream ends whatever becomes of it.
    pub(super) fn close(&self) {
        if let Some((close, serial)) = &self.0 {
            drop(close(*serial));
        }
    }
}

impl FrontClient {
    /// Its connection, what counts it, and its circuit.
    pub(super) fn into_parts(self) -> (KernelSocket, Live, Circuit) {
        (self.socket, self.live, self.circuit)
    }
}

impl ClientStream for FrontClient {
    fn abort(self, _: EndReason) {
        reset(&self.socket);
    }

    fn close_circuit(self) {
        reset(&self.socket);
        self.circuit.close();
    }
}

impl AsyncRead for FrontClient {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, room)
    }
}

impl AsyncWrite for FrontClient {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_close(cx)
    }
}
