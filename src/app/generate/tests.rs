//! What is written, and what is refused before anything is.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{GenerateError, Report, Request, generate};
use crate::config::Config;
use crate::vault::MasterKey;

/// A configuration with this below its service.
fn config(base: &Path, ports: &str) -> Config {
    let text = format!("state_dir = \"state\"\n[[service]]\nname = \"shop\"\n{ports}");
    Config::from_text(&text, &base.join("rustbalance.toml")).expect("it is right")
}

const PORTS: &str = "streams_per_circuit_max = 50
over_limit = \"close\"
[[service.port]]
virtual = \"80-81\"
balance = \"circuit\"
proxy_protocol = \"v2\"
backends = [ \"127.0.0.1:8080\", { address = \"unix:/run/a b.sock\", weight = 3, backup = true, \
connections_max = 5 } ]
[service.port.check]
kind = \"http\"
path = \"/up\"
host = \"a.example\"
";

/// A directory that is ours alone.
fn root() -> tempfile::TempDir {
    let mode = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().expect("a temporary directory")
}

/// Two daemons in `stack`.
fn request(root: &Path, debian: bool) -> Request {
    Request {
        directory: root.join("stack"),
        daemons: Some(2),
        cpus: vec![4, 6],
        debian,
        extra: "HeartbeatPeriod 1 hour".to_owned(),
    }
}

/// What is in a file.
fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file and directory below this one.
fn walk(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("it is ours") {
            walk(&entry.expect("it is ours").path(), found);
        }
    }
}

