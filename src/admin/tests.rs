//! The socket, asked by its own client and by clients that misbehave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::client::{self, AskError};
use super::status::{
    DaemonStatus, DescriptorStatus, InstanceState, InstanceStatus, LookUpsStatus, MemoryStatus,
    ProcessStatus, ServiceStatus, VerificationStatus, VerifiedStatus,
};
use super::{
    AdminError, BackendRequest, CircuitId, Place, StatusSource, Verdict, VerdictRequest, serve,
};
use crate::limits;
use crate::onion::status::{Engine, ServiceState};
use crate::plane::status::{BackendOrder, BackendState, BackendStatus};
use crate::tor::status::LinkStatus;

/// Says always the same.
struct Sample;

impl StatusSource for Sample {
    fn status(&self) -> ProcessStatus {
        sample()
    }

    fn verify(&self, service: Option<String>) -> BoxFuture<'static, Vec<VerifiedStatus>> {
        let known = service.is_none_or(|name| name == "main").then(|| VerifiedStatus {
            service: "main".to_owned(),
            onion: "example.onion".to_owned(),
            reason: Some("nothing is published yet".to_owned()),
            alarm: false,
            verification: None,
        });
        futures::future::ready(known.into_iter().collect()).boxed()
    }

    fn order_backend(&self, request: &BackendRequest) -> usize {
        let known = request.address == "127.0.0.1:8080" && request.port.is_none_or(|it| it == 80);
        usize::from(known && request.order == BackendOrder::Drain)
    }

    fn set_verdict(&self, request: &VerdictRequest) -> usize {
        let ten_minutes = request.lifetime == Duration::from_secs(600);
        usize::from(request.verdict == Verdict::Banned && ten_minutes)
    }

    fn close_circuit(&self, circuit: CircuitId) -> BoxFuture<'static, bool> {
        futures::future::ready(circuit == CircuitId { instance: 1, serial: 666 }).boxed()
    }
}

/// A backend that is well.
fn backend() -> BackendStatus {
    BackendStatus {
        virtual_port: 80,
        address: "127.0.0.1:8080".to_owned(),
        state: BackendState::Up,
        open: 3,
        failed_total: 0,
        check: Some("ok".to_owned()),
        queued: 0,
        queue_refused_total: 0,
    }
}

/// An instance of which little is known here.
fn remote() -> InstanceStatus {
    InstanceStatus {
        id: 0,
        engine: Engine::Remote,
        name: Some("elsewhere".to_owned()),
        address: None,
        reason: None,
        received_at: None,
        changed_at: None,
        core: None,
        state: InstanceState::Serving,
        intro_points: 3,
        introductions_total: None,
        rendezvous_open: None,
        rendezvous_total: None,
        streams_open: None,
        streams_total: None,
        bytes_in_total: None,
        bytes_out_total: None,
        handed_off_total: None,
        introductions_invalid_total: None,
        introductions_no_directory_total: None,
        introductions_panicked_total: None,
        rendezvous_building: None,
        rendezvous_given_up_total: None,
        replays_refused_total: None,
        queue_full_total: None,
        rendezvous_failed_total: None,
        rendezvous_braked_total: None,
        streams_refused_total: None,
        circuits_started_total: None,
        io: None,
    }
}

/// A status with something in every list, and with what is not known.
pub(super) fn sample() -> ProcessStatus {
    let service = ServiceStatus {
        name: "main".to_owned(),
        onion: "example.onion".to_owned(),
        state: ServiceState::Ready,
        reason: None,
        summary: "Aggregating 1/1 Instances. Master Onion: example.onion".to_owned(),
        instances: vec![remote()],
        descriptors: vec![DescriptorStatus {
            period: 20_779,
            revision: 123,
            variants: 1,
            intro_points: 6,
            size_bytes: 14_000,
            hsdirs_ok: 8,
            hsdirs_total: 8,
            published_at: "2026-01-01T00:00:00Z".to_owned(),
        }],
        backends: vec![backend()],
        circuits: crate::plane::status::CircuitsStatus::default(),
        verification: VerificationStatus::default(),
    };
    let link = LinkStatus {
        stack: 0,
        core: Some(0),
        guard: 1,
        circuits: None,
        bytes_in_total: 1,
        bytes_out_total: 2,
        creates_refused_total: None,
    };
    ProcessStatus {
        listens: Vec::new(),
        version: "0.1.0".to_owned(),
        pid: 4711,
        turbo: true,
        io: "epoll".to_owned(),
        clock_skew_ms: None,
        network: Default::default(),
        tasks: 90,
        look_ups: LookUpsStatus { hanging: 1, ..LookUpsStatus::default() },
        memory: MemoryStatus { max_bytes: Some(1 << 30), ..MemoryStatus::default() },
        links: vec![link],
        daemons: vec![DaemonStatus { name: "ctor-1".to_owned(), guards: vec![0, 2] }],
        services: vec![service],
    }
}

