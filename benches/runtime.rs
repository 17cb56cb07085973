//! Our runtime on its two drivers beside tokio's `current_thread` and monoio, in one run:
//! `cargo bench --bench runtime`.
//!
//! Each benchmark does the same work with the same sockets. What is called CPU is the time of the
//! thread, the kernel's part included, so that waiting costs nothing and spinning does.

#![expect(missing_docs, reason = "the macro that names the benchmarks makes a public function")]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt as _;
use futures::channel::{mpsc, oneshot};
use rustbalance::runtime::driver::Io;
use rustbalance::runtime::net::{Stream, connect_tcp};
use rustbalance::runtime::{self, Driver, ring};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The measurements of a benchmark group.
type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// Connections of the echo.
const CONNECTIONS: usize = 64;
/// Bytes of one of its requests: about a cell.
const REQUEST_BYTES: usize = 512;

/// A runtime that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ours on an io_uring.
    Ring,
    /// Ours on epoll.
    Epoll,
    /// tokio's `current_thread`, with nothing of ours.
    Tokio,
    /// monoio on an io_uring.
    Monoio,
}

/// All of them.
const KINDS: [Kind; 4] = [Kind::Ring, Kind::Epoll, Kind::Tokio, Kind::Monoio];

impl Kind {
    /// What results call it.
    fn name(self) -> &'static str {
        match self {
            Kind::Ring => "ours, io_uring",
            Kind::Epoll => "ours, epoll",
            Kind::Tokio => "tokio",
            Kind::Monoio => "monoio",
        }
    }

    /// Run `main` on it.
    fn block_on<T>(self, main: impl Future<Output = T>) -> T {
        let ours = |io| Driver::for_data_core(io).expect("this kernel has it");
        match self {
            Kind::Ring => ours(Io::Uring).block_on(main),
            Kind::Epoll => ours(Io::Epoll).block_on(main),
            Kind::Tokio => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("there are descriptors")
                .block_on(main),
            Kind::Monoio => monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
                .enable_all()
                .build()
                .expect("this kernel has io_uring")
                .block_on(main),
        }
    }

    /// Spawn on it, from within.
    fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Kind::Ring | Kind::Epoll => runtime::spawn(task),
            Kind::Tokio => drop(tokio::spawn(task)),
            Kind::Monoio => drop(monoio::spawn(task)),
        }
    }
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    clock.now().expect("every thread has this clock").into()
}

/// A listener, and where it listens.
fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// Pairs of connected sockets on one of the runtimes with tokio's traits, of which the second
/// echoes.
async fn pairs(kind: Kind, count: usize) -> Vec<(impl AsyncRead + Unpin, impl AsyncWrite + Unpin)> {
    let (listener, address) = listen();
    let mut ours = Vec::new();
    for _ in 0..count {
        // Both ends in this thread: the kernel finishes the handshake before anybody accepts.
        let near = match kind {
            Kind::Tokio => Stream::Tcp(tokio_stream(address).await),
            _ => connect_tcp(address).await.expect("it listens"),
        };
        let (far, _) = listener.accept().expect("somebody has connected");
        far.set_nodelay(true).expect("it is TCP");
        let far = adopt(kind, far).await;
        let (mut read, mut write) = far.into_split();
        kind.spawn(async move {
            let mut buffer = vec![0; 16_384];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                if write.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        });
        ours.push(near.into_split());
    }
    ours
}

/// Connect with tokio.
async fn tokio_stream(address: SocketAddr) -> tokio::net::TcpStream {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("it is TCP");
    stream
}

/// Take over an accepted socket.
async fn adopt(kind: Kind, socket: std::net::TcpStream) -> Stream {
    if matches!(kind, Kind::Ring | Kind::Epoll) {
        return Stream::Ring(ring::Socket::adopt(socket.into()).expect("a ring is here"));
    }
    socket.set_nonblocking(true).expect("it can be");
    Stream::Tcp(tokio::net::TcpStream::from_std(socket).expect("tokio is here"))
}

/// So many requests over so many connections at once: wall time and CPU time.
fn echo(kind: Kind, connections: usize, requests: u64, bytes: usize) -> (Duration, Duration) {
    if kind == Kind::Monoio {
        return kind.block_on(echo_monoio(connections, requests, bytes));
    }
    kind.block_on(async move {
        let pairs = pairs(kind, connections).await;
        let (cpu, started) = (thread_cpu(), Instant::now());
        let clients = pairs.into_iter().map(|(mut read, mut write)| async move {
            let (sent, mut received) = (vec![7; bytes], vec![0; bytes]);
            for _ in 0..requests {
                write.write_all(&sent).await.expect("it is connected");
                read.read_exact(&mut received).await.expect("it is connected");
            }
        });
        futures::future::join_all(clients).await;
        (started.elapsed(), thread_cpu() - cpu)
    })
}

