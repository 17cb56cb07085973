//! What systemd would be told: by a socket of the test's own in its place.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustbalance_lab::wait_until;

use crate::service::{Service, Spec};

/// In systemd's place.
struct Manager {
    /// Where it listens.
    socket: UnixDatagram,
    /// The socket's directory.
    dir: tempfile::TempDir,
}

impl Manager {
    /// Listen.
    fn new() -> Manager {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("the path is short");
        Manager { socket, dir }
    }

    /// A service that tells this one, with a watchdog of two seconds.
    fn start(&self, fault: &str) -> Service {
        let (lab, _) = crate::lab();
        let socket = self.dir.path().join("notify");
        let socket = socket.to_str().expect("it is UTF-8");
        let environment =
            [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "2000000"), ("RUSTBALANCE_FAULT", fault)];
        Service::start_with_environment(lab, &Spec::default(), &environment)
    }

    /// What has been told, for so long or until `last` is among it.
    fn told(&self, patience: Duration, last: &str) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut told = Vec::new();
        let mut message = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || told.iter().any(|line| line == last) {
                return told;
            }
            self.socket.set_read_timeout(Some(left)).expect("it is not zero");
            let Ok(length) = self.socket.recv(&mut message) else { continue };
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            told.extend(text.lines().map(str::to_owned));
        }
    }
}

#[test]
fn systemd_is_told_of_ready_alive_and_stopping() {
    let manager = Manager::new();
    let mut service = manager.start("");
    let told = manager.told(Duration::from_secs(10), "READY=1");
    assert!(told.iter().any(|line| line == "READY=1"), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("STATUS=")), "{told:?}");
    let told = manager.told(Duration::from_secs(4), "never");
    let fed = told.iter().filter(|line| *line == "WATCHDOG=1").count();
    assert!((2..=12).contains(&fed), "three times in two seconds: {told:?}");
    service.signal(Signal::SIGTERM);
    let told = manager.told(Duration::from_secs(5), "STOPPING=1");
    assert!(told.iter().any(|line| line == "STOPPING=1"), "{told:?}");
    assert!(service.wait(30).success());
}

#[test]
fn a_core_that_hangs_starves_the_watchdog() {
    let manager = Manager::new();
    let service = manager.start("core-hung:1:5");
    wait_until("the core hangs", 30, || service.log().contains("not alive").then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    assert!(service.log().contains("data-1"), "{}", service.log());
    // What was told until now counts not.
    manager.told(Duration::from_millis(50), "never");
    let told = manager.told(Duration::from_secs(4), "WATCHDOG=1");
    assert!(!told.iter().any(|line| line == "WATCHDOG=1"), "{told:?}");
}
