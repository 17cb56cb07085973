//! No descriptor is left: who comes is refused or waits, and is counted; who is there is served on,
//! the log says so once a minute, and everything is as before when there are some again.
//!
//! The limit is one of a process, so the plane runs in a child of its own (this test again, told so
//! by its environment); clients and backend are in the parent.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::layer::SubscriberExt as _;

use super::front::{PATIENCE, Served, backend, check_echo, greet, until};
use super::support::port_80;
use crate::limits;
use crate::plane::config::BackendAddress;
use crate::runtime::Io;
use crate::runtime::ring::tests::engines;

/// Tells the child its engine and its backend.
const TOLD: &str = "RUSTBALANCE_TEST_SHORTAGE";
/// Descriptors that are left, about: two for each stream, and one that is of no use.
const LEFT: u64 = 21;
/// After so long without a refusal one more is left: an even number is used up by streams that are
/// served, and then everybody else waits in the kernel's queue. Which of the two it is, nobody can
/// tell before: a core closes what it has no more use for in its own time.
const EVEN: Duration = Duration::from_secs(1);
/// Clients at once: more than can be served.
const CLIENTS: usize = 60;

/// Descriptors that there may be at most: more than all clients need.
const ROOMY: u64 = 300;
/// How often there is none left, later.
const SHORTAGES: u64 = 3;

/// The plane, in the child: an address, and for each line that it reads the counts of now; before
/// that, the line `more` leaves one more descriptor, `none` takes those that are left, and `all`
/// gives them back.
fn child(told: &str) {
    let (io, backend) = told.split_once(' ').expect("an engine and a backend");
    let io = if io == "uring" { Io::Uring } else { Io::Epoll };
    let backend: SocketAddr = backend.parse().expect("an address");
    let lines = Lines::default();
    let log = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::set_global_default(log).expect("nothing logs in a test");
    // An operation of the ring that accepts keeps to the limit of when it began.
    let used = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count() as u64;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    let (roomy, mut taken) = (used + ROOMY, Vec::new());
    setrlimit(Resource::RLIMIT_NOFILE, roomy, hard).expect("it can be lowered");
    let served = Served::start(io, port_80(vec![BackendAddress::Tcp(backend)]), false, (1, 1));
    let used = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count() as u64;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, used + LEFT, hard).expect("it can be lowered");
    // Behind whatever the harness has printed.
    writeln!(io::stdout(), "\nsubject {}", served.address).expect("the parent reads");
    for line in io::stdin().lines() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
        let line = line.expect("it is text");
        let limit = match line.as_str() {
            "more" => soft + 1,
            "all" | "none" => roomy,
            _ => soft,
        };
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("it was higher before");
        match line.as_str() {
            "all" => taken.clear(),
            "none" => taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok())),
            _ => {}
        }
        let status = served.status();
        let (open, refused) = (status.streams_open, status.streams_refused_total);
        let [warned, all] = lines.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        let counts = format!("\ncounts {open} {refused} {warned} {all}");
        writeln!(io::stdout(), "{counts}").expect("the parent reads");
    }
}

/// The child's log: counts lines that say that a connection could not be accepted, the warnings and
/// all of them.
#[derive(Clone, Default)]
struct Lines(Arc<[AtomicU64; 2]>);

/// Whether a line says so.
struct Says(bool);

impl tracing::field::Visit for Says {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 |= field.name() == "message" && format!("{value:?}").starts_with("cannot accept");
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut says = Says(false);
        event.record(&mut says);
        let is_warning = *event.metadata().level() <= tracing::Level::WARN;
        self.0[0].fetch_add(u64::from(says.0 && is_warning), Ordering::Relaxed);
        self.0[1].fetch_add(u64::from(says.0), Ordering::Relaxed);
    }
}

/// The child, seen from the parent.
struct Subject {
    /// Its process.
    child: Child,
    /// Its questions.
    ask: ChildStdin,
    /// Its answers.
    answers: BufReader<ChildStdout>,
    /// Where it listens.
    address: SocketAddr,
    /// Warnings that nothing could be accepted, and how often it was so, when it was last asked.
    failed: (u64, u64),
}

