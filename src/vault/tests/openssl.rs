//! PEM files as openssl, editors and people leave them.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use super::{RFC_SEED, hex, pem};
use crate::vault::{KeyFormat, KeyFormatError, MasterKey, format};

/// What `openssl pkcs12 -nodes` writes for a key with its certificate, with `section` in the place
/// of the key.
fn bag(section: &str) -> String {
    format!(
        "Bag Attributes\n    friendlyName: sho\u{df}p\n    localKeyID: 5D 27 A0 11 \n\
         subject=CN = shop\n\nissuer=CN = shop\n\n-----BEGIN CERTIFICATE-----\n\
         MIIBNjCB6aADAgECAhQ0c2VjcmV0bm90\n-----END CERTIFICATE-----\nBag Attributes\n    \
         localKeyID: 5D 27 A0 11 \nKey Attributes: <No Attributes>\n{section}\nthat is all\n"
    )
}

/// The key of RFC 8032's first test, as whatever bytes; the same with the file's own detection.
fn read(bytes: &[u8]) -> Result<String, KeyFormatError> {
    let (_, found) = format::parse(bytes)?;
    assert_eq!(found, KeyFormat::Pem);
    let text = String::from_utf8_lossy(bytes);
    Ok(MasterKey::from_pem(&text)?.onion_address().to_string())
}

#[test]
fn what_stands_around_the_key_is_passed_over() {
    let plain = pem(&hex(RFC_SEED));
    let expected = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";
    let indented: String = plain.lines().map(|line| format!("   \t{line}\n")).collect();
    let spaced: String = plain.lines().map(|line| format!("{line}  \r\n\r\n")).collect();
    // The body in one line and in short ones: RFC 7468's readers may refuse both.
    let body: String = plain.lines().filter(|line| !line.starts_with('-')).collect();
    let short: String = body
        .as_bytes()
        .chunks(7)
        .map(|part| format!("{}\n", String::from_utf8_lossy(part)))
        .collect();
    let short = format!("-----BEGIN PRIVATE KEY-----\n{short}-----END PRIVATE KEY-----");
    for (what, text) in [
        ("nothing", plain.clone()),
        ("bag attributes and a certificate", bag(&plain)),
        ("a byte order mark", format!("\u{feff}{plain}")),
        ("indentation", indented),
        ("spaces at the ends, empty lines, another system's line ends", spaced),
        ("short lines, no last line end", short),
        ("a comment before and after", format!("# the shop's key\n{plain}# keep it secret\n")),
        ("the public key", format!("{plain}{}", plain.replace("PRIVATE", "PUBLIC"))),
    ] {
        assert_eq!(read(text.as_bytes()).as_deref(), Ok(expected), "{what}");
    }
    // Latin-1 before it is no UTF-8.
    let latin: Vec<u8> = [b"friendlyName: sho\xdfp\n".as_slice(), plain.as_bytes()].concat();
    assert_eq!(format::parse(&latin).map(|(_, found)| found).ok(), Some(KeyFormat::Pem));
}

#[test]
fn there_is_one_private_key_and_it_is_whole() {
    let plain = pem(&hex(RFC_SEED));
    let refusal = |text: String| read(text.as_bytes()).expect_err("no key").to_string();
    let two = refusal(bag(&format!("{plain}{plain}")));
    assert!(two.contains("several private keys"), "{two}");
    let elliptic = plain.replace("PRIVATE", "EC PRIVATE");
    assert!(refusal(format!("{plain}{elliptic}")).contains("several private keys"));
    assert!(refusal(bag(&elliptic)).contains("`EC PRIVATE KEY`"));
    let encrypted = plain.replace("PRIVATE", "ENCRYPTED PRIVATE");
    assert_eq!(read(bag(&encrypted).as_bytes()), Err(KeyFormatError::Encrypted));
    let old = elliptic.replace("KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\n\nM");
    assert_eq!(read(old.as_bytes()), Err(KeyFormatError::Encrypted));
    let none = refusal(bag(""));
    assert!(none.contains("`CERTIFICATE`"), "{none}");
    for damaged in [
        plain.replace("-----END PRIVATE KEY-----", ""),
        plain.replace("END PRIVATE", "END PUBLIC"),
        plain.replace("-----END", &format!("{plain}-----END")),
        plain.replace("MC4C", "M\u{df}4C"),
    ] {
        assert!(refusal(damaged.clone()).contains("damaged"), "{damaged}");
    }
}

/// Run openssl in `directory`; `None` where there is none.
fn openssl(directory: &Path, arguments: &str) -> Option<Vec<u8>> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        output => output.expect("openssl can be started"),
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {told}");
    Some(output.stdout)
}

/// Proves, against openssl itself, that its files are read and give the key that it says.
#[test]
fn files_that_openssl_writes_are_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let run = |arguments: &str| openssl(directory.path(), arguments);
    if run("genpkey -algorithm ed25519 -out key").is_none() {
        let skipped = "SKIPPED: there is no openssl; the fixed texts are read all the same";
        let _ = writeln!(std::io::stderr(), "{skipped}");
        return;
    }
    let done = |output: Option<Vec<u8>>| output.expect("openssl is there");
    let public = done(run("pkey -in key -pubout -outform DER"));
    done(run("req -new -x509 -key key -subj /CN=shop -days 1 -out certificate"));
    done(run("pkcs12 -export -inkey key -in certificate -name shop -passout pass:x -out bag"));
    let bag = done(run("pkcs12 -in bag -nodes -passin pass:x"));
    assert!(String::from_utf8_lossy(&bag).contains("Bag Attributes"), "it is what this is for");
    let text = done(run("pkey -in key -text"));
    for file in [std::fs::read(directory.path().join("key")).expect("the key"), bag, text] {
        let text = String::from_utf8(file).expect("UTF-8");
        let key = MasterKey::from_pem(&text).expect("a good key");
        assert!(public.ends_with(key.onion_address().public_key()), "another key");
    }
}
