//! What a rendezvous circuit is to the rest of the program: it opens, gives streams, and closes.
//!
//! This is the seam behind which a circuit engine of our own can take tor-proto's place: no type
//! of tor-proto's goes past this file, [`super::rendezvous`] and [`super::intro`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tor_cell::relaycell::RelayCmd;
use tor_cell::relaycell::msg::{Connected, End, EndReason as WireReason};
use tor_circmgr::ServiceOnionServiceDataTunnel;
use tor_proto::circuit::CircHopSyncView;
use tor_proto::client::stream::DataStream;
use tor_proto::stream::{
    IncomingStream as WireStream, IncomingStreamRequest, IncomingStreamRequestContext,
    IncomingStreamRequestDisposition, IncomingStreamRequestFilter,
};

use super::open::{Flow, OpenCircuit as Circuit, now_ms};
use super::service::Seat;
use crate::base::counters::OpenGuard;
use crate::base::stream::{CircuitId, ClientStream, EndReason, IncomingStream};
use crate::limits;
use crate::runtime;
use crate::tor::load::OpenCircuit;

/// Serves the streams of clients; `app` wires it to the plane.
pub trait ServeStream: Clone + Send + Sync + 'static {
    /// Serve one stream to its end, on the core that calls.
    fn serve(
        &self,
        instance: usize,
        stream: SessionStream,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// A client's circuit has closed: no stream of it will follow.
    fn closed(&self, circuit: CircuitId);
}

/// Says, once this is dropped, that a circuit has closed.
struct Closing<'a, S: ServeStream>(&'a S, CircuitId);

impl<S: ServeStream> Drop for Closing<'_, S> {
    fn drop(&mut self) {
        self.0.closed(self.1);
    }
}

/// A client's circuit.
pub(super) struct Session {
    /// The circuit: lives as long as its streams.
    tunnel: Arc<ServiceOnionServiceDataTunnel>,
    /// Streams that the client begins.
    begun: BoxStream<'static, WireStream>,
    /// Streams that may be served at once. The circuit's own count goes down when a client ends a
    /// stream, which may be long before its backend has answered.
    served: Arc<Semaphore>,
    /// How many that are.
    streams_max: usize,
    /// Counts the circuit.
    _open: OpenCircuit,
}

/// Refuses streams over the limit, inside the circuit's reactor.
struct StreamLimit {
    /// Streams that may be open.
    streams_max: u32,
}

impl IncomingStreamRequestFilter for StreamLimit {
    fn disposition(
        &mut self,
        _request: &IncomingStreamRequestContext<'_>,
        circuit: &CircHopSyncView<'_>,
    ) -> tor_proto::Result<IncomingStreamRequestDisposition> {
        if circuit.n_open_streams() >= self.streams_max as usize {
            let end = End::new_with_reason(WireReason::RESOURCELIMIT);
            return Ok(IncomingStreamRequestDisposition::RejectRequest(end));
        }
        Ok(IncomingStreamRequestDisposition::Accept)
    }
}

/// Circuits get numbers that say nothing about the client.
static NEXT_SERIAL: AtomicU32 = AtomicU32::new(1);

impl Session {
    /// Accept streams on a circuit whose last hop is the client.
    ///
    /// # Errors
    /// When the circuit has closed.
    pub(super) async fn new(
        tunnel: ServiceOnionServiceDataTunnel,
        streams_max: u32,
        open: OpenCircuit,
    ) -> tor_circmgr::Result<Session> {
        let client = tunnel.last_hop()?;
        let begun = tunnel
            .allow_stream_requests(&[RelayCmd::BEGIN], client, StreamLimit { streams_max })
            .await?
            .boxed();
        let served = Arc::new(Semaphore::new(streams_max as usize));
        let streams_max = streams_max as usize;
        Ok(Session { tunnel: Arc::new(tunnel), begun, served, streams_max, _open: open })
    }

    /// The circuit.
    pub(super) fn tunnel(&self) -> &ServiceOnionServiceDataTunnel {
        &self.tunnel
    }

