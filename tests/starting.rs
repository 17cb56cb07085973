//! The start as the system sees it: what is checked before, what signals do meanwhile, what needs
//! no Tor, and what it does where something hangs or is lacking.
//!
//! The real binary; the only relay that it knows is a closed port of loopback.

#[path = "support/program.rs"]
mod program;
#[path = "support/running.rs"]
mod running;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use program::{Answer, NO_NETWORK, Place};
use running::Process;
use rustbalance_lab::wait_until;
use serde_json::Value;

/// `run`, here.
const RUN: [&str; 3] = ["run", "--config", "rustbalance.toml"];

/// A place with the configuration of a service: lines of its port, and tables after it.
fn place(port: &str, tables: &str) -> Place {
    let place = Place::new();
    configure(&place, port, tables);
    place
}

/// See [`place`].
fn configure(place: &Place, port: &str, tables: &str) {
    place.configure(&format!(
        "state_dir = \"state\"\n[[service]]\nname = \"main\"\n[[service.port]]\nvirtual = 80\n\
         {port}\n{tables}\n{NO_NETWORK}"
    ));
}

/// A command with the rights of root and mounts of its own, which `script` makes; the binary's own
/// command stands behind it.
fn with_mounts(place: &Place, script: &str, arguments: &[&str]) -> Command {
    assert!(nix::unistd::geteuid().is_root(), "mounts of one's own are for root");
    let binary = place.command(&[]).get_program().to_owned();
    let mut command = Command::new("unshare");
    command.current_dir(place.path("")).args(["--mount", "sh", "-ec"]);
    command.arg(format!("{script}; exec \"$0\" \"$@\"")).arg(binary).args(arguments);
    command.env_remove("RUSTBALANCE_LOG").env_remove("JOURNAL_STREAM");
    command
}

/// What a command says.
fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("the program is there");
    let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    Answer { code: output.status.code().unwrap_or(-1), out, err }
}

/// Wait until signals no longer end a process that has just begun, or its state directory is there.
fn wait_for_handlers(process: &Process<'_>, signals: &[Signal]) {
    let path = format!("/proc/{}/status", process.child.id());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let late = process.place.path("state").exists();
        let status = std::fs::read_to_string(&path).expect("it runs");
        let mask = |key: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(key));
            u64::from_str_radix(mask.expect("the kernel tells it").trim(), 16).expect("it is hex")
        };
        let safe = mask("SigBlk:") | mask("SigCgt:");
        if signals.iter().all(|signal| safe & (1 << (*signal as u64 - 1)) != 0) {
            return;
        }
        assert!(!late, "it makes files before it has handlers");
        assert!(Instant::now() < deadline, "it never has handlers");
    }
}

#[test]
fn a_signal_in_the_first_moments_waits_until_it_is_served() {
    let signals = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGUSR2];
    for delay_ms in [0, 1, 2, 5, 10, 20, 50, 100] {
        let place = place("hello = true", "[turbo]\ninstances = 1");
        let mut process = Process::begin(&place, &mut place.command(&RUN));
        wait_for_handlers(&process, &signals);
        let (since, delay) = (Instant::now(), Duration::from_millis(delay_ms));
        while since.elapsed() < delay {
            std::hint::spin_loop();
        }
        process.signal(Signal::SIGHUP);
        process.wait_for("it says what SIGHUP does", |process| {
            process.read("err").contains("SIGHUP").then_some(())
        });
        process.wait_for("it goes on", |process| process.status());
    }
    let place = place("hello = true", "[turbo]\ninstances = 1");
    let mut process = Process::begin(&place, &mut place.command(&RUN));
    wait_for_handlers(&process, &signals);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0), "SIGTERM drains: {}", process.read("err"));
}

#[test]
fn backends_are_checked_before_there_is_tor() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let address = listener.local_addr().expect("it is bound");
    let check = "[service.port.check]\nkind = \"tcp\"\ninterval_s = 1\nrise = 1";
    let place = place(&format!("backends = [\"{address}\"]"), check);
    let mut process = Process::start(&place);
    listener.accept().expect("somebody looks whether it is there");
    process.wait_for("the check is good", |process| {
        let backend = process.status()?["services"][0]["backends"][0].clone();
        (backend["check"] == "ok" && backend["state"] == "up").then_some(())
    });
    assert_eq!(process.status().expect("it answers")["services"][0]["state"], "starting");
}