/// Run `asking` on a thread of its own while the socket is served.
fn while_served<T: Send + 'static>(
    path: &Path,
    asking: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> T {
    let driver = tokio::runtime::Builder::new_current_thread().enable_all().build();
    driver.expect("a driver").block_on(async {
        let mut served = std::pin::pin!(serve(path, Place::Free, Arc::new(Sample)));
        // One poll binds the socket, or says why not.
        tokio::select! {
            biased;
            ended = &mut served => ended.expect("the socket can be made"),
            () = tokio::task::yield_now() => {}
        }
        let path = path.to_owned();
        let asked = tokio::task::spawn_blocking(move || asking(path));
        tokio::select! {
            _ = &mut served => panic!("it has ended"),
            answer = asked => answer.expect("no panic"),
        }
    })
}

/// What `serve` says at once.
fn refusal(path: &Path) -> AdminError {
    let driver = tokio::runtime::Builder::new_current_thread().enable_all().build();
    driver.expect("a driver").block_on(async {
        let served = tokio::time::timeout(
            Duration::from_secs(60),
            serve(path, Place::Free, Arc::new(Sample)),
        );
        served.await.expect("it has bound the socket").expect_err("it has bound the socket")
    })
}

/// A directory, and a path for a socket in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("admin.sock");
    (directory, path)
}

#[test]
fn a_backend_is_taken_out_and_one_that_is_not_there_is_named() {
    let (_directory, path) = place();
    while_served(&path, |path| {
        let order = |address: &str, port, order| {
            let address = address.to_owned();
            client::order_backend(&path, &BackendRequest { address, service: None, port, order })
        };
        assert_eq!(order("127.0.0.1:8080", Some(80), BackendOrder::Drain).expect("it is there"), 1);
        let refused = order("127.0.0.1:8080", Some(81), BackendOrder::Drain);
        let refused = refused.expect_err("no such port");
        assert!(
            matches!(&refused, AskError::Refused { text, .. }
            if text == "there is no such backend as 127.0.0.1:8080"),
            "{refused}"
        );
    });
}

#[test]
fn a_circuit_is_closed_or_banned_by_its_id_and_one_that_is_not_open_is_named() {
    let (_directory, path) = place();
    while_served(&path, |path| {
        let close = |serial| client::close_circuit(&path, CircuitId { instance: 1, serial });
        close(666).expect("it is open");
        let refused = close(667).expect_err("it is not open");
        assert!(
            matches!(&refused, AskError::Refused { text, .. }
            if text == "there is no open circuit 1/667"),
            "{refused}"
        );
        let circuit = CircuitId { instance: 1, serial: 1 };
        let say = |verdict, seconds| {
            let lifetime = Duration::from_secs(seconds);
            client::set_verdict(&path, &VerdictRequest { circuit, verdict, lifetime })
        };
        say(Verdict::Banned, 600).expect("there is room");
        let refused = say(Verdict::Preferred, 600).expect_err("there is none").to_string();
        assert!(refused.contains("no such circuit is open"), "{refused}");
        let refused = say(Verdict::Banned, 1_000_000).expect_err("too long").to_string();
        assert!(refused.contains("at most 86400"), "{refused}");
    });
}

#[test]
fn the_status_arrives_as_it_is_and_the_socket_is_ours_alone() {
    let (_directory, path) = place();
    let (status, mode) = while_served(&path, |path| {
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        (client::status(&path).expect("an answer"), mode & 0o777)
    });
    assert_eq!((status, mode), (sample(), 0o600));
    assert!(!path.exists(), "the socket goes away with its server");
}

