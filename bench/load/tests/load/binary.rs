//! `rb-load` as people and scripts meet it: output, files and exit codes.

use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::{HELLO_SHA256, Server, url};

/// The binary with a proxy, a URL and more.
fn command(socks: &str, url: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rb-load"));
    command.args(["--socks", socks, url]).args(more);
    command
}

/// Run it against a server of its own.
fn rb_load(port: u16, path: &str, more: &[&str]) -> Output {
    let server = Server::start_apart();
    let mut command = command(&server.address.to_string(), &url(port, path), more);
    command.output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn success_is_zero_and_the_report_is_plain_text() {
    let hash = ["--clients", "3", "--requests", "20", "--expect-sha256", HELLO_SHA256];
    let output = rb_load(80, "/hello", &hash);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for part in [
        "closed loop; 3 clients; kept circuits",
        "requests     20 in ",
        "20 succeeded, 0 failed",
        "received     220 bytes",
        "circuits     3 new",
        "p99.9",
        "first byte, seconds",
        "####",
    ] {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    assert!(!text.contains(".onion"), "a report may be passed on:\n{text}");
    assert_eq!(stderr(&output), "", "it was over soon");
}

#[test]
fn a_failed_request_is_one_and_is_named() {
    let output = rb_load(1000 + 0xF2, "/hello", &["--clients", "1", "--requests", "2"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("SOCKS reply 0xF2: onion service introduction failed"), "{text}");
}

#[test]
fn json_is_one_object_with_numbers() {
    let more = ["--json", "--rate", "100", "--requests", "10", "--circuits", "fresh"];
    let output = rb_load(80, "/status/503", &more);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["load"], serde_json::json!({ "kind": "open", "rate": 100.0 }));
    assert_eq!((&report["circuits"], &report["circuits_new"]), (&"fresh".into(), &10.into()));
    assert_eq!((&report["requests"], &report["failed"]), (&10.into(), &10.into()));
    assert_eq!(report["failures"][0]["code"], "status-503");
    assert_eq!(report["first_byte"]["p50_s"], serde_json::Value::Null);
}

#[test]
fn a_csv_file_has_a_row_for_each_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rows.csv");
    let path = file.to_str().expect("text");
    let output = rb_load(80, "/hello", &["--requests", "25", "--csv", path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = std::fs::read_to_string(&file).expect("the file");
    let (head, rows) = text.split_once('\n').expect("a head");
    let columns: Vec<&str> = head.split(',').collect();
    assert_eq!(columns[..3], ["intended_s", "start_s", "connected_s"]);
    assert_eq!(columns[3..7], ["first_byte_s", "last_byte_s", "bytes", "outcome"]);
    assert_eq!(rows.lines().count(), 25);
    for row in rows.lines() {
        let fields: Vec<&str> = row.split(',').collect();
        assert_eq!((fields.len(), fields[5], fields[6]), (columns.len(), "11", "ok"), "{row}");
    }
}

/// A file that exists is not overwritten, and not a request is sent.
#[test]
fn an_existing_file_is_73() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rows.csv");
    std::fs::write(&file, "mine").expect("a file");
    let server = Server::start_apart();
    let more = ["--csv", file.to_str().expect("text")];
    let output = command(&server.address.to_string(), &url(80, "/hello"), &more).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(73));
    assert!(stderr(&output).contains("never overwritten"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "mine");
    assert!(server.users().is_empty());
}

/// Whoever mistypes is told what to write, with exit code 64.
#[test]
fn usage_is_64_with_a_sentence() {
    let good = url(80, "/");
    let https = good.replace("http://", "https://");
    let cases: &[(&str, &[&str], &str)] = &[
        (&https, &[], "https is not supported"),
        ("http://example.org/", &[], "onion services that you run yourself"),
        ("http://short.onion/", &[], "56 letters"),
        (&good, &["--clients", "2001"], "choose from 1 to 2000"),
        (&good, &["--rate", "2001"], "choose from 0.001 to 2000"),
        (&good, &["--duration", "25h"], "choose from 0.001 s to 86400 s"),
        (&good, &["--duration", "30"], "ms, s, m or h"),
        (&good, &["--rate", "1", "--hold"], "cannot be used with"),
        (&good, &["--hold", "--circuits", "fresh"], "keep their circuits"),
        (&good, &["--expect-sha256", "ab"], "64 hexadecimal digits"),
    ];
    for (url, more, sentence) in cases {
        let output = command("127.0.0.1:9", url, more).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(64), "{url} {more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(sentence), "{url} {more:?}: {}", stderr(&output));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_rb-load")).arg(&good).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(64), "without --socks");
    assert!(stderr(&output).contains("--socks"));
}

/// No proxy: 69, what to do, and no empty file is left behind.
#[test]
fn an_unreachable_proxy_is_69() {
    let listener = std::net::TcpListener::bind("127.0.0.4:0").expect("loopback");
    let gone = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rows.csv");
    let more = ["--csv", file.to_str().expect("text")];
    let output = command(&gone, &url(80, "/"), &more).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(69));
    let said = stderr(&output);
    assert!(said.contains(&gone) && said.contains("start tor"), "{said}");
    assert!(!file.exists());
}

#[test]
fn help_teaches() {
    let output = Command::new(env!("CARGO_BIN_EXE_rb-load")).arg("--help").output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.contains("that you run yourself"), "{text}");
    assert_eq!(text.matches("rb-load --socks").count(), 3, "three examples: {text}");
}

/// Ctrl-C ends a run with its report and its rows; what succeeded until then is a success.
#[test]
fn an_interruption_ends_with_the_report() {
    let server = Server::start_apart();
    let more = ["--duration", "1h", "--requests", "10000000", "--clients", "2"];
    let mut command = command(&server.address.to_string(), &url(80, "/hello"), &more);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child: Child = command.spawn().expect("the binary runs");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(server.wait_for_requests(50));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    kill(pid, Signal::SIGINT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(text.contains("interrupted: ") && text.contains(" 0 failed"), "{text}");
}
