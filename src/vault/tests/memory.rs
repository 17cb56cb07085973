//! Secret keys stand in memory where they are allowed to, and nowhere else.
//!
//! A process of its own does what publishing does with a key, and says so; its memory is then read
//! from outside (`/proc/PID/mem`), so that nothing that is looked for is in it because of the
//! search.
//!
//! ```text
//!   test: writes a key --> process: loads, derives, certifies, forgets --"done"--> test: scan
//! ```

use std::fs::{File, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use tor_hscrypto::time::TimePeriod;
use tor_llcrypto::pk::ed25519::Keypair;
use zeroize::Zeroizing;

use super::{RFC_SEED, hex, pem};
use crate::vault::MasterKey;

/// Says to [`a_process_that_publishes`] that it is one: the key's file.
const KEY_FILE: &str = "RUSTBALANCE_TEST_MEMORY_KEY";

/// Says that it shall keep what it must not: the scan's control.
const KEEP: &str = "RUSTBALANCE_TEST_MEMORY_KEEP";

/// What it says when the work is done.
const WORKED: &str = "the work is done";

/// The periods of the process.
fn periods() -> impl Iterator<Item = TimePeriod> {
    (20_000..20_004).map(|interval| TimePeriod::from_parts(1440, interval, 12 * 3600))
}

/// Whatever the process keeps although it must not.
fn kept(key: &MasterKey) -> Vec<Zeroizing<Vec<u8>>> {
    let blinded = |period| {
        let (_, pair, _) = key.keypair().compute_blinded_key(period).expect("it can be blinded");
        Zeroizing::new(pair.as_ref().to_secret_key_bytes().to_vec())
    };
    let mut kept: Vec<_> = periods().map(blinded).collect();
    kept.push(key.to_tor_file_bytes());
    kept
}

/// The process that is looked at: [`scan`] runs this test alone, in another process. In the run of
/// all tests it has nothing to do.
#[test]
fn a_process_that_publishes() {
    let Some(path) = std::env::var_os(KEY_FILE) else { return };
    let key = MasterKey::load(Path::new(&path)).expect("it is a key");
    for period in periods() {
        let signer = key.period(period).expect("it can be blinded");
        signer.counter_key().expect("it can be blinded");
        for _ in 0..3 {
            let signing = Keypair::generate(&mut rand::rng());
            signer.certify(&signing.verifying_key(), SystemTime::now()).expect("a certificate");
        }
    }
    let kept = std::env::var_os(KEEP).map(|_| kept(&key));
    writeln!(std::io::stdout(), "{WORKED}").expect("somebody reads");
    // Until the other one has looked, or has gone.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a pipe can be read");
    drop((key, kept));
}

/// Every page of a process that it can write to.
fn memory(pid: u32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its map");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, rest) = line.split_once('-').expect("a range");
        let (to, _) = rest.split_once(' ').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        let (from, to) = (address(from), address(to));
        let mut bytes = vec![0; usize::try_from(to - from).expect("it fits")];
        // A page that goes meanwhile, or a device's.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            all.extend(bytes);
        }
    }
    all
}

/// The writable memory of a process that has published with the key at `path`.
fn scan(path: &Path, keep: bool) -> Vec<u8> {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "vault::tests::memory::a_process_that_publishes", "--nocapture"]);
    command.env(KEY_FILE, path).stdin(Stdio::piped()).stdout(Stdio::piped());
    if keep {
        command.env(KEEP, "1");
    }
    let mut process = command.spawn().expect("it can be started");
    let output = BufReader::new(process.stdout.take().expect("it is piped"));
    let mut lines = output.lines();
    let worked = lines.by_ref().map_while(Result::ok).any(|line| line.contains(WORKED));
    let memory = memory(process.id());
    drop(process.stdin.take());
    for _ in lines {}
    let status = process.wait().expect("it is our child");
    assert!(worked && status.success(), "{status}");
    memory
}

/// How often `needle` is in `memory`.
fn count(memory: &[u8], needle: &[u8]) -> usize {
    let first = needle[0];
    let starts = memory.iter().enumerate().filter(|(_, byte)| **byte == first);
    starts.filter(|(at, _)| memory[*at..].starts_with(needle)).count()
}

/// Write a key file into a directory of its own.
fn file(contents: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let mode = Permissions::from_mode(0o700);
    let directory = tempfile::Builder::new().permissions(mode).tempdir().expect("a directory");
    let path = directory.path().join("master.key");
    std::fs::write(&path, contents).expect("it is written");
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    (directory, path)
}

/// Proves that after publishing the master's secret is in memory once, and a period's nowhere; and
/// with a process that keeps both, that the scan finds what is there.
#[test]
fn the_master_is_in_memory_once_and_a_blinded_key_nowhere() {
    let key = MasterKey::generate();
    let bytes = key.to_tor_file_bytes();
    let (_directory, path) = file(&bytes);
    let (scalar, prefix) = (&bytes[32..64], &bytes[64..96]);
    // As arithmetic has it: below the group's order, which no clamped scalar is.
    let reduced = key.keypair().as_ref().to_secret_key_bytes();
    let reduced = &reduced[..32];
    assert_ne!(scalar, reduced);
    let memory = scan(&path, false);
    assert_eq!(count(&memory, scalar), 1, "the master's scalar");
    assert_eq!(count(&memory, prefix), 1, "the master's nonce prefix");
    assert_eq!(count(&memory, reduced), 0, "the master's scalar in another form");
    let control = scan(&path, true);
    assert!(count(&control, scalar) >= 2 && count(&control, prefix) >= 2, "the scan finds them");
    for blinded in kept(&key).iter().take(periods().count()) {
        for (what, part) in [("scalar", &blinded[..32]), ("nonce prefix", &blinded[32..])] {
            assert_eq!(count(&memory, part), 0, "a blinded {what}");
            assert!(count(&control, part) >= 1, "the scan finds a blinded {what}");
        }
    }
}

/// Proves that nothing of a PEM file stays, but the key that was made of it.
#[test]
fn nothing_of_a_pem_file_stays_in_memory() {
    let seed: [u8; 32] = hex(RFC_SEED);
    let text = pem(&seed);
    let (_directory, path) = file(text.as_bytes());
    let memory = scan(&path, false);
    let key = MasterKey::from_pem(&text).expect("a good key");
    let bytes = key.to_tor_file_bytes();
    assert_eq!(count(&memory, &bytes[32..64]), 1, "the scalar");
    assert_eq!(count(&memory, &bytes[64..96]), 1, "the nonce prefix");
    // `RFC_SEED` is in this program as text; as bytes, only a reader of the file makes it.
    assert_eq!(count(&memory, &seed), 0, "the seed");
    let body = text.lines().nth(1).expect("a line of base64");
    assert_eq!(count(&memory, body.as_bytes()), 0, "the file's text");
}
