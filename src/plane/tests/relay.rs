//! What the relay does with bytes, ends and breaks.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{
    AnswerThenReset, Batching, PIPE_BYTES, begin, begin_open, expect_noise, listen, port_80, reset,
    send_noise, serve, soon,
};
use crate::base::counters::InstanceCounters;
use crate::base::stream::EndReason;
use crate::limits;
use crate::plane::config::BackendAddress;
use crate::plane::forward::Patience;
use crate::plane::gate::Pass;
use crate::plane::stream::run;
use crate::plane::{Meter, Plane, StreamOutcome};

/// A meter without limits.
fn meter(counters: &Arc<InstanceCounters>) -> Meter {
    Meter { counters: Arc::clone(counters), pass: Pass::free() }
}

/// So many milliseconds once one side has ended.
fn patience(milliseconds: u64) -> Patience {
    Patience { idle: None, half_close: Duration::from_millis(milliseconds) }
}

/// More than every buffer on the way together.
const BODY_BYTES: usize = 12 << 20;

#[tokio::test]
async fn both_directions_carry_12_mib_at_once_and_every_byte_arrives() {
    let (listener, address) = listen().await;
    let plane = Plane::new(vec![port_80(vec![address])]);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, client, fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    let backend = async {
        let (mut read, mut write) = listener.accept().await.expect("it connects").0.into_split();
        tokio::join!(
            expect_noise(&mut read, 11, BODY_BYTES),
            send_noise(&mut write, 22, BODY_BYTES)
        );
        // The client has not ended the stream; the backend ends it.
        (read, write)
    };
    let client = async {
        let (mut read, mut write) = tokio::io::split(client);
        tokio::join!(
            expect_noise(&mut read, 22, BODY_BYTES),
            send_noise(&mut write, 11, BODY_BYTES)
        );
        (read, write)
    };
    let (backend_ends, (mut read, _write)) = soon(async { tokio::join!(backend, client) }).await;
    assert_eq!((counters.streams_open(), plane.status()[0].open), (1, 1));
    drop(backend_ends);
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
    assert_eq!(soon(read.read(&mut [0])).await.expect("a clean end"), 0);
    assert_eq!(counters.bytes_in_total(), BODY_BYTES as u64);
    assert_eq!(counters.bytes_out_total(), BODY_BYTES as u64);
    assert_eq!((counters.streams_open(), plane.status()[0].open), (0, 0));
    assert_eq!(fate.lock().expect("no panic").aborted, None);
}

/// Write until nothing moves any more; how much went in. Every task here shares this thread, so
/// once it has let the others run this often without any progress, there is none to come.
async fn write_until_stuck(socket: &tokio::net::UnixStream, counters: &InstanceCounters) -> u64 {
    let (mut written, mut quiet, mut seen) = (0, 0, 0);
    while quiet < 10_000 {
        quiet += 1;
        if let Ok(now) = socket.try_write(&[7; 4096]) {
            written += now as u64;
            quiet = 0;
        }
        if counters.bytes_out_total() != seen {
            seen = counters.bytes_out_total();
            quiet = 0;
        }
        tokio::task::yield_now().await;
    }
    written
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_backend_and_costs_one_buffer() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a new socket");
    let plane = Plane::new(vec![port_80(vec![BackendAddress::Unix(path)])]);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, mut client, _fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    let (backend, _) = soon(listener.accept()).await.expect("it connects");
    soon(backend.writable()).await.expect("it is open");
    let written = write_until_stuck(&backend, &counters).await;
    // What the client's pipe holds, and not a byte more, was taken from the backend's bytes.
    assert_eq!(counters.bytes_out_total(), PIPE_BYTES as u64);
    // The rest stands in one buffer of ours and in the kernel's for this socket.
    let kernel_bytes_max = 1 << 20;
    let ours_max = (PIPE_BYTES + limits::RELAY_BUFFER_BYTES) as u64;
    assert!(written > ours_max && written < ours_max + kernel_bytes_max, "{written} bytes");
    // It goes on when the client reads.
    drop(backend);
    let mut body = Vec::new();
    soon(client.read_to_end(&mut body)).await.expect("a clean end");
    assert_eq!(body.len() as u64, written);
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
}

