//! A real tor without a network: started, killed, started anew, told of other services, ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Carried, Close, DaemonSettings, Heard, run};
use crate::ctor::torrc::{HiddenPort, HiddenService};

/// Somebody's address, as tor looks at the checksum.
const MASTER: &str = "4a2zwxetkje5lwvahfv75arzrctn6bznkwmosvfyobmyv2fc3idbpwyd.onion";

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first daemon, below this directory; `None` on a machine without tor.
fn settings(root: &Path, extra: &str) -> Option<DaemonSettings> {
    let places = ["/usr/bin/tor", "/usr/sbin/tor", "/usr/local/bin/tor"];
    Some(DaemonSettings {
        number: 1,
        binary: places.iter().map(PathBuf::from).find(|path| path.is_file())?,
        directory: root.join("1"),
        cpu: None,
        extra: format!("DisableNetwork 1\n{extra}"),
    })
}

/// A service of this name.
fn carried(settings: &DaemonSettings, name: &str) -> Carried {
    let socket = settings.directory.join("front.sock");
    let service = HiddenService {
        directory: settings.service_dir(name),
        ports: vec![HiddenPort { first: 80, last: 80, socket }],
        intro_points: 3,
        intro_dos: None,
        streams_max: None,
    };
    Carried { name: name.to_owned(), master: MASTER.to_owned(), service }
}

/// What was heard, as text.
fn told(heard: &Heard<'_>) -> String {
    match heard {
        Heard::Descriptor { name, .. } => format!("descriptor {name}"),
        Heard::NoDescriptor { name } => format!("none {name}"),
        Heard::Guards { guards } => format!("{} guards", guards.len()),
        Heard::Down { reason } => format!("down {reason}"),
    }
}

/// Wait until something that begins so is heard.
async fn wait_for(heard: &mut mpsc::Receiver<String>, what: &str) -> String {
    let found = async {
        loop {
            let one = heard.recv().await.expect("it runs");
            if one.starts_with(what) {
                return one;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("{what} was not heard"))
}

/// The process that has this torrc.
fn process_of(torrc: &Path) -> Option<Pid> {
    let is = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word == torrc.as_os_str().as_encoded_bytes())
    };
    let entries = std::fs::read_dir("/proc").expect("there is /proc").flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(is).map(Pid::from_raw)
}

#[tokio::test]
async fn a_daemon_that_is_killed_comes_back_and_one_that_is_told_to_stop_ends() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let Some(settings) = settings(root.path(), "") else { return };
    let torrc = settings.directory.join("torrc");
    let (services, seen) = watch::channel(vec![carried(&settings, "a")]);
    let (hear, mut heard) = mpsc::channel(1000);
    let (close, closes) = mpsc::channel(10);
    let (stop, mut stopped) = watch::channel(false);
    let hear = move |one: Heard<'_>| {
        // Nobody listens any more when the test fails.
        let _ = hear.try_send(told(&one));
    };
    let stopping = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let running = run(&settings, seen, closes, hear, stopping);
    let test = async {
        // Without a network there are none.
        wait_for(&mut heard, "0 guards").await;
        wait_for(&mut heard, "none a").await;
        let (closed, told) = oneshot::channel();
        close.send(Close { circuit: 4_242, closed }).await.expect("it runs");
        assert_eq!(told.await, Ok(false), "it has no such circuit");
        let first = process_of(&torrc).expect("it runs");
        kill(first, Signal::SIGKILL).expect("it runs");
        // Its control port may be seen to close first.
        let down = wait_for(&mut heard, "down the daemon ended").await;
        assert!(down.contains("signal: 9"), "{down}");
        wait_for(&mut heard, "none a").await;
        let second = process_of(&torrc).expect("it runs again");
        assert_ne!(first, second);
        services.send_modify(|all| all.push(carried(&settings, "b")));
        wait_for(&mut heard, "none b").await;
        // tor has read it when it has made the keys.
        let made = settings.service_dir("b").join("hostname");
        let reload = async {
            while !made.exists() {
                wait_for(&mut heard, "none b").await;
            }
        };
        tokio::time::timeout(PATIENCE, reload).await.expect("tor reads its torrc again");
        assert_eq!(process_of(&torrc), Some(second), "and goes on");
        stop.send_replace(true);
    };
    tokio::join!(running, test);
    assert_eq!(process_of(&torrc), None);
}

#[tokio::test]
async fn a_daemon_that_refuses_its_configuration_says_why() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let Some(settings) = settings(root.path(), "NoSuchOption 1") else { return };
    let (_services, seen) = watch::channel(vec![carried(&settings, "a")]);
    let (hear, mut heard) = mpsc::channel(1000);
    let (_close, closes) = mpsc::channel(10);
    let hear = move |one: Heard<'_>| {
        let _ = hear.try_send(told(&one));
    };
    let running = run(&settings, seen, closes, hear, std::future::pending());
    tokio::select! {
        () = running => panic!("it is started again and again"),
        down = wait_for(&mut heard, "down") => {
            assert!(down.contains("the daemon ended (exit status: 1)"), "{down}");
            assert!(down.contains("NoSuchOption"), "{down}");
        }
    }
}
