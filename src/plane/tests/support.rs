//! A client in memory, backends on real sockets, and a stream of bytes that can be checked.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use crate::base::counters::InstanceCounters;
use crate::base::stream::{CircuitId, ClientStream, EndReason, IncomingStream};
use crate::plane::config::{BackendAddress, PortConfig, PortTarget};
use crate::plane::{Plane, StreamOutcome};

/// What a client's stream holds between the two ends.
pub(super) const PIPE_BYTES: usize = 16 * 1024;

/// Longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened to a stream.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// It was accepted.
    pub(super) accepted: bool,
    /// The reason that it was rejected with.
    pub(super) rejected: Option<EndReason>,
    /// The reason that it was aborted with.
    pub(super) aborted: Option<EndReason>,
    /// Its circuit was closed.
    pub(super) circuit_closed: bool,
    /// The client's end was read.
    ended: bool,
    /// Set by a test: the circuit is gone.
    pub(super) broken: bool,
}

/// A stream that a client has begun.
pub(super) struct Begun {
    /// The port it asked for.
    port: u16,
    /// The number of its circuit.
    serial: u32,
    /// Whether an END closes both directions, as Tor's does.
    as_tor: bool,
    /// Our end.
    near: DuplexStream,
    /// What happens to it.
    fate: Arc<Mutex<Fate>>,
}

/// A stream that was accepted.
pub(super) struct Open {
    /// Our end.
    near: Compat<DuplexStream>,
    /// See [`Begun`].
    as_tor: bool,
    /// See [`Begun`].
    fate: Arc<Mutex<Fate>>,
}

/// A stream for `port`, the client's end of it, and what happens to it.
pub(super) fn begin(port: u16) -> (Begun, DuplexStream, Arc<Mutex<Fate>>) {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let fate = Arc::new(Mutex::new(Fate::default()));
    (Begun { port, serial: 1, as_tor: false, near, fate: Arc::clone(&fate) }, far, fate)
}

impl Begun {
    /// The same, with Tor's END: no write succeeds once the client has ended the stream.
    pub(super) fn with_tor_end(mut self) -> Begun {
        self.as_tor = true;
        self
    }

    /// The same, of the circuit with this number.
    pub(super) fn of_circuit(mut self, serial: u32) -> Begun {
        self.serial = serial;
        self
    }

    /// Accept it at once.
    pub(super) fn open(self) -> Open {
        self.fate.lock().expect("no panic").accepted = true;
        Open { near: self.near.compat(), as_tor: self.as_tor, fate: self.fate }
    }
}

#[async_trait::async_trait]
impl IncomingStream for Begun {
    type Stream = Open;

    fn virtual_port(&self) -> u16 {
        self.port
    }

    fn circuit_id(&self) -> CircuitId {
        CircuitId { instance: 0, serial: self.serial }
    }

    async fn accept(self) -> io::Result<Open> {
        Ok(self.open())
    }

    async fn reject(self, reason: EndReason) -> io::Result<()> {
        self.fate.lock().expect("no panic").rejected = Some(reason);
        Ok(())
    }

    fn close_circuit(self) {
        self.fate.lock().expect("no panic").circuit_closed = true;
    }
}

impl ClientStream for Open {
    fn abort(self, reason: EndReason) {
        self.fate.lock().expect("no panic").aborted = Some(reason);
    }
}

impl AsyncRead for Open {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.near).poll_read(cx, buffer);
        if self.fate.lock().expect("no panic").broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if matches!(read, Poll::Ready(Ok(0))) {
            self.fate.lock().expect("no panic").ended = true;
        }
        read
    }
}

impl AsyncWrite for Open {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.as_tor && self.fate.lock().expect("no panic").ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.near).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_close(cx)
    }
}

/// A stream that was accepted, and the client's end of it.
pub(super) fn begin_open() -> (Open, DuplexStream) {
    let (begun, far, _) = begin(80);
    (begun.open(), far)
}

/// A stream that keeps what is written until it is flushed or closed, as arti's keeps a cell that
/// is not full.
pub(super) struct Batching {
    /// What is below.
    inner: Open,
    /// What was not flushed.
    kept: Vec<u8>,
    /// Whether a flush has begun since the last write.
    flushing: bool,
    /// Flushes that were begun with something to do, whether or not they could be finished.
    flushes: Arc<AtomicUsize>,
}

