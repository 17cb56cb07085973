//! Limits, queues, stand-ins, orders, and what a backend hears first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::serve::refused;
use super::support::{Begun, begin, listen, nobody, port_80, serve, soon};
use crate::base::counters::InstanceCounters;
use crate::base::stream::EndReason;
use crate::plane::config::{BackendAddress, BackendConfig, PortConfig, PortTarget, ProxyProtocol};
use crate::plane::status::{BackendOrder, BackendState};
use crate::plane::{Plane, StreamOutcome};

/// A stream that is open: what the backend has of it, and what ends it when dropped.
struct Open {
    /// The backend's side.
    at_backend: TcpStream,
    /// The client's.
    client: tokio::io::DuplexStream,
    /// The task that carries it.
    served: tokio::task::JoinHandle<StreamOutcome>,
}

impl Open {
    /// End it.
    async fn end(self) {
        drop((self.at_backend, self.client));
        soon(self.served).await.expect("no panic");
    }
}

/// Begin a stream on a circuit of its own and see it arrive at `listener`.
async fn open(plane: &Arc<Plane>, listener: &TcpListener) -> Open {
    let (begun, client, _fate) = begin(80);
    arrive(plane, begun, client, listener).await
}

/// See this stream arrive at `listener`.
async fn arrive(
    plane: &Arc<Plane>,
    begun: Begun,
    client: tokio::io::DuplexStream,
    listener: &TcpListener,
) -> Open {
    let served = serve(plane, begun, &Arc::new(InstanceCounters::default()));
    let (at_backend, _) = soon(listener.accept()).await.expect("it comes here");
    Open { at_backend, client, served }
}

/// Port 80 with these backends in their long form.
fn long_form(backends: Vec<BackendConfig>) -> PortConfig {
    PortConfig { target: PortTarget::Backends(backends), ..port_80(Vec::new()) }
}

#[tokio::test]
async fn a_backend_gets_no_more_connections_than_it_may_and_who_waits_is_next() {
    let (listener, address) = listen().await;
    let one = BackendConfig { connections_max: Some(1), ..address.into() };
    let plane = Plane::new(vec![PortConfig {
        queue_max: 1,
        queue_timeout: Duration::from_secs(60),
        ..long_form(vec![one])
    }]);
    let first = open(&plane, &listener).await;
    let (begun, client, _fate) = begin(80);
    let waits = serve(&plane, begun, &Arc::new(InstanceCounters::default()));
    while plane.status()[0].queued == 0 {
        tokio::task::yield_now().await;
    }
    // The queue is full, so the third is refused at once; the second is still there.
    assert_eq!(refused(&plane, 80).await, EndReason::ResourceLimit);
    let status = plane.status().remove(0);
    assert_eq!((status.open, status.queued, status.queue_refused_total), (1, 1, 1));
    first.end().await;
    let (at_backend, _) = soon(listener.accept()).await.expect("the one that waited");
    assert_eq!(plane.status()[0].queued, 0);
    Open { at_backend, client, served: waits }.end().await;
    assert_eq!(plane.status()[0].open, 0);
}

#[tokio::test]
async fn who_waits_too_long_is_refused_and_a_new_limit_is_noticed() {
    let (listener, address) = listen().await;
    let limited = |most| BackendConfig { connections_max: most, ..address.clone().into() };
    let config = |most, seconds| PortConfig {
        queue_timeout: Duration::from_secs(seconds),
        ..long_form(vec![limited(most)])
    };
    let plane = Plane::new(vec![config(Some(1), 0)]);
    let first = open(&plane, &listener).await;
    assert_eq!(refused(&plane, 80).await, EndReason::ResourceLimit);

    plane.set_ports(vec![config(Some(1), 60)]);
    let (begun, client, _fate) = begin(80);
    let waits = serve(&plane, begun, &Arc::new(InstanceCounters::default()));
    while plane.status()[0].queued == 0 {
        tokio::task::yield_now().await;
    }
    plane.set_ports(vec![config(None, 60)]);
    let (at_backend, _) = soon(listener.accept()).await.expect("there is room now");
    Open { at_backend, client, served: waits }.end().await;
    first.end().await;
}

#[tokio::test]
async fn a_stand_in_is_used_only_while_no_other_is_up() {
    let ((main, main_address), (stand_in, its_address)) = (listen().await, listen().await);
    let backup = BackendConfig { backup: true, ..its_address.into() };
    let plane = Plane::new(vec![long_form(vec![backup, main_address.clone().into()])]);
    for _ in 0..3 {
        open(&plane, &main).await.end().await;
    }
    assert_eq!(plane.set_order(&main_address.to_string(), None, BackendOrder::Drain), 1);
    assert_eq!(plane.status()[1].state, BackendState::Draining);
    open(&plane, &stand_in).await.end().await;
    assert_eq!(plane.set_order(&main_address.to_string(), Some(80), BackendOrder::Ready), 1);
    open(&plane, &main).await.end().await;
    // It goes down: the stream that notices is not lost.
    drop(main);
    open(&plane, &stand_in).await.end().await;
    assert_eq!(plane.status()[1].state, BackendState::Down);
}

