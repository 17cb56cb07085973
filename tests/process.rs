//! The process as the system sees it: rights of its files, secrets, threads, signals, restarts, and
//! what it does where there is no network.
//!
//! The real binary; the only relay that it knows is a closed port of loopback.

#[path = "support/program.rs"]
mod program;
#[path = "support/running.rs"]
mod running;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use program::{NO_NETWORK, Place};
use running::Process;
use serde_json::Value;

/// A place with the configuration of a service with the built-in page.
fn place(turbo: &str) -> Place {
    place_with(turbo, NO_NETWORK)
}

/// See [`place`]; with these `[arti]` tables.
fn place_with(turbo: &str, arti: &str) -> Place {
    let place = Place::new();
    place.configure(&format!(
        "state_dir = \"state\"\n[[service]]\nname = \"main\"\n[[service.port]]\nvirtual = 80\n\
         hello = true\n[turbo]\n{turbo}\n{arti}"
    ));
    place
}

impl<'a> Process<'a> {
    /// Start it with a log of everything, and its output elsewhere.
    fn with_output(place: &'a Place, out: impl Into<Stdio>, err: impl Into<Stdio>) -> Process<'a> {
        let mut command = place.command(&["run", "--config", "rustbalance.toml"]);
        command.env("RUSTBALANCE_LOG", "trace").stdout(out).stderr(err);
        let child = command.spawn().expect("the binary was built");
        // Nothing is in `err`, which is only there to be read.
        std::fs::write(place.path("err"), "").expect("the directory is writable");
        Process { place, child }
    }

    /// What the kernel tells of it.
    fn proc(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.child.id());
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Its threads: name, and the CPUs that each may use.
    fn threads(&self) -> BTreeMap<String, String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let mut threads = BTreeMap::new();
        for task in tasks.expect("it runs") {
            let task = task.expect("it runs").path();
            // A thread may end meanwhile.
            let Ok(status) = std::fs::read_to_string(task.join("status")) else { continue };
            let field = |key: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(key));
                value.unwrap_or_else(|| panic!("no {key} in {status}")).trim().to_owned()
            };
            threads.insert(field("Name:"), field("Cpus_allowed_list:"));
        }
        threads
    }
}

#[test]
fn without_a_network_it_is_starting_and_says_what_for() {
    let place = place("instances = 2");
    let mut process = Process::start(&place);
    let service = process.wait_for("it waits for the directory", |process| {
        let service = process.status()?["services"][0].clone();
        service["reason"].as_str()?.contains("directory").then_some(service)
    });
    assert_eq!(service["state"], "starting");
    let onion = place.rustbalance(&["key", "show", "state/main.key"]).out;
    let onion = onion.lines().next().expect("the address is the first line");
    assert_eq!(service["onion"], onion);
    let summary = format!("Aggregating 0/2 Instances. Master Onion: {onion}");
    assert_eq!(service["summary"], summary.as_str());
    let instances = service["instances"].as_array().expect("the contract");
    let states: Vec<_> = instances.iter().map(|one| one["state"].as_str()).collect();
    assert_eq!(states, [Some("starting"); 2]);
    assert_eq!(service["descriptors"], serde_json::json!([]));
    assert_eq!(process.read("out"), format!("onion {onion}\n"), "it is not ready");

    // The command says the same, to programs and to people.
    let json = place.rustbalance(&["status", "--json", "--config", "rustbalance.toml"]);
    assert_eq!(json.code, 0, "{}", json.err);
    let json: Value = serde_json::from_str(&json.out).expect("it is JSON");
    assert_eq!(json["services"][0]["state"], "starting");
    let people = place.rustbalance(&["status", "--socket", "state/admin.sock"]);
    assert_eq!(people.code, 0, "{}", people.err);
    assert_eq!(people.out.lines().next(), Some(summary.as_str()));
    assert!(people.out.contains("main: starting ("), "{}", people.out);
}

