//! `import` prints a configuration, warnings beside it, and looks at the keys.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::args::ImportCommand;
use super::import;
use crate::vault::MasterKey;

/// A directory that only we can write to, as a key's has to be.
fn directory() -> tempfile::TempDir {
    let mode = Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().expect("a temporary directory")
}

/// Run it: code, stdout, stderr.
fn run(command: &ImportCommand) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = import(command, &mut out, &mut err).expect("a Vec takes all");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (code, text(out), text(err))
}

/// Write a file.
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the directory is writable");
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("chmod");
}

#[test]
fn onionbalances_file_is_printed_and_its_keys_are_looked_at() {
    let directory = directory();
    let file = directory.path().join("config.yaml");
    let key = MasterKey::generate();
    let instance = MasterKey::generate().onion_address();
    let yaml = |address: &dyn std::fmt::Display| {
        format!("services:\n- key: site.key\n  instances:\n  - address: {address}\n")
    };
    let command = ImportCommand::Onionbalance { file: file.clone() };
    let (code, _, err) = run(&command);
    assert!(code == 78 && err.contains("config.yaml: cannot read"), "{err}");
    write(&file, yaml(&instance).as_bytes());
    let (code, out, err) = run(&command);
    assert!(code == 0 && out.contains("[[service.remote]]"), "{out}");
    assert!(err.contains("site.key: there is no such file"), "{err}");
    key.create_new(&directory.path().join("site.key")).expect("it is written");
    assert_eq!(run(&command).2, "");
    // Nothing is guessed of who has published: it is said where somebody says that it was
    // GoBalance.
    let (code, out, err) = run(&ImportCommand::Gobalance { file: file.clone() });
    assert!(code == 0 && err.contains("service \"site\": GoBalance signs with a nonce"), "{err}");
    assert!(out.starts_with("# GoBalance has published under these keys."), "{out}");
    assert!(!run(&command).1.contains("GoBalance"));
    write(&file, yaml(&key.onion_address()).as_bytes());
    assert!(run(&command).2.contains("the address of the service itself"));
    write(&file, b"services: 1\n");
    let (code, out, err) = run(&command);
    assert!(code == 78 && out.is_empty() && err.contains("config.yaml:1: services: "), "{err}");
}

#[test]
fn the_first_rustbalances_directory_is_read_with_a_bare_seed() {
    let directory = directory();
    let seed: Vec<u8> = (100..132).collect();
    write(&directory.path().join("master.key"), &seed);
    let config = |address: &str| {
        let text = format!(
            "[master]\nidentity_key_path = \"master.key\"\nonion_address = \"{address}\"\n"
        );
        write(&directory.path().join("config.toml"), text.as_bytes());
    };
    config(&MasterKey::generate().onion_address().to_string());
    let command = ImportCommand::RustbalanceV0 { file: directory.path().to_owned() };
    let (code, out, err) = run(&command);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("rustbalance key import ") && out.contains("backends = []"), "{out}");
    assert!(out.contains("There is no [target]"), "{out}");
    assert!(err.contains("has another address"), "{err}");
    let key = MasterKey::load_seed(&directory.path().join("master.key")).expect("it is a seed");
    config(&key.onion_address().to_string());
    assert_eq!(run(&command).2, "");
}
