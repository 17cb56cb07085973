//! The unit's sandbox, as far as system calls go, without systemd: the real binary under the
//! filters that `packaging/systemd/rustbalance.service` has systemd make. What `@group`s stand for
//! is asked of `systemd-analyze`.

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use rustbalance::runtime::{IoChoice, driver};
use rustbalance_lab::measure::has_ended;
use rustbalance_lab::wait_until;
use seccompiler::{BpfProgram, TargetArch};

use crate::service::{Service, Spec};
use crate::upgrading::{process, serving, upgrade};

/// The unit.
const UNIT: &str = include_str!("../../packaging/systemd/rustbalance.service");
/// `EPERM`, which the unit names for refused calls.
const EPERM: u32 = 1;
/// What systemd answers for an address family that is not in the list.
const EAFNOSUPPORT: u32 = 97;

/// What the unit says for a key, a line each.
fn unit(key: &str) -> Vec<&'static str> {
    let value = |line: &'static str| line.strip_prefix(key)?.strip_prefix('=');
    UNIT.lines().filter_map(value).collect()
}

/// The system calls that a name stands for.
fn calls(name: &str, found: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        found.insert(name.to_owned());
        return;
    }
    let said = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let said = said.expect("systemd is installed: scripts/setup does it");
    assert!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stdout).expect("it is text");
    let inside = said.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    inside.filter(|line| !line.is_empty() && *line != name).for_each(|one| calls(one, found));
}

/// The calls that the unit allows: the first line is a list of what may be called, those that begin
/// with `~` take away, and others add again (systemd.exec(5)).
fn allowed() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    // systemd adds these to every list of what is allowed.
    calls("@default", &mut allowed);
    for line in unit("SystemCallFilter") {
        let mut named = BTreeSet::new();
        let names = line.strip_prefix('~').unwrap_or(line);
        names.split_whitespace().for_each(|name| calls(name, &mut named));
        match line.starts_with('~') {
            true => allowed.retain(|call| !named.contains(call)),
            false => allowed.append(&mut named),
        }
    }
    allowed
}

/// A filter: what `rules` say is answered in one way, everything else in another.
fn compile(
    rules: &[serde_json::Value],
    matched: &serde_json::Value,
    other: &serde_json::Value,
) -> Result<BpfProgram, seccompiler::Error> {
    let filter = serde_json::json!({ "unit": {
        "match_action": matched, "mismatch_action": other, "filter": rules,
    }});
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("it has a table of calls");
    let compiled = seccompiler::compile_from_json(filter.to_string().as_bytes(), arch)?;
    Ok(compiled.into_values().next().expect("there is one"))
}

/// The filters of `SystemCallFilter=`, `RestrictAddressFamilies=` and `MemoryDenyWriteExecute=`.
fn filters() -> Vec<BpfProgram> {
    use serde_json::json;
    let (allow, refuse) = (json!("allow"), json!({ "errno": EPERM }));
    assert_eq!(unit("SystemCallErrorNumber"), ["EPERM"]);
    let rule = |call: &String| json!({ "syscall": call });
    // A group names the calls of every architecture.
    let known =
        |rule: &serde_json::Value| compile(std::slice::from_ref(rule), &allow, &refuse).is_ok();
    let rules: Vec<_> = allowed().iter().map(rule).filter(known).collect();
    assert!(rules.len() > 150, "{}", rules.len());
    let calls = compile(&rules, &allow, &refuse).expect("they are known");

    assert_eq!(unit("RestrictAddressFamilies"), ["AF_UNIX AF_INET AF_INET6"]);
    let family = |number: u32| json!({ "index": 0, "type": "dword", "op": "ne", "val": number });
    let other = json!({ "syscall": "socket", "args": [family(1), family(2), family(10)] });
    let unsupported = json!({ "errno": EAFNOSUPPORT });
    let families = compile(&[other], &unsupported, &allow).expect("it is known");

    assert_eq!(unit("MemoryDenyWriteExecute"), ["yes"]);
    let masked = |mask: u32| json!({ "masked_eq": mask });
    let bits = |mask: u32| {
        let op = masked(mask);
        json!({ "index": 2, "type": "dword", "op": op, "val": mask })
    };
    let memory = [("mmap", 6), ("mprotect", 4), ("pkey_mprotect", 4)];
    let memory = memory.map(|(call, mask)| json!({ "syscall": call, "args": [bits(mask)] }));
    let memory = compile(&memory, &refuse, &allow).expect("they are known");
    // The last one forbids to make another.
    vec![families, memory, calls]
}

/// Do something on a thread under the filters; what it starts is under them as well.
fn confined<T: Send>(filters: &[BpfProgram], run: impl FnOnce() -> T + Send) -> T {
    let thread = || {
        filters.iter().for_each(|filter| {
            seccompiler::apply_filter(filter).expect("the kernel takes it");
        });
        run()
    };
    std::thread::scope(|scope| scope.spawn(thread).join()).expect("it does not panic")
}

#[test]
fn the_real_binary_serves_drains_and_upgrades_under_the_filters_of_the_unit() {
    let (lab, client) = crate::lab();
    let filters = filters();
    // They do refuse: a call that is not allowed, a family, memory that can be written and run.
    let refused = confined(&filters, || {
        let root = nix::unistd::chroot("/");
        let socket = socket2::Socket::new(16.into(), socket2::Type::DGRAM, None);
        (root, socket.expect_err("netlink").raw_os_error())
    });
    assert_eq!(refused, (Err(nix::Error::EPERM), Some(EAFNOSUPPORT as i32)));

    let spec = Spec { top_lines: "drain_s = 3".to_owned(), ..Spec::default() };
    let service = confined(&filters, || Service::start(lab, &spec));
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid()));
    let status = status.expect("it runs");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.lines().any(|one| one == line), "{line}: {status}");
    }
    for _ in 0..5 {
        client.fetch_fresh(&service.onion, 80, "/").expect("the built-in page comes");
    }
    if std::env::var_os("RUSTBALANCE_TEST_IO").is_none() {
        // What would be used without the filters.
        let io = driver::choose(IoChoice::Auto, 1).expect("one can be had");
        assert_eq!(service.status()["io"], io.to_string());
    }
    service.signal(Signal::SIGHUP);
    wait_until("it has read its configuration", 30, || {
        service.log().contains("as the configuration says now").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    upgrade(lab, &service).unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    client.fetch_fresh(&service.onion, 80, "/").expect("the next process serves");
    let last = serving(&service).expect("it answers");
    kill(process(last), Signal::SIGTERM).expect("it runs");
    wait_until("it ends", 30, || has_ended(last).then_some(())).expect("it drains");
    let log = service.log();
    assert!(!log.contains("not permitted") && !log.contains("not supported"), "{log}");
}