/// It says that no relay can be reached, and why, in the status and once on the log.
fn says_what_is_in_the_way(process: &mut Process<'_>, why: &str) {
    let unreachable = format!("no Tor relay can be reached: {why}");
    let status = process.wait_for("it says why", |process| {
        let status = process.status()?;
        status["services"][0]["reason"].as_str()?.contains(&unreachable).then_some(status)
    });
    let (service, network) = (&status["services"][0], &status["network"]);
    assert_eq!(service["state"], "starting");
    let reason = service["reason"].as_str().expect("it was just there");
    assert!(reason.contains("; tried again every 30 s ("), "{reason}");
    assert!(network["trouble"].as_str().is_some_and(|text| text.starts_with(&unreachable)));
    assert!(network["next_try_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{network}");
    assert_eq!(network["connected_total"], 0);
    assert!(network["failed_total"].as_u64() > Some(0), "{network}");
    process.wait_for("the log says so", |process| {
        process.read("err").contains(&unreachable).then_some(())
    });
    let log = process.read("err");
    assert_eq!(log.matches("no Tor relay can be reached").count(), 1, "{log}");
    assert!(!log.contains("exiting"), "{log}");
}

#[test]
fn a_firewall_that_refuses_is_named() {
    let place = place("instances = 1");
    says_what_is_in_the_way(&mut Process::start(&place), "the connection is refused");
}

#[test]
fn a_machine_without_a_route_is_told_so() {
    // Arti's own list of relays: nothing leaves a namespace that has no link.
    let place = place_with("instances = 1", "");
    let binary = place.command(&[]).get_program().to_owned();
    let mut command = Command::new("unshare");
    command.current_dir(place.path("")).env("HOME", place.path(""));
    command.env_remove("XDG_STATE_HOME").env_remove("RUSTBALANCE_LOG").stdin(Stdio::null());
    command.arg("--net").arg(binary).args(["run", "--config", "rustbalance.toml"]);
    let mut process = Process::spawn(&place, command);
    says_what_is_in_the_way(&mut process, "this machine has no route");
    let failed = |process: &Process<'_>| process.status()?["network"]["failed_total"].as_u64();
    let so_far = failed(&process);
    process.wait_for("it tries others", |process| (failed(process) > so_far).then_some(()));
}

#[test]
fn whatever_the_umask_nobody_else_can_use_its_files() {
    let place = place("instances = 1");
    let binary = place.command(&[]).get_program().to_owned();
    let mut command = Command::new("sh");
    command.current_dir(place.path(""));
    command.args(["-c", "umask 0 && exec \"$0\" \"$@\""]).arg(binary);
    command.args(["run", "--config", "rustbalance.toml"]);
    let _process = Process::spawn(&place, command);
    let mode = |name: &str| {
        place.path(name).symlink_metadata().unwrap_or_else(|error| panic!("{name}: {error}")).mode()
    };
    assert_eq!(mode("state") & 0o7777, 0o700);
    for file in ["admin.sock", "main.key", "lock", "format"] {
        assert_eq!(mode(&format!("state/{file}")) & 0o7777, 0o600, "{file}");
    }
    assert_eq!(mode("state/arti") & 0o7777, 0o700);
}

#[test]
fn it_leaves_no_core_dump_and_nobody_may_look_into_its_memory() {
    let place = place("instances = 1");
    // The system gives what belongs to a process that cannot be dumped to root. To see it, the
    // process must not be root's.
    let is_root = nix::unistd::geteuid().is_root();
    let mut command = place.command(&["run", "--config", "rustbalance.toml"]);
    if is_root {
        let copy = place.path("rustbalance");
        std::fs::copy(command.get_program(), &copy).expect("there is room for a copy");
        command = Command::new(copy);
        command
            .args(["run", "--config", "rustbalance.toml"])
            .current_dir(place.path(""))
            .uid(65534);
        std::os::unix::fs::chown(place.path(""), Some(65534), None).expect("root may");
    }
    let process = Process::spawn(&place, command);
    let limits = process.proc("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.expect("the kernel tells it").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    let owner = |path: String| Path::new(&path).metadata().expect("it runs").uid();
    let runner = place.path("state").metadata().expect("it was made").uid();
    assert_ne!(runner, 0, "the process is not root's");
    assert_eq!(owner(format!("/proc/{}/environ", process.child.id())), 0);
}

/// The ways in which bytes are written down: none of these may be found in a text.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{secret:?}");
    let mut spellings = vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        list.trim_matches(['[', ']']).as_bytes().to_vec(),
    ];
    // Inside of something longer, base64 has one of three alignments.
    for skip in 0..3 {
        let whole = &secret[skip..skip + (secret.len() - skip) / 3 * 3];
        for engine in
            [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::URL_SAFE]
        {
            spellings.push(engine.encode(whole).into_bytes());
        }
    }
    spellings
}