#[tokio::test]
async fn a_backend_hears_that_the_client_has_ended_and_its_answer_is_still_delivered() {
    let (listener, address) = listen().await;
    let plane = Plane::new(vec![port_80(vec![address])]);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, mut client, _fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    client.write_all(b"question").await.expect("there is room");
    client.shutdown().await.expect("it is open");
    let (mut backend, _) = soon(listener.accept()).await.expect("it connects");
    let mut question = String::new();
    soon(backend.read_to_string(&mut question)).await.expect("a clean end");
    assert_eq!(question, "question");
    let answer = async {
        send_noise(&mut backend, 3, 300_000).await;
        drop(backend);
    };
    soon(async { tokio::join!(answer, expect_noise(&mut client, 3, 300_000)) }).await;
    assert_eq!(soon(client.read(&mut [0])).await.expect("a clean end"), 0);
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
}

#[tokio::test]
async fn after_a_tor_client_has_ended_what_the_backend_sends_is_read_and_dropped() {
    let (listener, address) = listen().await;
    let plane = Plane::new(vec![port_80(vec![address])]);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, mut client, fate) = begin(80);
    let served = serve(&plane, begun.with_tor_end(), &counters);
    client.shutdown().await.expect("it is open");
    let (mut backend, _) = soon(listener.accept()).await.expect("it connects");
    // More than every buffer on the way: were it not read, this would hang; were the connection
    // closed, it would fail.
    soon(send_noise(&mut backend, 4, BODY_BYTES)).await;
    drop(backend);
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::Done);
    assert_eq!(counters.bytes_out_total(), 0);
    assert_eq!(fate.lock().expect("no panic").aborted, None);
}

#[tokio::test]
async fn a_backend_that_does_not_close_after_the_client_is_left() {
    let (begun, mut client, fate) = begin(80);
    let (backend_near, mut backend) = tokio::io::duplex(64);
    let counters = Arc::new(InstanceCounters::default());
    let (read, write) = tokio::io::split(backend_near);
    let relay = run(begun.open(), (read, write), None, meter(&counters), patience(50));
    let other = async {
        client.shutdown().await.expect("it is open");
        // The backend hears of the end, and does nothing.
        backend.read(&mut [0]).await.expect("a clean end")
    };
    let ((outcome, _), read) = soon(async { tokio::join!(relay, other) }).await;
    assert_eq!((outcome, read), (StreamOutcome::Left, 0));
    // It may have been half an answer.
    assert_eq!(fate.lock().expect("no panic").aborted, Some(EndReason::Timeout));
}

#[tokio::test]
async fn a_backend_that_breaks_off_in_mid_stream_aborts_the_stream_after_what_it_had_sent() {
    let (listener, address) = listen().await;
    let plane = Plane::new(vec![port_80(vec![address])]);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, mut client, fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    let (mut backend, _) = soon(listener.accept()).await.expect("it connects");
    backend.write_all(b"half of it").await.expect("there is room");
    let mut half = [0; 10];
    soon(client.read_exact(&mut half)).await.expect("half of it");
    reset(backend);
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::BackendDied);
    assert_eq!(&half, b"half of it");
    assert_eq!(fate.lock().expect("no panic").aborted, Some(EndReason::ConnReset));
    assert_eq!((counters.streams_open(), plane.status()[0].open), (0, 0));
}

