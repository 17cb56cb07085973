//! Which backend a stream gets, and what a client hears when it gets none.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{begin, listen, nobody, port_80, serve, soon};
use crate::base::counters::InstanceCounters;
use crate::base::stream::EndReason;
use crate::limits;
use crate::plane::config::{BackendAddress, CircuitLimits, PortConfig, PortTarget};
use crate::plane::status::BackendState;
use crate::plane::{Plane, StreamOutcome};

/// Serve a stream that is refused, and say why.
pub(super) async fn refused(plane: &Arc<Plane>, port: u16) -> EndReason {
    let counters = Arc::new(InstanceCounters::default());
    let (begun, _client, fate) = begin(port);
    let outcome = soon(serve(plane, begun, &counters)).await.expect("no panic");
    let fate = fate.lock().expect("no panic");
    let reason = fate.rejected.expect("it was rejected");
    assert_eq!(outcome, StreamOutcome::Refused(reason));
    assert!(!fate.accepted);
    assert_eq!((counters.streams_refused_total(), counters.streams_total()), (1, 0));
    reason
}

#[tokio::test]
async fn a_port_that_is_not_served_closes_the_circuit_and_each_of_a_range_is_served() {
    let (_listener, address) = listen().await;
    let mut config = port_80(vec![address]);
    (config.virtual_first, config.virtual_last) = (8000, 8010);
    let plane = Plane::new(vec![config]);
    for port in [0, 80, 7999, 8011] {
        let counters = Arc::new(InstanceCounters::default());
        let (begun, _client, fate) = begin(port);
        let outcome = soon(serve(&plane, begun, &counters)).await.expect("no panic");
        assert_eq!(outcome, StreamOutcome::Refused(EndReason::Done));
        let fate = fate.lock().expect("no panic");
        assert!(fate.circuit_closed && fate.rejected.is_none() && !fate.accepted);
        assert_eq!(counters.streams_refused_total(), 1);
    }
    let allow_unknown_ports = true;
    plane.set_circuit_limits(CircuitLimits { allow_unknown_ports, ..CircuitLimits::default() });
    assert_eq!(refused(&plane, 80).await, EndReason::Done);
    assert_eq!(plane.circuits().unknown_ports_total, 5);
    for port in [8000, 8010] {
        let (begun, client, fate) = begin(port);
        drop(client);
        let counters = Arc::new(InstanceCounters::default());
        let served = serve(&plane, begun, &counters);
        soon(_listener.accept()).await.expect("it connects");
        assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
        assert!(fate.lock().expect("no panic").accepted);
    }
}

#[tokio::test]
async fn a_backend_that_refuses_is_told_to_the_client_and_shown_as_down() {
    let (_bound, address) = nobody();
    let plane = Plane::new(vec![port_80(vec![address.clone()])]);
    assert_eq!(plane.status()[0].state, BackendState::Up);
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    let status = plane.status().remove(0);
    assert_eq!((status.state, status.failed_total), (BackendState::Down, 2));
    assert_eq!((status.virtual_port, status.address), (80, address.to_string()));
}

#[tokio::test]
async fn a_unix_socket_that_is_not_there_is_a_backend_that_refuses() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let address = BackendAddress::Unix(directory.path().join("none.sock"));
    let plane = Plane::new(vec![port_80(vec![address])]);
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
}

#[tokio::test]
async fn backends_are_used_in_turn() {
    let ((first, first_address), (second, second_address)) = (listen().await, listen().await);
    let plane = Plane::new(vec![port_80(vec![first_address, second_address])]);
    let counters = Arc::new(InstanceCounters::default());
    for _ in 0..5 {
        for listener in [&first, &second] {
            let (begun, client, _fate) = begin(80);
            let served = serve(&plane, begun, &counters);
            drop(soon(listener.accept()).await.expect("it is this one's turn"));
            assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
            drop(client);
        }
    }
    assert_eq!(counters.streams_total(), 10);
}

#[tokio::test]
async fn a_stream_goes_to_the_next_backend_when_one_refuses() {
    let (_bound, dead) = nobody();
    let (listener, alive) = listen().await;
    let plane = Plane::new(vec![port_80(vec![dead, alive])]);
    let counters = Arc::new(InstanceCounters::default());
    for _ in 0..4 {
        let (begun, mut client, _fate) = begin(80);
        let served = serve(&plane, begun, &counters);
        let (mut backend, _) = soon(listener.accept()).await.expect("it connects");
        backend.write_all(b"here").await.expect("there is room");
        drop(backend);
        let mut answer = String::new();
        soon(client.read_to_string(&mut answer)).await.expect("a clean end");
        assert_eq!(answer, "here");
        assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
    }
    // The first stream began with the dead one, and the others left it alone.
    let failed: Vec<u64> = plane.status().iter().map(|one| one.failed_total).collect();
    assert_eq!((failed, counters.streams_refused_total()), (vec![1, 0], 0));
}

/// A unix socket whose queue holds a single connection, and that connection.
fn crowded(path: &std::path::Path) -> (tokio::net::UnixListener, std::os::unix::net::UnixStream) {
    let socket = tokio::net::UnixSocket::new_stream().expect("there are sockets");
    socket.bind(path).expect("a new socket");
    let listener = socket.listen(0).expect("it is bound");
    (listener, std::os::unix::net::UnixStream::connect(path).expect("the first one has room"))
}

#[tokio::test]
async fn a_silent_backend_is_a_timeout_and_one_that_wakes_up_in_time_serves() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("busy.sock");
    let (listener, _first) = crowded(&path);
    let mut config = port_80(vec![BackendAddress::Unix(path)]);
    config.connect_timeout = Duration::from_millis(50);
    assert_eq!(refused(&Plane::new(vec![config.clone()]), 80).await, EndReason::Timeout);

    config.connect_timeout = Duration::from_secs(60);
    let plane = Plane::new(vec![config]);
    let (begun, client, _fate) = begin(80);
    drop(client);
    let served = serve(&plane, begun, &Arc::new(InstanceCounters::default()));
    for _ in 0..2 {
        drop(soon(listener.accept()).await.expect("first the one that waits, then ours"));
    }
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
}

/// Port 80 with the built-in page.
fn hello() -> Arc<Plane> {
    let config = PortConfig { target: PortTarget::Hello, ..port_80(Vec::new()) };
    Plane::new(vec![config])
}

#[tokio::test]
async fn the_built_in_page_names_the_instance() {
    let (begun, mut client, _fate) = begin(80);
    let counters = Arc::new(InstanceCounters::default());
    let served = serve(&hello(), begun, &counters);
    // A head that arrives in pieces is a head.
    for piece in ["GET / HTTP/1.1\r\nHost: x.onion\r", "\n\r", "\n"] {
        client.write_all(piece.as_bytes()).await.expect("there is room");
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.expect("a clean end");
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert!(body.contains("instance 7"), "{body}");
    assert_eq!(counters.bytes_out_total(), answer.len() as u64);
}

#[tokio::test]
async fn a_head_without_an_end_gets_no_page() {
    let (begun, mut client, _fate) = begin(80);
    let served = serve(&hello(), begun, &Arc::new(InstanceCounters::default()));
    let head = vec![b'x'; limits::HELLO_HEAD_BYTES_MAX + 1];
    // It may close before it has read all of it.
    let _ = client.write_all(&head).await;
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::ClientGone);
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.expect("a close");
    assert!(answer.is_empty());
}
