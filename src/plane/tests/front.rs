//! Listeners, hand-off and what carries bytes between two sockets, on data cores of both drivers;
//! clients and backends are threads with blocking sockets.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::support::{fill_noise, port_80};
use crate::base::stream::CircuitId;
use crate::plane::Plane;
use crate::plane::config::{BackendAddress, ListenConfig, PortConfig, ProxyProtocol};
use crate::plane::front::{Front, Occupied, Prepared};
use crate::plane::handoff::Handoff;
use crate::plane::passed::{PassedSocket, PassedSockets};
use crate::plane::proxy_protocol::header;
use crate::plane::status::ListenStatus;
use crate::runtime::ring::tests::engines;
use crate::runtime::{Driver, Io, ring, spawn};

/// More than all buffers on the way together.
const BODY_BYTES: usize = 24 << 20;
/// Longer than anything here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A listener with the data cores that serve it.
pub(super) struct Served {
    /// The listener.
    front: Arc<Front>,
    /// The cores.
    handoff: Arc<Handoff>,
    /// Where clients connect.
    pub(super) address: SocketAddr,
    /// Ends the cores.
    stop: watch::Sender<bool>,
    /// Them.
    threads: Vec<JoinHandle<()>>,
}

impl Served {
    /// One in front of `port`, on as many cores; the first `listening` of them listen.
    pub(super) fn start(
        io: Io,
        port: PortConfig,
        proxy: bool,
        (cores, listening): (usize, usize),
    ) -> Served {
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        Served::at(io, port, proxy, (cores, listening), BackendAddress::Tcp(address), address)
    }

    /// See [`Served::start`].
    fn at(
        io: Io,
        port: PortConfig,
        proxy_protocol: bool,
        (cores, listening): (usize, usize),
        listen: BackendAddress,
        address: SocketAddr,
    ) -> Served {
        Served::of(io, port, proxy_protocol, (cores, listening), (listen, address), Vec::new())
    }

    /// See [`Served::start`]; with sockets that were passed to the process.
    fn of(
        io: Io,
        port: PortConfig,
        proxy_protocol: bool,
        (cores, listening): (usize, usize),
        (listen, address): (BackendAddress, SocketAddr),
        passed: Vec<PassedSocket>,
    ) -> Served {
        let plane = Plane::new(vec![port]);
        let config = ListenConfig {
            address: listen,
            service: "main".to_owned(),
            virtual_port: Some(80),
            proxy_protocol,
            backlog: 128,
        };
        let find = Arc::new(move |name: &str| (name == "main").then(|| Arc::clone(&plane)));
        let front = Front::prepare(config, 0, (Occupied::Refuse, &passed.into()), find);
        let front = front.and_then(Prepared::take_place).expect("the address is free");
        let handoff = Handoff::new(cores);
        let stop = watch::channel(false).0;
        let core = |number: usize| {
            let (front, handoff) = (Arc::clone(&front), Arc::clone(&handoff));
            let mut stop = stop.subscribe();
            std::thread::spawn(move || {
                let driver = Driver::for_data_core(io).expect("descriptors are left");
                driver.block_on(async move {
                    spawn(Arc::clone(&handoff).run(number));
                    handoff.set_up(number, true);
                    if number < listening {
                        spawn(Arc::clone(&front).run(Arc::clone(&handoff), number));
                    }
                    let _ = stop.wait_for(|stop| *stop).await;
                });
                assert_eq!(ring::in_flight(), 0);
            })
        };
        let threads = (0..cores).map(core).collect();
        let served = Served { front, handoff, address, stop, threads };
        // A core that does not run yet is given nothing.
        until("all cores run", || (0..cores).all(|core| served.handoff.is_up(core)));
        if let BackendAddress::Tcp(_) = served.front.config().address {
            // The kernel refuses until the first core listens.
            until("it listens", || TcpStream::connect(address).is_ok());
            until("it was accepted", || served.status().accepted_total == 1);
            until("nothing is open", || served.live() == 0);
        }
        served
    }

    /// A client.
    pub(super) fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("it is open");
        client
    }

    /// Streams on all cores.
    pub(super) fn live(&self) -> u64 {
        (0..self.threads.len()).map(|core| self.handoff.live(core)).sum()
    }

    /// What status shows.
    pub(super) fn status(&self) -> ListenStatus {
        self.front.status()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking(), "a core panicked");
        }
    }
}

/// Wait until it is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// A backend that does this with each connection.
pub(super) fn backend(each: fn(TcpStream) -> io::Result<()>) -> BackendAddress {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // What it has to say, its client sees.
            std::thread::spawn(move || each(connection));
        }
    });
    BackendAddress::Tcp(address)
}