/// Serve a client whose upload never ends with a backend that does not read it, sends an answer of
/// `length` bytes and ends as `end` does. The client has to get all of it.
async fn answer_early(
    length: usize,
    end: impl AsyncFnOnce(tokio::net::TcpStream),
) -> StreamOutcome {
    let (listener, address) = listen().await;
    let plane = Plane::new(vec![port_80(vec![address])]);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, client, _fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    let (mut read, mut write) = tokio::io::split(client);
    let upload = tokio::spawn(async move { while write.write_all(&[7; 8192]).await.is_ok() {} });
    let backend = async {
        let (mut backend, _) = listener.accept().await.expect("it connects");
        backend.readable().await.expect("the upload comes");
        send_noise(&mut backend, 6, length).await;
        end(backend).await;
    };
    let client = async {
        expect_noise(&mut read, 6, length).await;
        // Whether it ends well or is broken off, it ends.
        let _ = read.read_to_end(&mut Vec::new()).await;
    };
    soon(async { tokio::join!(backend, client) }).await;
    let outcome = soon(served).await.expect("no panic");
    drop(read);
    soon(upload).await.expect("the upload is refused, and ends");
    assert_eq!((counters.streams_open(), plane.status()[0].open), (0, 0));
    outcome
}

#[tokio::test]
async fn a_backend_that_answers_early_and_reads_no_more_delivers_its_whole_answer() {
    // It says that it is done, and keeps the rest of the upload waiting until it is left.
    let polite = async |mut backend: tokio::net::TcpStream| {
        backend.shutdown().await.expect("it is open");
        let left = async { while backend.read(&mut [0; 8192]).await.is_ok_and(|read| read > 0) {} };
        left.await;
    };
    assert_eq!(answer_early(300_000, polite).await, StreamOutcome::Done);
    // It closes with the upload unread, which resets the connection (RFC 1122, 4.2.2.13).
    let rude = async |backend: tokio::net::TcpStream| drop(backend);
    let outcome = answer_early(1000, rude).await;
    assert!(matches!(outcome, StreamOutcome::Done | StreamOutcome::BackendDied), "{outcome:?}");
}

#[tokio::test]
async fn bytes_are_flushed_before_a_break_is_told() {
    let (client_near, mut client) = begin_open();
    let backend_read = AnswerThenReset(b"an early answer");
    let counters = Arc::new(InstanceCounters::default());
    let near = Batching::new(client_near);
    let relay =
        run(near, (backend_read, tokio::io::sink()), None, meter(&counters), patience(60_000));
    assert_eq!(soon(relay).await.0, StreamOutcome::BackendDied);
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.expect("what was flushed");
    assert_eq!(answer, b"an early answer");
}

#[tokio::test]
async fn the_writer_is_flushed_when_the_backend_pauses_and_not_after_each_read() {
    let (client_near, mut client) = begin_open();
    let near = Batching::new(client_near);
    let flushes = near.flushes();
    let (backend_near, mut backend) = tokio::io::duplex(1 << 20);
    // Eight reads of a full buffer, and a little more, are there at once.
    let length = limits::RELAY_BUFFER_BYTES * 8 + 5;
    send_noise(&mut backend, 5, length).await;
    let (read, write) = tokio::io::split(backend_near);
    let counters = Arc::new(InstanceCounters::default());
    let mut relay =
        std::pin::pin!(run(near, (read, write), None, meter(&counters), patience(60_000)));
    tokio::select! {
        _ = &mut relay => panic!("the backend has not closed"),
        () = soon(expect_noise(&mut client, 5, length)) => {}
    }
    assert_eq!(flushes.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_client_that_breaks_off_closes_the_backend() {
    let (listener, address) = listen().await;
    let plane = Plane::new(vec![port_80(vec![address])]);
    let counters = Arc::new(InstanceCounters::default());
    let (begun, client, fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    let (mut backend, _) = soon(listener.accept()).await.expect("it connects");
    fate.lock().expect("no panic").broken = true;
    drop(client);
    assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::ClientGone);
    assert_eq!(soon(backend.read(&mut [0])).await.expect("a close"), 0);
}