#[tokio::test]
async fn a_backend_that_is_taken_out_keeps_its_streams_and_gets_no_more() {
    let (listener, address) = listen().await;
    let address = address.to_string();
    let plane = Plane::new(vec![port_80(vec![BackendAddress::Tcp(
        listener.local_addr().expect("it is bound"),
    )])]);
    let mut first = open(&plane, &listener).await;
    for order in [BackendOrder::Drain, BackendOrder::Maintenance] {
        assert_eq!(plane.set_order(&address, None, order), 1);
        assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    }
    assert_eq!(plane.set_order(&address, Some(81), BackendOrder::Ready), 0);
    assert_eq!(plane.set_order("127.0.0.1:1", None, BackendOrder::Ready), 0);
    // A reload is no order.
    plane.set_ports(vec![port_80(vec![BackendAddress::Tcp(
        listener.local_addr().expect("it is bound"),
    )])]);
    assert_eq!(plane.status()[0].state, BackendState::Maintenance);
    tokio::io::AsyncWriteExt::write_all(&mut first.client, b"on").await.expect("there is room");
    let mut two = [0; 2];
    soon(first.at_backend.read_exact(&mut two)).await.expect("the stream goes on");
    assert_eq!(&two, b"on");
    first.end().await;
    assert_eq!(plane.set_order(&address, None, BackendOrder::Ready), 1);
    open(&plane, &listener).await.end().await;
}

#[tokio::test]
async fn a_backend_that_refused_is_left_alone_but_better_than_none() {
    let (_bound, dead) = nobody();
    let (listener, alive) = listen().await;
    let plane = Plane::new(vec![port_80(vec![dead.clone(), alive])]);
    for _ in 0..10 {
        open(&plane, &listener).await.end().await;
    }
    assert_eq!(plane.status()[0].failed_total, 1);
    // With nobody else there it is tried by every stream.
    let plane = Plane::new(vec![port_80(vec![dead])]);
    for tries in 1..4 {
        assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
        assert_eq!(plane.status()[0].failed_total, tries);
    }
}

#[tokio::test]
async fn backends_that_were_all_out_share_the_load_again_soon_after_they_are_back() {
    let bound = [nobody(), nobody(), nobody()];
    let addresses = bound.iter().map(|(_, address)| address.clone()).collect();
    let plane = Plane::new(vec![port_80(addresses)]);
    while plane.status().iter().any(|status| status.failed_total < 12) {
        assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    }
    let listeners = bound.map(|(socket, _)| socket.listen(64).expect("it is bound"));
    let (back, mut served) = (Instant::now(), [0; 3]);
    while served.contains(&0) {
        served[open_anywhere(&plane, &listeners).await] += 1;
        // A wait of 1 s, on a machine that may be slow; it was one of 30 s.
        assert!(back.elapsed() < Duration::from_secs(15), "served so far: {served:?}");
    }
    let mut shares = [0; 3];
    for _ in 0..30 {
        shares[open_anywhere(&plane, &listeners).await] += 1;
    }
    assert_eq!(shares, [10, 10, 10]);
}

/// Begin a stream, see at which of these it arrives, and end it.
async fn open_anywhere(plane: &Arc<Plane>, listeners: &[TcpListener; 3]) -> usize {
    let (begun, client, _fate) = begin(80);
    let served = serve(plane, begun, &Arc::new(InstanceCounters::default()));
    let arrivals = listeners.iter().map(|listener| Box::pin(listener.accept()));
    let (arrived, index, _) = soon(futures::future::select_all(arrivals)).await;
    let (at_backend, _) = arrived.expect("a connection");
    Open { at_backend, client, served }.end().await;
    index
}

#[tokio::test]
async fn the_proxy_header_comes_first_and_whole() {
    let (listener, address) = listen().await;
    for (version, expected) in [
        (ProxyProtocol::V1, b"PROXY TCP6 fc00:dead:beef:4dad:0:".as_slice()),
        (ProxyProtocol::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x21".as_slice()),
    ] {
        let config = port_80(vec![address.clone()]);
        let plane = Plane::new(vec![PortConfig { proxy_protocol: Some(version), ..config }]);
        let mut stream = open(&plane, &listener).await;
        // Also for a backend that speaks first, before the client has sent anything.
        let mut head = vec![0; expected.len()];
        soon(stream.at_backend.read_exact(&mut head)).await.expect("a header");
        assert_eq!(head, expected);
        stream.end().await;
    }
}
