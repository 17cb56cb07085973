//! Two instances of this process, two C tor daemons that it runs, and a remote instance in one
//! address: clients reach all five. A daemon that hangs leaves the descriptor and comes back, one
//! is told of another port, and a new process takes over with all of them.

#[path = "end_to_end/arti_client.rs"]
mod arti_client;
#[path = "end_to_end/daemon.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod daemon;
#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;
#[path = "end_to_end/upgrading.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod upgrading;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arti_client::ArtiClient;
use nix::sys::signal::{Signal, kill};
use rustbalance::base::stream::CircuitId;
use rustbalance_lab::measure::has_ended;
use rustbalance_lab::{Client, Lab, OnionService, OnionServiceSpec, Size, backend, wait_until};
use service::{Service, Spec, ctor_table};

/// Points in a descriptor of all five.
const POINTS: u64 = 15;
/// From a daemon that hangs to a descriptor without it: it is given up after 8 s.
const HUNG_SECONDS_MAX: u64 = 30;

/// A backend that says which instance its client came by, as the PROXY header has it, or what
/// stands in its place.
fn backend_that_says(otherwise: &'static str) -> String {
    let serve = move |mut stream: TcpStream| {
        let (mut said, mut room) = (Vec::new(), [0; 4096]);
        while !said.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut room) {
                Ok(length @ 1..) => said.extend_from_slice(&room[..length]),
                _ => return,
            }
        }
        let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let source = line.strip_prefix("PROXY TCP6 ").and_then(|rest| rest.split(' ').next());
        let circuit = source.and_then(|address| address.parse::<CircuitId>().ok());
        let body = circuit.map_or(otherwise.to_owned(), |circuit| circuit.instance.to_string());
        let length = body.len();
        let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    };
    backend(serve).expect("a port can be had")
}

/// Two instances and two daemons, and more for the `[[service]]`. `root` has what lasts as long.
fn spec(lab: &Lab, root: &Path, backend: &str, service_lines: String) -> Spec {
    Spec {
        backends: vec![backend.to_owned()],
        service_lines,
        port_lines: format!("proxy_protocol = \"v1\"\n{}", ctor_table(lab, root, 2)),
        top_lines: "drain_s = 5".to_owned(),
        ..Spec::default()
    }
}

/// A C tor instance of `onion` that another machine would have.
fn elsewhere(lab: &Lab, onion: &str) -> OnionService {
    let spec = OnionServiceSpec::instance(vec![(80, backend_that_says("remote"))]);
    lab.balanced_service(&spec, onion).expect("the instance starts")
}

/// A daemon is stopped, so that its control port is there and says nothing; how long until the
/// descriptors are without it.
fn hang(service: &Service, number: u16) -> Duration {
    let place = daemon::directory(service, number);
    let process = daemon::process(&place).expect("it runs");
    kill(process, Signal::SIGSTOP).expect("it runs");
    let stopped = Instant::now();
    wait_until("descriptors without it", HUNG_SECONDS_MAX, || {
        (daemon::published(service) == Some(POINTS - 3)).then_some(())
    })
    .unwrap_or_else(|error| daemon::give_up(service, error));
    let took = stopped.elapsed();
    wait_until("it is ended", 30, || (daemon::process(&place) != Some(process)).then_some(()))
        .expect("SIGKILL ends what is stopped");
    took
}

#[test]
fn five_instances_of_three_kinds_are_one_address() {
    let lab = Lab::shared(Size::Full).expect("a lab can be had");
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let says = backend_that_says("nobody");
    let service = Service::start(&lab, &spec(&lab, root.path(), &says, String::new()));
    let remote = elsewhere(&lab, &service.onion);
    let table = format!(
        "remote_interval_min_s = 5\nremote_interval_max_s = 20\n[[service.remote]]\naddress = \
         \"{}\"\n",
        remote.hostname
    );
    service.configure(&lab, &spec(&lab, root.path(), &says, table.clone()));
    service.signal(Signal::SIGHUP);
    daemon::all_serve(&service, 5);

    let wanted = ["0", "1", "1024", "1025", "remote"];
    daemon::reach_all(&ArtiClient::start(&lab), &service, &wanted);
    let client = lab.client("daemons").expect("a client starts");

    let took = hang(&service, 2);
    println!("{took:?} from a daemon that hangs to descriptors without it");
    daemon::all_serve(&service, 5);

    // Another port: the daemons read it, and go on.
    let before = daemon::processes(&service);
    let more = format!("{table}[[service.port]]\nvirtual = 81\nhello = true\n");
    service.configure(&lab, &spec(&lab, root.path(), &says, more));
    service.signal(Signal::SIGHUP);
    let ports = || {
        let has = |number| {
            let torrc = daemon::directory(&service, number).join("torrc");
            let text = std::fs::read_to_string(torrc).expect("it is there");
            text.contains("HiddenServicePort 81 ")
        };
        (has(1) && has(2)).then_some(())
    };
    wait_until("the daemons are told", 30, ports)
        .unwrap_or_else(|e| panic!("{e}{}", service.log()));
    let fetch = |port| client.fetch_fresh(&service.onion, port, "/").map(|_| ());
    for _ in 0..20 {
        wait_until("every instance serves the port", 60, || fetch(81).ok()).expect("it is served");
    }
    assert_eq!(daemon::processes(&service), before, "no daemon was started anew");

    upgrade_under_requests(&lab, &client, &service, &before);
}

/// A new process takes over under requests, and has daemons of its own, which begin when those of
/// the old one have ended.
fn upgrade_under_requests(
    lab: &Lab,
    client: &Client,
    service: &Service,
    before: &[nix::unistd::Pid],
) {
    let over = AtomicBool::new(false);
    let (fetched, failed) = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            let (mut fetched, mut failed) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                fetched += 1;
                if let Err(error) = client.fetch_fresh(&service.onion, 80, "/") {
                    failed.push(format!("{error:#}"));
                }
            }
            (fetched, failed)
        });
        let upgraded = upgrading::upgrade(lab, service);
        if upgraded.is_ok() {
            daemon::all_serve(service, 5);
        }
        over.store(true, Ordering::Relaxed);
        upgraded.unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
        fetching.join().expect("the client does not panic")
    });
    println!("{fetched} requests during an upgrade, {} failed: {failed:?}", failed.len());
    // The daemons end with the old process, and clients that hold its descriptors go on with the
    // other instances' points.
    assert!(fetched > 5 && failed.len() * 4 <= fetched, "{failed:?}\n{}", service.log());
    let now = daemon::processes(service);
    assert!(now.len() == 2 && now.iter().all(|one| !before.contains(one)), "{before:?} {now:?}");
    let last = upgrading::serving(service).expect("it answers");
    kill(upgrading::process(last), Signal::SIGTERM).expect("it runs");
    wait_until("the last one ends", 60, || has_ended(last).then_some(())).expect("it drains");
    assert!(daemon::processes(service).is_empty(), "a daemon is left behind");
}

#[test]
fn daemons_alone_serve() {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let says = backend_that_says("nobody");
    let spec = Spec { instances: 0, ..spec(&lab, root.path(), &says, String::new()) };
    let mut service = Service::start(&lab, &spec);
    daemon::all_serve(&service, 2);
    daemon::reach_all(&ArtiClient::start(&lab), &service, &["1024", "1025"]);
    service.signal(Signal::SIGTERM);
    assert!(service.wait(60).success(), "{}", service.log());
    assert!(daemon::processes(&service).is_empty(), "a daemon is left behind");
}
