//! Which key files are taken, which are refused, and how one is written. With a real tor.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::ONIONBALANCE_FILE;
use crate::limits::KEY_FILE_BYTES_MAX;
use crate::vault::{KeyError, MasterKey};

/// A directory that nobody else can write to.
fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .expect("a temporary directory")
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// Write a file of mode 0600.
fn write(path: &Path, contents: &[u8]) {
    std::fs::write(path, contents).expect("written");
    chmod(path, 0o600);
}

fn refusal(path: &Path) -> String {
    let text = MasterKey::load(path).expect_err("it is refused").to_string();
    assert!(text.contains(&path.display().to_string()), "no path: {text}");
    assert!(!text.contains('\n'), "one sentence: {text}");
    text
}

#[test]
fn a_new_file_is_0600_complete_and_never_overwritten() {
    let directory = directory();
    let path = directory.path().join("master.key");
    let key = MasterKey::generate();
    key.create_new(&path).expect("it is written");
    assert_eq!(mode(&path), 0o600);
    let loaded = MasterKey::load(&path).expect("it is a key");
    assert_eq!(loaded.onion_address(), key.onion_address());

    let other = MasterKey::generate().create_new(&path).expect_err("it is there already");
    assert!(matches!(other, KeyError::Exists { .. }), "{other}");
    assert_eq!(MasterKey::load(&path).expect("a key").onion_address(), key.onion_address());
    // A link that leads nowhere is a name that is taken, too.
    let dangling = directory.path().join("link");
    symlink(directory.path().join("nowhere"), &dangling).expect("a link");
    assert!(matches!(key.create_new(&dangling), Err(KeyError::Exists { .. })));
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left.len(), 2, "temporary files stay behind: {left:?}");
}

#[test]
fn a_key_is_made_once_where_there_is_none() {
    let directory = directory();
    let path = directory.path().join("state/keys/main.key");
    let (made, new) = MasterKey::load_or_create(&path).expect("it is made");
    assert!(new);
    assert_eq!(mode(path.parent().expect("a parent")), 0o700);
    let (loaded, new) = MasterKey::load_or_create(&path).expect("it is read");
    assert!(!new);
    assert_eq!(loaded.onion_address(), made.onion_address());
}

#[test]
fn a_file_that_others_can_reach_is_refused_with_the_command_that_helps() {
    let directory = directory();
    let path = directory.path().join("master.key");
    MasterKey::generate().create_new(&path).expect("it is written");
    for wide in [0o640, 0o604, 0o620, 0o610, 0o666] {
        chmod(&path, wide);
        assert!(refusal(&path).contains(&format!("chmod 600 {}", path.display())), "{wide:o}");
    }
    for narrow in [0o600, 0o400, 0o700] {
        chmod(&path, narrow);
        assert!(MasterKey::load(&path).is_ok(), "{narrow:o}");
    }
    chmod(&path, 0o600);
    // A sticky bit keeps others from replacing the file, but not from making one first; and who
    // has such a directory wants it as it is.
    for wide in [0o770, 0o707, 0o1777] {
        chmod(directory.path(), wide);
        let fix = match wide {
            0o1777 => "put the key into a directory that is its owner's alone".to_owned(),
            _ => format!("chmod go-w {}", directory.path().display()),
        };
        assert!(refusal(&path).contains(&fix), "{wide:o}");
        let other = directory.path().join("other.key");
        let error = MasterKey::generate().create_new(&other).expect_err("not there");
        assert!(error.to_string().contains(&fix), "{error}");
        assert!(!other.exists());
    }
    chmod(directory.path(), 0o755);
    assert!(MasterKey::load(&path).is_ok());
}

#[test]
fn a_link_is_followed_and_both_directories_are_checked() {
    let (outer, inner) = (directory(), directory());
    let path = inner.path().join("master.key");
    MasterKey::generate().create_new(&path).expect("it is written");
    let link = outer.path().join("link.key");
    symlink(&path, &link).expect("a link");
    assert!(MasterKey::load(&link).is_ok());
    chmod(inner.path(), 0o777);
    assert!(refusal(&link).contains(&format!("chmod go-w {}", inner.path().display())));
    chmod(inner.path(), 0o700);
    chmod(outer.path(), 0o777);
    assert!(refusal(&link).contains(&format!("chmod go-w {}", outer.path().display())));
}

/// Proves that the way is looked at as far up as it goes: who can write to a directory above can
/// put another one, with another key, in the place of the next.
#[test]
fn a_directory_that_others_can_write_to_is_refused_however_far_above() {
    let directory = directory();
    let deep = directory.path().join("a/b/c/d");
    std::fs::create_dir_all(&deep).expect("a way");
    let path = deep.join("master.key");
    MasterKey::generate().create_new(&path).expect("it is written");
    for above in ["a", "a/b", "a/b/c", "a/b/c/d"] {
        let above = directory.path().join(above);
        chmod(&above, 0o770);
        assert!(refusal(&path).contains(&format!("chmod go-w {}", above.display())));
        let other = MasterKey::generate().create_new(&deep.join("other.key"));
        assert!(other.expect_err("not there").to_string().contains("chmod go-w"));
        chmod(&above, 0o755);
    }
    // Above its own directory a sticky bit is enough, as in /tmp.
    chmod(&directory.path().join("a"), 0o1777);
    assert!(MasterKey::load(&path).is_ok());
}