/// Whether a part of the key, 12 bytes long or longer, is written in the text.
fn gives_away(text: &[u8], key: &[u8]) -> bool {
    let parts = key.windows(12).flat_map(spellings);
    let found = |part: Vec<u8>| text.windows(part.len()).any(|window| window == part);
    parts.into_iter().any(found)
}

#[test]
fn the_search_for_a_key_finds_it_in_every_spelling() {
    let key: Vec<u8> = (0..64_u8).map(|byte| byte.wrapping_mul(167).wrapping_add(91)).collect();
    for spelling in spellings(&key[20..40]) {
        let text = [b"INFO: the key is <", spelling.as_slice(), b">\n"].concat();
        assert!(gives_away(&text, &key), "{}", String::from_utf8_lossy(&spelling));
    }
    assert!(!gives_away(&[b'a'; 4096], &key));
}

#[test]
fn the_master_key_is_neither_in_its_log_nor_on_its_command_line() {
    let place = place("instances = 2");
    let mut command = place.command(&["run", "--config", "rustbalance.toml"]);
    command.env("RUSTBALANCE_LOG", "trace");
    let mut process = Process::spawn(&place, command);
    process.wait_for("it has tried to reach a relay", |process| {
        process.read("err").contains("127.0.0.1:1").then_some(())
    });
    let key = std::fs::read(place.path("state/main.key")).expect("it was made at the start");
    let key = key.strip_prefix(b"== ed25519v1-secret: type0 ==\0\0\0").expect("tor's form");
    assert_eq!(key.len(), 64);
    assert!(!gives_away(process.proc("cmdline").as_bytes(), key), "it is on the command line");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    for name in ["out", "err"] {
        assert!(!gives_away(process.read(name).as_bytes(), key), "it is in {name}");
    }
}

#[test]
fn threads_have_names_and_each_data_core_has_a_cpu() {
    let place = place("instances = 2");
    let mut process = Process::start(&place);
    let threads = process.wait_for("every thread is up", |process| {
        let threads = process.threads();
        let pinned = |name: &str| threads.get(name).is_some_and(|cpus| cpus.parse::<u16>().is_ok());
        ["control", "data-0", "data-1"].into_iter().all(pinned).then_some(threads)
    });
    let of_data = threads.keys().filter(|name| name.starts_with("data-")).count();
    assert_eq!(of_data, 2, "{threads:?}");
    let cpus = std::thread::available_parallelism().expect("Linux tells it").get();
    if cpus > 1 {
        assert_ne!(threads["data-0"], threads["data-1"], "each has a CPU of its own");
    }
    let cores = process.status().expect("it answers")["services"][0]["instances"].clone();
    let cores: Vec<_> =
        cores.as_array().into_iter().flatten().map(|one| one["core"].as_u64()).collect();
    assert_eq!(cores, [Some(0), Some(1)]);
}

