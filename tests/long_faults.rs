//! Faults that last: a process that stood still for a minute and a half, a core that dies again and
//! again, a clock that is set while the service runs, a disk that fills up. For each, the service
//! comes back without a restart.

#[path = "end_to_end/recovery.rs"]
mod recovery;
#[path = "end_to_end/service.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod service;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use recovery::{Fetched, degraded_for, served_again, whole_again};
use rustbalance_lab::{Client, Lab, Size, wait_until};
use service::{Service, Spec};

/// A lab and a client of this test's own.
fn lab(name: &str) -> (Lab, Client) {
    let lab = Lab::shared(Size::Small).expect("a lab can be had");
    let client = lab.client(name).expect("a client starts");
    (lab, client)
}

/// A directory of its own file system, as small as given. Needs root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mount one.
    fn mount(megabytes: u32) -> SmallDisk {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let size = format!("size={megabytes}m,mode=0700");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "rustbalance-test"])
            .arg(dir.path())
            .status()
            .expect("mount(8) is installed");
        assert!(done.success(), "only root can mount a file system");
        SmallDisk(dir)
    }

    /// Fill it to the last byte; the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("filling");
        let mut file = std::fs::File::create(&path).expect("there is room");
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a service that a panic has left behind may have files open for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_process_that_stood_still_serves_again() {
    let (lab, client) = lab("stopped");
    let service = Service::start(&lab, &Spec::default());
    service.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    // Clients ask in vain meanwhile.
    while stopped.elapsed() < Duration::from_secs(90) {
        let impatient = client.clone().with_timeout(Duration::from_secs(10));
        assert!(impatient.fetch_fresh(&service.onion, 80, "/").is_err(), "it stands still");
    }
    service.signal(Signal::SIGCONT);
    let took = served_again(&client, &service, 120);
    println!("after 90 s of SIGSTOP: served again within {:.1} s", took.as_secs_f32());
    whole_again(&service);
}

#[test]
fn a_core_that_dies_again_and_again_is_started_again_and_again() {
    // Each time it is started anew after a longer wait: some five minutes in all.
    const DEATHS: usize = 8;
    let (lab, client) = lab("dying");
    let service = Service::start_with_fault(&lab, &Spec::default(), "core-dying:1:20");
    let (mut fetched, mut failed) = (0_u32, 0_u32);
    wait_until("the last death", 600, || {
        fetched += 1;
        failed += u32::from(client.fetch_fresh(&service.onion, 80, "/").is_err());
        (service.log().matches("the core died").count() >= DEATHS).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let took = served_again(&client, &service, 150);
    println!(
        "{DEATHS} deaths of a core: {failed} of {fetched} requests lost; after the last one \
         served again within {:.1} s",
        took.as_secs_f32()
    );
    assert!(failed * 2 < fetched, "{failed} of {fetched} failed\n{}", service.log());
    whole_again(&service);
}

#[test]
fn a_clock_that_jumps_both_ways_is_survived_without_a_restart() {
    let (lab, client) = lab("clock");
    let files = tempfile::tempdir().expect("a temporary directory can be made");
    let clock = files.path().join("clock");
    set_clock(&clock, "+0");
    let environment = [
        ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1"),
        ("FAKETIME_TIMESTAMP_FILE", &*clock.to_string_lossy()),
        ("FAKETIME_CACHE_DURATION", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DISABLE_SHM", "1"),
    ];
    let log = "[log]\nlevel = \"warn,rustbalance=debug\"".to_owned();
    let spec = Spec { turbo_lines: log, ..Spec::default() };
    let service = Service::start_with_environment(&lab, &spec, &environment);
    client.fetch_fresh(&service.onion, 80, "/").expect("it serves");
    for (jump, word) in [("+2h", "fast"), ("-2h", "slow"), ("+10m", "fast")] {
        let over = AtomicBool::new(false);
        let patience = Duration::from_secs(30);
        let fetched = std::thread::scope(|scope| {
            let onion = &service.onion;
            let fetch = scope.spawn(|| Fetched::until(&over, &client, onion, patience));
            set_clock(&clock, jump);
            match word {
                // The consensus is over by this clock, and the guard says that it is not.
                "fast" => degraded_for(&service, word, 60),
                _ => warned_and_ready(&service, word),
            }
            let (_never, wait) = std::sync::mpsc::sync_channel::<()>(1);
            let _ = wait.recv_timeout(patience);
            over.store(true, Ordering::Relaxed);
            fetch.join().expect("no panic")
        });
        set_clock(&clock, "+0");
        println!(
            "clock set to {jump}: {} of {} requests lost; ready again {:?} after it was set back",
            fetched.failed.len(),
            fetched.count,
            whole_again(&service)
        );
        assert!(fetched.failed.len() * 4 < fetched.count, "{fetched:?}\n{}", service.log());
        served_again(&client, &service, 60);
    }
}

/// Wait for the warning of a slow clock, which stops nothing.
fn warned_and_ready(service: &Service, word: &str) {
    wait_until("a warning", 60, || {
        service.log().contains(&format!("s {word}: set it")).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let main = service.service_status();
    assert_eq!(main["state"], "ready", "{main:#}");
}

/// Write what libfaketime reads, at once.
fn set_clock(file: &Path, offset: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, offset).expect("the directory is writable");
    std::fs::rename(&new, file).expect("they are in one directory");
}

#[test]
fn a_full_disk_stops_publishing_and_nothing_else() {
    let (lab, client) = lab("disk");
    let disk = SmallDisk::mount(48);
    let dir = tempfile::tempdir_in(disk.0.path()).expect("there is room");
    let fault = [("RUSTBALANCE_FAULT", "core-died:1:20")];
    let service = Service::start_in_with_environment(&lab, &Spec::default(), dir, &fault);
    let filling = disk.fill();
    // A core dies and comes back with new points, which cannot be published: no counter is used
    // that is not on disk.
    degraded_for(&service, "revision counters", 90);
    let mut failed = 0;
    for _ in 0..10 {
        failed += u32::from(client.fetch_fresh(&service.onion, 80, "/").is_err());
    }
    println!("on a full disk: {failed} of 10 requests lost");
    assert!(failed <= 2, "the points of the other core are published\n{}", service.log());
    std::fs::remove_file(filling).expect("it is there");
    println!("with room again: whole within {:?}", whole_again(&service));
    served_again(&client, &service, 60);
}
