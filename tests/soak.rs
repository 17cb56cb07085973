//! 2,000 connections at once on each driver, with random payloads and random ends, several times:
//! everything arrives as it was sent, and afterwards nothing is in flight, no descriptor is left
//! and no memory has grown; and 1,000 streams that nobody reads. A test program of its own, because
//! it counts what belongs to the process.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rustbalance::runtime::driver::{Driver, Io};
use rustbalance::runtime::net::{ReadHalf, Stream, WriteHalf, connect_tcp};
use rustbalance::runtime::{ring, sleep, spawn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Connections at the same time; each has two descriptors here.
const CONNECTIONS: u64 = 2_000;
/// How often, until the last four passes have kept nothing; a pass that had more connections open
/// at the same time than all before it makes the allocator take more, once.
const PASSES: std::ops::Range<u64> = 6..14;
/// Growth over four passes that is no leak, but the allocator's: 2 KB kept of each connection would
/// be more, each time.
const GROWTH_BYTES_MAX: u64 = 12_000_000;

#[test]
fn a_ring_leaves_nothing_behind() {
    match ring::probe() {
        Ok(()) => soak(Io::Uring),
        // A container may forbid it; whatever else is wrong with it is a failure.
        Err(error @ ring::ProbeError::Forbidden) => eprintln!("not tested: {error}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn epoll_leaves_nothing_behind() {
    soak(Io::Epoll);
}

#[test]
fn a_ring_that_ends_in_the_middle_of_everything_leaves_nothing_behind() {
    let _alone = ALONE.lock();
    if matches!(ring::probe(), Err(ring::ProbeError::Forbidden)) {
        return;
    }
    for io in [Io::Uring, Io::Epoll] {
        end_in_the_middle(io);
    }
}

/// Streams that nobody reads.
const UNREAD: usize = 1_000;
/// Says to a process of its own which driver it is to hold them with.
const UNREAD_DRIVER: &str = "RUSTBALANCE_TEST_UNREAD";

#[test]
fn a_ring_holds_no_more_than_epoll_for_streams_that_nobody_reads() {
    match std::env::var(UNREAD_DRIVER).as_deref() {
        Ok("uring") => return hold_unread(Io::Uring),
        Ok(_) => return hold_unread(Io::Epoll),
        Err(_) => {}
    }
    if matches!(ring::probe(), Err(ring::ProbeError::Forbidden)) {
        return;
    }
    let _alone = ALONE.lock();
    let (waiting, grown) = unread("uring");
    let (waiting_epoll, grown_epoll) = unread("epoll");
    eprintln!("{UNREAD} streams: {waiting} bytes wait, memory grew by {grown}");
    eprintln!("with epoll: {waiting_epoll} bytes wait, memory grew by {grown_epoll}");
    // All of them have come to their limit, or nothing was tried.
    assert!(waiting_epoll > 50_000 * UNREAD as u64, "{waiting_epoll}");
    assert!(2 * waiting <= 3 * waiting_epoll, "{waiting} bytes against {waiting_epoll}");
    assert!(2 * grown <= 3 * grown_epoll, "{grown} bytes against {grown_epoll}");
}

/// Bytes that wait for readers, and by how many memory has grown, with this driver, in a process of
/// its own.
fn unread(driver: &str) -> (u64, u64) {
    let program = std::env::current_exe().expect("it runs");
    let name = "a_ring_holds_no_more_than_epoll_for_streams_that_nobody_reads";
    let mut command = std::process::Command::new(program);
    command.args(["--exact", name, "--nocapture"]).env(UNREAD_DRIVER, driver);
    let output = command.output().expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("held: "));
    let (_, numbers) = line.unwrap_or_else(|| panic!("{text}{output:?}"));
    let (waiting, grown) = numbers.split_once(' ').expect("two numbers");
    (waiting.parse().expect("a number"), grown.parse().expect("a number"))
}

/// Hold them with this driver, and say what that takes.
fn hold_unread(io: Io) {
    Driver::for_data_core(io).expect("it was probed").block_on(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (mut floods, mut unread) = (Vec::new(), Vec::new());
        for _ in 0..UNREAD {
            let stream = connect_tcp(address).await.expect("it connects");
            let (mut read, write) = stream.into_split();
            let (flood, _) = listener.accept().expect("it is connected");
            socket2::SockRef::from(&flood).set_send_buffer_size(256 * 1024).expect("it can be");
            (&flood).write_all(b"x").expect("there is room");
            // It begins to receive; then nothing is taken any more.
            read.read_exact(&mut [0]).await.expect("it arrives");
            flood.set_nonblocking(true).expect("it can be");
            floods.push(flood);
            unread.push((read, write));
        }
        let before = resident();
        let mut still = 0;
        while still < 50 {
            let sent: usize =
                floods.iter().filter_map(|mut flood| flood.write(&[7; 65_536]).ok()).sum();
            still = if sent == 0 { still + 1 } else { 0 };
            sleep(Duration::from_millis(1)).await;
        }
        println!("held: {} {}", ring::received_bytes(), resident().saturating_sub(before));
    });
}

/// Rings that end with operations in flight.
fn end_in_the_middle(io: Io) {
    let mut counts = Vec::new();
    for _ in 0..6 {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("descriptors are left");
        Driver::for_data_core(io).expect("it was probed").block_on(async {
            let socket = ring::Socket::adopt(ours.into()).expect("a ring is here");
            let (mut read, mut write) = Stream::Ring(socket).into_split();
            // Neither ends: nobody reads what is sent, and nobody sends.
            spawn(async move {
                let _ = write.write_all(&[1; 1_000_000]).await;
            });
            spawn(async move {
                let _ = read.read(&mut [0; 10]).await;
            });
            sleep(Duration::from_millis(5)).await;
        });
        drop(theirs);
        counts.push(descriptors());
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

/// Descriptors of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc is there").count()
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is there");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("as in proc(5)") * 4_096
}

/// Both tests count descriptors and memory: one at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// The test, on a thread that has this driver.
fn soak(io: Io) {
    let _alone = ALONE.lock();
    let driver = Driver::for_data_core(io).expect("it was probed");
    driver.block_on(async {
        let address = echo();
        let mut sizes = Vec::new();
        // Whatever is made once is made before the count.
        pass(address, 10, PASSES.end).await;
        let before = settled(None).await;
        for number in 0..PASSES.end {
            pass(address, CONNECTIONS, number).await;
            let after = settled(Some(before)).await;
            assert_eq!(after, before, "descriptors after pass {number}");
            sizes.push(resident());
            let [first, .., last] = sizes[sizes.len().saturating_sub(5)..] else { continue };
            if number + 1 >= PASSES.start && last.saturating_sub(first) < GROWTH_BYTES_MAX {
                return;
            }
        }
        panic!("resident after each pass: {sizes:?}");
    });
}

/// Descriptors, once there are `wanted` and nothing is in flight, or after a while.
async fn settled(wanted: Option<usize>) -> usize {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        sleep(Duration::from_millis(20)).await;
        // What stays in flight is the accept.
        let idle = ring::in_flight() <= 1 && wanted.is_none_or(|wanted| wanted == descriptors());
        if idle || Instant::now() > deadline {
            assert!(ring::in_flight() <= 1, "{} operations are in flight", ring::in_flight());
            return descriptors();
        }
    }
}

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let listener = ring::Listener::new(listener.into()).expect("a ring is here");
    spawn(async move {
        loop {
            let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx)).await;
            spawn(answer(Stream::Ring(accepted.expect("there are descriptors"))));
        }
    });
    address
}

