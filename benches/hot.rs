//! What is hot, by itself: queues between cores, tasks, INTRODUCE2, and the bytes between a client
//! and a backend. `cargo bench --bench hot`.

#![expect(missing_docs, reason = "the macro that names the benchmarks makes a public function")]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustbalance::base::counters::InstanceCounters;
use rustbalance::base::stream::{CircuitId, ClientStream, EndReason, IncomingStream};
use rustbalance::onion::descriptor;
use rustbalance::onion::period::PeriodKeys;
use rustbalance::plane::Plane;
use rustbalance::plane::config::{BackendAddress, PortConfig, PortTarget};
use rustbalance::runtime::{self, Driver, Mailbox};
use rustbalance::vault::MasterKey;
use tor_bytes::Reader;
use tor_hscrypto::pk::{HsIntroPtSessionIdKey, HsSvcNtorKeypair};
use tor_hscrypto::time::TimePeriod;
use tor_linkspec::EncodedLinkSpec;
use tor_llcrypto::pk::{curve25519, ed25519};
use tor_netdir::params::NetParameters;
use tor_netdoc::doc::hsdesc::IntroPointDesc;
use tor_proto::client::circuit::handshake::hs_ntor;

/// Run `work` on a core's driver, and give what it gives.
fn on_a_core<T>(work: impl Future<Output = T>) -> T {
    Driver::new().expect("a driver can be made").block_on(work)
}

/// Queues.
fn mailbox(criterion: &mut Criterion) {
    criterion.bench_function("mailbox/push and take on one core", |bencher| {
        let mailbox = Mailbox::new(64);
        bencher.iter(|| {
            mailbox.push(1_u64).expect("there is room");
            mailbox.try_recv()
        });
    });
    criterion.bench_function("mailbox/there and back between two cores", |bencher| {
        bencher.iter_custom(there_and_back);
    });
}

/// Send a number to another core and wait until it comes back, so many times.
fn there_and_back(turns: u64) -> Duration {
    let (there, back) = (Mailbox::new(4), Mailbox::new(4));
    let (inbox, outbox) = (there.clone(), back.clone());
    let other = std::thread::spawn(move || {
        on_a_core(async move {
            for _ in 0..turns {
                let number: u64 = inbox.recv().await;
                outbox.push(number).expect("there is room");
            }
        });
    });
    let elapsed = on_a_core(async move {
        let started = Instant::now();
        for turn in 0..turns {
            there.push(turn).expect("there is room");
            back.recv().await;
        }
        started.elapsed()
    });
    other.join().expect("the other core ends");
    elapsed
}

/// Tasks.
fn tasks(criterion: &mut Criterion) {
    criterion.bench_function("executor/spawn a task and wait for it", |bencher| {
        bencher.iter_custom(|turns| {
            on_a_core(async move {
                let done = Mailbox::new(4);
                let started = Instant::now();
                for _ in 0..turns {
                    let tell = done.clone();
                    runtime::spawn(async move { drop(tell.push(())) });
                    done.recv().await;
                }
                started.elapsed()
            })
        });
    });
}

/// INTRODUCE2: what each costs before anything is known of its sender.
fn introduce2(criterion: &mut Criterion) {
    let mut rng = rand::rng();
    let session = HsIntroPtSessionIdKey::from(ed25519::Keypair::generate(&mut rng).verifying_key());
    let keys = HsSvcNtorKeypair::generate(&mut rng);
    let subcredential = |byte: u8| tor_hscrypto::Subcredential::from([byte; 32]);
    let service =
        hs_ntor::HsNtorServiceInfo::new(keys.public().clone(), session.clone(), subcredential(2));
    let client = hs_ntor::HsNtorClientState::new(&mut rng, service);
    let header = [7_u8; 56];
    let message = client.client_send_intro(&header, &[9; 100]).expect("it can be encrypted");
    // As while two time periods live: the second one fits.
    let subcredentials = [subcredential(1), subcredential(2)];
    criterion.bench_function("introduce2/decrypt", |bencher| {
        bencher.iter(|| {
            hs_ntor::server_receive_intro(
                &mut rand::rng(),
                &keys,
                &session,
                &subcredentials,
                &header,
                &message,
            )
            .map(|(_, answer, _)| answer.len())
            .expect("it decrypts")
        });
    });
    criterion.bench_function("introduce2/refuse rubbish", |bencher| {
        let mut rubbish = message.clone();
        if let Some(last) = rubbish.last_mut() {
            *last ^= 1;
        }
        bencher.iter(|| {
            hs_ntor::server_receive_intro(
                &mut rand::rng(),
                &keys,
                &session,
                &subcredentials,
                &header,
                &rubbish,
            )
            .is_err()
        });
    });
}