#[test]
fn a_nameserver_that_is_silent_holds_up_no_other_name() {
    // Nobody reads what it is asked.
    let nameserver = UdpSocket::bind("127.9.8.7:53").expect("root may listen there");
    let names = ["a.test", "b.test", "c.test", "d.test", "e.test", "good.test"];
    let backends: Vec<_> = names.iter().map(|name| format!("\"{name}:80\"")).collect();
    let port = format!("backends = [{}]\nallow_hostnames = {names:?}", backends.join(", "));
    let place = place(&port, "[turbo]\ninstances = 1");
    let write = |name: &str, text: &str| {
        std::fs::write(place.path(name), text).expect("the directory is writable");
    };
    write("resolv.conf", "nameserver 127.9.8.7\noptions timeout:30 attempts:5\n");
    write("hosts", "127.0.0.1 localhost\n127.0.0.1 good.test\n");
    write("nsswitch.conf", "hosts: files dns\n");
    let script = "for file in resolv.conf hosts nsswitch.conf; do
        [ -e /etc/$file ] || touch /etc/$file; mount --bind $file /etc/$file; done";
    let mut process = Process::spawn(&place, with_mounts(&place, script, &RUN));
    let mut question = [0; 512];
    nameserver.recv(&mut question).expect("it is asked");
    let state = |process: &Process<'_>, at: usize| {
        process.status().map(|status| status["services"][0]["backends"][at]["state"].clone())
    };
    process.wait_for("the name in the file is found", |process| {
        (state(process, 5)? == "up").then_some(())
    });
    assert_eq!(state(&process, 0), Some(Value::from("down")));
    let counts = |process: &Process<'_>| process.status().map(|it| it["look_ups"].clone());
    process.wait_for("those that hang are counted", |process| {
        (counts(process)?["hanging"].as_u64() >= Some(5)).then_some(())
    });
    assert!(process.read("err").contains("no answer within 20 s"), "{}", process.read("err"));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0), "nobody waits for them at the end");
}

#[test]
fn a_journal_that_does_not_read_stops_nothing() {
    let place = place("hello = true", "[turbo]\ninstances = 1\n[log]\nformat = \"journald\"");
    let journal = UnixDatagram::bind(place.path("journal")).expect("the path is free");
    let script = "mount -t tmpfs none /run; mkdir -p /run/systemd/journal;
        touch /run/systemd/journal/socket; mount --bind journal /run/systemd/journal/socket";
    let mut command = with_mounts(&place, script, &RUN);
    command.env("RUSTBALANCE_LOG", "debug,rustbalance=trace");
    let mut process = Process::spawn(&place, command);
    // It is full when nothing more fits.
    let other = UnixDatagram::unbound().expect("descriptors are left");
    other.set_nonblocking(true).expect("it is a socket");
    process.wait_for("the journal is full", |process| {
        process.status()?;
        other.send_to(b"MESSAGE=?\n", process.place.path("journal")).err().map(drop)
    });
    for _ in 0..20 {
        process.wait_for("it answers", |process| process.status());
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    let mut event = [0; 65_536];
    let length = journal.recv(&mut event).expect("the first ones have come");
    let event = String::from_utf8_lossy(&event[..length]);
    assert!(event.contains("SYSLOG_IDENTIFIER\n") && event.contains("rustbalance"), "{event}");
}

#[test]
fn the_journal_is_not_told_the_address() {
    let place = place("hello = true", "[turbo]\ninstances = 1");
    let run = |is_journal: bool| {
        let mut command = place.command(&RUN);
        let mut process = Process::begin(&place, &mut command);
        drop(process.child.kill());
        drop(process.child.wait());
        // The files are there now, and are truncated and not replaced by the next start.
        let out = place.path("out").metadata().expect("it was made");
        let mut command = place.command(&RUN);
        if is_journal {
            command.env("JOURNAL_STREAM", format!("{}:{}", out.dev(), out.ino()));
        }
        let mut process = Process::spawn(&place, command);
        let line = process.wait_for("the first line", |process| {
            process.read("out").lines().next().map(str::to_owned)
        });
        process.signal(Signal::SIGTERM);
        assert_eq!(process.end().code(), Some(0));
        (line, process.read("err"))
    };
    let (line, log) = run(false);
    let onion = line.strip_prefix("onion ").expect("it is a fact").to_owned();
    assert!(onion.ends_with(".onion") && !log.contains(&onion), "{line}\n{log}");
    let (line, log) = run(true);
    assert_eq!(line, "onion [redacted]");
    assert!(!log.contains(&onion[..56]), "{log}");
}

#[test]
fn a_core_that_hangs_for_good_ends_the_process_with_1() {
    let place = place("hello = true", "[turbo]\ninstances = 2");
    let mut command = place.command(&RUN);
    command.env("RUSTBALANCE_FAULT", "core-hung:1:1").env_remove("WATCHDOG_USEC");
    let mut process = Process::spawn(&place, command);
    let ended = wait_until("it ends", 180, || process.child.try_wait().expect("it is our child"));
    let ended = ended.unwrap_or_else(|error| panic!("{error}\n{}", process.read("err")));
    assert_eq!(ended.code(), Some(1), "{}", process.read("err"));
    let err = process.read("err");
    assert!(err.contains("not alive for 60 s: data-1; the process ends"), "{err}");
}

/// A free address of loopback.
fn free_address() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    listener.local_addr().expect("it is bound")
}