#[test]
fn more_instances_than_cores_and_a_cpu_that_is_refused_are_warned_of_and_it_serves() {
    let cpus = std::thread::available_parallelism().expect("Linux tells it").get();
    let more = cpus + 1;
    let first = place(&format!("instances = {more}"));
    let mut process = Process::start(&first);
    let warned = |process: &Process<'_>, words: &str| {
        let err = process.read("err");
        let found = err.lines().any(|line| line.contains("WARN") && line.contains(words));
        assert!(found, "no warning of {words:?} in:\n{err}");
    };
    warned(&process, &format!("{more} instances"));
    process.wait_for("every instance is there", |process| {
        let count = process.threads().keys().filter(|name| name.starts_with("data-")).count();
        (count == more).then_some(())
    });
    drop(process);

    let second = place("instances = 1\ncores = [1023]");
    let mut process = Process::start(&second);
    warned(&process, "CPU 1023 may not be used by this process");
    process.wait_for("it says that it is not pinned", |process| {
        process.read("err").contains("cannot pin to CPU 1023").then_some(())
    });
    assert_eq!(process.status().expect("it answers")["services"][0]["state"], "starting");
}

#[test]
fn sigterm_ends_it_with_0_and_leaves_neither_socket_nor_lock() {
    let place = place("instances = 2");
    let mut process = Process::start(&place);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0), "{}", process.read("err"));
    assert!(!place.path("state/admin.sock").exists(), "the socket is still there");
    let lock = File::open(place.path("state/lock")).expect("the file stays");
    lock.try_lock().expect("nobody holds it any more");
    drop(lock);
    let mut again = Process::start(&place);
    again.signal(Signal::SIGINT);
    assert_eq!(again.end().code(), Some(0), "SIGINT is as good: {}", again.read("err"));
}

#[test]
fn sighup_does_not_end_it() {
    let place = place("instances = 1");
    let mut process = Process::start(&place);
    process.signal(Signal::SIGHUP);
    process.wait_for("it says what SIGHUP does", |process| {
        process.read("err").contains("SIGHUP").then_some(())
    });
    assert!(process.status().is_some(), "{}", process.read("err"));
}