/// Sends back what it gets.
pub(super) fn echo(mut connection: TcpStream) -> io::Result<()> {
    let mut copy = connection.try_clone()?;
    io::copy(&mut copy, &mut connection)?;
    connection.shutdown(Shutdown::Write)
}

/// What comes before a reset, which has to be how it ends.
pub(super) fn read_to_reset(mut connection: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let error = connection.read_to_end(&mut said).expect_err("it is no end in good order");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    said
}

/// Send noise both ways at once through a backend that sends it back.
pub(super) fn check_echo(mut client: TcpStream, seed: u64, length: usize) {
    let mut sent = vec![0; length];
    fill_noise(seed, &mut sent);
    let expected = sent.clone();
    let mut write = client.try_clone().expect("a descriptor is left");
    let writer = std::thread::spawn(move || {
        write.write_all(&sent).expect("it is open");
        write.shutdown(Shutdown::Write).expect("it is open");
    });
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("it ends in good order");
    assert!(received == expected, "{} of {length} bytes came back", received.len());
    writer.join().expect("the writer does not panic");
}

#[test]
fn much_and_little_arrive_whole_both_ways_at_once() {
    for io in engines() {
        let served = Served::start(io, port_80(vec![backend(echo)]), false, (1, 1));
        for (seed, length) in [(1, BODY_BYTES), (2, 0), (3, 1), (4, 100_000), (5, BODY_BYTES)] {
            check_echo(served.connect(), seed, length);
        }
        until("all are closed", || served.live() == 0);
        let status = served.status();
        assert_eq!(status.bytes_in_total, status.bytes_out_total);
        assert_eq!(status.bytes_in_total, 2 * BODY_BYTES as u64 + 100_001);
        assert_eq!((status.streams_open, status.headers_refused_total), (0, 0));
    }
}

/// Says which PROXY header it got, and how many bytes came behind it.
fn tell_header(mut connection: TcpStream) -> io::Result<()> {
    let mut all = Vec::new();
    connection.read_to_end(&mut all)?;
    let end = all.windows(2).position(|two| two == b"\r\n").unwrap_or(0);
    let line = String::from_utf8_lossy(&all[..end]).into_owned();
    write!(connection, "{line}, and {} bytes", all.len() - end - 2)
}

#[test]
fn the_circuit_of_c_tors_line_is_told_on_and_none_of_the_bytes_behind_it_is_lost() {
    for io in engines() {
        let port = PortConfig {
            proxy_protocol: Some(ProxyProtocol::V1),
            ..port_80(vec![backend(tell_header)])
        };
        let served = Served::start(io, port, true, (1, 1));
        // An open stream that brought no header is told apart: it has been closed above.
        let line = "PROXY TCP6 fc00:dead:beef:4dad::1:29a ::1 666 42\r\n";
        let v2 = header(ProxyProtocol::V2, CircuitId { instance: 3, serial: 5 }, 80);
        // 1024 is the first listener's number among instances.
        let (of_tor, of_ours) = ("0:400:1:29a ::1 666 80", "0:400:0:5 ::1 5 80");
        for (header, expected) in [(line.as_bytes(), of_tor), (&v2, of_ours)] {
            for cut in [0, 1, 7, header.len() - 1, header.len()] {
                let mut client = served.connect();
                client.set_nodelay(true).expect("it is open");
                let bytes = [header, b"twenty bytes of body".as_slice()].concat();
                client.write_all(&bytes[..cut]).expect("it is open");
                std::thread::yield_now();
                client.write_all(&bytes[cut..]).expect("it is open");
                client.shutdown(Shutdown::Write).expect("it is open");
                let mut said = String::new();
                client.read_to_string(&mut said).expect("it ends in good order");
                let expected = format!("PROXY TCP6 fc00:dead:beef:4dad:{expected}, and 20 bytes");
                assert_eq!(said, expected);
            }
        }
    }
}

#[test]
fn a_header_of_4096_bytes_is_taken_in_pieces_and_a_longer_one_reset() {
    for io in engines() {
        let port = PortConfig {
            proxy_protocol: Some(ProxyProtocol::V1),
            ..port_80(vec![backend(tell_header)])
        };
        let served = Served::start(io, port, true, (1, 1));
        let refused = served.status().headers_refused_total;
        for (length, cut) in [(1025, 1024), (4096, 1), (4096, 1500), (4096, 4095), (4097, 4096)] {
            let mut header = header(ProxyProtocol::V2, CircuitId { instance: 3, serial: 5 }, 80);
            // A TLV of a cloud's, which is skipped.
            let value = length - header.len() - 3;
            header.push(0xea);
            header.extend((value as u16).to_be_bytes());
            header.resize(length, 7);
            header[14..16].copy_from_slice(&((length - 16) as u16).to_be_bytes());
            let bytes = [header.as_slice(), b"twenty bytes of body".as_slice()].concat();
            let mut client = served.connect();
            client.set_nodelay(true).expect("it is open");
            client.write_all(&bytes[..cut]).expect("it is open");
            if length > 4096 {
                assert_eq!(read_to_reset(client), b"");
                continue;
            }
            std::thread::yield_now();
            client.write_all(&bytes[cut..]).expect("it is open");
            client.shutdown(Shutdown::Write).expect("it is open");
            let mut said = String::new();
            client.read_to_string(&mut said).expect("it ends in good order");
            let expected = "PROXY TCP6 fc00:dead:beef:4dad:0:400:0:5 ::1 5 80, and 20 bytes";
            assert_eq!(said, expected, "{length} bytes, cut at {cut}");
        }
        until("it is counted", || served.status().headers_refused_total > refused);
    }
}

