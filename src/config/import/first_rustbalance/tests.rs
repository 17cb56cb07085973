//! What the first RustBalance's file becomes.

use std::path::Path;

use super::FirstRustBalance;
use crate::config::Config;

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
port = 80
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
fn the_service_goes_on_and_its_backends_are_to_be_named() {
    let found = read(FILE).expect("it is right");
    let printed = found.to_toml(None);
    assert!(printed.contains("key = \"/etc/rustbalance/master.key\""), "{printed}");
    assert!(printed.contains("intro_points_max = 20"), "{printed}");
    assert!(printed.contains("path = \"/alive\""), "{printed}");
    for secret in ["hush", "25njqamc"] {
        assert!(!printed.contains(secret), "{printed}");
        assert!(!found.warnings.iter().any(|one| one.contains(secret)), "{:?}", found.warnings);
    }
    // Not one server is guessed: the file is refused at that line alone.
    let file = Path::new("/etc/rustbalance/rustbalance.toml");
    let error = Config::from_text(&printed, file).expect_err("there are no backends");
    let [problem] = error.problems() else { panic!("{error}") };
    assert_eq!(problem.key, "service[0].port[0].backends", "{error}");
    let named = printed.replace("backends = []", "backends = [\"127.0.0.1:8080\"]");
    Config::from_text(&named, file).expect("it is right once they are named");
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
