//! `key new|import|show` make 0600 files, print addresses, and never a key.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::args::{KeyCommand, Published};
use super::execute;

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .expect("a temporary directory")
}

fn run(command: &KeyCommand) -> Result<String, String> {
    let (out, err) = run_both(command)?;
    assert_eq!(err, "");
    Ok(out)
}

/// What it says on standard output and on standard error.
fn run_both(command: &KeyCommand) -> Result<(String, String), String> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    execute(command, &mut out, &mut err).map_err(|error| format!("{error:#}"))?;
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ok((text(out), text(err)))
}

#[test]
fn a_new_key_has_the_address_that_is_printed_and_is_not_overwritten() {
    let directory = directory();
    let file = directory.path().join("master.key");
    let new = KeyCommand::New { file: file.clone() };
    let address = run(&new).expect("a new key");
    assert_eq!(address.trim().len(), 62, "{address}");
    assert!(address.trim().ends_with(".onion"));
    let shown =
        run(&KeyCommand::Show { file: file.clone(), published_by: None }).expect("it can be shown");
    assert_eq!(shown, format!("{address}format: tor (hs_ed25519_secret_key)\n"));

    let before = std::fs::read(&file).expect("the key");
    let error = run(&new).expect_err("it is there already");
    assert!(error.contains("not overwritten"), "{error}");
    assert_eq!(std::fs::read(&file).expect("the key"), before);
}

#[test]
fn a_pem_key_is_imported_into_tors_form() {
    let directory = directory();
    let source = directory.path().join("onionbalance.pem");
    // A seed of 32 zero bytes: RFC 8410's framing by hand, no secret of anybody's.
    let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    der.extend([0; 32]);
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    std::fs::write(&source, pem).expect("the PEM file is written");
    std::fs::set_permissions(&source, Permissions::from_mode(0o600)).expect("chmod");
    let file = directory.path().join("master.key");
    let import =
        KeyCommand::Import { source: source.clone(), file: file.clone(), published_by: None };
    let address = run(&import).expect("the import works");
    assert_eq!(std::fs::read(&file).expect("the key").len(), 96);
    assert_eq!(std::fs::metadata(&file).expect("the key").permissions().mode() & 0o777, 0o600);
    let shown = |file: &Path| {
        run(&KeyCommand::Show { file: file.to_owned(), published_by: None }).expect("shown")
    };
    assert_eq!(shown(&source), format!("{address}format: PEM (PKCS#8)\n"));
    assert_eq!(shown(&file), format!("{address}format: tor (hs_ed25519_secret_key)\n"));
}

/// Proves that a bare seed is read by an import and by nothing else, as the key that it stands for
/// (RFC 8032, section 7.1, test 1), and that text of the same length is not.
#[test]
fn a_bare_seed_is_imported_and_never_served() {
    let directory = directory();
    let source = directory.path().join("master.key");
    let file = directory.path().join("imported.key");
    let import =
        KeyCommand::Import { source: source.clone(), file: file.clone(), published_by: None };
    let write = |bytes: &[u8]| {
        std::fs::write(&source, bytes).expect("written");
        std::fs::set_permissions(&source, Permissions::from_mode(0o600)).expect("chmod");
    };
    for text in [b"abcdefghijklmnopqrstuvwxyz012345", &[7; 32]] {
        write(text);
        let error = run(&import).expect_err("it was not drawn at random");
        assert!(error.contains("no bare seed") && !file.exists(), "{error}");
    }
    write(&[
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ]);
    let error = run(&KeyCommand::Show { file: source.clone(), published_by: None })
        .expect_err("not without import");
    assert!(error.contains("rustbalance key import"), "{error}");
    let address = run(&import).expect("it is a seed");
    // The public key d75a980182b10ab7... in base32.
    assert!(
        address.starts_with("25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhken"),
        "{address}"
    );
    let shown = run(&KeyCommand::Show { file, published_by: None }).expect("it can be shown");
    assert_eq!(shown, format!("{address}format: tor (hs_ed25519_secret_key)\n"));
}

#[test]
fn a_key_that_cannot_be_used_is_refused_in_one_sentence() {
    let directory = directory();
    let file = directory.path().join("short.key");
    std::fs::write(&file, b"short").expect("written");
    let error = run(&KeyCommand::Show { file: file.clone(), published_by: None })
        .expect_err("its mode is too wide");
    assert!(error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
    let error = run(&KeyCommand::Show { file, published_by: None }).expect_err("it is no key");
    assert!(error.contains("it has 5 bytes") && !error.contains('\n'), "{error}");
}

/// Proves that GoBalance's keys are told of where somebody says that they are GoBalance's, and
/// nowhere else; and that a key in PEM is not said to be known.
#[test]
fn a_key_that_gobalance_gave_away_is_told_of_and_no_other() {
    let directory = directory();
    let file = directory.path().join("master.key");
    run(&KeyCommand::New { file: file.clone() }).expect("a new key");
    let from = |published_by| KeyCommand::Show { file: file.clone(), published_by };
    assert_eq!(run_both(&from(None)).expect("shown").1, "");
    let (out, err) = run_both(&from(Some(Published::Gobalance))).expect("shown");
    assert_eq!(out.lines().count(), 2, "standard output is as ever: {out}");
    assert!(err.starts_with("warning: ") && err.contains("move to its address"), "{err}");
    let copy = directory.path().join("copy.key");
    let published_by = Some(Published::Gobalance);
    let import = KeyCommand::Import { source: file.clone(), file: copy, published_by };
    let (out, err) = run_both(&import).expect("imported");
    assert!(out.lines().count() == 1 && err.contains("can compute the key"), "{out}{err}");
}