#[test]
fn who_brings_no_header_is_reset() {
    for io in engines() {
        let served = Served::start(io, port_80(vec![backend(echo)]), true, (1, 1));
        // The one that waited for the listener.
        until("it is refused", || served.status().headers_refused_total == 1);
        for sent in ["GET / HTTP/1.0\r\n\r\n", "PROXY TCP4 nonsense\r\n", "PROX"] {
            let mut client = served.connect();
            client.write_all(sent.as_bytes()).expect("it is open");
            // It may have been reset already.
            let _ = client.shutdown(Shutdown::Write);
            let kind = client.read(&mut [0; 1]).map(drop).expect_err("it is reset").kind();
            assert_eq!(kind, io::ErrorKind::ConnectionReset, "{sent:?}");
        }
        until("all are refused", || served.status().headers_refused_total == 4);
        // One that says nothing at all.
        let begun = Instant::now();
        let mut silent = served.connect();
        silent.read_to_end(&mut Vec::new()).expect_err("it is reset");
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

/// Greets and sends back what it gets.
pub(super) fn greet(mut connection: TcpStream) -> io::Result<()> {
    connection.write_all(b"!")?;
    echo(connection)
}

#[test]
fn streams_that_all_come_to_one_core_are_served_evenly() {
    for io in engines() {
        let served = Served::start(io, port_80(vec![backend(greet)]), false, (2, 1));
        let mut clients: Vec<TcpStream> = (0..200).map(|_| served.connect()).collect();
        for client in &mut clients {
            client.read_exact(&mut [0; 1]).expect("it is served");
        }
        let (first, second) = (served.handoff.live(0), served.handoff.live(1));
        assert_eq!(first + second, 200);
        assert!(first.abs_diff(second) <= 20, "{first} and {second}");
        assert!(served.status().handed_off_total >= second);
        for (seed, client) in (0..).zip(clients) {
            check_echo(client, seed, 10_000);
        }
        until("all are closed", || served.live() == 0);
    }
}

#[test]
fn a_unix_listener_is_private_and_takes_the_place_of_a_dead_one_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("front.sock");
    for io in engines() {
        let port = port_80(vec![backend(echo)]);
        let (nowhere, listen) = (([127, 0, 0, 1], 1).into(), BackendAddress::Unix(path.clone()));
        // A file that nobody listens on.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("the path is free"));
        let served = Served::at(io, port, false, (2, 2), listen, nowhere);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let find = Arc::new(|_: &str| None);
        let config = served.front.config().clone();
        let none = PassedSockets::default();
        let refuse = (Occupied::Refuse, &none);
        let other = Front::prepare(config.clone(), 1, refuse, Arc::clone(&find) as _);
        let other = other.expect_err("it is taken");
        assert!(other.to_string().contains("front.sock: "), "{other}");
        // It has connected, to see that.
        until("that was accepted", || served.status().accepted_total == 1);
        let accepted = served.status().accepted_total;
        Front::check(&config, &none).expect_err("it is taken, which is seen without connecting");
        assert_eq!(served.status().accepted_total, accepted);
        // One that could take its place, and in the end does not.
        let replace = (Occupied::Replace, &none);
        drop(Front::prepare(config, 1, replace, find).expect("it may"));
        let files = std::fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(files, 1, "what was made beside it is gone");
        let mut client = UnixStream::connect(&path).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("it is open");
        client.write_all(b"over a file").expect("it is open");
        client.shutdown(Shutdown::Write).expect("it is open");
        let mut said = String::new();
        client.read_to_string(&mut said).expect("it ends in good order");
        assert_eq!(said, "over a file");
        drop(served);
        assert!(!path.exists(), "it goes with its listener");
    }
}

#[test]
fn a_socket_that_was_passed_is_shared_by_all_cores_and_stays_whose_it_is() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (round, io) in (0_u8..).zip(engines()) {
        let path = directory.path().join(round.to_string());
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let unix = std::os::unix::net::UnixListener::bind(&path).expect("the path is free");
        let address = tcp.local_addr().expect("it is bound");
        let passed = || {
            let tcp = tcp.try_clone().expect("descriptors are left").into();
            let unix = unix.try_clone().expect("descriptors are left").into();
            [tcp, unix].map(|fd| PassedSocket::new(fd, "front".to_owned()).expect("it listens"))
        };
        let serve = |listen: BackendAddress| {
            let port = port_80(vec![backend(greet)]);
            Served::of(io, port, false, (2, 2), (listen, address), passed().into())
        };
        let served = serve(BackendAddress::Tcp(address));
        assert!(served.status().passed);
        let mut clients: Vec<TcpStream> = (0..40).map(|_| served.connect()).collect();
        for client in &mut clients {
            client.read_exact(&mut [0; 1]).expect("it is served");
        }
        assert!(served.handoff.live(0).abs_diff(served.handoff.live(1)) <= 4);
        drop(clients);
        served.front.end();
        // Another process's copy goes on: the kernel takes connections for it, once the cores have
        // seen the end.
        tcp.set_nonblocking(true).expect("it is open");
        until("it is left to the other process", || {
            let _queued = TcpStream::connect(address).expect("it listens");
            tcp.accept().is_ok()
        });
        drop(served);
        let served = serve(BackendAddress::Unix(path.clone()));
        let mut client = UnixStream::connect(&path).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("it is open");
        client.read_exact(&mut [0; 1]).expect("it is served");
        drop((client, served));
        assert!(path.exists(), "the file is not ours");
    }
}

