//! Two hours under mixed load: fresh circuits, bodies on circuits that are kept, uploads, clients
//! that go in the middle, clients that ask for a port that nobody serves. Every body arrives as it
//! was sent, and memory, descriptors and tasks end where they were. `RUSTBALANCE_SOAK_MINUTES` says
//! how long instead.

#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustbalance_lab::client::{fresh_user, random_file, sha256};
use rustbalance_lab::{Client, Lab, Size, backend, measure};
use service::{Service, Spec};

/// How long, unless the environment says otherwise.
const MINUTES: u64 = 120;
/// A body that is fetched on a circuit that is kept.
const BODY_BYTES: usize = 1_000_000;
/// A body that is sent.
const UPLOAD_BYTES: usize = 300_000;
/// Between two samples.
const SAMPLE_SECONDS: u64 = 15;
/// Growth of memory from the second quarter to the last that is the allocator's and no leak: 10 KB
/// for each minute of two hours would be more.
const GROWTH_BYTES_MAX: u64 = 8_000_000;
/// Growth of the number of descriptors: links, and what is open by chance.
const GROWTH_DESCRIPTORS_MAX: u64 = 8;
/// Growth of the number of tasks: circuits that clients have by chance.
const GROWTH_TASKS_MAX: u64 = 60;

/// What was sent, and what came of it.
#[derive(Default)]
struct Counts {
    /// Requests that had to be served.
    requests: AtomicU64,
    /// Those that were not.
    failed: AtomicU64,
    /// Clients that went in the middle, or asked for what is not there.
    rude: AtomicU64,
}

impl Counts {
    /// Count a request, and say why it failed if it did.
    fn note(&self, what: &str, result: Result<(), String>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            println!("{what}: {error}");
        }
    }
}

/// What of the process must not grow.
#[derive(Clone, Copy, Debug)]
struct Sample {
    memory_bytes: u64,
    descriptors: u64,
    tasks: u64,
}

impl Sample {
    /// How it is now.
    fn take(service: &Service) -> Sample {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", service.pid()));
        Sample {
            memory_bytes: measure::rss_bytes(service.pid()),
            descriptors: descriptors.expect("it runs").count() as u64,
            tasks: service.status()["tasks"].as_u64().expect("it is a number"),
        }
    }

    /// The median of each.
    fn median(samples: &[Sample]) -> Sample {
        let of = |field: fn(&Sample) -> u64| {
            let mut values: Vec<u64> = samples.iter().map(field).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        Sample {
            memory_bytes: of(|one| one.memory_bytes),
            descriptors: of(|one| one.descriptors),
            tasks: of(|one| one.tasks),
        }
    }
}

/// A backend that answers with the hash of what it was sent, once that is all there: a stream of
/// Tor's has no end in one direction alone.
fn hashing_backend() -> String {
    let serve = |mut stream: TcpStream| {
        let mut body = vec![0; UPLOAD_BYTES];
        if stream.read_exact(&mut body).is_ok() {
            let _ = stream.write_all(sha256(&body).as_bytes());
        }
    };
    backend(serve).expect("a port can be had")
}

/// Send a body, and read what hash arrived.
fn upload(client: &Client, onion: &str, body: &[u8]) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream =
        client.stream(onion, 81, &fresh_user()).map_err(|error| format!("{error:#}"))?;
    stream.write_all(body).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    if answer == sha256(body) { Ok(()) } else { Err(format!("another hash: {answer}")) }
}

/// Read a little of a body and go.
fn leave_in_the_middle(client: &Client, onion: &str) {
    let Ok(mut stream) = client.stream(onion, 80, &fresh_user()) else { return };
    let _ = stream.write_all(b"GET /body HTTP/1.0\r\n\r\n");
    let _ = stream.read(&mut [0; 20_000]);
}

/// Fetch, and compare.
fn fetch(client: &Client, onion: &str, path: &str, user: &str, hash: &str) -> Result<(), String> {
    let answer = client.fetch(onion, 80, path, user).map_err(|error| format!("{error:#}"))?;
    if answer.sha256() == hash { Ok(()) } else { Err("another body".to_owned()) }
}

/// Says so when it goes, so that the load ends too when a sample cannot be taken.
struct OverAtLast<'a>(&'a AtomicBool);