/// A point at a relay that does not exist; its part of the document is like that of any other.
fn point(number: u8) -> IntroPointDesc {
    let mut rng = rand::rng();
    let secret = curve25519::StaticSecret::random_from_rng(&mut rng);
    // An IPv4 link specifier: type 0, six bytes.
    let specifier: EncodedLinkSpec = Reader::from_slice(&[0, 6, 127, number, 0, 1, 0x13, 0x88])
        .extract()
        .expect("a well-formed link specifier");
    IntroPointDesc::builder()
        .link_specifiers(vec![specifier])
        .ipt_kp_ntor(curve25519::PublicKey::from(&secret))
        .kp_hs_ipt_sid(ed25519::Keypair::generate(&mut rng).verifying_key().into())
        .kp_hss_ntor(HsSvcNtorKeypair::generate(&mut rng).public().clone())
        .build()
        .expect("every field is set")
}

/// What the control core does for each publication, but for the uploads.
fn descriptors(criterion: &mut Criterion) {
    let period = TimePeriod::from_parts(1440, 20_000, 12 * 3600);
    let master = MasterKey::generate();
    criterion.bench_function("descriptor/derive the keys of a period", |bencher| {
        bencher.iter(|| PeriodKeys::derive(&master, period).expect("any key can be blinded"));
    });
    let keys = PeriodKeys::derive(&master, period).expect("any key can be blinded");
    let (params, now) = (NetParameters::default(), SystemTime::now());
    for count in [3, 16, 20] {
        let points: Vec<_> = (0..count).map(|at| (usize::from(at) / 3, point(at))).collect();
        let name = format!("descriptor/build and sign, {count} points");
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| {
                let built = descriptor::build(&keys, &points, 7, true, &params, now);
                built.expect("it can be built").text().len()
            });
        });
    }
}

/// Bytes of one body of the copy loop.
const BODY_BYTES: usize = 4 << 20;

/// A client that takes whatever comes, and asks for nothing.
struct Sink;

impl futures::io::AsyncRead for Sink {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

impl futures::io::AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ClientStream for Sink {}

/// Its stream before it is accepted.
struct Asking;

#[async_trait::async_trait]
impl IncomingStream for Asking {
    type Stream = Sink;

    fn virtual_port(&self) -> u16 {
        80
    }

    fn circuit_id(&self) -> CircuitId {
        CircuitId { instance: 0, serial: 1 }
    }

    async fn accept(self) -> io::Result<Sink> {
        Ok(Sink)
    }

    async fn reject(self, _: EndReason) -> io::Result<()> {
        Ok(())
    }
}

/// A backend that sends [`BODY_BYTES`] to whoever connects.
fn backend() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let body = vec![5_u8; BODY_BYTES];
        for mut stream in listener.incoming().flatten() {
            // The benchmark may have ended.
            let _ = io::Write::write_all(&mut stream, &body);
        }
    });
    address
}

/// The copy loop, from a TCP backend to a client that is always ready.
fn relay(criterion: &mut Criterion) {
    let plane = Plane::new(vec![PortConfig::new(
        80,
        PortTarget::backends([BackendAddress::Tcp(backend())]),
    )]);
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Bytes(BODY_BYTES as u64)).sample_size(20);
    group.bench_function("a body of 4 MiB from a backend", |bencher| {
        bencher.iter_custom(|turns| {
            let plane = Arc::clone(&plane);
            on_a_core(async move {
                let counters = Arc::new(InstanceCounters::default());
                let started = Instant::now();
                for _ in 0..turns {
                    Arc::clone(&plane).serve(Asking, &counters, 0).await;
                }
                let elapsed = started.elapsed();
                assert_eq!(counters.bytes_out_total(), turns * BODY_BYTES as u64);
                elapsed
            })
        });
    });
    group.finish();
}

criterion_group!(hot, mailbox, tasks, introduce2, descriptors, relay);
criterion_main!(hot);
