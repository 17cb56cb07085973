//! What is taken, what is refused and with which words, and that the documentation is true.

mod ports;
mod refused;

use std::path::Path;
use std::time::Duration;

use super::memory::MemoryMax;
use super::schema::{TABLES, TOP};
use super::{Config, ConfigError, Instances, Overrides, Problem, Stacks, explain};
use crate::plane::config::{BackendAddress, PortTarget};

/// The annotated example.
const EXAMPLE: &str = include_str!("../../docs/operating/rustbalance.example.toml");

/// The reference.
const REFERENCE: &str = include_str!("../../docs/operating/configuration.md");

/// A service in as few words as possible.
const MINIMAL: &str =
    "[[service]]\n[[service.port]]\nvirtual = 80\nbackends = [\"127.0.0.1:80\"]\n";

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::from_text(text, Path::new("/etc/rustbalance/rustbalance.toml"))
}

fn good(text: &str) -> Config {
    match read(text) {
        Ok(config) => config,
        Err(error) => panic!("refused: {error}\n{text}"),
    }
}

fn problems(text: &str) -> Vec<Problem> {
    match read(text) {
        Ok(_) => panic!("not refused:\n{text}"),
        Err(error) => error.problems().to_vec(),
    }
}

/// The only problem of a text, which must be at `line` and `key`, as a sentence.
fn problem(text: &str, line: usize, key: &str) -> String {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}\n{text}");
    assert_eq!((found[0].line, found[0].key.as_str()), (Some(line), key), "{found:?}\n{text}");
    format!("{}; {}", found[0].reason, found[0].fix)
}

#[test]
fn a_minimal_file_has_the_defaults_of_the_reference() {
    let config = good(MINIMAL);
    let service = &config.services[0];
    assert_eq!((service.name.as_str(), &service.key_path), ("main", &None));
    assert_eq!((service.intro_points_per_instance, service.intro_points_max), (3, 16));
    assert_eq!((&service.intro_dos, service.streams_per_circuit_max), (&None, 1024));
    let port = &service.ports[0];
    assert_eq!((port.virtual_first, port.virtual_last), (80, 80));
    assert_eq!(port.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.drain, Duration::from_secs(30));
    assert!(config.turbo.enabled && config.turbo.cores.is_none());
    assert_eq!((config.turbo.instances, config.turbo.stacks), (Instances::Auto, Stacks::Number(1)));
    assert_eq!(config.admin_socket(), config.state_dir.join("admin.sock"));
    assert_eq!(config.key_file(service), config.state_dir.join("main.key"));
    assert!(config.warnings.is_empty() && config.arti.is_empty());
}

