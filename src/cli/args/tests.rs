//! The command lines of the contract are read, and wrong ones end with 64.

use clap::{CommandFactory, Parser};

use super::{
    BackendCommand, Cli, Command, DescriptorCommand, EXIT_USAGE, IoChoice, KeyArgs, KeyCommand,
    exit_code,
};

fn read(line: &str) -> Result<Cli, (u8, String)> {
    let words = std::iter::once("rustbalance").chain(line.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| (exit_code(&error), error.to_string()))
}

/// Proves that clap's own consistency checks hold.
#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn run_takes_backends_or_a_file_or_the_built_in_page() {
    let line = "run --backend 127.0.0.1:8080 --backend unix:/run/app.sock --instances 4 --io epoll";
    let Ok(Cli { command: Command::Run(run) }) = read(line) else { panic!("run is read") };
    let backends: Vec<_> = run.backend.iter().map(ToString::to_string).collect();
    assert_eq!(backends, ["127.0.0.1:8080", "unix:/run/app.sock"]);
    assert_eq!((run.instances, run.io, run.hello), (Some(4), IoChoice::Epoll, false));
    assert_eq!(run.overrides().instances, Some(4));

    let Ok(Cli { command: Command::Run(run) }) = read("run --hello --state-dir /s") else {
        panic!("run --hello is read")
    };
    assert!(run.hello && run.backend.is_empty() && run.config.is_none());
    assert_eq!(run.overrides().state_dir.as_deref(), Some(std::path::Path::new("/s")));

    let Ok(Cli { command: Command::Run(run) }) = read("run --config a.toml") else {
        panic!("run --config is read")
    };
    assert_eq!((run.config, run.io), (Some("a.toml".into()), IoChoice::Auto));
}

#[test]
fn the_other_commands_are_read() {
    assert!(matches!(
        read("check --config a.toml --explain"),
        Ok(Cli { command: Command::Check(check) }) if check.explain
    ));
    assert!(matches!(read("doctor"), Ok(Cli { command: Command::Doctor(_) })));
    assert!(matches!(
        read("key import a b"),
        Ok(Cli { command: Command::Key(KeyArgs { command: KeyCommand::Import { .. } }) })
    ));
    assert!(matches!(
        read("status --json --socket /run/a.sock"),
        Ok(Cli { command: Command::Status(args) }) if args.json && args.target.socket.is_some()
    ));
    assert!(matches!(
        read("backend drain 127.0.0.1:80 --service a --port 80 --socket s"),
        Ok(Cli { command: Command::Backend(args) })
            if matches!(&args.command, BackendCommand::Drain(one) if one.port == Some(80))
    ));
    assert!(matches!(
        read("backend list --json"),
        Ok(Cli { command: Command::Backend(args) })
            if matches!(args.command, BackendCommand::List { json: true, .. })
    ));
    assert!(matches!(
        read("descriptor show --json"),
        Ok(Cli { command: Command::Descriptor(args) })
            if matches!(args.command, DescriptorCommand::Show { json: true, .. })
    ));
}

#[test]
fn a_wrong_command_line_is_64_and_says_what_to_write() {
    for (line, words) in [
        ("", "Usage"),
        ("frobnicate", "frobnicate"),
        ("run", "--config <FILE>"),
        ("run --config a.toml --hello", "cannot be used with"),
        ("run --config a.toml --backend 127.0.0.1:80", "cannot be used with"),
        ("run --hello --backend 127.0.0.1:80", "cannot be used with"),
        ("run --backend app.example:80", "host name"),
        ("run --backend ::1:80", "write [::1]:80"),
        ("run --backend 8080", "write 127.0.0.1:8080"),
        ("run --hello --instances 0", "1..=256"),
        ("run --hello --io kqueue", "write auto, uring or epoll"),
        ("check", "--config <FILE>"),
        ("key new", "<FILE>"),
        ("backend drain", "<ADDRESS>"),
        ("status --config a --socket b", "cannot be used with"),
    ] {
        let (code, text) = read(line).expect_err(line);
        assert_eq!(code, EXIT_USAGE, "{line}");
        assert!(text.contains(words), "{line}: {text}");
    }
}

#[test]
fn help_and_version_are_0_and_teach() {
    for (line, words) in [
        ("--help", "run --backend 127.0.0.1:8080"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("run --help", "ready"),
        ("key --help", "onionbalance.pem"),
        ("check --help", "--explain"),
    ] {
        let (code, text) = read(line).expect_err(line);
        assert_eq!(code, 0, "{line}");
        assert!(text.contains(words), "{line}: {text}");
    }
}

/// Proves that whatever asks a running service takes the two files that `run` takes.
#[test]
fn every_command_that_asks_takes_both_files() {
    for command in [
        "status",
        "descriptor show",
        "descriptor verify",
        "backend list",
        "backend drain 127.0.0.1:80",
        "circuit close 1/2",
        "circuit ban 1/2",
        "circuit forget 1/2",
        "doctor",
        "check",
    ] {
        let line = format!("{command} --onionbalance config.yaml --config base.toml");
        assert!(read(&line).is_ok(), "{line}");
    }
    let line = "status --onionbalance config.yaml --socket s";
    assert_eq!(read(line).expect_err("one of them").0, EXIT_USAGE);
}
