//! What the first RustBalance's file becomes.

use std::path::Path;

use super::FirstRustBalance;
use crate::config::Config;
use crate::plane::config::PortTarget;

/// A file as its own example has it, with secrets.
const FILE: &str = "\
local_port = 8080
[node]
id = \"node-a\"
priority = 10
[master]
onion_address = \"sltib6sxkuxh2scmtuvd5w2g7pahnzkovefxpo4e4ptnkzl5kkq5h2ad.onion\"
identity_key_path = \"/etc/rustbalance/master.key\"
[target]
onion_address = \"25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion\"
port = 8081
[tor]
control_password = \"hush-control\"
[publish]
refresh_interval_secs = 600
max_intro_points = 30
[health]
http_probe_enabled = true
http_probe_path = \"/alive\"
[coordination]
mode = \"wireguard\"
join_secret = \"hush-join\"
[wireguard]
listen_port = 51820
private_key = \"hush-wireguard\"
";

fn read(text: &str) -> Result<FirstRustBalance, String> {
    let file = Path::new("/etc/rustbalance/config.toml");
    FirstRustBalance::from_text(text, file).map_err(|error| error.to_string())
}

#[test]
fn the_service_goes_on_with_its_target_as_an_onion_backend() {
    let found = read(FILE).expect("it is right");
    let printed = found.to_toml(None);
    assert!(printed.contains("key = \"/etc/rustbalance/master.key\""), "{printed}");
    assert!(printed.contains("intro_points_max = 20"), "{printed}");
    assert!(printed.contains("path = \"/alive\""), "{printed}");
    assert!(!printed.contains("hush"), "{printed}");
    for secret in ["hush", "25njqamc"] {
        assert!(!found.warnings.iter().any(|one| one.contains(secret)), "{:?}", found.warnings);
    }
    let file = Path::new("/etc/rustbalance/rustbalance.toml");
    let config = Config::from_text(&printed, file).unwrap_or_else(|error| panic!("{error}"));
    let [port] = &config.services[0].ports[..] else { panic!("one port") };
    assert_eq!(port.virtual_first, 80);
    let PortTarget::Backends(backends) = &port.target else { panic!("{:?}", port.target) };
    let target = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion:8081";
    assert_eq!(backends[0].address.to_string(), target);
}

/// Proves that TLS, which we do not speak, is not dropped in silence.
#[test]
fn a_target_with_tls_is_to_be_named_anew() {
    let found = read(&FILE.replace("port = 8081", "port = 443\nuse_tls = true"));
    let found = found.expect("it is right");
    let told = found.warnings.iter().any(|one| one.starts_with("target.use_tls: "));
    assert!(told, "{:?}", found.warnings);
    let printed = found.to_toml(None);
    assert!(printed.contains("had use_tls") && !printed.contains("25njqamc"), "{printed}");
    // Not one server is guessed: the file is refused at that line alone.
    let file = Path::new("/etc/rustbalance/rustbalance.toml");
    let error = Config::from_text(&printed, file).expect_err("there are no backends");
    let [problem] = error.problems() else { panic!("{error}") };
    assert_eq!(problem.key, "service[0].port[0].backends", "{error}");
    let named = printed.replace("backends = []", "backends = [\"127.0.0.1:8080\"]");
    Config::from_text(&named, file).expect("it is right once they are named");
}

/// Proves that every key of its example is either in what is printed or in a warning.
#[test]
fn no_key_is_dropped_in_silence() {
    let found = read(&FILE.replace("[node]", "[node]\nnonsense = 1")).expect("it is right");
    let told = found.warnings.join("\n");
    for key in [
        "local_port",
        "node.id",
        "node.priority",
        "tor.control_password",
        "publish.refresh_interval_secs",
        "coordination.mode",
        "coordination.join_secret",
        "wireguard.listen_port",
        "wireguard.private_key",
    ] {
        let line = told.lines().find(|line| line.split(&[',', ':', ' ']).any(|one| one == key));
        assert!(line.is_some_and(|line| line.contains(": left out: ")), "{key}: {told}");
    }
    assert!(
        told.contains("node.nonsense: left out: the first RustBalance had no such key"),
        "{told}"
    );
    // What goes on is told of by nobody.
    for key in ["master.", "target.", "http_probe"] {
        assert!(!told.contains(key), "{key}: {told}");
    }
}

#[test]
fn a_seed_is_imported_first() {
    let found = read(FILE).expect("it is right");
    let printed = found.to_toml(Some(Path::new("/etc/rustbalance/hs_ed25519_secret_key")));
    let order = "#   rustbalance key import /etc/rustbalance/master.key \
                 /etc/rustbalance/hs_ed25519_secret_key\n";
    assert!(printed.contains(order), "{printed}");
    assert!(printed.contains("key = \"/etc/rustbalance/hs_ed25519_secret_key\""), "{printed}");
}

#[test]
fn the_backends_of_its_first_months_are_remote_instances() {
    let text = "[master]\nidentity_key_path = \"k\"\n[[backends]]\nname = \"a\"\nonion_address = \
                \"25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion\"\n";
    let printed = read(text).expect("it is right").to_toml(None);
    let file = Path::new("/etc/rustbalance/rustbalance.toml");
    let config = Config::from_text(&printed, file).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.services[0].remotes.len(), 1);
}

#[test]
fn what_is_wrong_is_told() {
    let wrong = |text: &str, part: &str| {
        let error = read(text).expect_err(text);
        assert!(
            error.starts_with("/etc/rustbalance/config.toml:") && error.contains(part),
            "{error}"
        );
    };
    wrong("a = 1\nb = [\n", "2: this is not TOML");
    wrong("[master]\n", "master.identity_key_path: it is missing");
    wrong("[master]\nidentity_key_path = 5\n", "identity_key_path: this is not a text");
    wrong("[master]\nidentity_key_path = \"k\"\n[[backends]]\n", "backends[0].onion_address: ");
}
