//! What bad input gets: a sentence with the place, the key, the reason and what to do, exit 78 for
//! a configuration and 64 for a command line, and nothing written by a start that was refused.
//!
//! The real binary, without any network.

#[path = "support/program.rs"]
mod program;

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use program::{NO_NETWORK, Place};

/// The start of a right configuration; what is wrong goes in place of a line, or after it.
const SERVICE: &str = "state_dir = \"state\"
[[service]]
name = \"main\"
key = \"master.key\"
[[service.port]]
virtual = 80
backends = [\"127.0.0.1:8080\"]
";

/// Make a master key; its onion address.
fn new_key(place: &Place, name: &str) -> String {
    let made = place.rustbalance(&["key", "new", name]);
    assert_eq!(made.code, 0, "{}", made.err);
    made.out.trim().to_owned()
}

/// A place with a key, for [`SERVICE`].
fn place() -> Place {
    let place = Place::new();
    new_key(&place, "master.key");
    place
}

/// A file or directory: path, mode, time of the last change (in nanoseconds), contents.
type Entry = (PathBuf, u32, i128, Vec<u8>);

/// Everything below a directory.
fn listing(directory: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the directory is readable") {
        let path = entry.expect("the directory is readable").path();
        let metadata = path.symlink_metadata().expect("it stays there");
        let mut contents = Vec::new();
        if metadata.is_dir() {
            found.extend(listing(&path));
        } else {
            // A test may have taken the right to read away.
            contents = std::fs::read(&path).unwrap_or_default();
        }
        let changed = i128::from(metadata.ctime()) * 1_000_000_000;
        let changed = changed + i128::from(metadata.ctime_nsec());
        found.push((path, metadata.mode(), changed, contents));
    }
    found.sort();
    found
}

/// `run` refuses this with 78, says these words in one line, and writes nothing.
fn run_refuses(place: &Place, words: &[&str]) {
    let before = listing(&place.path(""));
    let run = place.rustbalance(&["run", "--config", "rustbalance.toml"]);
    assert_eq!(run.code, 78, "{words:?}: {}{}", run.out, run.err);
    assert_says(&run.err, words);
    assert_eq!(run.out, "", "nothing was served");
    assert!(before == listing(&place.path("")), "{words:?}: the refused start wrote something");
}

/// The same of `check`, with the name of the configuration file.
fn check_refuses(place: &Place, words: &[&str]) {
    let before = listing(&place.path(""));
    let check = place.rustbalance(&["check", "--config", "rustbalance.toml"]);
    assert_eq!(check.code, 78, "{words:?}: {}{}", check.out, check.err);
    let words: Vec<&str> = words.iter().copied().chain(["rustbalance.toml"]).collect();
    assert_says(&check.err, &words);
    assert!(before == listing(&place.path("")), "{words:?}: check wrote something");
}

/// One of these lines has all of these words.
fn assert_says(text: &str, words: &[&str]) {
    let says = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(says, "no line with all of {words:?} in:\n{text}");
}

/// Both refuse [`SERVICE`] with one line changed.
fn both_refuse(line: &str, instead: &str, words: &[&str]) {
    let place = place();
    assert!(SERVICE.contains(line), "{line}");
    place.configure(&format!("{}{NO_NETWORK}", SERVICE.replace(line, instead)));
    check_refuses(&place, words);
    run_refuses(&place, words);
}

/// Both refuse [`SERVICE`] with something more at its end.
fn both_refuse_more(more: &str, words: &[&str]) {
    let place = place();
    place.configure(&format!("{SERVICE}{more}{NO_NETWORK}"));
    check_refuses(&place, words);
    run_refuses(&place, words);
}

#[test]
fn the_configuration_that_these_tests_spoil_is_right() {
    let place = place();
    place.configure(&format!("{SERVICE}{NO_NETWORK}"));
    let before = listing(&place.path(""));
    let check = place.rustbalance(&["check", "--config", "rustbalance.toml"]);
    assert_eq!((check.code, check.err.as_str()), (0, ""), "{}", check.out);
    let explained = place.rustbalance(&["check", "--config", "rustbalance.toml", "--explain"]);
    assert_eq!((explained.code, explained.err.as_str()), (0, ""));
    assert!(explained.out.contains("drain_s = 30"), "{}", explained.out);
    assert!(before == listing(&place.path("")), "check wrote something");
}

