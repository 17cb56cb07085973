//! Backends that fail in every way: they hang, flap, are slow, break off, and come again at another
//! time. A stream that another backend can have goes there, and no other stream is hurt.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::front::{Served, backend, check_echo, echo, greet, read_to_reset, until};
use super::support::{begin, listen, port_80, serve, soon};
use crate::base::counters::InstanceCounters;
use crate::plane::config::{
    BackendAddress, BackendConfig, CheckConfig, CheckRequest, PortConfig, PortTarget,
};
use crate::plane::status::BackendState;
use crate::plane::{Plane, health};
use crate::runtime::ring::tests::engines;

/// More than the buffers between two ends, and quick.
const BODY_BYTES: usize = 8 << 20;

/// Port 80 with these, of which the second is used only while the first is not.
fn with_stand_in(first: BackendAddress, second: BackendAddress) -> PortConfig {
    let backup = BackendConfig { backup: true, ..second.into() };
    PortConfig { target: PortTarget::Backends(vec![first.into(), backup]), ..port_80(Vec::new()) }
}

/// Says which of several backends it is, until the connection ends.
fn answer(mut connection: TcpStream, name: u8) -> io::Result<()> {
    connection.write_all(&[name])?;
    echo(connection)
}

/// The first byte that comes, which names the backend.
fn who(mut client: &TcpStream) -> u8 {
    let mut name = [0];
    client.read_exact(&mut name).expect("a backend answers");
    name[0]
}

/// A backend that can be closed and opened again at its address, and says `name`.
struct Flapping {
    /// Where it listens, if it does.
    address: SocketAddr,
    /// Tells the one that listens to stop.
    stop: Arc<AtomicBool>,
    /// It.
    thread: Option<std::thread::JoinHandle<()>>,
    /// What it says.
    name: u8,
}

impl Flapping {
    /// One that listens.
    fn new(name: u8) -> Flapping {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = listener.local_addr().expect("it is bound");
        let mut flapping = Flapping { address, stop: Arc::default(), thread: None, name };
        flapping.listen(listener);
        flapping
    }

    /// Serve who comes to it.
    fn listen(&mut self, listener: TcpListener) {
        self.stop = Arc::default();
        let (stop, name) = (Arc::clone(&self.stop), self.name);
        self.thread = Some(std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                std::thread::spawn(move || answer(connection, name));
            }
        }));
    }

    /// Listen no more. Nobody is about to connect.
    fn down(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        self.thread.take().expect("it listens").join().expect("it does not panic");
    }

    /// Listen again.
    fn up(&mut self) {
        // std binds with SO_REUSEADDR.
        let listener = TcpListener::bind(self.address).expect("the address is still ours");
        self.listen(listener);
    }
}

#[test]
fn of_a_backend_that_flaps_no_stream_is_lost_and_open_ones_go_on() {
    for io in engines() {
        let steady = backend(|connection| answer(connection, b's'));
        let mut flapping = Flapping::new(b'f');
        let port = with_stand_in(BackendAddress::Tcp(flapping.address), steady);
        let served = Served::start(io, port, false, (1, 1));
        let mut kept = Vec::new();
        for round in 0..3 {
            // A refusal puts it aside for a second at least.
            until("it is used again", || {
                let client = served.connect();
                let name = who(&client);
                kept.push(client);
                kept.truncate(20);
                name == b'f'
            });
            flapping.down();
            for _ in 0..20 {
                assert_eq!(who(&served.connect()), b's', "round {round}");
            }
            flapping.up();
        }
        // What was open when it went away is open still.
        assert!(kept.len() >= 3);
        for client in kept {
            check_echo(client, 7, 10_000);
        }
        assert_eq!(served.status().streams_refused_total, 0);
    }
}

#[test]
fn one_that_has_come_up_again_gets_little_at_first_where_it_starts_slowly() {
    for io in engines() {
        let steady = backend(|connection| answer(connection, b's'));
        let mut flapping = Flapping::new(b'f');
        let addresses = vec![BackendAddress::Tcp(flapping.address), steady];
        let slow_start = Duration::from_secs(3600);
        let port = PortConfig { slow_start, ..port_80(addresses) };
        let served = Served::start(io, port, false, (1, 1));
        let share =
            |streams: usize| (0..streams).filter(|_| who(&served.connect()) == b'f').count();
        // It was never down, so there is nothing to start.
        assert_eq!(share(20), 10);
        flapping.down();
        assert_eq!(share(4), 0);
        flapping.up();
        until("it has come up", || share(1) == 1);
        // A tenth of its turns: by chance a third of all streams is out of reach.
        let share = share(200);
        assert!((1..=66).contains(&share), "{share} of 200");
    }
}

/// Breaks off after `broken off` bytes where it is told so, and sends back what it gets otherwise.
fn treacherous(mut connection: TcpStream) -> io::Result<()> {
    let mut wanted = [0; 4];
    connection.read_exact(&mut wanted)?;
    match &wanted {
        b"rst!" => {
            connection.write_all(&[7; 100_000])?;
            socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO))
        }
        // A byte at a time.
        b"slow" => (0..50_u8).try_for_each(|byte| {
            std::thread::sleep(Duration::from_millis(10));
            connection.write_all(&[byte])
        }),
        _ => echo(connection),
    }
}