/// Send back what comes, until the other side ends or breaks off.
async fn answer(stream: Stream) {
    let (mut read, mut write) = stream.into_split();
    let mut buffer = vec![0; 4_096];
    while let Ok(length @ 1..) = read.read(&mut buffer).await {
        if write.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// So many clients at once.
async fn pass(address: SocketAddr, clients: u64, number: u64) {
    let clients = (0..clients).map(|client| {
        let (done, wait) = futures::channel::oneshot::channel();
        spawn(async move {
            one(address, number << 32 | client).await;
            let _ = done.send(());
        });
        wait
    });
    for done in futures::future::join_all(clients).await {
        done.expect("no client panics");
    }
}

/// One client.
async fn one(address: SocketAddr, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    sleep(Duration::from_millis(random.random_range(0..300))).await;
    let stream = connect_tcp(address).await.expect("it connects");
    let (mut read, mut write) = stream.into_split();
    for round in 0..random.random_range(1..5) {
        let mut sent = vec![0; random.random_range(1..20_000)];
        random.fill_bytes(&mut sent);
        let received = exchange(&mut read, &mut write, &sent).await;
        assert!(received == sent, "seed {seed}, round {round}");
    }
    // Half of them end with bytes on the way in both directions, and some of these in mid-wait.
    if random.random_range(0..2) == 0 {
        let _ = write.write(&[9; 50_000]).await;
        let patience = Duration::from_millis(random.random_range(0..3));
        let _ = rustbalance::runtime::timeout(patience, read.read(&mut [0; 100])).await;
    }
}

/// Send and receive as much at the same time.
async fn exchange(read: &mut ReadHalf, write: &mut WriteHalf, sent: &[u8]) -> Vec<u8> {
    let mut received = vec![0; sent.len()];
    let (written, got) = futures::join!(write.write_all(sent), read.read_exact(&mut received));
    written.expect("it is connected");
    got.expect("it is connected");
    received
}