#[test]
fn everything_that_can_be_written_arrives() {
    let config = good(
        r#"
state_dir = "state"
drain_s = 0
memory_max = "2 GiB"
[[service]]
name = "shop"
key = "keys/shop.key"
intro_points_per_instance = 2
intro_points_max = 20
dos_rate_per_second = 500
streams_per_circuit_max = 65535
[[service.port]]
virtual = "8000-8010"
balance = "round_robin"
backends = ["[::1]:8080", { address = "unix:app.sock", weight = 1, backup = false }]
connect_timeout_s = 120
[[service.port]]
virtual = "443"
hello = true
[turbo]
instances = 4
stacks = "per-instance"
cores = [0, 0x2, 4, 6]
[ctor]
instances = 3
binary = "/opt/tor/bin/tor"
extra_torrc = "more.torrc"
[admin]
socket = "/run/rustbalance.sock"
listen = ""
[arti.vanguards]
mode = "lite"
"#,
    );
    assert_eq!(config.state_dir, Path::new("/etc/rustbalance/state"));
    assert_eq!(config.drain, Duration::ZERO);
    assert_eq!(config.memory_max, MemoryMax::Bytes(2 << 30));
    let service = &config.services[0];
    assert_eq!(config.key_file(service), Path::new("/etc/rustbalance/keys/shop.key"));
    let dos = service.intro_dos.expect("a rate is set");
    assert_eq!((dos.rate_per_second, dos.burst), (500, 500));
    let [range, page] = &service.ports[..] else { panic!("two ports") };
    assert_eq!((range.virtual_first, range.virtual_last), (8000, 8010));
    assert_eq!((page.virtual_first, page.virtual_last), (443, 443));
    assert!(matches!(page.target, PortTarget::Hello));
    let PortTarget::Backends(backends) = &range.target else { panic!("backends") };
    assert!(matches!(&backends[0].address, BackendAddress::Tcp(address) if address.port() == 8080));
    assert!(matches!(
        &backends[1].address,
        BackendAddress::Unix(path) if path == Path::new("/etc/rustbalance/app.sock")
    ));
    assert_eq!(config.turbo.cores, Some(vec![0, 2, 4, 6]));
    assert_eq!(config.turbo.stack_count(config.turbo.instance_count(64)), 4);
    assert_eq!((config.ctor.instances, config.ctor.binary.to_str()), (3, Some("/opt/tor/bin/tor")));
    assert_eq!(config.ctor.extra_torrc, Some("/etc/rustbalance/more.torrc".into()));
    assert_eq!(config.admin_socket(), Path::new("/run/rustbalance.sock"));
    assert_eq!(config.arti["vanguards"]["mode"].as_str(), Some("lite"));
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = "sate_dir = \"x\"\n[[service]]\nnme = \"a\"\n[[service.port]]\nvirtual = 70000\n\
                backends = [\"app.example:80\", \"127.0.0.1\"]\n[turbo]\ninstances = \"many\"\n";
    let error = read(text).expect_err("six mistakes");
    let lines: Vec<_> = error.problems().iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 3, 5, 6, 6, 8].map(Some), "{error}");
    let printed: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
    assert_eq!(printed.len(), 6);
    let file = "/etc/rustbalance/rustbalance.toml";
    assert_eq!(
        printed[0],
        format!("{file}:1: sate_dir: there is no such key; did you mean `state_dir`?")
    );
    assert_eq!(
        printed[2],
        format!(
            "{file}:5: service[0].port[0].virtual: 70000 is no port; write a number from 1 to \
             65535, or a range such as \"8000-8010\""
        )
    );
    assert!(
        printed[3].contains("service[0].port[0].backends[0]: \"app.example:80\": this is a host")
    );
    assert!(
        printed[4].contains("backends[1]: \"127.0.0.1\": there is no port; write 127.0.0.1:8080")
    );
}