#[test]
fn a_key_that_does_not_exist_is_named_with_its_line_and_the_one_that_was_meant() {
    let unknown = "there is no such key";
    both_refuse(
        "state_dir",
        "sate_dir",
        &["rustbalance.toml:1:", "sate_dir", unknown, "state_dir"],
    );
    both_refuse(
        "name = \"main\"",
        "intro_point_max = 16",
        &["rustbalance.toml:3:", "service[0].intro_point_max", unknown, "intro_points_max"],
    );
    both_refuse(
        "virtual = 80",
        "virtual = 80\nvirtul = 81",
        &["rustbalance.toml:7:", "service[0].port[0].virtul", unknown, "virtual"],
    );
    both_refuse_more("[turboo]\n", &["rustbalance.toml:8:", "turboo", unknown, "turbo"]);
}

#[test]
fn a_key_below_arti_that_does_not_exist_or_is_ours_is_named() {
    both_refuse_more(
        "[arti.path_rules]\nipv4_subnet_family_prefxi = 33\n",
        &[
            "rustbalance.toml",
            "[arti] path_rules.ipv4_subnet_family_prefxi",
            "no such key",
            "remove",
        ],
    );
    both_refuse_more(
        "[arti.no_such_table]\nx = 1\n",
        &["rustbalance.toml", "[arti] no_such_table", "no such key", "remove"],
    );
    both_refuse_more(
        "[arti.storage]\ncache_dir = \"/var/cache\"\n",
        &["rustbalance.toml", "[arti] storage", "state_dir", "remove the key"],
    );
}

#[test]
fn a_value_below_arti_that_arti_refuses_is_named() {
    both_refuse_more(
        "[arti.vanguards]\nmode = \"some\"\n",
        &["rustbalance.toml", "vanguards.mode"],
    );
}

#[test]
fn a_file_that_is_no_toml_or_not_there_is_refused_with_the_place() {
    both_refuse_more("[turbo\n", &["rustbalance.toml:8:", "this is not TOML", "correct the line"]);
    let place = Place::new();
    check_refuses(&place, &["cannot read", "give the path of a readable file"]);
    run_refuses(&place, &["rustbalance.toml", "cannot read", "give the path of a readable file"]);
}

#[test]
fn an_address_that_is_none_or_a_host_name_is_refused_with_what_to_write() {
    let key = "service[0].port[0].backends[0]";
    for (address, words) in [
        ("backend.example:8080", ["this is a host name", "write an IP address"]),
        ("8080", ["there is no IP address", "write 127.0.0.1:8080"]),
        ("127.0.0.1", ["there is no port", "write 127.0.0.1:"]),
        ("http://127.0.0.1:8080/", ["this is a URL", "write 127.0.0.1:8080"]),
        ("/run/app.sock", ["this is a path", "write unix:/run/app.sock"]),
        ("127.0.0.1:0", ["there is no port 0", "1 to 65535"]),
        ("127.0.0.1:65536", ["there is no port 65536", "1 to 65535"]),
        ("", ["the address is empty", "write one such as"]),
    ] {
        let words = ["rustbalance.toml:7:", key, words[0], words[1]];
        both_refuse("127.0.0.1:8080", address, &words);
    }
}

#[test]
fn a_port_or_a_number_out_of_range_is_refused_with_the_range() {
    let port = "service[0].port[0].virtual";
    for virtual_port in ["0", "65536", "-1", "\"0-80\"", "\"8000-70000\"", "\"90-80\"", "\"http\""]
    {
        let line = format!("virtual = {virtual_port}");
        both_refuse("virtual = 80", &line, &["rustbalance.toml:6:", port, "write"]);
    }
    both_refuse(
        "name = \"main\"",
        "intro_points_max = 21",
        &["rustbalance.toml:3:", "intro_points_max", "21", "from 1 to 20"],
    );
    both_refuse_more(
        "[turbo]\ninstances = 0\n",
        &["rustbalance.toml:9:", "turbo.instances", "0 instances serve nobody", "from 1"],
    );
}

#[test]
fn what_this_version_cannot_do_is_refused_and_not_ignored() {
    both_refuse_more("[admin]\nlisten = \"127.0.0.1:9180\"\n", &["rustbalance.toml:9:", "admin"]);
}

#[test]
fn an_admin_socket_that_cannot_be_made_is_refused_before_anything_is_written() {
    let place = place();
    let refused = |socket: &Path, words: &[&str]| {
        let more = format!("[admin]\nsocket = \"{}\"\n", socket.display());
        place.configure(&format!("{SERVICE}{more}{NO_NETWORK}"));
        run_refuses(&place, words);
    };
    refused(&place.path("no-such-directory/admin.sock"), &["admin socket", "no-such-directory"]);
    refused(&place.path("master.key"), &["master.key", "no socket", "[admin] socket"]);
    refused(
        &place.path(&"a".repeat(120)),
        &["rustbalance.toml:9:", "admin.socket", "shorter path"],
    );
    let taken = place.path("taken.sock");
    let listener = std::os::unix::net::UnixListener::bind(&taken).expect("it can be bound");
    refused(&taken, &["taken.sock", "in use", "[admin] socket"]);
    drop(listener);
}