    /// Serve the client's streams until the circuit closes, or has long been without a stream.
    /// The client counts as `young` until its first stream has been handed over, or a client that
    /// wanted one would have begun it.
    pub(super) async fn run(
        mut self,
        seat: &Seat,
        young: OpenGuard,
        instance: usize,
        serve: &impl ServeStream,
    ) {
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        let circuit = CircuitId { instance: u16::try_from(instance).unwrap_or(u16::MAX), serial };
        let idle = Duration::from_secs(limits::RENDEZVOUS_IDLE_SECONDS);
        let first = Duration::from_secs(limits::RENDEZVOUS_FIRST_STREAM_SECONDS);
        // Told when the circuit is no longer in the list: dropped after the place there.
        let _closing = Closing(serve, circuit);
        let streams = (Arc::clone(&self.served), self.streams_max);
        let place = seat.circuits.enter(serial, streams, now_ms());
        let mut young = Some(young);
        let mut closed = std::pin::pin!(self.tunnel.wait_for_close());
        loop {
            let patience = if young.is_some() { first } else { idle };
            let next = tokio::select! {
                () = &mut closed => return,
                // Memory is short: the streams end with the circuit.
                () = place.circuit.close_wanted() => return self.tunnel.terminate(),
                next = runtime::timeout(patience, self.begun.next()) => next,
            };
            match next {
                Ok(Some(wire)) => {
                    let (tunnel, open) = (Arc::clone(&self.tunnel), Arc::clone(&place.circuit));
                    open.note_used(now_ms());
                    let stream = SessionStream { wire, tunnel, circuit, open };
                    match Arc::clone(&self.served).try_acquire_owned() {
                        Ok(permit) => {
                            let served = serve.serve(instance, stream);
                            let tunnel = Arc::clone(&self.tunnel);
                            let (young, open) = (young.take(), Arc::clone(&place.circuit));
                            runtime::spawn(async move {
                                // A backend that takes nothing would keep a stream for ever whose
                                // client is gone.
                                tokio::select! {
                                    () = served => {}
                                    () = linger(&tunnel) => {}
                                }
                                open.note_used(now_ms());
                                drop((permit, young));
                            });
                        }
                        // To be told no can fail only with the circuit.
                        Err(_) => drop(stream.reject(EndReason::ResourceLimit).await),
                    }
                }
                Ok(None) => return,
                Err(_) if young.take().is_some() => {}
                // Streams hold the circuit: a count of one means that none is open.
                Err(_) if Arc::strong_count(&self.tunnel) == 1 => {
                    seat.counters.note_rendezvous_idle_closed();
                    return;
                }
                Err(_) => {}
            }
        }
    }
}

/// Wait until a circuit has been closed for a while.
async fn linger(tunnel: &ServiceOnionServiceDataTunnel) {
    tunnel.wait_for_close().await;
    runtime::sleep(Duration::from_secs(limits::RENDEZVOUS_LINGER_SECONDS)).await;
}

/// A stream that a client has begun and that waits for an answer.
pub struct SessionStream {
    /// tor-proto's end of it.
    wire: WireStream,
    /// Keeps the circuit open.
    tunnel: Arc<ServiceOnionServiceDataTunnel>,
    /// Which circuit.
    circuit: CircuitId,
    /// The same in the list of those that are open.
    open: Arc<Circuit>,
}

/// The reason of an END, as it goes over the wire (tor-spec, section 6.3).
fn wire_reason(reason: EndReason) -> WireReason {
    match reason {
        EndReason::Done => WireReason::DONE,
        EndReason::ConnectRefused => WireReason::CONNECTREFUSED,
        EndReason::ExitPolicy => WireReason::EXITPOLICY,
        EndReason::Timeout => WireReason::TIMEOUT,
        EndReason::Internal => WireReason::INTERNAL,
        EndReason::ResourceLimit => WireReason::RESOURCELIMIT,
        EndReason::Destroy => WireReason::DESTROY,
        EndReason::ConnReset => WireReason::CONNRESET,
        _ => WireReason::MISC,
    }
}

#[async_trait::async_trait]
impl IncomingStream for SessionStream {
    type Stream = OpenStream;

    fn virtual_port(&self) -> u16 {
        match self.wire.request() {
            IncomingStreamRequest::Begin(begin) => begin.port(),
            // Only BEGIN was allowed; no port is 0, so such a stream is refused.
            _ => 0,
        }
    }

    fn circuit_id(&self) -> CircuitId {
        self.circuit
    }

    async fn accept(self) -> io::Result<OpenStream> {
        let data = self.wire.accept_data(Connected::new_empty()).await;
        let data = data.map_err(io::Error::other)?;
        Ok(OpenStream { data, tunnel: self.tunnel, flow: self.open.open_flow() })
    }

    async fn reject(self, reason: EndReason) -> io::Result<()> {
        let end = End::new_with_reason(wire_reason(reason));
        self.wire.reject(end).await.map_err(io::Error::other)
    }

    fn close_circuit(self) {
        self.tunnel.terminate();
    }
}

/// An open stream to a client.
pub struct OpenStream {
    /// tor-proto's end of it.
    data: DataStream,
    /// Keeps the circuit open.
    tunnel: Arc<ServiceOnionServiceDataTunnel>,
    /// What is seen of its bytes.
    flow: Arc<Flow>,
}

/// How many bytes a read or a write has moved: none yet while it has to wait. One that has failed
/// waits for nothing.
fn moved(result: &Poll<io::Result<usize>>) -> Option<usize> {
    match result {
        Poll::Pending => None,
        Poll::Ready(Ok(bytes)) => Some(*bytes),
        Poll::Ready(Err(_)) => Some(0),
    }
}

impl ClientStream for OpenStream {
    fn close_circuit(self) {
        self.tunnel.terminate();
    }
}

impl AsyncRead for OpenStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let read = AsyncRead::poll_read(Pin::new(&mut this.data), cx, buffer);
        this.flow.note_inward(moved(&read));
        read
    }
}

impl AsyncWrite for OpenStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = AsyncWrite::poll_write(Pin::new(&mut this.data), cx, bytes);
        this.flow.note_outward(moved(&written));
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = AsyncWrite::poll_flush(Pin::new(&mut this.data), cx);
        this.flow.note_outward(flushed.is_ready().then_some(0));
        flushed
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_close(Pin::new(&mut self.get_mut().data), cx)
    }
}
