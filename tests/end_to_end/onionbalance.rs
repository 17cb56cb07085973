//! In OnionBalance's place: SIGHUP reads OnionBalance's `config.yaml` again, and refuses one that
//! is broken.

use nix::sys::signal::Signal;
use rustbalance_lab::client::{random_file, sha256};
use rustbalance_lab::wait_until;
use serde_json::Value;

use crate::drop_in::{DropIn, told};

/// How long it may take until HSDirs have what an instance has published: C tor waits half a minute
/// with its first descriptor, and we look each minute.
const PUBLISHED_SECONDS_MAX: u64 = 180;

/// Introduction points of a C tor onion service, unless its torrc says otherwise.
const POINTS: u64 = 3;

/// The service's status, once every HSDir has descriptors with the points of `instances`, of so
/// many that are configured.
fn published(drop_in: &DropIn, instances: u64) -> Value {
    let whole = |one: &Value| {
        one["intro_points"] == instances * POINTS && one["hsdirs_ok"] == one["hsdirs_total"]
    };
    let summary = format!("Aggregating {instances}/{instances} Instances.");
    wait_until("descriptors with every instance's points", PUBLISHED_SECONDS_MAX, || {
        let service = drop_in.status()?["services"][0].clone();
        let descriptors = service["descriptors"].as_array()?;
        let all = service["summary"].as_str()?.starts_with(&summary)
            && !descriptors.is_empty()
            && descriptors.iter().all(whole);
        all.then_some(service)
    })
    .unwrap_or_else(|error| panic!("{error}: {:#?}\n{}", drop_in.status(), drop_in.log()))
}

/// The addresses of a service's instances, in order.
fn addresses(service: &Value) -> Vec<&str> {
    let instances = service["instances"].as_array().expect("a list").iter();
    instances.map(|one| one["address"].as_str().expect("they are remote")).collect()
}

/// The highest revision counter among a service's descriptors.
fn revision(service: &Value) -> u64 {
    let descriptors = service["descriptors"].as_array().expect("a list").iter();
    descriptors.filter_map(|one| one["revision"].as_u64()).max().expect("it is published")
}

#[test]
fn sighup_reads_onionbalances_file_again_and_refuses_a_broken_one() {
    let (lab, client) = crate::lab();
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let hash = random_file(root.path(), "page", 10_000).expect("it can be written");
    let nginx = lab.nginx(root.path()).expect("nginx starts");
    let ports = [(80, nginx.address.to_string())];
    let (frontends, instances) = lab.balanced(1, 2, &ports).expect("tor starts");
    let [frontend] = &frontends[..] else { panic!("{frontends:?}") };
    let [first, second] = [0, 1].map(|number| instances[number].hostname.as_str());
    let fetches = || {
        let answer = client.fetch_fresh(&frontend.hostname, 80, "/page");
        assert_eq!(sha256(&answer.expect("it is served").body), hash);
    };
    let both = std::fs::read_to_string(&frontend.config).expect("it was written");
    let without = |gone: &str| {
        let line = format!("  - address: {gone}\n");
        assert!(both.contains(&line), "{both}");
        both.replace(&line, "")
    };
    let write = |yaml: &str| std::fs::write(&frontend.config, yaml).expect("it is writable");

    write(&without(second));
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let drop_in = DropIn::start(lab, frontend, dir.path());
    let before = published(&drop_in, 1);
    assert_eq!(addresses(&before), [first]);
    fetches();

    // One that is broken changes nothing: the second instance's address has a typing error.
    write(&both.replace(second, "nobody.onion"));
    drop_in.signal(Signal::SIGHUP);
    wait_until("it is refused", 30, || drop_in.log().contains("nothing has changed").then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", drop_in.log()));
    let place = format!("{}:5: services[0].instances[1].address: ", frontend.config.display());
    wait_until("it says where", 10, || drop_in.log().contains(&place).then_some(()))
        .unwrap_or_else(|error| panic!("{error}: {place}\n{}", drop_in.log()));
    let refused = drop_in.status().expect("it runs")["services"][0].clone();
    assert_eq!(addresses(&refused), [first]);
    fetches();

    // An instance comes.
    write(&both);
    drop_in.signal(Signal::SIGHUP);
    let with_both = published(&drop_in, 2);
    assert_eq!(addresses(&with_both), [first, second]);
    assert!(revision(&with_both) > revision(&before), "{with_both:#}");
    let tells = told(&frontend.status_socket).expect("the socket is there as well");
    assert_eq!(tells["services"][0]["instances"].as_array().map(Vec::len), Some(2), "{tells:#}");
    fetches();

    // And the first one goes.
    write(&without(first));
    drop_in.signal(Signal::SIGHUP);
    let with_second = published(&drop_in, 1);
    assert_eq!(addresses(&with_second), [second]);
    assert!(revision(&with_second) > revision(&with_both), "{with_second:#}");
    fetches();
}