#[test]
fn it_ends_in_good_order_when_nobody_reads_its_output_any_more() {
    let place = place("instances = 1");
    let (reader, writer) = std::io::pipe().expect("there are pipes");
    let out = writer.try_clone().expect("there are descriptors");
    let mut process = Process::with_output(&place, out, writer);
    drop(reader);
    process.wait_for("it answers", |process| process.status());
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn it_goes_on_while_whoever_reads_its_log_has_stopped() {
    let place = place("instances = 1");
    let (mut reader, writer) = std::io::pipe().expect("there are pipes");
    let room = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("it may be small");
    let out = File::create(place.path("out")).expect("the directory is writable");
    let mut process = Process::with_output(&place, out, writer);
    for _ in 0..20 {
        process.wait_for("it answers", |process| process.status());
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    let mut log = Vec::new();
    reader.read_to_end(&mut log).expect("it is a pipe");
    // What was in the pipe is all that has left the process: the pipe was full.
    let room = usize::try_from(room).expect("it has a size");
    assert!((room / 2..=room).contains(&log.len()), "{} of {room}", log.len());
}

#[test]
fn a_second_one_on_the_same_state_is_refused_and_the_first_goes_on() {
    let place = place("instances = 1");
    let process = Process::start(&place);
    let second = place.rustbalance(&["run", "--config", "rustbalance.toml"]);
    assert_eq!(second.code, 78, "{}", second.err);
    assert!(second.err.contains("in use by another RustBalance"), "{}", second.err);
    assert_eq!(second.out, "", "nothing was served");
    assert!(process.status().is_some(), "the first one answers no more");
}

#[test]
fn after_sigkill_it_starts_again_on_what_was_left() {
    let place = place("instances = 1");
    let mut process = Process::start(&place);
    let onion = process.read("out");
    process.signal(Signal::SIGKILL);
    assert_eq!(process.end().code(), None);
    drop(process);
    let socket = place.path("state/admin.sock");
    let left = socket.symlink_metadata().expect("nobody has removed it");
    assert!(left.file_type().is_socket());
    let dead = place.rustbalance(&["status", "--socket", "state/admin.sock"]);
    assert_eq!(dead.code, 1, "{}", dead.out);
    let again = Process::start(&place);
    assert_eq!(again.read("out"), onion, "the same address");
}

#[test]
fn a_file_of_somebody_else_in_place_of_the_socket_is_left_alone() {
    let place = place("instances = 1");
    let mut process = Process::start(&place);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().code(), Some(0));
    drop(process);
    std::fs::write(place.path("state/admin.sock"), "not a socket").expect("it is ours");
    let run = place.rustbalance(&["run", "--config", "rustbalance.toml"]);
    assert!([1, 78].contains(&run.code), "{}", run.err);
    assert!(run.err.contains("admin.sock is there and is no socket"), "{}", run.err);
    let text = std::fs::read_to_string(place.path("state/admin.sock")).expect("it is still there");
    assert_eq!(text, "not a socket");
}

/// A configuration as [`place`] has it, with a table for the log.
fn configure_log(place: &Place, log: &str) {
    place.configure(&format!(
        "state_dir = \"state\"\n[[service]]\nname = \"main\"\n[[service.port]]\nvirtual = 80\n\
         hello = true\n[turbo]\ninstances = 1\n[log]\n{log}\n{NO_NETWORK}"
    ));
}

#[test]
fn the_log_is_json_off_a_terminal_and_sighup_reads_level_and_backends_again() {
    let place = Place::new();
    configure_log(&place, "");
    let mut process = Process::start(&place);
    let lines = |process: &Process<'_>| -> Vec<Value> {
        let err = process.read("err");
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}\n{err}"));
        err.lines().map(parse).collect()
    };
    let has = |process: &Process<'_>, level: &str, words: &str| {
        let fits = |line: &Value| {
            let message = line["fields"]["message"].as_str().unwrap_or_default();
            line["level"] == level && message.contains(words)
        };
        lines(process).iter().any(fits)
    };
    process.wait_for("the new key", |process| has(process, "INFO", "made a new key").then_some(()));
    assert!(!has(&process, "DEBUG", ""), "{}", process.read("err"));
    configure_log(&place, "level = \"debug\"");
    process.signal(Signal::SIGHUP);
    process.wait_for("more is told", |process| has(process, "DEBUG", "").then_some(()));
    let backend = "127.0.0.1:9";
    place.configure(&format!(
        "state_dir = \"state\"\n[[service]]\nname = \"main\"\n[[service.port]]\nvirtual = 80\n\
         backends = [\"{backend}\"]\n{NO_NETWORK}"
    ));
    process.signal(Signal::SIGHUP);
    process.wait_for("the new backend", |process| {
        let status = process.status()?;
        (status["services"][0]["backends"][0]["address"] == backend).then_some(())
    });
    place.configure("[log]\nlevel = 3\n");
    process.signal(Signal::SIGHUP);
    process.wait_for("it is told what is wrong", |process| {
        has(process, "WARN", "nothing has changed").then_some(())
    });
    let status = process.status().expect("it goes on");
    assert_eq!(status["services"][0]["backends"][0]["address"], backend);

    let second = Place::new();
    configure_log(&second, "format = \"human\"");
    let mut process = Process::start(&second);
    process.wait_for("words", |process| {
        process.read("err").contains("rustbalance: made a new key").then_some(())
    });
    for (log, words) in [("level = \"=\"", "log.level"), ("format = \"xml\"", "log.format")] {
        let place = Place::new();
        configure_log(&place, log);
        let answer = place.rustbalance(&["run", "--config", "rustbalance.toml"]);
        assert_eq!(answer.code, 78, "{log}: {}", answer.err);
        assert!(answer.err.contains(words), "{log}: {}", answer.err);
    }
}