#[test]
fn the_document_has_the_fields_of_the_contract_and_null_for_what_is_not_known() {
    let json = serde_json::to_value(sample()).expect("JSON");
    let pointers = [
        ("/io", "\"epoll\""),
        ("/clock_skew_ms", "null"),
        ("/links/0/guard", "1"),
        ("/daemons/0/guards/1", "2"),
        ("/links/0/creates_refused_total", "null"),
        ("/services/0/state", "\"ready\""),
        ("/services/0/reason", "null"),
        ("/services/0/instances/0/engine", "\"remote\""),
        ("/services/0/instances/0/state", "\"serving\""),
        ("/services/0/instances/0/core", "null"),
        ("/services/0/instances/0/bytes_in_total", "null"),
        ("/services/0/instances/0/handed_off_total", "null"),
        ("/services/0/descriptors/0/hsdirs_ok", "8"),
        ("/services/0/descriptors/0/published_at", "\"2026-01-01T00:00:00Z\""),
        ("/services/0/backends/0/virtual", "80"),
        ("/services/0/backends/0/state", "\"up\""),
    ];
    for (pointer, expected) in pointers {
        let found = json.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing"));
        assert_eq!(found.to_string(), expected, "{pointer}");
    }
}

#[test]
fn descriptors_can_be_asked_for_alone() {
    let (_directory, path) = place();
    let answer = while_served(&path, |path| client::descriptors(&path).expect("an answer"));
    assert_eq!(answer[0].service, "main");
    assert_eq!(answer[0].descriptors[0].descriptor.revision, 123);
}

#[test]
fn what_is_not_understood_is_answered_with_an_error() {
    let (_directory, path) = place();
    let refused = while_served(&path, |path| {
        client::request(&path, "explode", Duration::from_secs(60)).expect_err("no such command")
    });
    assert!(matches!(&refused, AskError::Refused { text, .. } if text.contains("explode")));
}

#[test]
fn a_line_without_end_is_cut_and_silent_connections_do_not_keep_others_out_for_ever() {
    let (_directory, path) = place();
    while_served(&path, |path| {
        // Every slot but one is taken by somebody who says nothing.
        let connect = || UnixStream::connect(&path).expect("it listens");
        let silent: Vec<_> = (1..limits::ADMIN_CONNECTIONS_MAX).map(|_| connect()).collect();
        let mut endless = connect();
        let line = vec![b' '; limits::ADMIN_REQUEST_BYTES_MAX];
        endless.write_all(&line).expect("there is room");
        let mut answer = String::new();
        BufReader::new(endless).read_line(&mut answer).expect("an answer");
        assert!(answer.starts_with("{\"error\":"), "{answer}");
        client::status(&path).expect("the last slot is free again");
        // Now all are taken: the next one is served when the deadline has ended another.
        let _last = connect();
        client::request(&path, "status", Duration::from_secs(60)).expect("a slot is free again");
        for mut one in silent {
            // Nothing but an end: closed by the deadline.
            one.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
            assert_eq!(one.read(&mut [0]).expect("a close"), 0);
        }
    });
}

#[test]
fn a_socket_of_a_dead_process_is_replaced_and_one_of_a_live_one_is_not() {
    let (_directory, path) = place();
    let live = UnixListener::bind(&path).expect("a new socket");
    assert!(matches!(refusal(&path), AdminError::InUse { .. }));
    assert!(path.exists());
    drop(live);
    assert!(path.exists(), "std leaves the file, as a killed process does");
    while_served(&path, |path| client::status(&path).expect("an answer"));
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let (_directory, path) = place();
    std::fs::write(&path, "a master key").expect("a new file");
    assert!(matches!(refusal(&path), AdminError::NotASocket { .. }));
    assert_eq!(std::fs::read_to_string(&path).expect("it is still there"), "a master key");
    // Nor is a link to a socket followed.
    let link = path.with_file_name("link.sock");
    std::os::unix::fs::symlink(&path, &link).expect("a new link");
    assert!(matches!(refusal(&link), AdminError::NotASocket { .. }));
}

#[test]
fn a_socket_that_another_process_has_put_there_is_not_removed_at_the_end() {
    let (_directory, path) = place();
    let other = while_served(&path, |path| {
        std::fs::remove_file(&path).expect("it is there");
        UnixListener::bind(&path).expect("a new socket")
    });
    assert!(path.exists());
    drop(other);
}

#[test]
fn nobody_and_silence_are_told_apart() {
    let (_directory, path) = place();
    let nobody = client::status(&path).expect_err("nobody listens");
    assert!(matches!(nobody, AskError::Nobody { .. }));
    assert!(nobody.to_string().contains(&path.display().to_string()), "{nobody}");
    let _mute = UnixListener::bind(&path).expect("a new socket");
    let wait = Duration::from_millis(20);
    let silent = client::request(&path, "status", wait).expect_err("nobody answers");
    assert!(matches!(silent, AskError::Silent { .. }), "{silent}");
}
