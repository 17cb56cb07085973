//! Backends with a host name, looked up by this machine's own resolver.

use std::sync::Arc;
use std::time::Duration;

use super::serve::refused;
use super::support::{begin, port_80, serve, soon};
use crate::base::counters::InstanceCounters;
use crate::base::stream::EndReason;
use crate::plane::config::{BackendAddress, PortConfig};
use crate::plane::status::BackendState;
use crate::plane::{Plane, StreamOutcome, health};

/// Port 80 with the backend of this name.
fn named(host: &str, port: u16) -> PortConfig {
    PortConfig {
        resolve_interval: Duration::from_millis(20),
        ..port_80(vec![BackendAddress::Name { host: host.to_owned(), port }])
    }
}

#[tokio::test]
async fn a_name_is_looked_up_beforehand_and_not_for_a_stream() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback is up");
    let port = listener.local_addr().expect("it is bound").port();
    let plane = Plane::new(vec![named("localhost", port)]);
    // Nobody looks it up, so nobody is there.
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    tokio::spawn(health::watch(Arc::downgrade(&plane)));
    let arrived = soon(async {
        loop {
            let (begun, client, _fate) = begin(80);
            let served = serve(&plane, begun, &Arc::new(InstanceCounters::default()));
            drop(client);
            tokio::select! {
                accepted = listener.accept() => drop(accepted.expect("it comes here")),
                // Not yet.
                _ = tokio::time::sleep(Duration::from_millis(20)) => continue,
            }
            return served.await.expect("no panic");
        }
    });
    assert_eq!(arrived.await, StreamOutcome::Done);
    assert_eq!(plane.status()[0].address, format!("localhost:{port}"));
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_a_backend_that_refuses() {
    // `.invalid` is nobody's (RFC 6761).
    let plane = Plane::new(vec![named("nobody.invalid", 80)]);
    tokio::spawn(health::watch(Arc::downgrade(&plane)));
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
}

/// Carry a stream of `plane` to whoever accepts.
async fn carried(plane: &Arc<Plane>, accept: impl Future<Output = ()>) -> StreamOutcome {
    let (begun, client, _fate) = begin(80);
    let served = serve(plane, begun, &Arc::new(InstanceCounters::default()));
    soon(accept).await;
    drop(client);
    soon(served).await.expect("no panic")
}

#[tokio::test]
async fn localhost_is_both_loopback_addresses_without_a_look_up() {
    for ip in ["127.0.0.1", "[::1]"] {
        let listener = tokio::net::TcpListener::bind(format!("{ip}:0")).await;
        let listener = listener.expect("loopback is up");
        let port = listener.local_addr().expect("it is bound").port();
        let plane = Plane::new(vec![port_80(vec![BackendAddress::Localhost { port }])]);
        // Nothing that looks names up runs here.
        let accept = async { drop(listener.accept().await.expect("it comes here")) };
        assert_eq!(carried(&plane, accept).await, StreamOutcome::Done, "{ip}");
        assert_eq!(plane.status()[0].address, format!("localhost:{port}"));
        assert_eq!(plane.status()[0].failed_total, 0);
    }
}

#[tokio::test]
async fn an_abstract_socket_is_reached_by_its_name() {
    use std::os::linux::net::SocketAddrExt as _;

    let name = format!("rustbalance-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("it is free");
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::UnixListener::from_std(listener).expect("a runtime");
    let plane = Plane::new(vec![port_80(vec![BackendAddress::UnixAbstract(name.clone())])]);
    let accept = async { drop(listener.accept().await.expect("it comes here")) };
    assert_eq!(carried(&plane, accept).await, StreamOutcome::Done);
    assert_eq!(plane.status()[0].address, format!("unix:@{name}"));
}

#[tokio::test]
async fn a_name_that_was_not_found_yet_does_not_count_as_a_refusal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback is up");
    let port = listener.local_addr().expect("it is bound").port();
    let plane = Plane::new(vec![named("localhost", port)]);
    // As many refusals would leave the backend alone for 16 s, until a stream has tried it.
    for _ in 0..5 {
        assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    }
    assert_eq!(plane.status()[0].state, BackendState::Down, "nobody has looked the name up");
    tokio::spawn(health::watch(Arc::downgrade(&plane)));
    soon(async {
        while plane.status()[0].state != BackendState::Up {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
