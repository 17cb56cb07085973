//! Backends inside the process, and ports that change while streams are open.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::serve::refused;
use super::support::{begin, listen, port_80, serve, soon};
use crate::base::counters::InstanceCounters;
use crate::base::stream::{CircuitId, EndReason};
use crate::plane::config::{BackendAddress, CircuitLimits};
use crate::plane::handler::{Handlers, Inbox};
use crate::plane::status::BackendState;
use crate::plane::{Plane, StreamOutcome};

/// A plane whose port 80 is a handler.
fn shop(waiting_max: usize) -> (Arc<Plane>, Inbox) {
    let mut handlers = Handlers::default();
    let inbox = handlers.add("shop", waiting_max);
    let backend = BackendAddress::Handler("shop".to_owned());
    (Plane::with_reach(vec![port_80(vec![backend])], handlers.into()), inbox)
}

#[tokio::test]
async fn a_handler_gets_the_stream_with_its_circuit_and_its_port() {
    let (plane, mut inbox) = shop(1);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, mut client, fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    let mut stream = soon(inbox.next()).await.expect("the plane lives");
    assert_eq!(stream.circuit_id(), CircuitId { instance: 0, serial: 1 });
    assert_eq!(stream.virtual_port(), 80);
    client.write_all(b"question").await.expect("there is room");
    let mut question = [0; 8];
    soon(stream.read_exact(&mut question)).await.expect("it arrives");
    assert_eq!(&question, b"question");
    stream.write_all(b"answer").await.expect("there is room");
    assert_eq!(plane.status()[0].open, 1);
    drop(stream);
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.expect("a clean end");
    assert_eq!(answer, "answer");
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
    assert!(fate.lock().expect("no panic").accepted);
    assert_eq!(plane.status()[0].open, 0);
}

#[tokio::test]
async fn a_handler_with_a_full_inbox_or_without_anybody_refuses() {
    let (plane, mut inbox) = shop(1);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, client, _fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    // It takes the only place as soon as it runs.
    while plane.status()[0].open == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    drop(soon(inbox.next()).await);
    drop(client);
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
    drop(inbox);
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    assert_eq!(plane.status()[0].state, BackendState::Down);

    let unknown = BackendAddress::Handler("nobody".to_owned());
    assert_eq!(
        refused(&Plane::new(vec![port_80(vec![unknown])]), 80).await,
        EndReason::ConnectRefused
    );
}

#[tokio::test]
async fn open_streams_keep_their_backend_when_the_ports_change() {
    let ((first, first_address), (second, second_address)) = (listen().await, listen().await);
    let plane = Plane::new(vec![port_80(vec![first_address.clone()])]);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, mut old_client, _fate) = begin(80);
    let old = serve(&plane, begun, &counters);
    let (mut backend, _) = soon(first.accept()).await.expect("it connects");

    plane.set_ports(vec![port_80(vec![second_address.clone()])]);
    let (begun, new_client, _fate) = begin(80);
    let new = serve(&plane, begun, &counters);
    drop(soon(second.accept()).await.expect("new streams go to the new backend"));
    assert_eq!(soon(new).await.expect("no panic"), StreamOutcome::Done);
    drop(new_client);
    assert_eq!(plane.status()[0].address, second_address.to_string());

    backend.write_all(b"still here").await.expect("it is connected");
    drop(backend);
    let mut answer = String::new();
    soon(old_client.read_to_string(&mut answer)).await.expect("a clean end");
    assert_eq!(answer, "still here");
    assert_eq!(soon(old).await.expect("no panic"), StreamOutcome::Done);

    // A backend that stays keeps what was counted of it.
    plane.set_ports(Vec::new());
    let allow_unknown_ports = true;
    plane.set_circuit_limits(CircuitLimits { allow_unknown_ports, ..CircuitLimits::default() });
    assert_eq!(refused(&plane, 80).await, EndReason::Done);
    drop(first);
    plane.set_ports(vec![port_80(vec![first_address.clone()])]);
    assert_eq!(refused(&plane, 80).await, EndReason::ConnectRefused);
    plane.set_ports(vec![port_80(vec![second_address, first_address])]);
    assert_eq!(plane.status()[1].failed_total, 1);
}