impl Batching {
    /// Above `inner`.
    pub(super) fn new(inner: Open) -> Batching {
        Batching { inner, kept: Vec::new(), flushing: false, flushes: Arc::default() }
    }

    /// Counts the flushes that were begun with something to do.
    pub(super) fn flushes(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.flushes)
    }

    /// Write on what was kept.
    fn poll_pass_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.kept))?;
            self.kept.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl ClientStream for Batching {}

impl AsyncRead for Batching {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Batching {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.flushing = false;
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.flushing && !self.kept.is_empty() {
            self.flushing = true;
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
        self.poll_pass_on(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pass_on(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// A backend that sends this and breaks off at once.
pub(super) struct AnswerThenReset(pub(super) &'static [u8]);

impl tokio::io::AsyncRead for AnswerThenReset {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        buffer.put_slice(self.0);
        self.0 = &[];
        Poll::Ready(Ok(()))
    }
}

/// Port 80 with these backends.
pub(super) fn port_80(backends: Vec<BackendAddress>) -> PortConfig {
    PortConfig { connect_timeout: PATIENCE, ..PortConfig::new(80, PortTarget::backends(backends)) }
}

/// A listener on a free port of loopback.
pub(super) async fn listen() -> (TcpListener, BackendAddress) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let address: SocketAddr = listener.local_addr().expect("it is bound");
    (listener, BackendAddress::Tcp(address))
}

/// An address where nobody listens: bound, so that nobody else gets it, and never listened on.
pub(super) fn nobody() -> (tokio::net::TcpSocket, BackendAddress) {
    let socket = tokio::net::TcpSocket::new_v4().expect("there are sockets");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("loopback has free ports");
    let address = socket.local_addr().expect("it is bound");
    (socket, BackendAddress::Tcp(address))
}

/// Serve a stream in a task of its own.
pub(super) fn serve(
    plane: &Arc<Plane>,
    begun: Begun,
    counters: &Arc<InstanceCounters>,
) -> tokio::task::JoinHandle<StreamOutcome> {
    let (plane, counters) = (Arc::clone(plane), Arc::clone(counters));
    tokio::spawn(async move { plane.serve(begun, &counters, 7).await })
}

/// What the future gives; a test that hangs fails.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it has hung")
}

/// Bytes that look random and follow from `seed`.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    /// The next bytes.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            // xorshift64 (Marsaglia 2003)
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0 as u8;
        }
    }
}

/// Fill a whole body with noise.
pub(super) fn fill_noise(seed: u64, body: &mut [u8]) {
    Noise(seed).fill(body);
}

/// Write `length` bytes of noise.
pub(super) async fn send_noise(
    sink: &mut (impl tokio::io::AsyncWrite + Unpin),
    seed: u64,
    length: usize,
) {
    let (mut noise, mut left, mut piece) = (Noise(seed), length, vec![0; 10_007]);
    while left > 0 {
        let now = left.min(piece.len());
        noise.fill(&mut piece[..now]);
        sink.write_all(&piece[..now]).await.expect("the other side reads");
        left -= now;
    }
}

/// Read `length` bytes and hold every one against the noise that should come.
pub(super) async fn expect_noise(
    source: &mut (impl tokio::io::AsyncRead + Unpin),
    seed: u64,
    length: usize,
) {
    let (mut noise, mut seen) = (Noise(seed), 0);
    let (mut piece, mut expected) = (vec![0; 8192], vec![0; 8192]);
    while seen < length {
        let most = piece.len().min(length - seen);
        let now = source.read(&mut piece[..most]).await.expect("the other side sends");
        assert_ne!(now, 0, "it ended after {seen} of {length} bytes, seed {seed}");
        noise.fill(&mut expected[..now]);
        assert!(piece[..now] == expected[..now], "wrong bytes after {seen}, seed {seed}");
        seen += now;
    }
}

/// Break a connection off: its peer gets ECONNRESET.
pub(super) fn reset(socket: TcpStream) {
    socket.set_zero_linger().expect("a TCP socket");
}
