//! The library inside another program: the examples, reached by a real client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use rustbalance_lab::{Lab, wait_until};
use serde_json::Value;

/// The program; ended when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Run an example on the lab's network, with its state in this directory.
    fn start(lab: &Lab, name: &str, dir: &Path) -> Program {
        let example = Path::new(env!("CARGO_BIN_EXE_rustbalance")).with_file_name("examples");
        let example = example.join(name);
        assert!(
            example.exists(),
            "{}: build it with cargo build --workspace --examples",
            example.display()
        );
        // The lab's tables stand below `arti`; the program takes what is in there.
        let whole: toml::Table = lab.arti_toml().parse().expect("the lab writes TOML");
        let tables = toml::to_string(&whole["arti"]).expect("it was TOML");
        let arti = dir.join("arti.toml");
        std::fs::write(&arti, tables).expect("a file");
        let child = lab
            .command(example.to_str().expect("the path is UTF-8"))
            .arg(dir.join("state"))
            .arg(&arti)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the example was built");
        let program = Program(child);
        lab.keep(program.0.id()).expect("it runs");
        program
    }
}

#[test]
fn the_short_example_serves_its_router_on_an_onion_address() {
    let (lab, client) = crate::lab();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut program = Program::start(lab, "embed_hello", dir.path());
    let mut lines = BufReader::new(program.0.stdout.take().expect("it is piped")).lines();
    let url = lines.next().expect("the address comes first").expect("it is text");
    let onion = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
    let onion = onion.expect("a URL").to_owned();
    let fetched = wait_until("it is published", 60, || client.fetch_fresh(&onion, 80, "/").ok());
    assert_eq!(fetched.expect("it is served").body, b"Hello\n");
}

#[test]
fn a_tokio_program_serves_changes_its_backends_and_stops() {
    let (lab, client) = crate::lab();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut program = Program::start(lab, "embed_axum", dir.path());
    let mut words = program.0.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(program.0.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().expect("it tells more").expect("it is text");
    let onion = line().strip_prefix("onion ").expect("the address comes first").to_owned();
    assert_eq!(line(), "ready");

    let text = |path: &str| {
        let answer = client.fetch_fresh(&onion, 80, path).expect("it is served");
        String::from_utf8_lossy(&answer.body).into_owned()
    };
    let page = text("/");
    assert!(page.starts_with("Hello, circuit "), "{page}");
    words.write_all(b"status\n").expect("it reads");
    let status: Value = serde_json::from_str(&line()).expect("a status is JSON");
    let backend = &status["services"][0]["backends"][0];
    assert_eq!((&backend["address"], &backend["state"]), (&"handler:shop".into(), &"up".into()));

    words.write_all(b"maintenance\n").expect("it reads");
    let changed = |wanted: &str| text("/").contains(wanted).then_some(());
    wait_until("the built-in page", 10, || changed("It works")).expect("the ports change");
    words.write_all(b"open\n").expect("it reads");
    wait_until("the router", 10, || changed("Hello, circuit")).expect("the ports change back");
    words.write_all(b"stop\n").expect("it reads");
    let ended = wait_until("it ends", 30, || program.0.try_wait().expect("it is our child"));
    assert!(ended.expect("it ends").success());
}
