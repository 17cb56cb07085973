//! Coming from OnionBalance: RustBalance, with the same files, takes the place of Debian's
//! OnionBalance over C tor instances, and loses nothing that OnionBalance would have kept.
//!
//! Addresses that nobody has published yet tell how long each program needs from its start until a
//! client is answered, in turn over the same two instances.

#[path = "support/drop_in.rs"]
mod drop_in;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustbalance::admin::status::{HeldStatus, VerifiedStatus};
use rustbalance_lab::client::{random_file, sha256};
use rustbalance_lab::{Client, Frontend, Lab, LabOptions, OnionService, Size, wait_until};
use serde_json::Value;

use drop_in::{DropIn, told};

/// Each program's starts that are timed: addresses of their own, since what one has published is
/// there for the next.
const ROUNDS: usize = 3;
/// How long a program may need.
const SECONDS_MAX: u64 = 240;
/// Clients that ask at the same time: each asks an HSDir that has nothing only every few seconds.
const CLIENTS: usize = 3;
/// A client that shall forget what it knows does so at most this often: tor puts off a NEWNYM that
/// comes within ten seconds of another, into the middle of the next request.
const FORGET_INTERVAL: Duration = Duration::from_secs(12);

/// What clients do with what they know between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clients {
    /// Keep it.
    Keep,
    /// Forget it. A C tor client whose descriptor names points of a tor that was killed may keep it
    /// until the time period ends: a relay may acknowledge introductions for such a point until it
    /// hears that its circuit is gone.
    Forget,
}

/// The private network, a page behind two C tor instances, and clients.
struct Site {
    /// The network.
    lab: Lab,
    /// Tries until it is answered.
    client: Client,
    /// Two of them, which answer for every frontend.
    instances: Vec<OnionService>,
    /// The page's hash.
    hash: String,
    /// Where the page lies.
    _root: tempfile::TempDir,
}

impl Site {
    /// Start everything, and wait until both instances are reachable by their own addresses.
    fn start(frontends: usize) -> (Site, Vec<Frontend>) {
        let options = LabOptions { size: Size::Small, quiet: true, ..LabOptions::default() };
        let lab = Lab::start(options).expect("a lab can be had");
        let client = lab.client("test").expect("a client starts");
        let root = tempfile::tempdir().expect("a temporary directory can be made");
        let hash = random_file(root.path(), "page", 10_000).expect("it can be written");
        let nginx = lab.nginx(root.path()).expect("nginx starts");
        let ports = [(80, nginx.address.to_string())];
        let (frontends, instances) = lab.balanced(frontends, 2, &ports).expect("they start");
        for instance in &instances {
            instance.wait_reachable(&client, 80).expect("its own address is served");
        }
        (Site { lab, client, instances, hash, _root: root }, frontends)
    }

    /// Whether a client without a descriptor is answered with the page.
    fn answers(&self, client: &Client, hostname: &str) -> bool {
        let answer = client.fetch_fresh(hostname, 80, "/page");
        answer.is_ok_and(|answer| sha256(&answer.body) == self.hash)
    }

    /// So many clients that have never asked for anything.
    fn clients(&self) -> Vec<Client> {
        let client = |_| self.lab.client("fresh").expect("a client starts");
        (0..CLIENTS).map(client).map(|one| one.with_timeout(Duration::from_secs(20))).collect()
    }

    /// How long it takes from `started` until one of `clients` is answered.
    fn answered_after(
        &self,
        started: Instant,
        hostname: &str,
        (clients, between): (&[Client], Clients),
        log: &(dyn Fn() -> String + Sync),
    ) -> Duration {
        let answered: Mutex<Option<Duration>> = Mutex::new(None);
        let is_over = || answered.lock().expect("nobody panics with it").is_some();
        std::thread::scope(|scope| {
            for client in clients {
                scope.spawn(|| {
                    let mut forgot = Instant::now();
                    let _ = wait_until("a client is answered", SECONDS_MAX, || {
                        if is_over() {
                            return Some(());
                        }
                        if between == Clients::Forget && forgot.elapsed() >= FORGET_INTERVAL {
                            client.control().and_then(|mut tor| tor.new_identity()).ok()?;
                            forgot = Instant::now();
                        }
                        self.answers(client, hostname).then(|| {
                            let mut answered = answered.lock().expect("nobody panics with it");
                            answered.get_or_insert(started.elapsed());
                        })
                    });
                });
            }
        });
        let answered = *answered.lock().expect("nobody panics with it");
        answered.unwrap_or_else(|| panic!("nobody is answered\n{}", log()))
    }

