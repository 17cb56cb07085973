//! Sockets of a ring against the standard library's.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::{Listener, Socket};
use crate::limits;
use crate::runtime::{Driver, Io, sleep, spawn, timeout};

/// The engines that can be tested here: a container may forbid io_uring.
pub(crate) fn engines() -> Vec<Io> {
    match super::probe() {
        Ok(()) => vec![Io::Uring, Io::Epoll],
        Err(super::ProbeError::Forbidden) => vec![Io::Epoll],
        Err(error) => panic!("{error}"),
    }
}

/// Run on a ring of each engine.
pub(crate) fn on_ring<F: Future<Output = ()>>(main: impl Fn() -> F) {
    for io in engines() {
        Driver::for_data_core(io).expect("descriptors are left").block_on(main());
    }
}

/// A socket of the calling thread's ring, and the other end.
fn pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("there are descriptors");
    (Socket::adopt(ours.into()).expect("it can be taken over"), theirs)
}

/// Bytes that look random.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Wait until nothing is in flight.
async fn nothing_in_flight() {
    let idle = async {
        while super::in_flight() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(5), idle).await.expect("operations end with their sockets");
}

#[test]
fn bytes_arrive_both_ways_at_once() {
    on_ring(|| async {
        let (ours, theirs) = pair();
        let sent = noise(1, 3_000_000);
        let expected = sent.clone();
        let echo = std::thread::spawn(move || {
            let mut theirs = theirs;
            let mut buffer = vec![0; 70_000];
            loop {
                match theirs.read(&mut buffer).expect("it is connected") {
                    0 => return,
                    length => theirs.write_all(&buffer[..length]).expect("it is connected"),
                }
            }
        });
        let (mut read, mut write) = ours.split();
        let mut received = Vec::new();
        let (written, _) = futures::join!(
            async {
                write.write_all(&sent).await?;
                write.close().await
            },
            async { read.read_to_end(&mut received).await.expect("it ends in good order") }
        );
        written.expect("it is written");
        assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
        echo.join().expect("it does not panic");
        drop((read, write));
        nothing_in_flight().await;
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_sender_and_starves_nobody() {
    on_ring(|| async {
        let (slow, mut flood) = pair();
        flood.set_nonblocking(true).expect("it can be");
        let mut sent = 0_usize;
        let mut stuck_for = 0;
        // Let it begin to receive, and then never take anything.
        let mut first = [0; 1];
        flood.write_all(b"x").expect("there is room");
        (&mut &slow).read_exact_one(&mut first).await;
        while stuck_for < 50 {
            match flood.write(&[7; 65_536]) {
                Ok(length) => (sent, stuck_for) = (sent + length, 0),
                Err(_) => stuck_for += 1,
            }
            sleep(Duration::from_millis(1)).await;
        }
        // What was asked for, and half as much that could not be stopped; the rest is the kernel's.
        let bound = limits::SOCKET_RECEIVED_BYTES_MAX / 2 * 3;
        let held = super::received_bytes();
        assert!(held <= bound as u64 && sent < bound + 1_000_000, "{held} of {sent} bytes");
        // Others are served meanwhile, and the slow one when it reads again.
        let (mut other, mut peer) = pair();
        peer.write_all(b"hello").expect("there is room");
        let mut hello = [0; 5];
        other.read_exact(&mut hello).await.expect("it arrives");
        drop(flood);
        let mut slow = slow;
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).await.expect("all of it arrives");
        assert_eq!(rest.len(), sent);
        drop((slow, other));
        nothing_in_flight().await;
    });
}

/// What receives have cost meanwhile.
async fn cost_of(work: impl Future<Output = ()>) -> super::receive::Counts {
    let now = || super::receive::COUNTS.with(std::cell::Cell::get);
    let before = now();
    work.await;
    let after = now();
    super::receive::Counts {
        begun: after.begun - before.begun,
        completed: after.completed - before.completed,
    }
}

#[test]
fn little_at_a_time_is_asked_for_once_and_much_fills_long_buffers() {
    on_ring(|| async {
        let (mut ours, mut theirs) = pair();
        let mut answers = async || {
            for number in 0..1_000_u32 {
                let sent = [number as u8; 100];
                theirs.write_all(&sent).expect("there is room");
                let mut received = [0; 100];
                ours.read_exact(&mut received).await.expect("it is connected");
                assert_eq!(received, sent);
            }
        };
        let little = cost_of(answers()).await;
        assert!(little.begun <= 1 && little.completed <= 1_000, "{little:?}");
        drop(ours);
        // As much as the kernel takes, read as it comes; twice, for the first is a surprise.
        let (mut ours, mut theirs) = pair();
        theirs.set_nonblocking(true).expect("it can be");
        let mut room = vec![0; 65_536];
        for round in 0..2 {
            let mut sent = 0;
            while let Ok(length) = theirs.write(&[round; 32_768]) {
                sent += length;
            }
            let much = cost_of(async {
                let mut received = 0;
                while received < sent {
                    received += ours.read(&mut room).await.expect("it is connected");
                }
            });
            let (much, long) = (much.await, sent / limits::RING_BUFFER_BYTES);
            assert!(
                sent > 100_000 && (round == 0 || much.completed <= long as u64 + 2),
                "{much:?}"
            );
        }
        drop(ours);
        nothing_in_flight().await;
    });
}

/// Reads a byte through a reference.
trait ReadOne {
    /// One byte.
    async fn read_exact_one(&mut self, byte: &mut [u8; 1]);
}

impl ReadOne for &Socket {
    async fn read_exact_one(&mut self, byte: &mut [u8; 1]) {
        let read = std::future::poll_fn(|cx| self.poll_receive(cx, byte)).await;
        assert_eq!(read.expect("it is connected"), 1);
    }
}

#[test]
fn connect_accept_and_refusal() {
    on_ring(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let office = super::current_office().expect("a ring is here");
        let listener = Listener::new(listener.into()).expect("a ring is here");
        let mut peers = Vec::new();
        for number in 0..100_u8 {
            let connect = super::connect(Arc::clone(&office), address.into());
            let accept = std::future::poll_fn(|cx| listener.poll_accept(cx));
            let (near, far) = futures::join!(connect, accept);
            let (mut near, mut far) = (near.expect("it connects"), far.expect("it is accepted"));
            near.write_all(&[number]).await.expect("it is connected");
            let mut byte = [0];
            far.read_exact(&mut byte).await.expect("it is connected");
            assert_eq!(byte, [number]);
            peers.push((near, far));
        }
        drop((peers, listener));
        nothing_in_flight().await;
        let refused = super::connect(office, address.into()).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_full_unix_listener_is_said_to_be_full_and_nobody_waits_in_the_kernel() {
    on_ring(|| async {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let address = socket2::SockAddr::unix(dir.path().join("full")).expect("it is short");
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)
            .expect("there are descriptors");
        listener.bind(&address).expect("nobody has it");
        listener.listen(1).expect("it is bound");
        let office = super::current_office().expect("a ring is here");
        let mut connected = Vec::new();
        let full = loop {
            match super::connect(Arc::clone(&office), address.clone()).await {
                Ok(socket) => connected.push(socket),
                Err(error) => break error,
            }
            assert!(connected.len() < 10, "a queue of one is full before");
        };
        assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(super::in_flight(), 0);
    });
}

#[test]
fn what_is_dropped_is_cancelled_and_its_descriptor_closed() {
    on_ring(|| async {
        let mut peers = Vec::new();
        for round in 0..200 {
            let (mut ours, theirs) = pair();
            let number = ours.as_fd().as_raw_fd();
            let mut byte = [0];
            // In flight: a receive, and in every other round a send that cannot end.
            let read = timeout(Duration::from_millis(1), ours.read(&mut byte)).await;
            assert!(read.is_err(), "nobody sends");
            if round % 2 == 0 {
                let flood = async { while ours.write_all(&[1; 65_536]).await.is_ok() {} };
                assert!(timeout(Duration::from_millis(1), flood).await.is_err());
            }
            drop(ours);
            peers.push((number, theirs));
        }
        nothing_in_flight().await;
        for (_, mut peer) in peers {
            peer.set_read_timeout(Some(Duration::from_secs(1))).expect("it can be set");
            let mut all = Vec::new();
            let ended = peer.read_to_end(&mut all);
            assert!(ended.is_ok(), "the peer sees the end: {ended:?}");
        }
        // A connect that is given up. (A listener whose queue is full makes it wait.)
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let office = super::current_office().expect("a ring is here");
        let filling: Vec<TcpStream> = (0..600)
            .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(20)).ok())
            .collect();
        let connect = super::connect(office, address.into());
        let gave_up = timeout(Duration::from_millis(20), connect).await;
        drop((filling, gave_up));
        nothing_in_flight().await;
    });
}

#[test]
fn a_socket_is_polled_and_dropped_on_other_threads() {
    on_ring(|| async {
        let (ours, theirs) = pair();
        let echo = std::thread::spawn(move || {
            let mut theirs = theirs;
            std::io::copy(&mut theirs.try_clone().expect("a descriptor"), &mut theirs)
        });
        let (done, wait) = futures::channel::oneshot::channel();
        let elsewhere = std::thread::spawn(move || {
            let mut ours = ours;
            let sent = noise(5, 400_000);
            let received = futures::executor::block_on(async {
                let mut received = vec![0; sent.len()];
                for (from, to) in sent.chunks(20_000).zip(received.chunks_mut(20_000)) {
                    ours.write_all(from).await.expect("it is connected");
                    ours.read_exact(to).await.expect("it is connected");
                }
                received
            });
            assert!(received == sent);
            drop(ours);
            let _ = done.send(());
        });
        wait.await.expect("the other thread does not panic");
        elsewhere.join().expect("it does not panic");
        nothing_in_flight().await;
        echo.join().expect("it does not panic").expect("it ends in good order");
    });
}

#[test]
fn no_wake_from_another_thread_is_lost_asleep_or_looking_around() {
    for (io, spin) in engines().into_iter().flat_map(|io| [(io, 0), (io, 200)]) {
        let driver = Driver::for_data_core(io).expect("descriptors are left");
        let (mut there, mut inbox) = futures::channel::mpsc::channel::<u64>(1);
        let (answer, answers) = std::sync::mpsc::sync_channel(1);
        let asks = std::thread::spawn(move || {
            for number in 0..3_000_u64 {
                // Now at once, now when it looks around, now when it sleeps.
                std::thread::park_timeout(Duration::from_micros(number % 5 * 80));
                there.try_send(number).expect("the last one was taken");
                let got = answers.recv_timeout(Duration::from_secs(10));
                assert_eq!(got, Ok(number), "{io} with {spin} us");
            }
        });
        driver.spinning(Duration::from_micros(spin)).block_on(async {
            // In a task, not in the core's own future: that has another way to be woken.
            let (done, wait) = futures::channel::oneshot::channel();
            spawn(async move {
                while let Some(number) = futures::StreamExt::next(&mut inbox).await {
                    let _ = answer.send(number);
                }
                let _ = done.send(());
            });
            let _ = wait.await;
        });
        asks.join().expect("it does not panic");
    }
}

#[test]
fn a_ring_that_is_rung_while_it_ends_does_not_wait_for_its_bell() {
    for io in engines().into_iter().cycle().take(40) {
        let ring = super::Ring::new(io).expect("descriptors are left");
        ring.waker().wake();
        let before = std::time::Instant::now();
        drop(ring);
        let took = before.elapsed();
        assert!(took < Duration::from_millis(limits::RING_END_MS / 2), "{took:?}");
    }
}

/// Connections of one seed: a server that echoes and clients that exchange, or break off.
async fn exchange_and_break_off(seed: u64) {
    const CLIENTS: u64 = 12;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let office = super::current_office().expect("a ring is here");
    let listener = Listener::new(listener.into()).expect("a ring is here");
    spawn(async move {
        for _ in 0..CLIENTS {
            let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx)).await;
            let mut peer = accepted.expect("no accept fails for good");
            spawn(async move {
                let mut buffer = vec![0; 700];
                while let Ok(length @ 1..) = peer.read(&mut buffer).await {
                    if peer.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let clients = (0..CLIENTS).map(|number| {
        let office = Arc::clone(&office);
        async move {
            let mut random = SmallRng::seed_from_u64(seed << 8 | number);
            let mut socket = super::connect(office, address.into()).await.expect("it connects");
            let small = socket2::SockRef::from(&socket).set_send_buffer_size(1);
            small.expect("the kernel takes its least");
            for round in 0..random.random_range(1..4) {
                let sent = noise(random.random_range(0..1_000), random.random_range(1..9_000));
                let (mut read, mut write) = (&mut socket).split();
                let mut received = vec![0; sent.len()];
                let (written, got) =
                    futures::join!(write.write_all(&sent), read.read_exact(&mut received));
                written.and(got).expect("it is connected");
                assert!(received == sent, "seed {seed}, client {number}, round {round}");
            }
            if random.random_range(0..2) == 0 {
                let _ = socket.write(&[9; 5_000]).await;
                let _ = timeout(Duration::from_millis(1), socket.read(&mut [0; 9])).await;
            }
        }
    });
    futures::future::join_all(clients).await;
    nothing_in_flight().await;
}

#[test]
fn nothing_that_a_kernel_may_answer_loses_a_byte() {
    let engines = engines();
    let mut faults = 0;
    for seed in 0..30 * engines.len() as u64 {
        let io = engines[seed as usize % engines.len()];
        // A queue of two entries is always full; buffers of 64 bytes are always short.
        let mut ring = super::Ring::of_size(io, 2, (4, 64), (4, 32)).expect("descriptors are left");
        ring.faults = Some(super::faults::Faults::new(seed));
        faults += crate::runtime::driver::block_on_ring(ring, Duration::ZERO, async {
            let done = timeout(Duration::from_secs(20), exchange_and_break_off(seed)).await;
            done.unwrap_or_else(|_| panic!("{io}, seed {seed} hangs"));
            super::RING.with_borrow(|ring| {
                ring.as_ref().and_then(|ring| ring.faults.as_ref()).map_or(0, |one| one.total)
            })
        });
    }
    let least = 5_000 * engines.len() as u64;
    assert!(faults > least, "{faults} faults: too few to show anything");
}
