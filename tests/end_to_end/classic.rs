//! `rustbalance ctor generate`: the stack that it writes is started by the commands of its README,
//! as they stand there, and serves a page through OnionBalance, C tor and HAProxy.

use std::path::Path;
use std::process::{Command, Stdio};

use rustbalance_lab::client::{random_file, sha256};
use rustbalance_lab::measure::has_ended;
use rustbalance_lab::wait_until;

/// The commands below a heading of the README.
fn commands(readme: &str, heading: &str) -> String {
    let section = readme.split(&format!("## {heading}\n")).nth(1).expect("there is a section");
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("there are commands").to_owned()
}

/// The processes that were started in a directory, by the files that they left.
fn pids(stack: &Path) -> Vec<u32> {
    let mut files = vec![stack.join("run/haproxy.pid"), stack.join("onionbalance/pid")];
    files.extend(["1", "2", "publisher"].map(|name| stack.join(format!("tor.{name}/pid"))));
    let pid = |file| std::fs::read_to_string(file).ok()?.trim().parse().ok();
    files.iter().filter_map(pid).collect()
}

#[test]
fn the_generated_stack_serves_as_its_readme_says() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let hash = random_file(root.path(), "page", 100_000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let extra = root.path().join("extra");
    std::fs::write(&extra, lab.torrc_lines()).expect("it can be written");
    // A name that every reader of it has to quote.
    let stack = root.path().join("a \"stack\" #1");
    let made = lab
        .command(env!("CARGO_BIN_EXE_rustbalance"))
        .args(["ctor", "generate", "--instances", "2", "--backend", &nginx.address.to_string()])
        .arg("--torrc-extra")
        .args([&extra, &stack])
        .output()
        .expect("the binary was built");
    let err = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{err}");
    assert!(err.contains("guards of its own"), "what it exposes is said: {err}");
    let onion = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    let readme = std::fs::read_to_string(stack.join("README.md")).expect("it was written");

    let sh = |heading| {
        let log = std::fs::File::create(root.path().join("log")).expect("it is ours");
        let status = Command::new("/bin/sh")
            .args(["-e", "-c", &commands(&readme, heading)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("descriptors are left"))
            .stderr(log)
            .status()
            .expect("there is a shell");
        let said = std::fs::read_to_string(root.path().join("log")).unwrap_or_default();
        assert!(status.success(), "{heading}: {said}");
    };
    sh("Start");
    let running = pids(&stack);
    running.iter().for_each(|pid| lab.keep(*pid).expect("it runs"));
    assert_eq!(running.len(), 5, "{running:?}");
    let served = wait_until("OnionBalance has published", 240, || {
        client.fetch_fresh(&onion, 80, "/page").ok()
    });
    let logs = || {
        ["onionbalance/log", "tor.1/notice.log"].map(|name| {
            let text = std::fs::read_to_string(stack.join(name)).unwrap_or_default();
            text.lines().rev().take(15).collect::<Vec<_>>().join("\n")
        })
    };
    let served = served.unwrap_or_else(|error| panic!("{error}\n{}", logs().join("\n\n")));
    assert_eq!(sha256(&served.body), hash);
    sh("Stop");
    let left = || running.iter().filter(|pid| !has_ended(pid)).collect::<Vec<_>>();
    wait_until("all of it ends", 60, || left().is_empty().then_some(())).unwrap_or_else(|error| {
        panic!("{error}: {:?} of {running:?}\n{}", left(), logs().join("\n\n"))
    });
}
