//! What must not be told: the key anywhere but in its file, and in the log who our relays are.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use nix::sys::signal::Signal;

use crate::service::{Service, Spec, state_dir};

/// Every file below a directory.
fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).expect("it is there").flatten() {
        let kind = entry.file_type().expect("it has a kind");
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => found.extend(files(&entry.path())),
            (_, true) => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Whether `bytes` has a secret in it: as it is, in hexadecimal, or in base64 at any offset.
fn tells(bytes: &[u8], secret: &[u8]) -> bool {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let base64 = (0..3).map(|offset| {
        let whole = secret[offset..].chunks_exact(3).take(8).flatten().copied().collect::<Vec<_>>();
        base64::engine::general_purpose::STANDARD.encode(whole).into_bytes()
    });
    let forms = [secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    let has = |form: &Vec<u8>| bytes.windows(form.len()).any(|window| window == form);
    forms.iter().any(has) || base64.into_iter().any(|form| has(&form))
}

#[test]
fn a_secret_is_found_in_every_form() {
    let secret: Vec<u8> = (0..32).map(|byte| byte * 7 + 3).collect();
    let hex: String = secret.iter().map(|byte| format!("{byte:02X}")).collect();
    let base64 = base64::engine::general_purpose::STANDARD.encode([b"x", &secret[..]].concat());
    for text in [secret.clone(), hex.into_bytes(), base64.into_bytes()] {
        assert!(tells(&[b"before", &text[..], b"after"].concat(), &secret));
    }
    assert!(!tells(b"nothing of the kind", &secret));
}

#[test]
fn the_key_is_in_its_file_and_nowhere_else() {
    let (lab, client) = crate::lab();
    let log = "[log]\nlevel = \"debug\"".to_owned();
    let mut service = Service::start(lab, &Spec { turbo_lines: log, ..Spec::default() });
    client.fetch_fresh(&service.onion, 80, "/").expect("it serves");
    service.signal(Signal::SIGHUP);
    let state = state_dir(&service);
    let key_file = state.join("main.key");
    let key = std::fs::read(&key_file).expect("it was made at the first start");
    // tor's form: a header of 32 bytes, then both halves of the expanded key.
    let halves: Vec<&[u8]> = key[32..].chunks(32).collect();
    assert_eq!(halves.iter().map(|half| half.len()).collect::<Vec<_>>(), [32, 32]);
    let process = Path::new("/proc").join(service.pid().to_string());
    let mut places: Vec<(String, Vec<u8>)> = ["cmdline", "environ"]
        .map(|name| (name.to_owned(), std::fs::read(process.join(name)).expect("it runs")))
        .into();
    let status = serde_json::to_vec(&service.status()).expect("it is JSON");
    places.push(("the status".to_owned(), status));
    places.push(("the log".to_owned(), service.log().into_bytes()));
    for file in files(&state) {
        let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for others as well: {mode:o}", file.display());
        if file != key_file {
            let mut bytes = Vec::new();
            let opened =
                std::fs::File::open(&file).and_then(|mut file| file.read_to_end(&mut bytes));
            opened.expect("it can be read");
            places.push((file.display().to_string(), bytes));
        }
    }
    for (place, bytes) in &places {
        assert!(!halves.iter().any(|half| tells(bytes, half)), "the key is in {place}");
    }
    // No core dump either: not by the limit, and not where somebody may have raised that by then.
    let limits = std::fs::read_to_string(process.join("limits")).expect("it runs");
    let limit = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = limit.expect("Linux tells").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
    let pid = format!("--pid={}", service.pid());
    match Command::new("prlimit").args([&pid, "--core=unlimited:unlimited"]).status() {
        Ok(status) if status.success() => {}
        _ => println!("the limit stands: raising it takes CAP_SYS_RESOURCE"),
    }
    service.signal(Signal::SIGABRT);
    let ended = service.wait(30);
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(Signal::SIGABRT as i32), false));
}

#[test]
fn the_log_at_info_names_no_relay() {
    let (lab, client) = crate::lab();
    // Of every crate, not only of ours.
    let log = "[log]\nlevel = \"info\"".to_owned();
    let mut service = Service::start(lab, &Spec { turbo_lines: log, ..Spec::default() });
    for _ in 0..3 {
        client.fetch_fresh(&service.onion, 80, "/").expect("it serves");
    }
    service.signal(Signal::SIGTERM);
    assert!(service.wait(60).success(), "{}", service.log());
    let text = service.log();
    for relay in lab.relays() {
        for name in [&relay.address, &relay.fingerprint, &relay.ed25519] {
            let line = text.lines().find(|line| line.contains(&**name));
            assert!(line.is_none(), "{line:?} names {name}");
        }
    }
}