/// Generate both services' stacks from [`PORTS`].
fn made(debian: bool) -> (tempfile::TempDir, Report) {
    let root = root();
    let report = generate(&config(root.path(), PORTS), &request(root.path(), debian));
    (root, report.unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn a_stack_knows_its_addresses_before_it_has_run() {
    let (root, report) = made(false);
    let dir = root.path().join("stack");
    let yaml = read(dir.join("onionbalance/config.yaml"));
    let master = MasterKey::load(&dir.join("onionbalance/shop.key")).expect("a key");
    assert_eq!(report.onions, vec![master.onion_address().to_string()]);
    for number in 1..=2 {
        let service = dir.join(format!("tor.{number}/shop"));
        let key = MasterKey::load(&service.join("hs_ed25519_secret_key")).expect("a key");
        let hostname = key.onion_address().to_string();
        assert_eq!(read(service.join("hostname")).trim(), hostname);
        let public = std::fs::read(service.join("hs_ed25519_public_key")).expect("it is there");
        assert_eq!(public.len(), 64);
        assert!(public.ends_with(key.onion_address().public_key()));
        assert!(yaml.contains(&format!("  - address: {hostname}\n")), "{yaml}");
        assert_eq!(
            read(service.join("ob_config")),
            format!("MasterOnionAddress {}\n", report.onions[0])
        );
        let torrc = read(dir.join(format!("torrc.{number}")));
        let socket = format!("{}/run/tor{number}-shop-80.sock", dir.display());
        assert!(torrc.contains(&format!("HiddenServicePort 81 unix:{socket}\n")), "{torrc}");
        assert!(torrc.contains("HiddenServiceMaxStreamsCloseCircuit 1\n"), "{torrc}");
        assert!(torrc.ends_with("HeartbeatPeriod 1 hour\n"), "{torrc}");
        assert!(!torrc.contains("PublishHidServDescriptors"), "OnionBalance fetches: {torrc}");
    }
    assert!(yaml.contains("- key: \"shop.key\"\n"), "{yaml}");
    let haproxy = read(dir.join("haproxy.cfg"));
    for line in [
        "listen shop-80",
        "  balance source",
        "  http-check send meth GET uri /up ver HTTP/1.1 hdr Host a.example",
        "  server backend1 127.0.0.1:8080 weight 1 send-proxy-v2 check inter",
        "  server backend2 'unix@/run/a b.sock' weight 3 maxconn 5 maxqueue",
    ] {
        assert!(haproxy.contains(line), "{line}: {haproxy}");
    }
    let readme = read(report.readme);
    assert!(readme.contains("taskset -c 6 tor --quiet -f torrc.2\n"), "{readme}");
    assert!(!readme.contains("is-testnet"), "{readme}");
}

#[test]
fn nobody_else_can_read_any_of_it() {
    for debian in [false, true] {
        let (root, _) = made(debian);
        let mut found = Vec::new();
        walk(&root.path().join("stack"), &mut found);
        assert!(found.len() > 15, "{found:?}");
        for path in found {
            let mode = std::fs::metadata(&path).expect("it is ours").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
}

#[test]
fn debian_gets_its_own_places() {
    let (root, _) = made(true);
    let dir = root.path().join("stack");
    let torrc = read(dir.join("etc/tor/instances/rustbalance1/torrc"));
    assert!(
        torrc.contains("HiddenServiceDir /var/lib/tor-instances/rustbalance1/shop\n"),
        "{torrc}"
    );
    assert!(torrc.contains("unix:/run/haproxy/tor1-shop-80.sock\n"), "{torrc}");
    assert!(!torrc.contains("DataDirectory") && !torrc.contains("RunAsDaemon"), "{torrc}");
    assert!(dir.join("var/lib/tor-instances/rustbalance2/shop/hs_ed25519_secret_key").is_file());
    let drop_in = "etc/systemd/system/tor@rustbalance2.service.d/rustbalance.conf";
    assert!(read(dir.join(drop_in)).contains("CPUAffinity=6\n"));
    let haproxy = read(dir.join("etc/haproxy/haproxy.cfg"));
    assert!(haproxy.contains("mode 600 user _tor-rustbalance2 accept-proxy"), "{haproxy}");
    // A backend's unix socket would not be found in there.
    assert!(!haproxy.contains("chroot"), "{haproxy}");
    assert!(dir.join("etc/onionbalance/shop.key").is_file());
}

#[test]
fn nothing_is_written_over_and_a_refusal_writes_nothing() {
    let root = root();
    let config = config(root.path(), PORTS);
    let request = request(root.path(), false);
    std::fs::create_dir(&request.directory).expect("it is not there");
    let error = generate(&config, &request).expect_err("others may read it");
    assert!(matches!(error, GenerateError::Open { .. }), "{error}");
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&request.directory, private).expect("it is ours");
    std::fs::write(request.directory.join("a"), "").expect("it is ours");
    let error = generate(&config, &request).expect_err("something is in it");
    assert!(error.to_string().contains("name a new directory"), "{error}");
    std::fs::remove_file(request.directory.join("a")).expect("it is ours");
    generate(&config, &request).expect("it is empty");
    let before = read(request.directory.join("onionbalance/config.yaml"));
    generate(&config, &request).expect_err("a stack is in it");
    assert_eq!(read(request.directory.join("onionbalance/config.yaml")), before);
}

#[test]
fn what_the_stack_cannot_do_is_said_before_anything_is_written() {
    let root = root();
    let hello = config(root.path(), "[[service.port]]\nvirtual = 80\nhello = true\n");
    let long =
        Request { directory: root.path().join("x".repeat(90)), ..request(root.path(), false) };
    let onion = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion:80";
    let onion = format!("[[service.port]]\nvirtual = 80\nbackends = [\"{onion}\"]\n");
    let onion = generate(&config(root.path(), &onion), &request(root.path(), false));
    let onion = onion.expect_err("HAProxy has no Tor").to_string();
    assert!(onion.contains("an onion service, which HAProxy cannot reach"), "{onion}");
    let errors = [
        generate(&hello, &request(root.path(), false)).expect_err("HAProxy has no page"),
        generate(&config(root.path(), PORTS), &long).expect_err("no socket has such a path"),
    ];
    assert!(errors[0].to_string().contains("built-in page"), "{}", errors[0]);
    assert!(errors[1].to_string().contains("choose a shorter directory"), "{}", errors[1]);
    assert!(!root.path().join("stack").exists() && !long.directory.exists());
}

#[test]
fn a_machine_with_many_cpus_is_told_of_more() {
    let root = root();
    let mut request = request(root.path(), false);
    (request.daemons, request.cpus) = (None, (0..32).collect());
    let report = generate(&config(root.path(), PORTS), &request).expect("it is empty");
    assert_eq!(report.daemons, 8);
    assert!(report.warnings.iter().any(|warning| warning.contains("32 CPUs")), "{report:?}");
    assert!(report.warnings.iter().any(|warning| warning.contains("guards")), "{report:?}");
}