#[test]
fn a_wrong_value_says_what_to_write() {
    let service = |line: &str| format!("[[service]]\n{line}\n{}", &MINIMAL[12..]);
    let port = |line: &str| format!("{MINIMAL}{line}\n");
    let top = |line: &str| format!("{line}\n{MINIMAL}");
    let turbo = |line: &str| format!("{MINIMAL}[turbo]\n{line}\n");
    let in_port = "service[0].port[0].connect_timeout_s";
    for (text, line, key, words) in [
        (
            top("drain_s = 3601"),
            1,
            "drain_s",
            "3601 is out of range; write a number from 0 to 3600",
        ),
        (top("memory_max = \"1 kB\""), 1, "memory_max", "at least 32 MiB"),
        (top("drain_s = 1.5"), 1, "drain_s", "type float; write a whole number"),
        (top("state_dir = \"\""), 1, "state_dir", "the path is empty"),
        (top("arti = 1"), 1, "arti", "heading [arti]"),
        (service("name = \"a b\""), 2, "service[0].name", "no name for a service"),
        (service("name = \"../x\""), 2, "service[0].name", "no name for a service"),
        (service("name = 7"), 2, "service[0].name", "a text in quotes"),
        (service("intro_points_max = 21"), 2, "service[0].intro_points_max", "from 1 to 20"),
        (
            service("intro_points_max = 2"),
            2,
            "service[0].intro_points_max",
            "3 introduction points of 2",
        ),
        (service("verify_interval_s = 59"), 2, "service[0].verify_interval_s", "from 60 to 86400"),
        (service("dos_burst = 5"), 2, "service[0].dos_burst", "without a rate"),
        (
            service("streams_per_circuit_max = 0"),
            2,
            "service[0].streams_per_circuit_max",
            "from 1 to 65535",
        ),
        (service("virtual = 80"), 2, "service[0].virtual", "it belongs to [[service.port]]"),
        (port("connect_timeout_s = 0"), 5, in_port, "from 1 to 120"),
        (port("connect_timeout_s = 99999999999999999999"), 5, in_port, "out of range"),
        (port("hello = true"), 4, "service[0].port[0].backends", "remove one of them"),
        (turbo("enabled = \"yes\""), 6, "turbo.enabled", "true or false"),
        (turbo("instances = 0"), 6, "turbo.instances", "write \"auto\" or a number from 1"),
        (turbo("instances = 257"), 6, "turbo.instances", "from 1 to 256"),
        (turbo("instances = -1"), 6, "turbo.instances", "from 1 to 256"),
        (turbo("stacks = \"per_instance\""), 6, "turbo.stacks", "write \"per-instance\""),
        (turbo("stacks = 3\ninstances = 2"), 6, "turbo.stacks", "more than the 2 instances"),
        (turbo("source_addresses = \"192.0.2.1\""), 6, "turbo.source_addresses", "a list of texts"),
        (turbo("source_addresses = [1]"), 6, "turbo.source_addresses[0]", "a text in quotes"),
        (turbo("source_addresses = [\"::1\"]"), 6, "turbo.source_addresses[0]", "no IPv4 address"),
        (turbo("source_addresses = [\"0.0.0.0\"]"), 6, "turbo.source_addresses[0]", "no IPv4"),
        (
            turbo("source_addresses = [\"192.0.2.1\", \"192.0.2.1\"]"),
            6,
            "turbo.source_addresses[1]",
            "name each address once",
        ),
        (turbo("cores = [1, 1]"), 6, "turbo.cores[1]", "name each CPU once"),
        (turbo("spin_us = 1001"), 6, "turbo.spin_us", "from 0 to 1000"),
        (turbo("cores = []"), 6, "turbo.cores", "at least one CPU"),
        (turbo("cores = [5000]"), 6, "turbo.cores[0]", "from 0 to 1023"),
        (turbo("cores = [\"a\"]"), 6, "turbo.cores[0]", "a whole number"),
        (turbo("[log]\nformat = \"xml\""), 7, "log.format", "write \"auto\""),
        (turbo("[log]\nlevels = \"warn\""), 7, "log.levels", "did you mean `level`?"),
        (turbo("cores = 3"), 6, "turbo.cores", "a list of whole numbers"),
    ] {
        let sentence = problem(&text, line, key);
        assert!(sentence.contains(words), "{text}\n{sentence}");
    }
    let long = format!("{MINIMAL}[admin]\nsocket = \"/{}\"\n", "x".repeat(107));
    assert!(problem(&long, 6, "admin.socket").contains("108 bytes"));
}

