//! `check` says what is wrong, with 78, and touches nothing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::args::CheckArgs;
use super::check;
use crate::vault::MasterKey;

/// A directory that only we can write to, as a key's has to be.
fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .expect("a temporary directory")
}

/// `check --config`
fn args(config: PathBuf, explain: bool) -> CheckArgs {
    CheckArgs { config: Some(config), onionbalance: None, explain }
}

/// Write `text` as a configuration and check it: code, stdout, stderr.
fn checked(directory: &Path, text: &str, explain: bool) -> (u8, String, String) {
    let config = directory.join("rustbalance.toml");
    std::fs::write(&config, text).expect("the configuration is written");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check(&args(config, explain), &mut out, &mut err).expect("a Vec takes all");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (code, text(out), text(err))
}

/// Every path below a directory.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the directory is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

const SERVICE: &str = "state_dir = \"state\"\n[[service]]\nkey = \"master.key\"\n\
                       [[service.port]]\nvirtual = 80\nbackends = [\"127.0.0.1:8080\"]\n";

#[test]
fn a_right_configuration_is_0_and_nothing_is_written() {
    let directory = directory();
    MasterKey::generate().create_new(&directory.path().join("master.key")).expect("a key");
    let (code, out, err) = checked(directory.path(), SERVICE, false);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let names: Vec<_> = tree(directory.path());
    assert_eq!(
        names,
        [directory.path().join("master.key"), directory.path().join("rustbalance.toml")]
    );

    let (code, out, _) = checked(directory.path(), SERVICE, true);
    assert_eq!(code, 0);
    assert!(out.contains("connect_timeout_s = 5"), "{out}");
    let again = directory.path().join("again");
    std::fs::create_dir(&again).expect("a directory");
    std::fs::write(again.join("effective.toml"), &out).expect("written");
    let read = crate::config::Config::load(&again.join("effective.toml")).expect("it is TOML");
    assert_eq!(read.state_dir, directory.path().join("state"));
}

#[test]
fn a_key_that_nobody_configured_may_be_missing_and_a_configured_one_may_not() {
    let directory = directory();
    let (code, _, err) = checked(directory.path(), SERVICE, false);
    assert_eq!(code, 78);
    assert!(err.contains("rustbalance key new"), "{err}");
    let without = SERVICE.replace("key = \"master.key\"\n", "");
    assert_eq!(checked(directory.path(), &without, false).0, 0);
}

#[test]
fn an_exposed_key_and_a_wrong_arti_key_are_both_reported() {
    let directory = directory();
    let key = directory.path().join("master.key");
    MasterKey::generate().create_new(&key).expect("a key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("chmod");
    let text = format!("{SERVICE}[arti]\ntypo = 1\n");
    let (code, out, err) = checked(directory.path(), &text, true);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.contains("chmod 600") && err.contains("typo"), "{err}");
}

#[test]
fn one_key_for_two_services_is_reported_even_as_two_files() {
    let directory = directory();
    let key = MasterKey::generate();
    key.create_new(&directory.path().join("master.key")).expect("a key");
    key.create_new(&directory.path().join("copy.key")).expect("a copy");
    let second = "[[service]]\nname = \"two\"\nkey = \"copy.key\"\n[[service.port]]\nvirtual = 80\n\
                  hello = true\n";
    let (code, _, err) = checked(directory.path(), &format!("{SERVICE}{second}"), false);
    assert_eq!(code, 78);
    assert!(err.contains("service \"two\": its key is the one of service \"main\""), "{err}");
}

#[test]
fn mistakes_and_an_absent_file_are_78_with_the_place() {
    let directory = directory();
    let (code, _, err) = checked(directory.path(), "sate_dir = \"x\"\n", false);
    assert_eq!(code, 78);
    assert!(err.contains("rustbalance.toml:1: sate_dir: ") && err.contains("state_dir"), "{err}");

    let args = args(directory.path().join("absent.toml"), false);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check(&args, &mut out, &mut err).expect("a Vec takes all");
    assert_eq!(code, 78);
    assert!(String::from_utf8_lossy(&err).contains("absent.toml: cannot read"));
}

#[test]
fn warnings_do_not_make_it_wrong() {
    let directory = directory();
    MasterKey::generate().create_new(&directory.path().join("master.key")).expect("a key");
    let text = format!("{SERVICE}[turbo]\ninstances = 200\n");
    let (code, _, err) = checked(directory.path(), &text, false);
    assert_eq!(code, 0);
    assert!(err.contains("warning: turbo.instances: 200 instances on"), "{err}");
}