/// Both refuse [`SERVICE`] with its key file made like this.
fn both_refuse_key(spoil: impl FnOnce(&Path), words: &[&str]) {
    let place = place();
    place.configure(&format!("{SERVICE}{NO_NETWORK}"));
    spoil(&place.path("master.key"));
    let words: Vec<&str> =
        ["service \"main\"", "master.key"].iter().chain(words).copied().collect();
    check_refuses(&place, &words);
    run_refuses(&place, &words);
}

/// Give a file or directory this mode.
fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// Write a file with mode 0600 in place of the key.
fn replace(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("it is ours");
}

#[test]
fn a_key_that_others_can_read_or_replace_is_refused() {
    both_refuse_key(|key| chmod(key, 0o644), &["others may read", "0644", "chmod 600"]);
    both_refuse_key(|key| chmod(key, 0o640), &["others may read", "0640", "chmod 600"]);
    both_refuse_key(
        |key| chmod(key.parent().expect("it is in a directory"), 0o777),
        &["must be g-w,o-w", "others may replace the key", "chmod go-w"],
    );
}

#[test]
fn a_key_that_cannot_be_read_is_refused() {
    let remove = |key: &Path| std::fs::remove_file(key).expect("it is ours");
    both_refuse_key(
        remove,
        &["there is no such file", "nearest folder", "correct the path", "rustbalance key new"],
    );
    both_refuse_key(
        |key| {
            std::fs::remove_file(key).expect("it is ours");
            std::fs::create_dir(key).expect("it is not there");
        },
        &["this is no regular file", "give the path of a key file"],
    );
    if nix::unistd::geteuid().is_root() {
        // Root reads everything, and still does not take a key that somebody else may change.
        let give_away = |key: &Path| {
            std::os::unix::fs::chown(key, Some(65534), None).expect("root may give it away");
        };
        both_refuse_key(give_away, &["belongs to user 65534", "sudo -u '#65534' rustbalance"]);
    } else {
        both_refuse_key(|key| chmod(key, 0), &["cannot open it", "give this user the right"]);
    }
}

#[test]
fn a_file_that_is_no_key_is_refused_and_says_what_it_is() {
    both_refuse_key(|key| replace(key, b"short"), &["it has 5 bytes", "give another file"]);
    both_refuse_key(|key| replace(key, b""), &["it has 0 bytes", "give another file"]);
    both_refuse_key(
        |key| {
            let bytes = std::fs::read(key).expect("it is ours");
            replace(key, &bytes[..95]);
        },
        &["this one has 95", "copy it again from its backup"],
    );
    both_refuse_key(
        |key| replace(key, b"== ed25519v1-public: type0 ==\0\0\0"),
        &["this is a public key", "hs_ed25519_secret_key"],
    );
    both_refuse_key(
        |key| {
            let mut bytes = std::fs::read(key).expect("it is ours");
            bytes[64..].fill(0);
            replace(key, &bytes);
        },
        &["the nonce prefix", "do not use this key"],
    );
}

#[test]
fn one_key_for_two_services_is_refused_even_as_two_files() {
    let place = place();
    std::fs::copy(place.path("master.key"), place.path("copy.key")).expect("it is ours");
    let second = "[[service]]\nname = \"second\"\nkey = \"copy.key\"\n[[service.port]]\n\
                  virtual = 80\nhello = true\n";
    place.configure(&format!("{SERVICE}{second}{NO_NETWORK}"));
    let words = ["service \"second\"", "its key is the one of service \"main\"", "of its own"];
    check_refuses(&place, &words);
    run_refuses(&place, &words);
}

/// `run` refuses [`SERVICE`] with its state directory made like this.
fn run_refuses_state<T>(spoil: impl FnOnce(&Path) -> T, words: &[&str]) {
    let place = place();
    place.configure(&format!("{SERVICE}{NO_NETWORK}"));
    let state = place.path("state");
    std::fs::create_dir(&state).expect("it is not there");
    chmod(&state, 0o700);
    let held = spoil(&state);
    run_refuses(&place, &[&["state_dir", "state"], words].concat());
    drop(held);
}