/// All HSDirs are asked by nobody but RustBalance: not unless it is wanted.
#[test]
fn one_hsdir_is_asked_now_and_then_and_all_only_where_it_is_configured() {
    let intervals = |line: &str| {
        let config = good(&MINIMAL.replace("[[service]]", &format!("[[service]]\n{line}")));
        let service = &config.services[0];
        (service.verify_interval, service.theft_check_interval)
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(intervals(""), (None, seconds(4 * 3600)));
    assert_eq!(intervals("theft_check_s = 0"), (None, None));
    assert_eq!(
        intervals("theft_check_s = 60\nverify_interval_s = 3600"),
        (seconds(3600), seconds(60))
    );
    let text = MINIMAL.replace("[[service]]", "[[service]]\ntheft_check_s = 59");
    let said = problem(&text, 2, "service[0].theft_check_s");
    assert!(said.contains("from 60 to 604800"), "{said}");
}

#[test]
fn a_port_has_a_number_that_is_free_and_something_behind_it() {
    let port = |virtual_port: &str, backends: &str| {
        format!("[[service]]\n[[service.port]]\nvirtual = {virtual_port}\nbackends = {backends}\n")
    };
    let number = "service[0].port[0].virtual";
    let list = "service[0].port[0].backends";
    let one = "[\"127.0.0.1:80\"]";
    for (text, line, key, words) in [
        (port("0", one), 3, number, "0 is no port"),
        (port("-80", one), 3, number, "-80 is no port"),
        (port("65536", one), 3, number, "65536 is no port"),
        (port("\"80-\"", one), 3, number, "\"80-\" is no port"),
        (port("\"+80\"", one), 3, number, "is no port"),
        (port("\"90-80\"", one), 3, number, "write \"80-90\""),
        (port("80.5", one), 3, number, "a port, as in 80"),
        (port("80", "[]"), 4, list, "is empty"),
        (port("80", "\"127.0.0.1:80\""), 4, list, "a list, as in"),
        (port("80", "[1]"), 4, "service[0].port[0].backends[0]", "an address in quotes"),
        (port("80", "[{ weight = 1 }]"), 4, "service[0].port[0].backends[0]", "has no address"),
        (port("80", "[\"1.2.3.4:5\", \"1.2.3.4:5\"]"), 4, "service[0].port[0].backends[1]", "once"),
        (port("80", "[\"1.2.3.4:0\"]"), 4, "service[0].port[0].backends[0]", "no port 0"),
        (
            port("80", "[{ adress = \"1.2.3.4:5\", address = \"1.2.3.4:5\" }]"),
            4,
            "service[0].port[0].backends[0].adress",
            "did you mean `address`?",
        ),
    ] {
        let sentence = problem(&text, line, key);
        assert!(sentence.contains(words), "{text}\n{sentence}");
    }
    let again = |virtual_port: &str| {
        let one = port("\"80-90\"", one);
        format!("{one}[[service.port]]\nvirtual = {virtual_port}\nhello = true\n")
    };
    let key = "service[0].port[1].virtual";
    assert!(problem(&again("85"), 6, key).contains("port 85 is taken by line 3"));
    assert!(problem(&again("\"88-95\""), 6, key).contains("ports 88 to 90 are taken by line 3"));
    good(&again("91"));

    let nothing = problem("[[service]]\n[[service.port]]\nvirtual = 80\n", 2, "service[0].port[0]");
    assert!(nothing.contains("has no backends"), "{nothing}");
    let nothing = problem("[[service]]\n[[service.port]]\nhello = true\n", 2, "service[0].port[0]");
    assert!(nothing.contains("has no number"), "{nothing}");
    assert!(problem("[[service]]\n", 1, "service[0]").contains("has no port"));
    assert!(problem("service = 1\n", 1, "service").contains("[[service]]"));
    assert!(problem("[[service]]\nport = 80\n", 2, "service[0].port").contains("[[service.port]]"));
    let found = problems("");
    assert_eq!((found.len(), found[0].line, found[0].key.as_str()), (1, None, "service"));
}

#[test]
fn services_have_names_and_keys_of_their_own() {
    let two = |one: &str, other: &str| {
        let ports = &MINIMAL[12..];
        format!("[[service]]\n{one}\n{ports}[[service]]\n{other}\n{ports}")
    };
    good(&two("name = \"a\"\nkey = \"a.key\"", "name = \"b\"\nkey = \"b.key\""));
    let names = problem(&two("name = \"a\"", "name = \"a\""), 7, "service[1].name");
    assert!(names.contains("the service of line 2 has the name \"a\" too"), "{names}");
    let names = problem(&two("", "name = \"main\""), 7, "service[1].name");
    assert!(names.contains("the name \"main\""), "{names}");
    let same =
        two("name = \"a\"\nkey = \"a.key\"", "name = \"b\"\nkey = \"/etc/rustbalance/a.key\"");
    assert!(problem(&same, 9, "service[1].key").contains("of line 3 has this key too"));
}

#[test]
fn what_this_version_does_not_carry_is_refused_and_not_ignored() {
    let listen = format!("{MINIMAL}[admin]\nlisten = \"127.0.0.1:9180\"\n");
    let sentence = problem(&listen, 6, "admin.listen");
    assert!(sentence.contains("not yet supported in this version; "), "{sentence}");
}

#[test]
fn daemons_are_counted_in_what_is_exposed_and_need_sockets_that_can_be_named() {
    let config = read(&format!("{MINIMAL}[ctor]\ninstances = 2\n[turbo]\ninstances = 0\n"));
    let config = config.expect("daemons serve");
    assert_eq!(config.turbo.instance_count(8), 0);
    assert_eq!(config.ctor.binary, Path::new("tor"));
    let warnings = config.machine_warnings(8);
    assert!(warnings[0].contains("2 more sets of guards, 3 in all"), "{warnings:?}");
    let many = problem(&format!("{MINIMAL}[ctor]\ninstances = 65\n"), 6, "ctor.instances");
    assert!(many.contains("from 0 to 64"), "{many}");
    let long = format!("state_dir = \"/{}\"\n{MINIMAL}[ctor]\ninstances = 1\n", "x".repeat(85));
    let long = problem(&long, 7, "ctor.instances");
    assert!(long.contains("use a shorter state_dir"), "{long}");
}

#[test]
fn remote_instances_are_addresses_with_a_name_and_a_weight() {
    let one = "sltib6sxkuxh2scmtuvd5w2g7pahnzkovefxpo4e4ptnkzl5kkq5h2ad.onion";
    let other = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";
    let remote = |address: &str, more: &str| {
        format!("[[service.remote]]\naddress = \"{address}\"\n{more}\n")
    };
    let both = remote(one, "weight = 3\nprobe = false") + &remote(other, "name = \"far\"");
    let config = good(&format!("{MINIMAL}{both}[turbo]\ninstances = 0\n"));
    let service = &config.services[0];
    let names: Vec<_> = service.remotes.iter().map(|remote| remote.name.as_str()).collect();
    assert_eq!(names, ["remote-0", "far"]);
    assert_eq!((service.remotes[0].weight, service.remotes[0].probe), (3, false));
    assert_eq!((service.remotes[1].weight, service.remotes[1].probe), (1, true));
    assert_eq!(service.remote_interval.min.as_secs(), 60);
    assert_eq!(config.turbo.instance_count(8), 0);
    let again = explain::explain(&config);
    assert!(again.contains(other) && again.contains("probe = false"), "{again}");

    let wrong = |tables: &str, line, key| problem(&format!("{MINIMAL}{tables}"), line, key);
    let key = "service[0].remote[0].address";
    assert!(wrong(&remote("x.onion", ""), 6, key).contains("no version 3 onion address"));
    let twice = remote(one, "") + &remote(one, "name = \"b\"");
    assert!(wrong(&twice, 8, "service[0].remote[1]").contains("already"));
    let heavy = remote(one, "weight = 101");
    assert!(wrong(&heavy, 7, "service[0].remote[0].weight").contains("from 1 to 100"));
    let nobody = format!("{MINIMAL}[turbo]\ninstances = 0\n");
    assert!(problem(&nobody, 6, "turbo.instances").contains("0 instances serve nobody"));
}

#[test]
fn what_is_no_toml_names_the_line_and_brings_no_further_advice() {
    let found = problems("[[service]]\nname = \"a\nkey = 1\n[turbo\n");
    assert!(found.iter().all(|problem| problem.reason.contains("not TOML")), "{found:?}");
    assert_eq!(found[0].line, Some(2));
    let found = problems("state_dir = \"a\"\nstate_dir = \"b\"\n");
    assert!(found[0].reason.contains("duplicate key"), "{found:?}");
    assert_eq!(found[0].line, Some(2));
}

#[test]
fn a_file_that_is_missing_or_too_large_is_refused() {
    let absent = Config::load(Path::new("/nonexistent/rustbalance.toml")).expect_err("no file");
    assert!(absent.to_string().contains("/nonexistent/rustbalance.toml: cannot read"), "{absent}");
    let mut large = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut large, &vec![b'\n'; (1 << 20) + 1]).expect("written");
    let error = Config::load(large.path()).expect_err("too large");
    assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
}