#[test]
fn an_address_that_somebody_listens_on_is_not_shared_and_one_in_time_wait_is_free() {
    let address = free_address();
    let listen =
        format!("[[listen]]\naddress = \"{address}\"\nvirtual = 80\n[turbo]\ninstances = 2");
    let [first, second] = [0; 2].map(|_| place("hello = true", &listen));
    let ask = || {
        let mut connection = TcpStream::connect(address).ok()?;
        connection.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.").then_some(())
    };
    let mut process = Process::start(&first);
    process.wait_for("it is served", |_| ask());
    let answer = second.rustbalance(&RUN);
    assert_eq!(answer.code, 1, "{}", answer.err);
    let text = format!("cannot listen on {address}: a process listens there already");
    assert!(answer.err.contains(&text), "{}", answer.err);
    assert!(!second.path("state").exists(), "nothing was written");
    let doctor = second.rustbalance(&["doctor", "--config", "rustbalance.toml"]);
    assert!(doctor.code == 1 && doctor.out.contains(&text), "{}", doctor.out);
    let check = second.rustbalance(&["check", "--config", "rustbalance.toml"]);
    assert!(check.code == 0 && check.err.contains(&text), "{}", check.err);
    // Of the service that runs itself, both have nothing to say.
    let doctor = first.rustbalance(&["doctor", "--config", "rustbalance.toml"]);
    assert!(!doctor.out.contains(&text), "{}", doctor.out);
    let check = first.rustbalance(&["check", "--config", "rustbalance.toml"]);
    assert!(check.code == 0 && !check.err.contains(&text), "{}", check.err);

    // The service has closed first, so its side is in TIME_WAIT.
    ask().expect("it is served");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    drop(process);
    let mut again = Process::start(&first);
    again.wait_for("it is served again", |_| ask());
}

/// What `run`, `doctor` and `check` say of a state directory below mounts of their own: all the
/// same, in words.
fn all_refuse(script: &str, state_dir: &str, run_code: i32, words: &str) {
    let place = place("hello = true", "[turbo]\ninstances = 1");
    let text = std::fs::read_to_string(place.path("rustbalance.toml")).expect("it was written");
    place.configure(&text.replace("\"state\"", &format!("\"{state_dir}\"")));
    std::fs::create_dir(place.path("mount")).expect("it is ours");
    std::fs::set_permissions(place.path("mount"), std::fs::Permissions::from_mode(0o700))
        .expect("it is ours");
    let says = |command: &str| {
        let arguments = [command, "--config", "rustbalance.toml"];
        answer(&mut with_mounts(&place, script, &arguments))
    };
    let (run, doctor, check) = (says("run"), says("doctor"), says("check"));
    assert!(run.code == run_code && run.err.contains(words), "{run:?}");
    assert!(doctor.code == 1 && doctor.out.contains(words), "{doctor:?}");
    let check_code = if run_code == 78 { 78 } else { 0 };
    assert!(check.code == check_code && check.err.contains(words), "{check:?}");
    assert!(!place.path(state_dir).exists(), "nothing was made");
}

#[test]
fn doctor_and_check_say_what_run_says_of_a_directory_that_cannot_be_written() {
    let read_only = "mount -t tmpfs -o ro,mode=700 none mount";
    all_refuse(read_only, "mount/state", 78, "Read-only file system");
    let shared = "chgrp 61234 mount; chmod 770 mount";
    all_refuse(shared, "mount/state", 78, "other users must not be able to change it");
    let full = "mount -t tmpfs -o size=64k,mode=700 none mount; mkdir -m 700 mount/state;
        head -c 60000 /dev/zero > mount/fill";
    all_refuse(full, "mount/state", 1, "the disk is full");
}