#[test]
fn a_state_directory_that_is_in_use_is_refused() {
    let lock = |state: &Path| {
        let file = std::fs::File::create(state.join("lock")).expect("it is ours");
        file.lock().expect("nobody has it");
        file
    };
    run_refuses_state(lock, &["in use by another RustBalance", "name another state_dir"]);
}

#[test]
fn a_state_directory_of_another_format_is_refused() {
    let format = |text: &'static str| {
        move |state: &Path| std::fs::write(state.join("format"), text).expect("it is ours")
    };
    run_refuses_state(format("2\n"), &["format 2", "use the newer version"]);
    run_refuses_state(format("4000000000000\n"), &["format 4000000000000", "newer version"]);
}

#[test]
fn a_state_directory_that_is_not_ours_alone_is_refused() {
    run_refuses_state(|state| chmod(state, 0o755), &["open to other users", "755", "chmod 700"]);
    run_refuses_state(|state| chmod(state, 0o730), &["open to other users", "730", "chmod 700"]);
    let file = |state: &Path| {
        std::fs::remove_dir(state).expect("it is empty");
        std::fs::write(state, "").expect("it is not there");
    };
    run_refuses_state(file, &["is not a directory", "name another one"]);
    if nix::unistd::geteuid().is_root() {
        let give_away = |state: &Path| {
            std::os::unix::fs::chown(state, Some(65534), None).expect("root may give it away");
        };
        run_refuses_state(give_away, &["another user (uid 65534)", "sudo -u '#65534' rustbalance"]);
    }
}

#[test]
fn a_state_directory_below_one_that_others_can_change_is_refused() {
    let place = place();
    place.configure(&format!("{SERVICE}{NO_NETWORK}"));
    std::fs::create_dir(place.path("shared")).expect("it is not there");
    chmod(&place.path("shared"), 0o777);
    let before = listing(&place.path(""));
    let arguments = ["run", "--config", "rustbalance.toml", "--state-dir", "shared/state"];
    let run = place.rustbalance(&arguments);
    assert_eq!(run.code, 78, "{}", run.err);
    assert_says(&run.err, &["state_dir", "shared", "above it"]);
    assert!(before == listing(&place.path("")), "the refused start wrote something");
}

#[test]
fn the_command_lines_own_state_directory_is_held_to_the_same() {
    let place = place();
    place.configure(&format!("{SERVICE}{NO_NETWORK}"));
    std::fs::create_dir(place.path("open")).expect("it is not there");
    chmod(&place.path("open"), 0o750);
    let before = listing(&place.path(""));
    let run = place.rustbalance(&["run", "--config", "rustbalance.toml", "--state-dir", "open"]);
    assert_eq!(run.code, 78, "{}", run.err);
    assert_says(&run.err, &["state_dir", "open", "chmod 700"]);
    assert!(before == listing(&place.path("")), "the refused start wrote something");
}

#[test]
fn more_instances_than_cores_are_only_warned_of() {
    let place = place();
    place.configure(&format!("{SERVICE}[turbo]\ninstances = 256\n{NO_NETWORK}"));
    let check = place.rustbalance(&["check", "--config", "rustbalance.toml"]);
    assert_eq!(check.code, 0, "{}", check.err);
    assert_says(&check.err, &["rustbalance.toml", "warning", "turbo.instances", "256 instances"]);
}

#[test]
fn a_wrong_command_line_is_64_and_touches_nothing() {
    let place = Place::new();
    for (arguments, words) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["run"], "--config <FILE>"),
        (&["run", "--hello", "--state-dir", "s", "--bogus"], "--bogus"),
        (&["run", "--backend", "backend.example:80", "--state-dir", "s"], "host name"),
        (&["run", "--hello", "--instances", "0", "--state-dir", "s"], "1..=256"),
        (&["run", "--hello", "--backend", "127.0.0.1:80"], "cannot be used with"),
        (&["key", "new"], "<FILE>"),
        (&["check"], "--config <FILE>"),
    ] {
        let answer = place.rustbalance(arguments);
        assert_eq!((answer.code, answer.out.as_str()), (64, ""), "{arguments:?}: {}", answer.err);
        assert!(answer.err.contains(words), "{arguments:?}: {}", answer.err);
    }
    assert!(listing(&place.path("")).is_empty(), "a wrong command line wrote something");
}