#[test]
fn the_command_line_alone_is_a_configuration_and_has_the_last_word() {
    let backend = BackendAddress::Tcp("127.0.0.1:8080".parse().expect("an address"));
    let config = Config::from_backends(std::slice::from_ref(&backend), false);
    let port = &config.services[0].ports[0];
    assert_eq!((port.virtual_first, port.virtual_last), (80, 80));
    let PortTarget::Backends(backends) = &port.target else { panic!("backends") };
    assert_eq!(backends[0].address, backend);
    let page = Config::from_backends(&[], true);
    assert!(matches!(page.services[0].ports[0].target, PortTarget::Hello));

    let over = |instances, state_dir: &str| {
        let config = good(
            "[[service]]\n[[service.port]]\nvirtual = 80\nhello = true\n\
                           [turbo]\nenabled = false\nstacks = 3\n",
        );
        let state_dir = Some(state_dir.into());
        config.with_overrides(&Overrides { state_dir, instances })
    };
    let config = over(Some(2), "/s").expect("it is fine");
    assert_eq!(config.turbo.instance_count(64), 2);
    assert_eq!(config.turbo.stack_count(2), 2);
    assert_eq!(config.admin_socket(), Path::new("/s/admin.sock"));
    assert_eq!(config.key_file(&config.services[0]), Path::new("/s/main.key"));
    let config = over(None, "/s").expect("it is fine");
    assert_eq!(config.turbo.instance_count(64), 1, "turbo is off");
    let error = over(Some(257), &"/x".repeat(60)).expect_err("two mistakes").to_string();
    assert!(error.contains("command line: --instances: 257 is out of range"), "{error}");
    assert!(error.contains("command line: --state-dir: "), "{error}");
}