impl Subject {
    /// Start it in front of a backend that greets.
    fn start(io: Io) -> Subject {
        let BackendAddress::Tcp(backend) = backend(greet) else { panic!("it is TCP") };
        let engine = if io == Io::Uring { "uring" } else { "epoll" };
        let this = std::env::current_exe().expect("it is a file");
        let name = "plane::tests::shortage::no_descriptor_is_left";
        let mut child = Command::new(this)
            .args(["--exact", name, "--nocapture"])
            .env(TOLD, format!("{engine} {backend}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts again");
        let ask = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut subject = Subject { child, ask, answers, address, failed: (0, 0) };
        subject.address = subject.answer("subject ").parse().expect("an address");
        subject
    }

    /// What stands behind `word` in the next line that begins with it.
    fn answer(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.answers.read_line(&mut line).expect("it is piped");
            assert_ne!(length, 0, "the child has ended");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Streams that are open, and that were refused.
    fn counts(&mut self) -> (u64, u64) {
        self.asked(b"\n")
    }

    /// Streams that are open, and that were refused, as this is told.
    fn asked(&mut self, question: &[u8]) -> (u64, u64) {
        self.ask.write_all(question).expect("it listens");
        let answer = self.answer("counts ");
        let numbers = answer.split(' ').map(|number| number.parse().expect("a number"));
        let [open, refused, warned, failed] = numbers.collect::<Vec<u64>>()[..] else {
            panic!("four numbers: {answer}")
        };
        self.failed = (warned, failed);
        (open, refused)
    }

    /// A client.
    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("it is open");
        client
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a backend greets.
fn is_greeted(mut client: &TcpStream) -> bool {
    matches!(client.read(&mut [0; 1]), Ok(1))
}

#[test]
fn no_descriptor_is_left() {
    if let Ok(told) = std::env::var(TOLD) {
        return child(&told);
    }
    for io in engines() {
        let mut subject = Subject::start(io);
        let open = subject.connect();
        assert!(is_greeted(&open));
        let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| subject.connect()).collect();
        let mut counts = (0, 0);
        let begun = Instant::now();
        let mut more = begun + EVEN;
        // Some are served, some refused, the others wait in the kernel's queue.
        while counts.0 < 2 || counts.1 == 0 {
            assert!(begun.elapsed() < PATIENCE, "{counts:?}");
            counts = subject.counts();
            if Instant::now() > more {
                subject.asked(b"more\n");
                more += EVEN;
            }
        }
        assert!(counts.0 <= LEFT, "{counts:?}");
        // Who is there is served meanwhile, also where there is much to carry.
        let again = open.try_clone().expect("a descriptor is left here");
        check_echo(again, 5, 4 << 20);
        let answered = clients.iter().filter(|client| {
            client.set_read_timeout(Some(Duration::from_millis(50))).expect("it is open");
            is_greeted(client)
        });
        let answered = answered.count();
        assert!((1..CLIENTS).contains(&answered), "{answered} of {CLIENTS}");
        drop((clients, open));
        // They go, and everybody is served again. Who waits in the kernel's queue comes first.
        until("somebody is served", || is_greeted(&subject.connect()));
        until("the streams are closed", || subject.counts().0 == 0);
        let (_, refused) = subject.counts();
        for _ in 0..2 * CLIENTS {
            assert!(is_greeted(&subject.connect()));
        }
        assert_eq!(subject.counts().1, refused);
        check_warnings(&mut subject, begun);
    }
}

/// There is none left again and again, so that nothing can be accepted, and there are some in
/// between: that is one line a minute.
fn check_warnings(subject: &mut Subject, begun: Instant) {
    subject.asked(b"all\n");
    for _ in 0..SHORTAGES {
        until("nothing is open", || subject.counts().0 == 0);
        let (_, before) = subject.failed;
        // The core closes what it has no more use for in its own time: more is taken until nothing
        // comes back, and who was accepted with that is turned away.
        let mut early = Vec::new();
        until("it cannot be accepted", || {
            subject.asked(b"none\n");
            if early.len() < CLIENTS {
                early.push(subject.connect());
            }
            subject.failed.1 > before
        });
        let waiting = subject.connect();
        subject.asked(b"all\n");
        assert!(is_greeted(&waiting), "who waited is served");
    }
    let ((warned, _), seconds) = (subject.failed, begun.elapsed().as_secs());
    let most = 1 + seconds / limits::REPEAT_SECONDS;
    assert!((1..=most).contains(&warned), "{warned} warnings in {seconds} s");
}
