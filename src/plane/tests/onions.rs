//! Backends that are onion services, reached through a Tor stack that is a pipe in memory.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;

use super::serve::refused;
use super::support::{PIPE_BYTES, begin, port_80, serve, soon};
use crate::base::counters::InstanceCounters;
use crate::base::stream::{Apart, EndReason, OnionStream, OpenOnion};
use crate::plane::config::{
    BackendAddress, CheckConfig, CheckRequest, PortConfig, PortTarget, ProxyProtocol,
};
use crate::plane::reach::Reach;
use crate::plane::status::BackendState;
use crate::plane::{Plane, StreamOutcome, health};

/// Streams that were asked for: to where, shared with which others, and the service's end.
type Asked = (String, Apart, DuplexStream);

/// Gives whoever asks one end of a pipe; with `true`, there is no Tor yet.
#[derive(Debug, Default)]
struct Pipes(Mutex<Vec<Asked>>, watch::Sender<bool>);

impl Pipes {
    /// What was asked for first, if anything was.
    fn first(&self) -> Option<Asked> {
        let mut asked = self.0.lock().expect("no panic");
        (!asked.is_empty()).then(|| asked.remove(0))
    }

    /// What is asked for first.
    async fn next(&self) -> Asked {
        soon(async {
            loop {
                if let Some(first) = self.first() {
                    return first;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

#[async_trait]
impl OpenOnion for Pipes {
    async fn ready(&self) {
        let _ = self.1.subscribe().wait_for(|late| !late).await;
    }

    async fn open_onion(&self, host: &str, port: u16, apart: Apart) -> io::Result<OnionStream> {
        if port == 1 {
            return Err(io::Error::other("the service refuses"));
        }
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (read, write) = tokio::io::split(near);
        self.0.lock().expect("no panic").push((format!("{host}:{port}"), apart, far));
        Ok(OnionStream { read: Box::new(read), write: Box::new(write) })
    }
}

/// A plane that reaches this port of an onion service through `pipes`.
fn plane(pipes: &Arc<Pipes>, port: u16, config: impl Fn(PortConfig) -> PortConfig) -> Arc<Plane> {
    let address = BackendAddress::Onion { host: "abc.onion".to_owned(), port };
    let onions: Arc<dyn OpenOnion> = Arc::clone(pipes) as _;
    let reach = Reach { onions: Some(onions), ..Reach::default() };
    Plane::with_reach(vec![config(port_80(vec![address]))], reach)
}

#[tokio::test]
async fn a_stream_reaches_the_service_with_its_header_first_and_ends_with_it() {
    let pipes = Arc::new(Pipes::default());
    let v1 = |port| PortConfig { proxy_protocol: Some(ProxyProtocol::V1), ..port };
    let plane = plane(&pipes, 8080, v1);
    let (begun, mut client, _fate) = begin(80);
    let served = serve(&plane, begun, &Arc::new(InstanceCounters::default()));
    let (address, _, mut service) = pipes.next().await;
    assert_eq!(address, "abc.onion:8080");
    client.write_all(b"question").await.expect("there is room");
    let expected = b"PROXY TCP6 fc00:dead:beef:4dad:0:0:0:1 ::1 1 80\r\nquestion";
    let mut got = vec![0; expected.len()];
    soon(service.read_exact(&mut got)).await.expect("it comes");
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
    service.write_all(b"answer").await.expect("there is room");
    drop(service);
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.expect("a clean end");
    assert_eq!(answer, "answer");
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
}

#[tokio::test]
async fn streams_of_one_service_may_share_a_circuit_and_those_of_two_may_not() {
    let pipes = Arc::new(Pipes::default());
    let planes = [plane(&pipes, 80, |port| port), plane(&pipes, 80, |port| port)];
    let mut seen = Vec::new();
    for plane in [&planes[0], &planes[0], &planes[1]] {
        let (begun, client, _fate) = begin(80);
        let served = serve(plane, begun, &Arc::new(InstanceCounters::default()));
        let (_, apart, service) = pipes.next().await;
        drop((client, service));
        soon(served).await.expect("no panic");
        // What is configured anew stays the same service.
        let address = BackendAddress::Onion { host: "abc.onion".to_owned(), port: 80 };
        plane.set_ports(vec![PortConfig::new(80, PortTarget::backends([address]))]);
        seen.push(apart);
    }
    assert!(seen[0] == seen[1] && seen[1] != seen[2], "{seen:?}");
}

#[tokio::test]
async fn a_service_that_refuses_is_a_backend_that_does_and_so_is_one_without_tor() {
    let pipes = Arc::new(Pipes::default());
    let refusing = plane(&pipes, 1, |port| port);
    assert_eq!(refused(&refusing, 80).await, EndReason::ConnectRefused);
    assert_eq!(refusing.status()[0].state, BackendState::Down);
    let address = BackendAddress::Onion { host: "abc.onion".to_owned(), port: 80 };
    let alone = Plane::new(vec![port_80(vec![address])]);
    assert_eq!(refused(&alone, 80).await, EndReason::ConnectRefused);
}

#[tokio::test]
async fn an_onion_service_is_not_checked_before_there_is_tor_and_at_once_from_then_on() {
    let pipes = Arc::new(Pipes(Mutex::default(), watch::Sender::new(true)));
    let minute = Duration::from_secs(60);
    let request = CheckRequest::Tcp;
    let check = CheckConfig { request, interval: minute, timeout: minute, rise: 1, fall: 1 };
    let plane = plane(&pipes, 80, |port| PortConfig { check: Some(check.clone()), ..port });
    tokio::spawn(health::watch(Arc::downgrade(&plane)));
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(pipes.first().is_none(), "it was asked for");
    }
    assert_eq!(plane.status()[0].check, None);
    pipes.1.send_replace(false);
    // Well before the next interval.
    drop(pipes.next().await);
}

#[tokio::test]
async fn a_check_opens_a_stream_and_asks_where_it_is_to() {
    let pipes = Arc::new(Pipes::default());
    let second = Duration::from_secs(1);
    let request = CheckRequest::Http { path: "/up".to_owned(), host: "abc.onion".to_owned() };
    let check = CheckConfig { request, interval: second, timeout: second * 60, rise: 1, fall: 1 };
    let plane = plane(&pipes, 80, |port| PortConfig { check: Some(check.clone()), ..port });
    tokio::spawn(health::watch(Arc::downgrade(&plane)));
    let (_, _, mut service) = pipes.next().await;
    let mut head = [0; 11];
    soon(service.read_exact(&mut head)).await.expect("it comes");
    assert_eq!(&head, b"GET /up HTT");
    service.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("there is room");
    soon(async {
        while plane.status()[0].check.as_deref() != Some("ok") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
