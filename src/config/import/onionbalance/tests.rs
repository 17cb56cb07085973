//! What OnionBalance's file becomes, and what is said of one that is wrong.

use std::path::{Path, PathBuf};

use super::{InProcess, OnionBalance, Served};
use crate::config::{Config, Instances};
use crate::limits::{REMOTES_MAX, SERVICES_MAX};

/// Addresses of services that exist nowhere.
const FIRST: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";
const SECOND: &str = "sltib6sxkuxh2scmtuvd5w2g7pahnzkovefxpo4e4ptnkzl5kkq5h2ad.onion";

/// A file as `onionbalance-config` writes it.
fn plain() -> String {
    format!(
        "services:\n- instances:\n  - address: {FIRST}\n    name: node1\n  - address: {SECOND}\n  \
         key: site.key\n"
    )
}

/// Read a text as a file of /etc/onionbalance.
fn read(text: &str) -> Result<OnionBalance, String> {
    let file = Path::new("/etc/onionbalance/config.yaml");
    OnionBalance::from_text(text, file).map_err(|error| error.to_string())
}

/// What is said of a text that is wrong, without the file's name.
fn wrong(text: &str) -> Vec<String> {
    let error = read(text).expect_err(text);
    let strip = |line: &str| line.replace("/etc/onionbalance/config.yaml:", "");
    error.lines().map(strip).collect()
}

#[test]
fn services_have_their_keys_and_instances_and_no_instance_of_this_process() {
    let found = read(&plain()).expect("it is right");
    assert!(found.warnings.is_empty() && found.status_socket.is_none());
    let config = found.into_config(None, None).expect("it is right");
    let [service] = &config.services[..] else { panic!("one service") };
    assert_eq!(service.name, "site");
    assert_eq!(service.key_path.as_deref(), Some(Path::new("/etc/onionbalance/site.key")));
    let remotes: Vec<(String, &str)> =
        service.remotes.iter().map(|one| (one.address.to_string(), one.name.as_str())).collect();
    assert_eq!(remotes, [(FIRST.to_owned(), "node1"), (SECOND.to_owned(), "remote-1")]);
    assert!(service.ports.is_empty());
    assert_eq!(config.turbo.instances, Instances::Fixed(0));
    assert_eq!(config.file.as_deref(), Some(Path::new("/etc/onionbalance/config.yaml")));
}

/// Proves that `run --onionbalance FILE` and `import onionbalance FILE` are one and the same.
#[test]
fn the_printed_configuration_is_the_one_that_is_run() {
    let text = format!("{}status-socket-location: /run/onionbalance/control\n", plain());
    let in_process = InProcess {
        instances: Some(2),
        target: Served::Backends(vec!["127.0.0.1:8080".parse().map(tcp).expect("an address")]),
    };
    for in_process in [None, Some(&in_process)] {
        let found = read(&text).expect("it is right");
        let printed = found.to_toml(in_process);
        let file = Path::new("/etc/onionbalance/config.yaml");
        let printed = Config::from_text(&printed, file).unwrap_or_else(|error| panic!("{error}"));
        let run = found.into_config(None, in_process).expect("it is right");
        let explained = crate::config::explain::explain(&run);
        assert_eq!(crate::config::explain::explain(&printed), explained);
        assert!(explained.contains("onionbalance_socket = \"/run/onionbalance/control\""));
    }
}

/// A server.
fn tcp(address: std::net::SocketAddr) -> crate::plane::config::BackendAddress {
    crate::plane::config::BackendAddress::Tcp(address)
}

#[test]
fn a_base_says_everything_but_the_services() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let base = directory.path().join("base.toml");
    let write = |text: &str| std::fs::write(&base, text).expect("it is writable");
    write("state_dir = \"state\"\n[log]\nlevel = \"info\"\n[admin]\nsocket = \"a.sock\"\n");
    let config = |base: &Path| {
        let found = read(&plain()).expect("it is right");
        found.into_config(Some(base), None).map_err(|error| error.to_string())
    };
    let joined = config(&base).expect("both are right");
    assert_eq!(joined.state_dir, directory.path().join("state"));
    assert_eq!((joined.log.level.as_str(), joined.services.len()), ("info", 1));
    assert_eq!(joined.turbo.instances, Instances::Fixed(0));
    assert_eq!(joined.admin.socket, PathBuf::from("a.sock"));

    write("\n[[service]]\n[[service.port]]\nvirtual = 80\nhello = true\n");
    let error = config(&base).expect_err("whose services?");
    assert!(error.contains("base.toml:2: service[0]: the services are those of"), "{error}");
    write("state_dri = 1\n");
    assert!(config(&base).expect_err("a mistake").contains("did you mean `state_dir`?"));
    write("state_dir = [\n");
    assert!(config(&base).expect_err("no TOML").contains("this is not TOML"));
    let error = config(&directory.path().join("absent")).expect_err("no file");
    assert!(error.contains("absent: cannot read"), "{error}");
}

