//! Load on plain loopback, and the backend that it is for. Every byte is compared with what it
//! should be.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// The CPU of load and backend; the subject has the next one.
pub const LOAD_CPU: usize = 0;
/// Bytes of a question, and of its answer: those of a relay cell.
pub const CELL_BYTES: usize = 498;
/// Nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What bulk streams carry, again and again.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut noise = vec![0; 1 << 20];
    SmallRng::seed_from_u64(7).fill_bytes(&mut noise);
    noise
});

/// Keep the calling thread on the CPU for load.
pub fn pin() {
    let mut cpus = CpuSet::new();
    // A machine without it has one CPU, and everything is there.
    if cpus.set(LOAD_CPU).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
    }
}

/// Idle pairs that are asked for.
const PAIRS_MAX: usize = 10_000;

/// Descriptors that a subject, or this process, has for other things.
const DESCRIPTORS_BESIDE: u64 = 200;

/// Let this process and its children have all the descriptors that they may; pairs of connections
/// that a subject can hold then, and whose other ends are both here.
pub fn allow_pairs() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let granted = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let pairs = granted.saturating_sub(DESCRIPTORS_BESIDE) / 2;
    usize::try_from(pairs).unwrap_or(PAIRS_MAX).min(PAIRS_MAX)
}

/// A backend in this process, for as long as the process runs or until it is killed.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket that listens.
    listener: Arc<TcpListener>,
    /// Connections that it holds.
    held: Arc<Mutex<Vec<TcpStream>>>,
}

/// The first byte of a connection that wants so many bytes: eight more say how many.
const WANTS_BYTES: u8 = b'D';
/// The first byte of one that wants back what it sends.
const WANTS_ECHO: u8 = b'E';

impl Backend {
    /// One that answers.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Backend> {
        Backend::with(|connection, _| {
            // What has gone wrong the client sees.
            std::thread::spawn(move || answer(connection));
        })
    }

    /// One that answers, and whose connections end when it is [killed](Backend::kill).
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start_mortal() -> Result<Backend> {
        Backend::with(|connection, held| {
            if let Ok(copy) = connection.try_clone() {
                held.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
            }
            std::thread::spawn(move || answer(connection));
        })
    }

    /// End as a process does that is killed: nobody listens any more, and connections are reset.
    pub fn kill(&self) {
        let listener = socket2::SockRef::from(&*self.listener);
        let _ = listener.shutdown(std::net::Shutdown::Both);
        for connection in self.held.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let socket = socket2::SockRef::from(&connection);
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// One that holds what comes and says nothing.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start_silent() -> Result<Backend> {
        Backend::with(|connection, held| {
            held.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        })
    }

    /// One that does this with each connection.
    fn with(each: impl Fn(TcpStream, &Mutex<Vec<TcpStream>>) + Send + 'static) -> Result<Backend> {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        listener.listen(4096)?;
        let listener = TcpListener::from(listener);
        let address = listener.local_addr()?;
        let held: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let listener = Arc::new(listener);
        let (list, accepting) = (Arc::clone(&held), Arc::clone(&listener));
        std::thread::spawn(move || {
            pin();
            // Until it is killed.
            while let Ok((connection, _)) = accepting.accept() {
                each(connection, &list);
            }
        });
        Ok(Backend { address, listener, held })
    }

    /// Connections that it holds.
    pub fn held(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Let all of them go.
    pub fn let_go(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Serve one connection.
fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    pin();
    connection.set_nodelay(true)?;
    let mut first = [0];
    connection.read_exact(&mut first)?;
    if first == [WANTS_BYTES] {
        let mut length = [0; 8];
        connection.read_exact(&mut length)?;
        let mut left = usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX);
        while left > 0 {
            let now = left.min(NOISE.len());
            connection.write_all(&NOISE[..now])?;
            left -= now;
        }
        return Ok(());
    }
    connection.write_all(&first)?;
    let mut buffer = [0; 4096];
    loop {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            length => connection.write_all(&buffer[..length])?,
        }
    }
}

/// A new connection.
fn connect(to: SocketAddr) -> Result<TcpStream> {
    let connection = TcpStream::connect(to)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// Do this on so many threads at once.
fn on_threads(threads: usize, what: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let what = &what;
        let all: Vec<_> = (0..threads)
            .map(|at| {
                scope.spawn(move || {
                    pin();
                    what(at)
                })
            })
            .collect();
        all.into_iter().try_for_each(|one| match one.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread of the load panicked"),
        })
    })
}

/// Have so many streams bring so many bytes each.
///
/// # Errors
/// When one brings others, or too few.
pub fn bulk(to: SocketAddr, streams: usize, bytes: usize) -> Result<()> {
    on_threads(streams, |_| {
        let mut connection = connect(to)?;
        connection.write_all(&[WANTS_BYTES])?;
        connection.write_all(&(bytes as u64).to_be_bytes())?;
        let (mut seen, mut buffer) = (0, vec![0; 256 * 1024]);
        loop {
            // Ends where the noise does, so that what comes is one piece of it.
            let room = buffer.len().min(NOISE.len() - seen % NOISE.len());
            let length = connection.read(&mut buffer[..room])?;
            if length == 0 {
                break;
            }
            let from = seen % NOISE.len();
            ensure!(buffer[..length] == NOISE[from..from + length], "bytes arrived damaged");
            seen += length;
        }
        ensure!(seen == bytes, "{seen} of {bytes} bytes arrived");
        Ok(())
    })
}