    /// Restart both instances, which gives them new introduction points; how long it takes from
    /// then until a client is answered that has forgotten older descriptors.
    fn restart_instances(&mut self, hostname: &str, log: &(dyn Fn() -> String + Sync)) -> Duration {
        let clients = self.clients();
        let before = self.instances.clone();
        let started = Instant::now();
        for (instance, before) in self.instances.iter_mut().zip(&before) {
            *instance = self.lab.restart_onion_service(before).expect("it starts again");
        }
        self.answered_after(started, hostname, (&clients, Clients::Forget), log)
    }
}

/// What OnionBalance wrote, for people.
fn log_of(frontend: &Frontend) -> String {
    let log = std::fs::read_to_string(frontend.log()).unwrap_or_default();
    let lines = log.lines().filter(|line| !line.contains("[DEBUG]"));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// The last revision counter that OnionBalance has used in each time period, from its log: it tells
/// the counter of a descriptor first, and the period with the HSDirs that it goes to.
fn counters(frontend: &Frontend) -> BTreeMap<u64, u64> {
    let number = |line: &str, before: &str| -> Option<u64> {
        let rest = line.split_once(before)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let mut counters = BTreeMap::new();
    let mut counter = None;
    let log = std::fs::read_to_string(frontend.log()).unwrap_or_default();
    for line in log.lines() {
        let which = ["first", "second"].into_iter().find(|which| line.contains(which));
        if line.contains("Rev counter for ") {
            counter = number(line, "OPE ").map(|counter| (which, counter));
        } else if line.contains("Using srv ")
            && let Some((_, used)) = counter.take_if(|(other, _)| *other == which)
            && let Some(period) = number(line, "TP#")
        {
            let last: &mut u64 = counters.entry(period).or_default();
            *last = used.max(*last);
        }
    }
    counters
}

/// Ask every responsible HSDir what it holds, until that is our newest descriptor everywhere; all
/// have a counter above the last one of OnionBalance's.
fn check_hsdirs(drop_in: &DropIn, theirs: &BTreeMap<u64, u64>) {
    let found = wait_until("every HSDir holds our newest descriptor", SECONDS_MAX, || {
        let found = rustbalance::admin::client::verify(&drop_in.admin_socket(), None).ok()?;
        found.iter().all(VerifiedStatus::is_good).then_some(found)
    })
    .unwrap_or_else(|error| panic!("{error}\n{:#?}\n{}", drop_in.status(), drop_in.log()));
    let found = found.into_iter().filter_map(|one| one.verification);
    let held: Vec<HeldStatus> = found.flat_map(|one| one.hsdirs).collect();
    assert!(!held.is_empty() && !theirs.is_empty(), "{held:#?} {theirs:?}");
    let mut compared = 0;
    for one in &held {
        let ours = one.revision.expect("it is read");
        println!(
            "period {} replica {} position {}: revision {ours}, OnionBalance's last {:?}",
            one.period,
            one.hsdir.replica,
            one.hsdir.position,
            theirs.get(&one.period)
        );
        if let Some(theirs) = theirs.get(&one.period) {
            assert!(ours > *theirs, "{one:#?}");
            compared += 1;
        }
    }
    // A period may have ended meanwhile; the other one has not.
    assert!(compared > 0, "{held:#?} {theirs:?}");
}

/// The keys of an object, in order; of every object in it as well.
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.push(format!("{path}.{key}"));
                keys(value, &format!("{path}.{key}"), found);
            }
        }
        Value::Array(list) => list.iter().for_each(|one| keys(one, path, found)),
        _ => {}
    }
}

/// The same of a whole answer.
fn all_keys(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    keys(value, "", &mut found);
    found
}

#[test]
fn it_is_reachable_sooner_than_onionbalance() {
    let (site, frontends) = Site::start(2 * ROUNDS);
    let tor = site.lab.client("onionbalance").expect("a client starts");
    let mut table = Vec::new();
    for pair in frontends.chunks_exact(2) {
        let [theirs, ours] = pair else { panic!("pairs") };
        let clients = site.clients();
        let started = Instant::now();
        let balance = site.lab.start_onionbalance(theirs, &tor, "warning");
        let balance = balance.expect("OnionBalance starts");
        let they =
            site.answered_after(started, &theirs.hostname, (&clients, Clients::Keep), &|| {
                log_of(theirs)
            });
        balance.stop().expect("it ends");
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let clients = site.clients();
        let started = Instant::now();
        let drop_in = DropIn::start(&site.lab, ours, dir.path());
        let we = site
            .answered_after(started, &ours.hostname, (&clients, Clients::Keep), &|| drop_in.log());
        table.push((they, we));
    }
    println!("from start to reachable, OnionBalance and RustBalance: {table:.1?}");
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let they = median(table.iter().map(|(they, _)| *they).collect());
    let we = median(table.iter().map(|(_, we)| *we).collect());
    // A third at most is promised; a machine that does something else as well decides nothing.
    let share = we.as_secs_f64() / they.as_secs_f64();
    println!("the medians: {they:.1?} and {we:.1?}, {share:.2} of it (promised: 0.33 at most)");
    assert!(we <= they, "{table:.1?}");
}