#[test]
fn what_is_passed_over_is_told_with_its_line() {
    let text = format!(
        "tor: 1\nservices:\n- key: /keys/{stem}.key\n  port: 80\n  instances:\n  \
         - address: {short}\n    name:\n    weight: 3\n  - address: {FIRST}\n",
        stem = "a".repeat(56),
        short = FIRST.strip_suffix(".onion").expect("it has one").to_uppercase(),
    );
    let found = read(&text).expect("nothing in it is wrong");
    let lines: Vec<&str> = found.warnings.iter().map(|one| &one[..one.len().min(37)]).collect();
    assert_eq!(
        lines,
        [
            "1: tor: OnionBalance does not read th",
            "4: services[0].port: OnionBalance doe",
            "8: services[0].instances[0].weight: O",
            "9: services[0].instances[1].address: ",
        ]
    );
    // No onion address in logs and file names.
    assert_eq!(found.services[0].name, "service-1");
    assert_eq!(found.services[0].instances.len(), 1);
    let config = found.into_config(None, None).expect("it is right");
    assert!(config.warnings[0].starts_with("/etc/onionbalance/config.yaml:1: tor: "));
}

#[test]
fn what_is_wrong_is_told_with_line_key_and_what_to_do() {
    let starts = |text: &str, beginnings: &[&str]| {
        let lines = wrong(text);
        assert_eq!(lines.len(), beginnings.len(), "{lines:?}");
        for (line, beginning) in lines.iter().zip(beginnings) {
            assert!(line.starts_with(beginning) && line.contains("; "), "{line}");
        }
    };
    starts("", &["1: there is nothing and no map; write the keys services, "]);
    starts("a: b: c\n", &["1: this is not YAML ("]);
    starts("- a\n", &["1: there is a list and no map; "]);
    starts("x: 1\n", &["1: services: it is missing; was this file made for OnionBalance"]);
    starts("services:\n", &["1: services: there is nothing and no list with an element; "]);
    starts("services: []\n", &["1: services: there is a list and no list with an element; "]);
    starts("services:\n- {}\n", &["2: services[0].instances: it is", "2: services[0].key: it is"]);
    starts(
        "services:\n- key: [a]\n  instances:\n  - address: x.onion\n  - name: y\n",
        &[
            "2: services[0].key: there is a list where a text should be; ",
            "4: services[0].instances[0].address: this is no version 3 onion address",
            "5: services[0].instances[1].address: it is missing; ",
        ],
    );
    let twice =
        format!("{0}{0}", "- key: a.key\n  instances:\n  - address: A\n").replace('A', FIRST);
    let text = format!("services:\n{twice}");
    starts(&text, &["5: services[1].key: another service has this key as well; "]);
}

/// Proves that what only shows in our own words has no line of a text that nobody typed.
#[test]
fn a_socket_whose_path_is_too_long_is_refused_by_its_key() {
    let text = format!("{}status-socket-location: /{}\n", plain(), "long/".repeat(30));
    let found = read(&text).expect("the file alone is right");
    let error = found.into_config(None, None).expect_err("the kernel cannot name it").to_string();
    let start = "/etc/onionbalance/config.yaml: admin.onionbalance_socket: ";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn there_are_bounds() {
    let instances = format!("  - address: {FIRST}\n").repeat(REMOTES_MAX + 1);
    let lines = wrong(&format!("services:\n- key: a\n  instances:\n{instances}"));
    assert!(lines[0].contains("too many instances; keep 64 of them"), "{lines:?}");
    let one = format!("- key: a\n  instances:\n  - address: {FIRST}\n");
    let lines = wrong(&format!("services:\n{}", one.repeat(SERVICES_MAX + 1)));
    assert!(lines[0].contains("too many services; keep 64 of them"), "{lines:?}");
}