/// Proves that a wrong path leads to the folder where it went wrong, and not to a new key alone.
#[test]
fn a_path_that_leads_nowhere_names_the_folder_that_is_there() {
    let directory = directory();
    let near = directory.path().display();
    let absent = directory.path().join("absent.key");
    let text = refusal(&absent);
    assert!(text.contains(&format!("nearest folder that exists is {near};")), "{text}");
    assert!(text.contains("correct the path, or make a new key"), "{text}");
    assert!(text.contains(&format!("`rustbalance key new {}`", absent.display())), "{text}");
    let far = directory.path().join("kyes/shop/master.key");
    let text = refusal(&far);
    assert!(text.contains(&format!("nearest folder that exists is {near};")), "{text}");
    let made = format!("install -d -m 700 {} && ", far.parent().expect("a parent").display());
    assert!(text.contains(&made), "{text}");
}

#[test]
fn what_is_no_key_file_is_refused() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    assert!(refusal(directory.path()).contains("no regular file"));
    let pipe = path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    assert!(refusal(&pipe).contains("no regular file"));
    write(&path("empty"), b"");
    assert!(refusal(&path("empty")).contains("it has 0 bytes"));
    let file: [u8; 96] = super::hex(ONIONBALANCE_FILE);
    write(&path("short"), &file[..50]);
    assert!(refusal(&path("short")).contains("96 bytes and this one has 50"));
    write(&path("long"), &vec![b'x'; KEY_FILE_BYTES_MAX + 5]);
    assert!(refusal(&path("long")).contains("4101 bytes"));
    write(&path("binary"), &[b"-----BEGIN".as_slice(), &[0xff; 9]].concat());
    assert!(refusal(&path("binary")).contains("the PEM lines are damaged"));
}

/// Only root can give a file to somebody else, so only root can prove it.
#[test]
fn a_file_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("master.key");
    MasterKey::generate().create_new(&path).expect("it is written");
    std::os::unix::fs::chown(&path, Some(4321), None).expect("chown");
    let text = refusal(&path);
    // Root's `chown` would take the file from the user who serves it.
    assert!(text.contains("sudo -u '#4321' rustbalance") && !text.contains("chown"), "{text}");
    std::os::unix::fs::chown(&path, Some(0), None).expect("chown");
    std::os::unix::fs::chown(directory.path(), Some(4321), None).expect("chown");
    let text = refusal(&path);
    let whose = format!("{} belongs to user 4321", directory.path().display());
    assert!(text.contains(&whose) && !text.contains("chown"), "{text}");
}

/// Let tor read `directory` as a HiddenServiceDir, without a network: the service's host name.
fn host_name_by_tor(directory: &Path) -> String {
    let data = self::directory();
    let mut tor = Command::new("tor")
        .args(["-f", "/dev/null", "--defaults-torrc", "/dev/null", "--ignore-missing-torrc"])
        // tor ends when this process does, however it ends.
        .args(["--__OwningControllerProcess", &std::process::id().to_string()])
        .args(["--DisableNetwork", "1", "--SocksPort", "0", "--Log", "notice stdout"])
        .args(["--DataDirectory".as_ref(), data.path().as_os_str()])
        .args(["--HiddenServiceDir".as_ref(), directory.as_os_str()])
        .args(["--HiddenServicePort", "80 127.0.0.1:1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("tor runs; install the package `tor`");
    let log = BufReader::new(tor.stdout.take().expect("it is piped"));
    // tor has read the keys and written the name when it begins to bootstrap.
    let begun = log.lines().map_while(Result::ok).any(|line| line.contains("Bootstrapped 0%"));
    tor.kill().expect("tor is our child");
    tor.wait().expect("tor is our child");
    assert!(begun, "tor did not start; try what this test runs by hand");
    let text = std::fs::read_to_string(directory.join("hostname")).expect("tor writes the name");
    text.trim().to_owned()
}

/// Proves, against tor itself, that we read its keys and that it reads ours.
#[test]
fn tor_and_we_give_a_key_the_same_address() {
    // A key that tor made.
    let theirs = directory();
    let address = host_name_by_tor(theirs.path());
    let key = MasterKey::load(&theirs.path().join("hs_ed25519_secret_key")).expect("tor's key");
    assert_eq!(key.onion_address().to_string(), address);
    // A key that we made.
    let ours = directory();
    let key = MasterKey::generate();
    key.create_new(&ours.path().join("hs_ed25519_secret_key")).expect("it is written");
    assert_eq!(host_name_by_tor(ours.path()), key.onion_address().to_string());
}
