//! Every form that is read, and for each that is not the form to write.

use std::path::{Path, PathBuf};

use super::{AddressError, onion_alone, parse_backend};
use crate::plane::config::BackendAddress;

fn parse(text: &str) -> Result<BackendAddress, AddressError> {
    parse_backend(text, Path::new("/etc/rustbalance"), &["app.internal".to_owned()])
}

/// From C tor's own tests.
const ONION: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";

#[test]
fn addresses_of_every_form_are_read() {
    for text in ["127.0.0.1:80", "[::1]:8080", "10.1.2.3:65535", "[fe80::1%2]:80"] {
        let Ok(BackendAddress::Tcp(address)) = parse(text) else { panic!("{text}") };
        assert_eq!(address.to_string(), text);
    }
    for (text, path) in [
        ("unix:/run/app.sock", "/run/app.sock"),
        ("unix:app.sock", "/etc/rustbalance/app.sock"),
        ("unix:./@app", "/etc/rustbalance/./@app"),
        // In quotes, as in a torrc.
        ("unix:\"/run/app.sock\"", "/run/app.sock"),
        ("unix:\"/run/my app\\x2esock\"", "/run/my app.sock"),
        ("unix:\"@app\"", "/etc/rustbalance/@app"),
    ] {
        let Ok(BackendAddress::Unix(found)) = parse(text) else { panic!("{text}") };
        assert_eq!(found, PathBuf::from(path));
    }
    assert_eq!(parse("handler:shop"), Ok(BackendAddress::Handler("shop".to_owned())));
    let name = BackendAddress::Name { host: "app.internal".to_owned(), port: 80 };
    assert_eq!(parse("App.internal:80"), Ok(name));
    let onion = BackendAddress::Onion { host: ONION.to_owned(), port: 81 };
    assert_eq!(parse(&format!("{}:81", ONION.to_uppercase())), Ok(onion.clone()));
    assert_eq!(onion.to_string(), format!("{ONION}:81"));
    assert_eq!(onion.in_log(), "[redacted]:81");
    // These say what they are, and mean the same when they are read again.
    for (text, shown) in [
        ("unix:@app", "unix:@app"),
        ("localhost:80", "localhost:80"),
        ("LocalHost:1", "localhost:1"),
    ] {
        let address = parse(text).expect(text);
        assert_eq!(address.to_string(), shown);
        assert_eq!(parse(shown), Ok(address));
    }
}

/// See that each text is refused with these words, and with what to write.
fn refused(cases: &[(&str, &str)]) {
    for (text, words) in cases {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
        assert!(error.contains("; write ") || error.contains("; use "), "{text}: {error}");
    }
}

#[test]
fn what_is_no_unix_socket_or_onion_service_says_why_and_what_to_write() {
    refused(&[
        ("unix:", "empty"),
        ("unix:@", "empty"),
        ("unix:\"\"", "empty"),
        ("unix:\"/run/app.sock", "the quotes do not end; write unix:/run/app.sock"),
        ("unix:\"/run/app.sock\" 80", "the quotes end before the address does"),
        ("unix:\"/run/\\q\"", "the quotes hold an escape that is none of"),
        ("unix:'/run/app.sock'", "the quotes are single ones; write unix:/run/app.sock"),
        ("unix:/run/\0app", "a zero byte"),
        ("unix:\"/run/\\0app\"", "a zero byte"),
        ("unix:@\0", "a zero byte"),
        (ONION, "sid.onion:80"),
        (&ONION.to_uppercase(), "sid.onion:80"),
        ("X.ONION", "no version 3 onion address"),
        ("abc.onion:80", "no version 3 onion address"),
        (&format!("{}:80", ONION.replace("25nj", "25nk")), "no version 3 onion address"),
        (&format!("www.{ONION}:80"), "no version 3 onion address"),
        (&format!("{ONION}:+80"), "no port +80"),
        (&format!("{ONION}:0"), "sid.onion:80"),
    ]);
    for prefix in ["unix:/", "unix:@x"] {
        let long = format!("{prefix}{}", "x".repeat(107));
        assert!(parse(&long).expect_err("too long").to_string().contains("108 bytes"));
        assert!(parse(&long[..long.len() - 1]).is_ok());
    }
}

#[test]
fn what_is_no_address_says_why_and_what_to_write() {
    refused(&[
        ("", "empty"),
        ("handler:", "empty"),
        ("other.internal:80", "host name"),
        ("example.com", "host name"),
        ("localhost", "write localhost:80"),
        ("localhost:0", "no port 0; write one from 1 to 65535, as in localhost:80"),
        ("app.internal", "write app.internal:80"),
        ("app.internal:http", "no port http"),
        ("app.internal:0", "no port 0"),
        ("http://127.0.0.1:81", "URL and not an address; write 127.0.0.1:81"),
        ("HTTP://user:word@127.0.0.1/path", "write 127.0.0.1:80"),
        ("http://localhost:8080/", "write localhost:8080"),
        ("https://[::1]/", "bytes are passed on as they are; write [::1]:443"),
        ("http://example.com/", "write 127.0.0.1:8080"),
        (&format!("http://{ONION}/"), "sid.onion:80"),
        ("8080", "write 127.0.0.1:8080"),
        (":8080", "write 127.0.0.1:8080"),
        ("*:8081", "* is no address; write 127.0.0.1:8081"),
        ("*", "write 127.0.0.1:8080"),
        ("/run/app.sock", "write unix:/run/app.sock"),
        ("127.0.0.1", "write 127.0.0.1:8080"),
        ("::1", "there is no port; write [::1]:8080"),
        ("[::1]", "there is no port; write [::1]:8080"),
        ("::1:8081", "in brackets, with the port after them; write [::1]:8081"),
        ("1:2:3:4:5:6:7:8:80", "write [1:2:3:4:5:6:7:8]:80"),
        ("2001:db8::", "there is no port; write [2001:db8::]:8080"),
        ("[::1]8081", "write [::1]:8081"),
        ("[::1:80", "in brackets, with the port after them; write [::1]:80"),
        ("[127.0.0.1:80", "brackets are for IPv6 addresses; write 127.0.0.1:80"),
        ("[127.0.0.1]:81", "brackets are for IPv6 addresses; write 127.0.0.1:81"),
        ("[fe80::1%lo]:80", "write [fe80::1%1]:80"),
        ("[fe80::1%nowhere0]:80", "write [fe80::1%2]:80"),
        ("fe80::1%lo", "write [fe80::1%1]:8080"),
        ("[fe80::1]:80", "belongs to one interface"),
        ("127.0.0.1:0", "no port 0; write one from 1 to 65535, as in 127.0.0.1:8080"),
        ("[::1]:0", "as in [::1]:8080"),
        ("127.0.0.1:70000", "no port 70000"),
        ("127.0.0.1:http", "no port http"),
        ("127.0.0:80", "this is no address"),
        ("127.0.0.1/24:80", "this is no address"),
        ("127.0.0.1:80:90", "this is no address"),
        ("127.0.0.1 80", "this is no address"),
    ]);
}

#[test]
fn a_remote_instance_is_an_onion_address_and_no_more() {
    for text in [ONION, &ONION.to_uppercase(), &format!(" {ONION}\n")] {
        assert_eq!(onion_alone(text).as_deref(), Ok(ONION));
    }
    for text in [format!("http://{ONION}/"), format!("{ONION}:80"), format!("{ONION}/")] {
        let error = onion_alone(&text).expect_err(&text).to_string();
        assert!(error.ends_with(&format!("write {ONION}")), "{error}");
    }
}
