//! Streams that end in the middle: half an answer, or half an upload, looks like that to a reader
//! that goes by the end of the connection (HTTP/1.0 without a length).

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::front::{Served, read_to_reset, until};
use super::support::{begin, port_80};
use crate::base::counters::InstanceCounters;
use crate::base::stream::EndReason;
use crate::plane::config::{BackendAddress, PortConfig};
use crate::plane::{Plane, StreamOutcome};
use crate::runtime::ring::tests::{engines, on_ring};

/// Without bytes for so long, a stream ends.
const SHORT: Duration = Duration::from_millis(500);
/// The beginning of an answer whose end is that of the connection.
const HALF: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nhalf of it";
/// The beginning of an upload.
const UPLOAD: &[u8] = b"PUT / HTTP/1.0\r\n\r\nhalf of that";

/// A backend that takes half an upload, sends half an answer, and says how its connection ended.
fn half_a_backend() -> (BackendAddress, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let address: SocketAddr = listener.local_addr().expect("it is bound");
    let thread = std::thread::spawn(move || {
        let mut connection = with_bytes(&listener, UPLOAD.len());
        connection.write_all(HALF).expect("it is open");
        assert_eq!(read_to_reset(connection), b"");
    });
    (BackendAddress::Tcp(address), thread)
}

/// The first connection that brings so many bytes, which are taken: who only waited for the
/// listener comes before.
fn with_bytes(listener: &TcpListener, length: usize) -> TcpStream {
    loop {
        let (mut connection, _) = listener.accept().expect("somebody comes");
        if connection.read_exact(&mut vec![0; length]).is_ok() {
            return connection;
        }
    }
}

#[test]
fn an_idle_stream_of_a_listener_is_reset_on_both_sides() {
    for io in engines() {
        let (address, backend) = half_a_backend();
        let port = PortConfig { idle_timeout: Some(SHORT), ..port_80(vec![address]) };
        let served = Served::start(io, port, false, (1, 1));
        let mut client = served.connect();
        client.write_all(UPLOAD).expect("it is open");
        assert_eq!(read_to_reset(client), HALF);
        backend.join().expect("it is reset, too");
        until("it is closed", || served.live() == 0);
    }
}

#[test]
fn an_idle_stream_of_a_circuit_is_aborted_and_its_backend_reset() {
    on_ring(|| async {
        let (address, backend) = half_a_backend();
        let port = PortConfig { idle_timeout: Some(SHORT), ..port_80(vec![address]) };
        let (begun, mut client, fate) = begin(80);
        let counters = Arc::new(InstanceCounters::default());
        let served = Plane::new(vec![port]);
        let served = served.serve(begun, &counters, 7);
        let client = async {
            client.write_all(UPLOAD).await.expect("there is room");
            let mut half = [0; HALF.len()];
            client.read_exact(&mut half).await.expect("half of it comes");
            (client, half)
        };
        let (outcome, (_client, half)) = futures::join!(served, client);
        assert_eq!((outcome, half.as_slice()), (StreamOutcome::Idle, HALF));
        assert_eq!(fate.lock().expect("no panic").aborted, Some(EndReason::Timeout));
        let joined = std::thread::spawn(|| backend.join());
        // The ring closes the connection in its next turns.
        while !joined.is_finished() {
            crate::runtime::sleep(Duration::from_millis(1)).await;
        }
        joined.join().expect("no panic").expect("it is reset, too");
    });
}

#[test]
fn half_an_answer_to_a_client_that_has_ended_is_reset() {
    for io in engines() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = BackendAddress::Tcp(listener.local_addr().expect("it is bound"));
        let port = PortConfig { half_close_timeout: SHORT, ..port_80(vec![address]) };
        let served = Served::start(io, port, false, (1, 1));
        let mut client = served.connect();
        client.write_all(UPLOAD).expect("it is open");
        client.shutdown(Shutdown::Write).expect("it is open");
        let mut backend = with_bytes(&listener, UPLOAD.len());
        assert_eq!(backend.read(&mut [0; 1]).expect("the upload ends in good order"), 0);
        backend.write_all(HALF).expect("it is open");
        assert_eq!(read_to_reset(client), HALF);
    }
}

#[test]
fn a_whole_answer_is_no_half_one_because_the_client_stays() {
    for io in engines() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = BackendAddress::Tcp(listener.local_addr().expect("it is bound"));
        let port = PortConfig { half_close_timeout: SHORT, ..port_80(vec![address]) };
        let served = Served::start(io, port, false, (1, 1));
        let mut client = served.connect();
        client.write_all(b"?").expect("it is open");
        let backend = with_bytes(&listener, 1);
        (&backend).write_all(HALF).expect("it is open");
        // It has said all, and would go on to listen.
        backend.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("it ends in good order");
        assert_eq!(answer, HALF);
        // The client says nothing more, and does not end: its half is what is cut.
        assert_eq!(read_to_reset(backend), b"");
        until("it is closed", || served.live() == 0);
        assert_eq!(leftover(&client), 0);
    }
}

#[test]
fn a_client_that_takes_an_answer_slowly_gets_all_of_it_although_its_backend_is_idle() {
    const PIECE: usize = 32 * 1024;
    const PIECES: usize = 16;
    // Longer than the client may be held up by others.
    let idle = 2 * SHORT;
    for io in engines() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = BackendAddress::Tcp(listener.local_addr().expect("it is bound"));
        let backend = std::thread::spawn(move || {
            let mut connection = with_bytes(&listener, 1);
            connection.write_all(&vec![7; PIECE * PIECES]).expect("it is open");
            connection
        });
        let port = PortConfig { idle_timeout: Some(idle), ..port_80(vec![address]) };
        let served = Served::start(io, port, false, (1, 1));
        let mut client = served.connect();
        // The rest of the answer waits in the send buffer of the listener's side.
        SockRef::from(&client).set_recv_buffer_size(2 * PIECE).expect("it is open");
        client.write_all(b"?").expect("it is open");
        let mut piece = vec![0; PIECE];
        for number in 0..PIECES {
            // Three times as long as a stream without bytes lives, for all of them.
            std::thread::sleep(idle / 5);
            let read = client.read_exact(&mut piece);
            assert!(read.is_ok(), "piece {number}: {read:?}");
        }
        let connection = backend.join().expect("it has written all");
        // Now it is idle.
        assert_eq!(read_to_reset(client), b"");
        assert_eq!(read_to_reset(connection), b"");
    }
}

/// What a connection that has ended in good order still gives.
fn leftover(mut connection: &TcpStream) -> usize {
    connection.read(&mut [0; 1]).expect("it has ended in good order")
}