/// Says so when it is dropped, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Under requests on fresh circuits, have OnionBalance `stop` and ours begin, until every HSDir has
/// its descriptors, whatever counters OnionBalance had left there: how many requests were answered,
/// and what became of the others.
fn take_over(
    site: &Site,
    frontend: &Frontend,
    dir: &Path,
    stop: impl FnOnce(),
) -> (DropIn, u32, Vec<String>) {
    let over = AtomicBool::new(false);
    let client = site.lab.client("loop").expect("a client starts");
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let (mut answered, mut failed) = (0_u32, Vec::new());
            let begun = Instant::now();
            while !over.load(Ordering::Relaxed) {
                let at = begun.elapsed();
                match client.fetch_fresh(&frontend.hostname, 80, "/page") {
                    Ok(_) => answered += 1,
                    Err(error) => failed.push(format!("from {at:.1?} on: {error:#}")),
                }
            }
            (answered, failed)
        });
        let ended = Over(&over);
        stop();
        let drop_in = DropIn::start(&site.lab, frontend, dir);
        let published = wait_until("every HSDir has it", SECONDS_MAX, || {
            let status = drop_in.status()?;
            let descriptors = status["services"][0]["descriptors"].as_array()?.clone();
            let whole = |one: &Value| one["hsdirs_ok"] == one["hsdirs_total"];
            (descriptors.len() == 2 && descriptors.iter().all(whole)).then_some(())
        });
        drop(ended);
        let (answered, failed) = requests.join().expect("the client does not panic");
        if let Err(error) = published {
            panic!("{error}\n{:#?}\n{}", drop_in.status(), drop_in.log());
        }
        (drop_in, answered, failed)
    })
}

#[test]
fn it_takes_over_with_the_same_files_and_clients_go_on() {
    let (mut site, frontends) = Site::start(1);
    let frontend = frontends.into_iter().next().expect("one was made");
    let tor = site.lab.client("onionbalance").expect("a client starts");
    let balance = site.lab.start_onionbalance(&frontend, &tor, "debug");
    let balance = balance.expect("OnionBalance starts");
    let log = || log_of(&frontend);
    let clients = (&site.clients()[..], Clients::Keep);
    site.answered_after(Instant::now(), &frontend.hostname, clients, &log);
    // What OnionBalance needs after its instances have begun anew: the measure for ours.
    let they = site.restart_instances(&frontend.hostname, &log);
    let theirs = told(&frontend.status_socket).expect("it tells");

    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (drop_in, answered, failed) = take_over(&site, &frontend, dir.path(), || {
        balance.stop().expect("OnionBalance ends");
    });
    println!("while it took over: {answered} requests answered, {failed:?} failed");
    assert!(answered > 5 && failed.is_empty(), "{answered} {failed:#?}\n{}", drop_in.log());
    assert!(drop_in.log().contains("ONIONBALANCE_TOR_CONTROL_SOCKET: it has no effect"));
    check_hsdirs(&drop_in, &counters(&frontend));

    // What watched OnionBalance finds everything where it was.
    let ours = told(&frontend.status_socket).expect("it tells");
    assert_eq!(all_keys(&ours), all_keys(&theirs), "{ours:#}\n{theirs:#}");
    for (path, index) in [("onionAddress", 0), ("publishAttemptFirstDescriptor", 1)] {
        let text = |one: &Value| one["services"][0][path].as_str().map(str::to_owned);
        let (ours, theirs) = (text(&ours).expect("a text"), text(&theirs).expect("a text"));
        assert_eq!(ours.len(), theirs.len(), "{ours} {theirs}");
        assert!(index == 1 || ours == theirs, "{ours} {theirs}");
    }

    // Instances that begin anew have new points. On a test network OnionBalance looks for them
    // every 20 seconds, in place of the public network's 600; we look every 60 on both.
    let we = site.restart_instances(&frontend.hostname, &|| drop_in.log());
    println!("instances that begin anew: OnionBalance {they:.1?}, RustBalance {we:.1?}");

    // SIGHUP reads OnionBalance's file again: one instance is taken out.
    let yaml = std::fs::read_to_string(&frontend.config).expect("it is there");
    let gone = format!("  - address: {}\n", site.instances[1].hostname);
    assert!(yaml.contains(&gone), "{yaml}");
    std::fs::write(&frontend.config, yaml.replace(&gone, "")).expect("it is writable");
    drop_in.signal(Signal::SIGHUP);
    wait_until("one instance is left", SECONDS_MAX, || {
        let told = told(&frontend.status_socket)?;
        let instances = told["services"][0]["instances"].as_array()?.clone();
        (instances.len() == 1).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", drop_in.log()));
    assert!(site.answers(&site.client, &frontend.hostname), "{}", drop_in.log());
}