/// Ask once over a new connection.
fn ask(to: SocketAddr) -> Result<()> {
    let mut connection = connect(to)?;
    connection.write_all(&[WANTS_ECHO])?;
    let mut back = [0];
    connection.read_exact(&mut back)?;
    ensure!(back == [WANTS_ECHO], "the answer arrived damaged");
    Ok(())
}

/// Make so many connections, some at a time, and ask once over each.
///
/// # Errors
/// When one is not answered.
pub fn connections(to: SocketAddr, count: usize) -> Result<()> {
    const THREADS: usize = 8;
    on_threads(THREADS, |_| (0..count / THREADS).try_for_each(|_| ask(to)))
}

/// Keep so many connections, and send so many questions over each, one after the other.
///
/// # Errors
/// When an answer differs.
pub fn questions(to: SocketAddr, connections: usize, each: usize) -> Result<()> {
    on_threads(connections, |at| {
        let mut connection = connect(to)?;
        let mut question = [u8::try_from(at).unwrap_or_default(); CELL_BYTES];
        question[0] = WANTS_ECHO;
        let mut back = [0; CELL_BYTES];
        for _ in 0..each {
            connection.write_all(&question)?;
            connection.read_exact(&mut back)?;
            ensure!(back == question, "an answer arrived damaged");
        }
        Ok(())
    })
}

/// Ask over new connections at a fixed rate, whatever the answers do (open loop); times from when
/// each should have begun until its answer, in microseconds, and how many failed.
///
/// # Errors
/// When the offered rate was not held.
pub fn open_loop(to: SocketAddr, rate: f64, span: Duration) -> Result<(Histogram<u64>, usize)> {
    const THREADS: usize = 16;
    let times = Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?);
    let (failed, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let count = (rate * span.as_secs_f64()) as usize;
    let begun = Instant::now();
    on_threads(THREADS, |_| {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(());
            }
            let due = begun + Duration::from_secs_f64(at as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if ask(to).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
            times.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
        }
    })?;
    let late = begun.elapsed().saturating_sub(span);
    ensure!(late < span / 4 + Duration::from_secs(1), "the rate was not held: {late:?} late");
    let times = times.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((times, failed.into_inner()))
}

/// What became of streams whose backend was killed, and of others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Killed {
    /// Streams that were open at both backends, and ended.
    pub ended: usize,
    /// New connections that were made from the beginning to the end, and not answered.
    pub lost: usize,
    /// All new connections.
    pub total: usize,
    /// How long the answer to a new one took, 99th percentile, in milliseconds.
    pub ms_p99: f64,
}

/// Keep streams open and make new connections at a fixed rate; in the midst of it, kill one of two
/// backends.
///
/// # Errors
/// When streams could not be opened, or the offered rate was not held.
pub fn killed(to: SocketAddr, victim: &Backend, rate: f64, span: Duration) -> Result<Killed> {
    const KEPT: usize = 64;
    let echo = |connection: &mut TcpStream| -> Result<()> {
        connection.write_all(&[WANTS_ECHO])?;
        let mut back = [0];
        connection.read_exact(&mut back)?;
        ensure!(back == [WANTS_ECHO], "the answer arrived damaged");
        Ok(())
    };
    let mut kept = (0..KEPT).map(|_| connect(to)).collect::<Result<Vec<_>>>()?;
    kept.iter_mut().try_for_each(echo)?;
    let (times, lost) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            std::thread::sleep(span / 2);
            victim.kill();
        });
        let answered = open_loop(to, rate, span);
        let _ = killer.join();
        answered
    })?;
    let ended = kept.iter_mut().filter_map(|connection| echo(connection).err()).count();
    Ok(Killed {
        ended,
        lost,
        total: (rate * span.as_secs_f64()) as usize,
        ms_p99: times.value_at_percentile(99.0) as f64 / 1e3,
    })
}

/// Connect so many clients that then say nothing, and wait until a silent backend holds them all.
///
/// # Errors
/// When they do not all get there.
pub fn idle(to: SocketAddr, backend: &Backend, count: usize) -> Result<Vec<TcpStream>> {
    let clients = (0..count).map(|_| connect(to)).collect::<Result<Vec<_>>>();
    let clients = clients.context("clients could not connect")?;
    let begun = Instant::now();
    while backend.held() < count {
        ensure!(begun.elapsed() < PATIENCE, "{} of {count} got through", backend.held());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(clients)
}

/// Wait until somebody listens.
///
/// # Errors
/// When nobody does.
pub fn wait_for(to: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(to) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::ConnectionRefused => bail!(error),
            Err(_) => ensure!(begun.elapsed() < PATIENCE, "nobody listens on {to}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