#[test]
fn what_more_stacks_expose_is_warned_of() {
    let found = |turbo: &str| {
        good(&format!("{MINIMAL}[turbo]\ninstances = 4\n{turbo}\n")).machine_warnings(4)
    };
    assert!(found("stacks = 1").is_empty());
    assert!(found("stacks = 2\nsource_addresses = [\"192.0.2.1\", \"192.0.2.2\"]").is_empty());
    let two = found("stacks = \"per-instance\"\nsource_addresses = [\"192.0.2.1\", \"192.0.2.2\"]");
    assert!(two.len() == 1 && two[0].contains("4 stacks have 2 sets"), "{two:?}");
    let idle = found("source_addresses = [\"192.0.2.1\", \"192.0.2.2\"]");
    assert!(idle.len() == 1 && idle[0].contains("the first 1 of 2"), "{idle:?}");
}

#[test]
fn instances_that_do_not_fit_the_machine_are_warned_of() {
    let with = |turbo: &str| good(&format!("{MINIMAL}[turbo]\n{turbo}\n"));
    assert!(with("instances = \"auto\"").machine_warnings(4).is_empty());
    assert!(with("instances = 4").machine_warnings(4).is_empty());
    let found = with("instances = 5").machine_warnings(4);
    assert!(found.len() == 1 && found[0].contains("5 instances on 4 cores"), "{found:?}");
    let found = with("instances = 3\ncores = [0, 1]").machine_warnings(4);
    assert!(found.len() == 1 && found[0].contains("3 instances on 2 cores"), "{found:?}");
    let found = with("").machine_warnings(24);
    assert!(found.len() == 1 && found[0].contains("24 instances share 16"), "{found:?}");
    assert_eq!(with("cores = [0, 1, 2]").turbo.instance_count(64), 3);
    assert_eq!(with("").turbo.instance_count(10_000), 256);
    let off = with("enabled = false\ninstances = 3");
    assert!(off.warnings.len() == 1 && off.warnings[0].contains("no effect"), "{:?}", off.warnings);
}

/// Proves that `--explain` prints the configuration it was given: read back it prints the same.
#[test]
fn explain_prints_toml_that_means_the_same() {
    let all = r#"
state_dir = "state"
drain_s = 7
memory_max = "500 MB"
[[service]]
name = "a"
key = 'q"uote.key'
dos_rate_per_second = 9
[[service.port]]
virtual = "1-9"
backends = ["unix:a.sock", "[::1]:5"]
[[service]]
name = "b"
[[service.port]]
virtual = 80
hello = true
[turbo]
cores = [1, 0]
spin_us = 50
instances = 2
stacks = "per-instance"
source_addresses = ["192.0.2.1", "192.0.2.2"]
[log]
level = "warn,rustbalance=debug"
format = "json"
[arti.vanguards]
mode = "lite"
"#;
    for text in [MINIMAL, all, EXAMPLE] {
        let config = good(text);
        let printed = explain::explain(&config);
        let again = good(&printed);
        assert_eq!(explain::explain(&again), printed);
        assert_eq!(again.state_dir, config.state_dir);
        assert_eq!(again.turbo, config.turbo);
        assert_eq!(format!("{:?}", again.arti), format!("{:?}", config.arti));
        for (again, service) in again.services.iter().zip(&config.services) {
            assert_eq!(format!("{:?}", again.ports), format!("{:?}", service.ports));
            assert_eq!(again.intro_dos, service.intro_dos);
            assert_eq!(again.key_path, service.key_path);
        }
    }
}