#[test]
fn a_directory_that_belongs_to_others_is_refused_by_all() {
    // The process must not be root's, who may write everywhere.
    let place = place("hello = true", "[turbo]\ninstances = 1");
    let text = std::fs::read_to_string(place.path("rustbalance.toml")).expect("it was written");
    place.configure(&text.replace("\"state\"", "\"/var/lib/nobodys-rustbalance\""));
    let binary = as_another_user(&place);
    for (command, code) in [("run", 78), ("doctor", 1), ("check", 78)] {
        let arguments = [command, "--config", "rustbalance.toml"];
        let mut command = Command::new(&binary);
        let said = answer(command.args(arguments).current_dir(place.path("")).uid(OTHER_USER));
        let text = format!("{}{}", said.out, said.err);
        assert!(said.code == code && text.contains("Permission denied"), "{said:?}");
    }
}

/// A user who has no process.
const OTHER_USER: u32 = 61_234;

/// Give the place to another user, with a copy of the binary, whose path is returned.
fn as_another_user(place: &Place) -> std::path::PathBuf {
    let copy = place.path("rustbalance");
    std::fs::copy(place.command(&[]).get_program(), &copy).expect("there is room for a copy");
    for name in ["", "rustbalance.toml"] {
        std::os::unix::fs::chown(place.path(name), Some(OTHER_USER), None).expect("root may");
    }
    copy
}

/// What each instance runs on.
fn instances_io(status: &Value) -> Vec<String> {
    let instances = status["services"][0]["instances"].as_array().expect("the contract");
    instances.iter().map(|one| one["io"].as_str().unwrap_or("?").to_owned()).collect()
}

#[test]
fn a_core_without_a_ring_runs_on_epoll_and_says_so_once() {
    if rustbalance::runtime::ring::probe().is_err() {
        return;
    }
    let place = place("hello = true", "[turbo]\ninstances = 2");
    let mut command = place.command(&RUN);
    command.env("RUSTBALANCE_FAULT", "no-ring:data-1");
    let mut process = Process::spawn(&place, command);
    let status = process.wait_for("both cores have begun", |process| {
        process.status().filter(|status| !instances_io(status).contains(&"?".to_owned()))
    });
    assert_eq!(instances_io(&status), ["uring", "epoll"]);
    assert_eq!(status["io"], "mixed");
    let err = process.read("err");
    assert_eq!(err.matches("no io_uring: Cannot allocate memory").count(), 1, "{err}");
    assert!(err.contains("LimitMEMLOCK"), "{err}");
}

#[test]
fn little_locked_memory_leaves_cores_on_epoll_and_doctor_counts_their_rings() {
    if rustbalance::runtime::ring::probe().is_err() {
        return;
    }
    let place = place("hello = true", "[turbo]\ninstances = 4");
    let binary = as_another_user(&place);
    let limited = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -l 256 && exec \"$0\" \"$@\""]).arg(&binary).args(arguments);
        command.current_dir(place.path("")).uid(OTHER_USER);
        command
    };
    let doctor = answer(&mut limited(&["doctor", "--config", "rustbalance.toml"]));
    let rings = doctor.out.lines().find(|line| line.contains(" rings ")).expect("it looks");
    // Kernels from 5.12 to 6.13 do not count rings as locked memory.
    let counted = rings.starts_with("warn");
    let mut process = Process::spawn(&place, limited(&RUN));
    let status = process.wait_for("all cores have begun", |process| {
        process.status().filter(|status| !instances_io(status).contains(&"?".to_owned()))
    });
    let on_epoll = instances_io(&status).iter().filter(|io| *io == "epoll").count();
    assert_eq!(counted && !rings.contains("in an upgrade"), on_epoll > 0, "{rings}\n{status:#}");
    println!("on epoll: {on_epoll} of 4; doctor: {rings}");
    drop(process);
    if on_epoll > 0 {
        let strict =
            answer(&mut limited(&["run", "--config", "rustbalance.toml", "--io", "uring"]));
        assert_eq!(strict.code, 78, "{strict:?}");
        assert!(strict.err.contains("limit of locked memory is 256 kB"), "{}", strict.err);
    }
}
