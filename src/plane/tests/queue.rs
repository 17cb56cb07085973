//! Streams of several circuits that wait for one backend.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Fate, begin, listen, port_80, serve, soon};
use crate::base::counters::InstanceCounters;
use crate::base::stream::EndReason;
use crate::limits;
use crate::plane::Plane;
use crate::plane::config::{BackendConfig, PortConfig, PortTarget};

/// A client whose first byte is the number of its circuit.
async fn client(plane: &Arc<Plane>, circuit: u8) -> (DuplexStream, Arc<Mutex<Fate>>) {
    let (begun, mut client, fate) = begin(80);
    let counters = Arc::new(InstanceCounters::default());
    drop(serve(plane, begun.of_circuit(circuit.into()), &counters));
    client.write_all(&[circuit]).await.expect("there is room");
    (client, fate)
}

/// The circuit of whoever gets the backend's next place, and the connection.
async fn next(listener: &TcpListener) -> (u8, TcpStream) {
    let (mut connection, _) = soon(listener.accept()).await.expect("somebody comes");
    let mut circuit = [0];
    soon(connection.read_exact(&mut circuit)).await.expect("it says which");
    (circuit[0], connection)
}

/// Wait until so many streams wait.
async fn queued(plane: &Plane, count: u32) {
    let waits = async {
        while plane.status()[0].queued != count {
            tokio::task::yield_now().await;
        }
    };
    soon(waits).await;
}

#[tokio::test]
async fn where_one_circuit_waits_with_1024_streams_anothers_only_stream_is_served_next() {
    let most = limits::BACKEND_QUEUE_DEFAULT;
    let (listener, address) = listen().await;
    let one = BackendConfig { connections_max: Some(1), ..address.into() };
    let target = PortTarget::Backends(vec![one]);
    let queue_timeout = Duration::from_secs(120);
    let plane = Plane::new(vec![PortConfig { target, queue_timeout, ..port_80(Vec::new()) }]);
    // One has the place, and the queue is full.
    let mut greedy = vec![client(&plane, 1).await];
    let (who, first) = next(&listener).await;
    assert_eq!(who, 1);
    for _ in 0..most {
        greedy.push(client(&plane, 1).await);
    }
    queued(&plane, most).await;
    drop(first);
    let (who, second) = next(&listener).await;
    assert_eq!(who, 1);
    greedy.push(client(&plane, 1).await);
    queued(&plane, most).await;
    // The other is let in, the greedy one's newest goes, and no other of its streams.
    let (_other, fate) = client(&plane, 2).await;
    let refused = |fate: &Mutex<Fate>| fate.lock().expect("no panic").rejected;
    let goes = async {
        while plane.status()[0].queue_refused_total == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(goes).await;
    drop(second);
    let (who, _third) = next(&listener).await;
    assert_eq!((who, refused(&fate)), (2, None));
    let gone: Vec<_> = greedy.iter().filter_map(|(_, fate)| refused(fate)).collect();
    assert_eq!(gone, [EndReason::ResourceLimit]);
    queued(&plane, most - 1).await;
}