/// Takes a little and breaks off.
fn break_off(mut connection: TcpStream) -> io::Result<()> {
    connection.read_exact(&mut [0; 4])?;
    socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO))
}

#[test]
fn a_backend_that_refuses_or_breaks_off_ends_that_client_and_no_other() {
    for io in engines() {
        // Bound, so that nobody else gets the address, and never listened on.
        let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let bound = bound.expect("there are sockets");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        bound.bind(&any.into()).expect("loopback has free ports");
        let nobody = bound.local_addr().expect("it is bound").as_socket().expect("it is TCP");
        let nobody = BackendAddress::Tcp(nobody);
        let refused = Served::start(io, port_80(vec![nobody]), false, (1, 1));
        let mut client = refused.connect();
        let kind = client.read(&mut [0; 1]).map(drop).expect_err("it is reset").kind();
        assert_eq!(kind, io::ErrorKind::ConnectionReset);
        assert!(refused.status().streams_refused_total >= 1);

        let served = Served::start(io, port_80(vec![backend(break_off)]), false, (1, 1));
        let mut other = served.connect();
        let mut client = served.connect();
        client.write_all(b"12345678").expect("it is open");
        // The end, or an error: never a byte.
        assert!(!matches!(client.read(&mut [0; 1]), Ok(1..)));
        other.set_nonblocking(true).expect("it is open");
        let kind = other.read(&mut [0; 1]).map(drop).expect_err("it is open").kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_listener_that_ends_serves_whom_it_has_and_takes_no_more() {
    for io in engines() {
        let served = Served::start(io, port_80(vec![backend(greet)]), false, (1, 1));
        let mut open = served.connect();
        open.read_exact(&mut [0; 1]).expect("it is served");
        served.front.end();
        until("nobody listens", || TcpStream::connect(served.address).is_err());
        check_echo(open, 9, 100_000);
    }
}

#[test]
fn a_stream_without_bytes_ends_when_it_is_to_and_one_with_some_does_not() {
    for io in engines() {
        let idle = Some(Duration::from_millis(300));
        let port = PortConfig { idle_timeout: idle, ..port_80(vec![backend(greet)]) };
        let served = Served::start(io, port, false, (1, 1));
        let mut client = served.connect();
        client.read_exact(&mut [0; 1]).expect("it is served");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(900) {
            client.write_all(b"x").expect("it is open");
            client.read_exact(&mut [0; 1]).expect("it is open");
        }
        let quiet = Instant::now();
        assert_eq!(read_to_reset(client), b"");
        assert!(quiet.elapsed() >= Duration::from_millis(200), "{:?}", quiet.elapsed());
    }
}

#[test]
fn a_half_of_a_stream_that_stays_open_without_bytes_ends() {
    for io in engines() {
        let half_close_timeout = Duration::from_millis(200);
        let hold = backend(|mut connection| {
            io::copy(&mut connection, &mut io::sink())?;
            // Neither closes nor says anything.
            std::thread::park_timeout(PATIENCE);
            Ok(())
        });
        let port = PortConfig { half_close_timeout, ..port_80(vec![hold]) };
        let served = Served::start(io, port, false, (1, 1));
        let client = served.connect();
        client.shutdown(Shutdown::Write).expect("it is open");
        assert_eq!(read_to_reset(client), b"");
        until("it is closed", || served.live() == 0);
    }
}