#[test]
fn help_and_version_are_0() {
    let place = Place::new();
    let help = place.rustbalance(&["--help"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    assert!(help.out.contains("rustbalance run --backend 127.0.0.1:8080"), "{}", help.out);
    let version = place.rustbalance(&["--version"]);
    let expected = format!("rustbalance {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((version.code, version.out), (0, expected));
    for command in ["run", "check", "doctor", "import", "key", "status", "descriptor"] {
        assert_eq!(place.rustbalance(&[command, "--help"]).code, 0, "{command}");
    }
}

/// Proves that OnionBalance's file is refused as ours is: with its own line, and nothing written.
#[test]
fn a_wrong_onionbalance_configuration_is_refused_by_all_who_read_it() {
    let place = Place::new();
    let write = |name: &str, text: &str| {
        std::fs::write(place.path(name), text).expect("the directory is writable");
    };
    let refused = |words: &[&str]| {
        let before = listing(&place.path(""));
        for arguments in [
            &["import", "onionbalance", "config.yaml"][..],
            &["import", "gobalance", "config.yaml"],
            &["check", "--onionbalance", "config.yaml"],
            &["run", "--state-dir", "state", "--onionbalance", "config.yaml"],
            &["run", "--state-dir", "state", "--onionbalance"],
        ] {
            let answer = place.rustbalance(arguments);
            assert_eq!(
                (answer.code, answer.out.as_str()),
                (78, ""),
                "{arguments:?} {}",
                answer.err
            );
            assert_says(&answer.err, words);
        }
        assert!(before == listing(&place.path("")), "{words:?}: something was written");
    };
    refused(&["config.yaml: cannot read", "give the path"]);
    write("config.yaml", "services:\n- key: a.key\n  instances:\n  - address: x.onion\n");
    refused(&["config.yaml:4:", "services[0].instances[0].address", "hostname"]);
    let first = place.rustbalance(&["import", "rustbalance-v0", "."]);
    assert_eq!(first.code, 78, "{}", first.err);
    assert_says(&first.err, &["config.toml: cannot read"]);

    let instance = new_key(&place, "instance.key");
    write(
        "config.yaml",
        &format!("services:\n- key: a.key\n  instances:\n  - address: {instance}\n"),
    );
    let before = listing(&place.path(""));
    let run = ["run", "--state-dir", "state", "--onionbalance", "config.yaml"];
    let answer = place.rustbalance(&run);
    assert_eq!(answer.code, 78, "{}", answer.err);
    assert_says(&answer.err, &["a.key", "there is no such file"]);
    let answer = place.rustbalance(&[&run[..], &["--instances", "2"]].concat());
    assert_eq!(answer.code, 78, "{}", answer.err);
    assert_says(&answer.err, &["--instances", "--backend"]);
    assert!(before == listing(&place.path("")), "a refused start wrote something");
}

#[test]
fn status_of_nothing_says_what_to_do() {
    let place = Place::new();
    for arguments in [
        &["status", "--socket", "none.sock"][..],
        &["status", "--json", "--socket", "none.sock"],
        &["descriptor", "show", "--socket", "none.sock"],
    ] {
        let answer = place.rustbalance(arguments);
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{arguments:?}");
        assert_says(&answer.err, &["none.sock", "is it running", "--socket", "--config"]);
    }
    let wrong = place.rustbalance(&["status", "--config", "none.toml"]);
    assert_eq!(wrong.code, 78, "{}", wrong.err);
    assert_says(&wrong.err, &["none.toml", "cannot read"]);
}

#[test]
fn a_key_goes_round_and_is_never_overwritten() {
    let place = Place::new();
    let onion = new_key(&place, "new.key");
    assert!(onion.len() == 62 && onion.ends_with(".onion"), "{onion}");
    let imported = place.rustbalance(&["key", "import", "new.key", "imported.key"]);
    assert_eq!((imported.code, imported.out.trim()), (0, onion.as_str()), "{}", imported.err);
    for name in ["new.key", "imported.key"] {
        let shown = place.rustbalance(&["key", "show", name]);
        assert_eq!(shown.code, 0, "{}", shown.err);
        assert_eq!(shown.out.lines().next(), Some(onion.as_str()));
        let mode = place.path(name).metadata().expect("it was made").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    let read = |name: &str| std::fs::read(place.path(name)).expect("it is ours");
    assert!(read("new.key") == read("imported.key"), "the import changed the key");
    let before = listing(&place.path(""));
    for arguments in [&["key", "new", "new.key"][..], &["key", "import", "imported.key", "new.key"]]
    {
        let refused = place.rustbalance(arguments);
        assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{arguments:?}");
        assert_says(&refused.err, &["new.key", "not overwritten", "choose another name"]);
    }
    assert!(before == listing(&place.path("")), "a refused command wrote something");
}