#[test]
fn a_backend_that_breaks_off_or_is_slow_hurts_no_other_stream() {
    for io in engines() {
        let served = Served::start(io, port_80(vec![backend(treacherous)]), false, (1, 1));
        let mut slow = served.connect();
        slow.write_all(b"slow").expect("it is open");
        let mut good = served.connect();
        good.write_all(b"good").expect("it is open");
        let whole = std::thread::spawn(move || check_echo(good, 11, BODY_BYTES));
        for _ in 0..20 {
            let mut client = served.connect();
            client.write_all(b"rst!").expect("it is open");
            let mut got = Vec::new();
            // Half an answer does not look like a whole one.
            let kind = client.read_to_end(&mut got).expect_err("it broke off").kind();
            assert_eq!(kind, io::ErrorKind::ConnectionReset);
            assert!(got.len() <= 100_000 && got.iter().all(|byte| *byte == 7), "{}", got.len());
        }
        whole.join().expect("all of it came back");
        let mut all = Vec::new();
        slow.read_to_end(&mut all).expect("it ends in good order");
        assert_eq!(all, (0..50).collect::<Vec<u8>>());
        drop(slow);
        until("all are closed", || served.live() == 0);
    }
}

#[test]
fn a_backend_that_takes_a_connection_and_says_nothing_is_left_when_it_is_to_be() {
    for io in engines() {
        let silent = backend(|mut connection| io::copy(&mut connection, &mut io::sink()).map(drop));
        let idle_timeout = Some(Duration::from_millis(300));
        let port = PortConfig { idle_timeout, ..port_80(vec![silent, backend(greet)]) };
        let served = Served::start(io, port, false, (1, 1));
        // One goes to each, in whatever order.
        let mut clients = [served.connect(), served.connect()];
        for client in &mut clients {
            client.write_all(b"?").expect("it is open");
        }
        let said = clients.map(read_to_reset);
        assert!(said.contains(&Vec::new()) && said.contains(&b"!?".to_vec()), "{said:?}");
        until("all are closed", || served.live() == 0);
    }
}

/// A backend at a path.
fn listen_at(path: &std::path::Path) -> UnixListener {
    UnixListener::bind(path).expect("the path is free")
}

/// Takes one connection, and says who it is.
fn take(listener: &UnixListener) -> std::os::unix::net::UnixStream {
    let (mut connection, _) = listener.accept().expect("somebody comes");
    connection.write_all(b"u").expect("it is open");
    connection
}

#[test]
fn a_unix_socket_may_go_away_and_come_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for io in engines() {
        let path = directory.path().join("app.sock");
        let listener = listen_at(&path);
        let steady = backend(|connection| answer(connection, b's'));
        let port = with_stand_in(BackendAddress::Unix(path.clone()), steady);
        // The one that waits for the front.
        let waits = std::thread::spawn(move || {
            drop(take(&listener));
            listener
        });
        let served = Served::start(io, port, false, (1, 1));
        let listener = waits.join().expect("it does not panic");
        let first = served.connect();
        let mut at_backend = take(&listener);
        assert_eq!(who(&first), b'u');
        // The file goes, with and without the one who listens.
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!(who(&served.connect()), b's');
        drop(listener);
        assert_eq!(who(&served.connect()), b's');
        let listener = listen_at(&path);
        let served_again = std::thread::spawn(move || take(&listener));
        until("it is used again", || who(&served.connect()) == b'u');
        served_again.join().expect("it does not panic");
        // What was open all the while is open still.
        at_backend.write_all(b"still").expect("it is open");
        at_backend.shutdown(Shutdown::Write).expect("it is open");
        let (mut rest, mut first) = (String::new(), first);
        first.read_to_string(&mut rest).expect("it ends in good order");
        assert_eq!(rest, "still");
        assert_eq!(served.status().streams_refused_total, 0);
        std::fs::remove_file(&path).expect("it is there");
    }
}

#[tokio::test]
async fn a_backend_that_hangs_is_found_by_its_check_and_keeps_the_streams_it_has() {
    let ((hanging, its_address), (listener, address)) = (listen().await, listen().await);
    // Whoever is accepted is held, and hears nothing: neither checks nor streams.
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = hanging.accept().await {
            held.push(connection);
        }
    });
    let check = CheckConfig {
        request: CheckRequest::Http { path: "/".to_owned(), host: "localhost".to_owned() },
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(100),
        rise: 2,
        fall: 2,
    };
    let target = PortTarget::backends([its_address, address]);
    let plane = Plane::new(vec![PortConfig { target, check: Some(check), ..port_80(Vec::new()) }]);
    let counters = Arc::new(InstanceCounters::default());
    // Nothing is checked yet: the first stream goes to the one that hangs, and is open.
    let (begun, mut client, fate) = begin(80);
    let stuck = serve(&plane, begun, &counters);
    client.write_all(b"hello?").await.expect("there is room");
    tokio::spawn(health::watch(Arc::downgrade(&plane)));
    // The other one answers its checks and greets its streams.
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 3];
                connection.read_exact(&mut head).await?;
                connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await
            });
        }
    });
    soon(async {
        while plane.status()[0].state != BackendState::Down {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let check = plane.status().remove(0).check.expect("it was checked");
    assert!(check.starts_with("no answer within 100 ms"), "{check}");
    for _ in 0..10 {
        let (begun, mut client, _fate) = begin(80);
        let served = serve(&plane, begun, &counters);
        client.write_all(b"GET").await.expect("there is room");
        let mut answer = String::new();
        soon(client.read_to_string(&mut answer)).await.expect("a clean end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        soon(served).await.expect("no panic");
    }
    assert!(fate.lock().expect("no panic").accepted && !stuck.is_finished());
    assert_eq!(plane.status()[0].open, 1, "the stream that it has is its own to end");
    drop(client);
    held.abort();
    soon(stuck).await.expect("no panic");
    assert_eq!(counters.streams_refused_total(), 0);
}
