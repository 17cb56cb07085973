//! What systemd would be told: by a socket of the test's own in its place.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use rustbalance_lab::wait_until;

use crate::service::{Service, Spec};

/// In systemd's place: takes what it is told at once, as systemd does.
struct Manager {
    /// The socket's directory.
    dir: tempfile::TempDir,
    /// Every line so far.
    told: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    /// Listen.
    fn new() -> Manager {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("the path is short");
        let told = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&told);
        // Ends with the test program.
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]);
                lines.lock().expect("no panic").extend(text.lines().map(str::to_owned));
            }
        });
        Manager { dir, told }
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

    /// How often something was told so far.
    fn count(&self, what: &str) -> usize {
        let told = self.told.lock().expect("no panic");
        told.iter().filter(|line| line.starts_with(what)).count()
    }

    /// Wait until something has been told this often.
    fn wait_for(&self, what: &str, times: usize, seconds: u64) -> bool {
        wait_until(what, seconds, || (self.count(what) >= times).then_some(())).is_ok()
    }

    /// Wait until something is told once more than when this is called.
    fn wait_for_another(&self, what: &str, seconds: u64) -> bool {
        self.wait_for(what, self.count(what) + 1, seconds)
    }
}

#[test]
fn systemd_is_told_of_ready_alive_and_stopping() {
    let manager = Manager::new();
    let mut service = manager.start("");
    // Long waits: the lab shares two cores with whatever else the machine does.
    assert!(manager.wait_for("READY=1", 1, 30), "{}", service.log());
    assert!(manager.count("STATUS=") > 0);
    for _ in 0..3 {
        assert!(manager.wait_for_another("WATCHDOG=1", 20), "every core runs\n{}", service.log());
    }
    // What was told before the signal is counted before it: the answer may be there at once.
    assert_eq!(manager.count("READY=1"), 1);
    service.signal(Signal::SIGHUP);
    let read_again = manager.wait_for("READY=1", 2, 30);
    assert!(read_again, "it has read its configuration again\n{}", service.log());
    assert_eq!((manager.count("RELOADING=1"), manager.count("MONOTONIC_USEC=")), (1, 1));
    assert_eq!(manager.count("STOPPING=1"), 0);
    service.signal(Signal::SIGTERM);
    assert!(service.wait(30).success());
    assert_eq!(manager.count("STOPPING=1"), 1);
}

#[test]
fn a_core_that_hangs_starves_the_watchdog() {
    let manager = Manager::new();
    let service = manager.start("core-hung:1:5");
    assert!(manager.wait_for("WATCHDOG=1", 1, 20), "every core runs at first");
    wait_until("the core hangs", 30, || service.log().contains("not alive").then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    assert!(service.log().contains("data-1"), "{}", service.log());
    assert!(!manager.wait_for_another("WATCHDOG=1", 4), "a core hangs");
}