#[test]
fn explain_keeps_passwords_and_bridges_to_itself() {
    let text = format!(
        "{MINIMAL}[arti]\nproxy.outbound_proxy = \"socks5://user:hunter2@10.0.0.1:1080\"\n\
         [arti.bridges]\nenabled = true\nbridges = [\"192.0.2.1:443 0123456789abcdef\"]\n"
    );
    let printed = explain::explain(&good(&text));
    assert!(printed.contains("socks5://[redacted]@10.0.0.1:1080"), "{printed}");
    assert!(printed.contains("enabled = true"), "{printed}");
    assert!(!printed.contains("hunter2") && !printed.contains("192.0.2.1"), "{printed}");
}

/// Proves that the example shows every default as it is: with all of its `#key = value` lines
/// uncommented it means what it means without them.
#[test]
fn the_example_shows_the_defaults_that_hold() {
    let as_it_is = good(EXAMPLE);
    let shown: Vec<_> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // "#key = ..." and not "# a comment"; `hello` stands beside backends as its opposite.
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .collect();
    let uncommented = shown.join("\n");
    assert!(uncommented.matches('=').count() > 20, "there are defaults to uncomment");
    let all = good(&uncommented);
    assert_eq!(all.key_file(&all.services[0]), as_it_is.key_file(&as_it_is.services[0]));
    let print = |mut config: Config| {
        config.services[0].key_path = None;
        explain::explain(&config)
    };
    let (all, as_it_is) = (print(all), print(as_it_is));
    assert_eq!(all, as_it_is);
    // And a file that says nothing beyond the necessary means the same, but for the place of state.
    let mut minimal = good(&MINIMAL.replace(":80\"", ":8080\""));
    minimal.state_dir = "/var/lib/rustbalance".into();
    assert_eq!(print(minimal), as_it_is);
}

/// Proves that no key was forgotten in the example or in the reference.
#[test]
fn every_key_is_documented() {
    for table in TABLES.iter().copied().chain([&TOP]) {
        for key in table.keys {
            let in_example = EXAMPLE.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
                    || line == format!("[{key}]")
                    || line == format!("[[{key}]]")
                    || line == format!("[[service.{key}]]")
                    || line == format!("[service.port.{key}]")
                    || line.contains(&format!("{key} = "))
            });
            assert!(in_example, "{} {key} is missing in the example", table.heading);
            let in_reference =
                REFERENCE.contains(&format!("`{key}`")) || REFERENCE.contains(&format!("{key}]"));
            assert!(in_reference, "{} {key} is missing in the reference", table.heading);
        }
    }
}

/// Proves that a relative path means the same wherever what `check --explain` prints is put.
#[test]
fn relative_paths_are_below_the_files_directory_and_become_absolute() {
    let here = std::env::current_dir().expect("there is one");
    let text = "state_dir = \"state\"\n[[service]]\nkey = \"keys/a.key\"\n[[service.port]]\n\
                virtual = 80\nbackends = [\"unix:app.sock\"]\n";
    let config = Config::from_text(text, Path::new("sub/rustbalance.toml")).expect("it is right");
    assert_eq!(config.state_dir, here.join("sub/state"));
    let printed = explain::explain(&config);
    let elsewhere = Config::from_text(&printed, Path::new("/etc/effective.toml"));
    let elsewhere = elsewhere.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(elsewhere.state_dir, config.state_dir);
    assert_eq!(elsewhere.services[0].key_path, Some(here.join("sub/keys/a.key")));
    assert_eq!(elsewhere.services[0].ports[0].target, config.services[0].ports[0].target);
    let overrides = Overrides { state_dir: Some("there".into()), instances: None };
    let overridden = config.with_overrides(&overrides).expect("it is short");
    assert_eq!(overridden.state_dir, here.join("there"));
}