impl Drop for OverAtLast<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Call `turn` again and again until `over`, at least `pause` apart.
fn repeat(over: &AtomicBool, pause: Duration, mut turn: impl FnMut()) {
    let (_never, wait) = std::sync::mpsc::sync_channel::<()>(1);
    while !over.load(Ordering::Relaxed) {
        let due = Instant::now() + pause;
        turn();
        let _ = wait.recv_timeout(due.saturating_duration_since(Instant::now()));
    }
}

/// Load until `over`, each kind on a thread of its own.
fn load<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    (client, onion): (&'s Client, &'s str),
    (page, body): (&'s str, &'s str),
    (counts, over): (&'s Counts, &'s AtomicBool),
) {
    let ms = Duration::from_millis;
    for _ in 0..2 {
        scope.spawn(move || {
            repeat(over, ms(400), || {
                counts.note("fresh", fetch(client, onion, "/page", &fresh_user(), page));
            });
        });
    }
    scope.spawn(move || {
        let mut turn = 0_u64;
        let mut user = fresh_user();
        repeat(over, ms(1_000), || {
            turn += 1;
            if turn.is_multiple_of(60) {
                user = fresh_user();
            }
            counts.note("kept", fetch(client, onion, "/body", &user, body));
        });
    });
    scope.spawn(move || {
        let sent: Vec<u8> = (0..UPLOAD_BYTES).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
        repeat(over, ms(2_000), || counts.note("upload", upload(client, onion, &sent)));
    });
    scope.spawn(move || {
        repeat(over, ms(1_500), || {
            leave_in_the_middle(client, onion);
            drop(client.stream(onion, 4_242, &fresh_user()));
            counts.rude.fetch_add(2, Ordering::Relaxed);
        });
    });
}

#[test]
fn memory_descriptors_and_tasks_stay_as_they_are_under_mixed_load() {
    let minutes = std::env::var("RUSTBALANCE_SOAK_MINUTES").ok();
    let minutes = minutes.map_or(MINUTES, |text| text.parse().expect("a number of minutes"));
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    // A client of C tor keeps a rendezvous circuit for 10 minutes: this one does for a minute, so
    // that circuits come and go.
    let client = lab.client_with("soak", "MaxCircuitDirtiness 60").expect("a client starts");
    let client = client.with_timeout(Duration::from_secs(90));
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let page = random_file(root.path(), "page", 1024).expect("it can be written");
    let body = random_file(root.path(), "body", BODY_BYTES).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let service_lines =
        format!("[[service.port]]\nvirtual = 81\nbackends = [\"{}\"]\n", hashing_backend());
    let backends = vec![nginx.address.to_string()];
    let service = Service::start(&lab, &Spec { backends, service_lines, ..Spec::default() });
    let (counts, over) = (Counts::default(), AtomicBool::new(false));
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        let _over = OverAtLast(&over);
        load(scope, (&client, &service.onion), (&page, &body), (&counts, &over));
        let until = Instant::now() + Duration::from_secs(minutes * 60);
        let ended = AtomicBool::new(false);
        repeat(&ended, Duration::from_secs(SAMPLE_SECONDS), || {
            let sample = Sample::take(&service);
            samples.push(sample);
            let requests = counts.requests.load(Ordering::Relaxed);
            if samples.len() % 20 == 1 {
                println!("{} min: {sample:?}, {requests} requests", samples.len() / 4);
            }
            ended.store(Instant::now() >= until, Ordering::Relaxed);
        });
    });
    let (requests, failed) = (counts.requests.into_inner(), counts.failed.into_inner());
    let quarter = samples.len() / 4;
    let early = Sample::median(&samples[quarter..2 * quarter]);
    let late = Sample::median(&samples[samples.len() - quarter..]);
    println!(
        "{minutes} min: {requests} requests, {failed} failed, {} rude\nsecond quarter {early:?}\n\
         last quarter {late:?}",
        counts.rude.into_inner()
    );
    assert!(requests > minutes * 60, "{requests} requests are no load");
    // A client of C tor gives a circuit up now and then; nearly all requests are served.
    assert!(failed * 1000 <= requests, "{failed} of {requests} failed\n{}", service.log());
    let grown = |late: u64, early: u64| late.saturating_sub(early);
    assert!(grown(late.memory_bytes, early.memory_bytes) <= GROWTH_BYTES_MAX, "memory");
    assert!(grown(late.descriptors, early.descriptors) <= GROWTH_DESCRIPTORS_MAX, "descriptors");
    assert!(grown(late.tasks, early.tasks) <= GROWTH_TASKS_MAX, "tasks");
}
