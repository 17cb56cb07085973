//! What HSDirs may say, and what it is taken for.

use std::time::{Duration, SystemTime};

use tor_hscrypto::Subcredential;
use tor_netdir::params::NetParameters;

use super::{Held, outer_revision, read};
use crate::limits;
use crate::onion::descriptor;
use crate::onion::descriptor::tests::{keys, point};
use crate::onion::period::PeriodKeys;
use crate::onion::published::Digest;

/// A document of ours with two points.
fn document(keys: &PeriodKeys, revision: u64) -> String {
    let points = [(0, point(1)), (1, point(2))];
    let (params, now) = (NetParameters::default(), SystemTime::now());
    let built = descriptor::build(keys, &points, revision, true, &params, now);
    built.expect("it can be built").text().to_owned()
}

#[test]
fn a_descriptor_of_the_key_is_read_whoever_signed_it() {
    let keys = keys();
    let text = document(&keys, 7);
    match read(&text, keys.blinded.id(), keys.subcredential, SystemTime::now()) {
        Held::Descriptor(held) => {
            assert_eq!((held.revision, held.points.len()), (Some(7), 2));
            assert_eq!(held.digest, Digest::of(&text));
        }
        other => panic!("{other:?}"),
    }
    // One whose inner layers are not for our clients is signed by the key all the same.
    match read(&text, keys.blinded.id(), Subcredential::from([0; 32]), SystemTime::now()) {
        Held::Descriptor(held) => assert_eq!((held.revision, held.points.len()), (Some(7), 0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_key_did_not_sign_is_nobodys_descriptor() {
    let (keys, others) = (keys(), keys());
    let (text, now) = (document(&keys, 7), SystemTime::now());
    let later = now + Duration::from_secs(limits::DESCRIPTOR_CERT_LIFETIME_SECONDS + 7200);
    let changed = text.replace("revision-counter 7", "revision-counter 9");
    let cases = [
        ("another key's", document(&others, 7), now),
        ("one that was changed", changed, now),
        ("one that is over", text.clone(), later),
        ("half of one", text[..text.len() / 2].to_owned(), now),
        ("nothing", String::new(), now),
        ("noise", "404 not here\n".to_owned(), now),
    ];
    for (what, text, now) in cases {
        let held = read(&text, keys.blinded.id(), keys.subcredential, now);
        assert!(matches!(held, Held::Unreadable(_)), "{what}: {held:?}");
    }
}

#[test]
fn the_counter_is_the_documents_and_not_what_stands_before_it() {
    let document = "hs-descriptor 3\nrevision-counter 7\n";
    assert_eq!(outer_revision(document), Some(7));
    assert_eq!(outer_revision(&format!("revision-counter 9\n{document}")), Some(7));
    assert_eq!(outer_revision("hs-descriptor 3\nrevision-counter many\n"), None);
    assert_eq!(outer_revision("revision-counter 9\n"), None);
}