/// The same with monoio, whose reads and writes own their buffers.
async fn echo_monoio(connections: usize, requests: u64, bytes: usize) -> (Duration, Duration) {
    use monoio::io::{AsyncReadRent as _, AsyncReadRentExt as _, AsyncWriteRentExt as _};
    use monoio::net::TcpStream;
    let (listener, address) = listen();
    let mut clients = Vec::new();
    for _ in 0..connections {
        let near = TcpStream::connect(address).await.expect("it listens");
        near.set_nodelay(true).expect("it is TCP");
        let (far, _) = listener.accept().expect("somebody has connected");
        far.set_nodelay(true).expect("it is TCP");
        let mut far = TcpStream::from_std(far).expect("monoio is here");
        monoio::spawn(async move {
            let mut buffer = Vec::with_capacity(16_384);
            loop {
                let (read, filled) = far.read(buffer).await;
                if !matches!(read, Ok(1..)) {
                    return;
                }
                let (written, mut emptied) = far.write_all(filled).await;
                if written.is_err() {
                    return;
                }
                emptied.clear();
                buffer = emptied;
            }
        });
        clients.push(near);
    }
    let (cpu, started) = (thread_cpu(), Instant::now());
    let clients = clients.into_iter().map(|mut near| async move {
        let (mut sent, mut received) = (vec![7; bytes], vec![0; bytes]);
        for _ in 0..requests {
            let (written, given_back) = near.write_all(sent).await;
            written.expect("it is connected");
            sent = given_back;
            let (read, given_back) = near.read_exact(received).await;
            read.expect("it is connected");
            received = given_back;
        }
    });
    futures::future::join_all(clients).await;
    (started.elapsed(), thread_cpu() - cpu)
}

/// Run a benchmark for each runtime.
fn each(group: &mut Group<'_>, run: impl Fn(Kind, u64) -> Duration) {
    for kind in KINDS {
        group.bench_function(kind.name(), |bencher| bencher.iter_custom(|count| run(kind, count)));
    }
}

/// One connection, one byte there and back: wall time.
fn ping_pong(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ping-pong");
    each(&mut group, |kind, count| echo(kind, 1, count, 1).0);
}

/// 64 connections, 512 bytes: CPU time for a request.
fn echo_512(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo of 512 bytes on 64 connections, CPU");
    group.throughput(Throughput::Elements(1));
    each(&mut group, |kind, count| {
        let requests = count.div_ceil(CONNECTIONS as u64);
        let cpu = echo(kind, CONNECTIONS, requests, REQUEST_BYTES).1;
        // As if it had been `count` requests exactly.
        cpu.mul_f64(count as f64 / (requests * CONNECTIONS as u64) as f64)
    });
}

/// A thread that is no runtime's wakes a task, which answers: wall time there and back.
fn wake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wake from another thread");
    each(&mut group, |kind, count| {
        let (mut there, mut inbox) = mpsc::channel::<()>(1);
        let (answer, answers) = std::sync::mpsc::sync_channel(1);
        let core = std::thread::spawn(move || {
            kind.block_on(async move {
                while inbox.next().await.is_some() {
                    answer.send(()).expect("somebody waits");
                }
            });
        });
        let started = Instant::now();
        for _ in 0..count {
            there.try_send(()).expect("the core runs");
            answers.recv().expect("the core answers");
        }
        let elapsed = started.elapsed();
        drop(there);
        core.join().expect("it does not panic");
        elapsed
    });
}

/// Set a timer and cancel it, beside 1,000 others.
fn timers(criterion: &mut Criterion) {
    const LONG: Duration = Duration::from_secs(100);
    let mut group = criterion.benchmark_group("timer set and cancelled");
    each(&mut group, |kind, count| {
        kind.block_on(async move {
            macro_rules! measured {
                ($sleep:expr) => {{
                    let mut others: Vec<_> = (0..1_000).map(|_| Box::pin($sleep(LONG))).collect();
                    for other in &mut others {
                        let _ = futures::poll!(other);
                    }
                    let started = Instant::now();
                    for _ in 0..count {
                        let mut sleep = std::pin::pin!($sleep(LONG));
                        let _ = futures::poll!(&mut sleep);
                    }
                    started.elapsed()
                }};
            }
            match kind {
                Kind::Ring | Kind::Epoll => measured!(runtime::sleep),
                Kind::Tokio => measured!(tokio::time::sleep),
                Kind::Monoio => measured!(monoio::time::sleep),
            }
        })
    });
}

/// Spawn a task that ends at once.
fn spawn(criterion: &mut Criterion) {
    const BATCH: u64 = 1_000;
    let mut group = criterion.benchmark_group("spawn and run");
    each(&mut group, |kind, count| {
        kind.block_on(async move {
            let batches = count.div_ceil(BATCH);
            let started = Instant::now();
            for _ in 0..batches {
                let (done, wait) = oneshot::channel();
                let (left, done) = (Arc::new(AtomicUsize::new(BATCH as usize)), Some(done));
                let done = Arc::new(std::sync::Mutex::new(done));
                for _ in 0..BATCH {
                    let (left, done) = (Arc::clone(&left), Arc::clone(&done));
                    kind.spawn(async move {
                        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                            let done = done.lock().expect("nobody panics").take();
                            let _ = done.expect("the last one comes once").send(());
                        }
                    });
                }
                wait.await.expect("all of them run");
            }
            started.elapsed().mul_f64(count as f64 / (batches * BATCH) as f64)
        })
    });
}

criterion_group!(benches, ping_pong, echo_512, wake, timers, spawn);
criterion_main!(benches);
