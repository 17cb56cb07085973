//! What systemd would be told: by a socket of the test's own in its place.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use rustbalance_lab::measure::has_ended;
use rustbalance_lab::wait_until;

use crate::service::{Service, Spec};
use crate::upgrading::{process, serving, upgrade};

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

/// Ask for the file `who`, to the end.
fn ask(mut connection: impl Read + Write) {
    connection.write_all(b"GET /who HTTP/1.0\r\n\r\n").expect("it is open");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it is served");
    assert!(answer.ends_with("nginx"), "{answer}");
}

#[test]
fn sockets_that_systemd_has_bound_are_served_also_by_the_next_process() {
    let (lab, _) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(root.path().join("who"), "nginx").expect("a file can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let path = root.path().join("front.sock");
    let unix = UnixListener::bind(&path).expect("the path is free");
    let [tcp, spare] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback is up"));
    let address = tcp.local_addr().expect("it is bound");
    let listen = |address: &str| format!("[[listen]]\naddress = \"{address}\"\nvirtual = 80\n");
    let spec = Spec {
        backends: vec![nginx.address.to_string()],
        top_lines: "drain_s = 3".to_owned(),
        port_lines: [format!("unix:{}", path.display()), address.to_string()]
            .map(|address| listen(&address))
            .concat(),
        ..Spec::default()
    };
    let connect = || TcpStream::connect(address).expect("somebody listens");
    // Before there is a process: that is what such a socket is for.
    let early = connect();
    let copy = |listener: &TcpListener| listener.try_clone().expect("descriptors are left").into();
    let file = unix.try_clone().expect("descriptors are left").into();
    let sockets = vec![(file, "front"), (copy(&tcp), "port"), (copy(&spare), "spare")];
    let service = Service::start_with_sockets(lab, &spec, sockets);
    let served = || {
        ask(connect());
        ask(UnixStream::connect(&path).expect("somebody listens"));
        let listens = service.status()["listens"].clone();
        assert_eq!((&listens[0]["passed"], &listens[1]["passed"]), (&true.into(), &true.into()));
    };
    ask(early);
    served();
    let spare = spare.local_addr().expect("it is bound");
    assert!(service.log().contains(&format!("{spare} (spare)")), "{}", service.log());
    // No child gets one by chance: the last digit but five of the flags is O_CLOEXEC's.
    for fd in 3..=5 {
        let flags = std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", service.pid()));
        let flags = flags.expect("it is open");
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.expect("it has flags").trim(), 8);
        assert_ne!(flags.expect("a number") & 0o2_000_000, 0, "{fd}");
    }
    upgrade(lab, &service).unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    served();
    let last = serving(&service).expect("it answers");
    assert_ne!(last, u64::from(service.pid()));
    kill(process(last), Signal::SIGTERM).expect("it runs");
    wait_until("it ends", 30, || has_ended(last).then_some(())).expect("it drains");
    // They are systemd's as before.
    let _late = connect();
    assert!(path.exists());
}
