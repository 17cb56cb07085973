//! What the HSDirs hold, as `rustbalance descriptor verify` fetches it back; and the alarm when
//! somebody else publishes with the same key.

use std::process::Command;

use rustbalance_lab::wait_until;
use serde_json::Value;

use crate::service::{Service, Spec, state_dir};

/// Run `rustbalance descriptor` for a service: exit code, standard output.
fn descriptor(service: &Service, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rustbalance"))
        .arg("descriptor")
        .args(arguments)
        .arg("--socket")
        .arg(state_dir(service).join("admin.sock"))
        .output()
        .expect("the binary was built");
    (output.status.code(), String::from_utf8(output.stdout).expect("it writes UTF-8"))
}

/// The answer in JSON.
fn in_json(service: &Service, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, text) = descriptor(service, &[arguments, &["--json"]].concat());
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Wait until every HSDir holds the newest.
fn wait_until_good(service: &Service) -> Value {
    wait_until("every HSDir holds the newest descriptor", 120, || {
        let (code, found) = in_json(service, &["verify", "main"]);
        (code == Some(0)).then_some(found)
    })
    .unwrap_or_else(|error| panic!("{error}\n{}\n{}", service.status(), service.log()))
}

#[test]
fn every_hsdir_is_asked_on_request_and_a_look_at_one_finds_a_second_publisher() {
    let (lab, client) = crate::lab();
    let spec = Spec { service_lines: "theft_check_s = 60".to_owned(), ..Spec::default() };
    let service = Service::start(lab, &spec);
    let good = wait_until_good(&service);
    let hsdirs = good[0]["verification"]["hsdirs"].as_array().expect("a list");
    assert!(hsdirs.len() >= 8, "{good:#}");
    assert!(hsdirs.iter().all(|one| one["state"] == "newest"), "{good:#}");
    let (code, receipts) = in_json(&service, &["show", "main"]);
    assert_eq!(code, Some(0));
    let uploads = receipts[0]["descriptors"][0]["hsdirs"].as_array().expect("a list");
    let taken = |one: &Value| one["state"] == "ok" && one["attempts"].as_u64() >= Some(1);
    assert!(!uploads.is_empty() && uploads.iter().all(taken), "{receipts:#}");
    assert_eq!(descriptor(&service, &["verify", "nobody"]).0, Some(1));

    // The same key, elsewhere: as another program that was not stopped, or a thief.
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let elsewhere = dir.path().join("state");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::create_dir(&elsewhere).expect("the directory is writable");
    std::fs::set_permissions(&elsewhere, private).expect("it is ours");
    std::fs::copy(state_dir(&service).join("main.key"), elsewhere.join("main.key"))
        .expect("the key is there");
    let other = Service::start_in(lab, &Spec::default(), dir);
    assert_eq!(other.onion, service.onion);
    // Nobody asks: what finds it is a look at one HSDir, after 30 to 90 s.
    let checks = service.service_status()["verification"]["checks_total"].clone();
    let alarmed = wait_until("the other's descriptor is noticed", 240, || {
        let found = service.service_status()["verification"].clone();
        (found["alarm"] == true).then_some(found)
    })
    .unwrap_or_else(|error| panic!("{error}\n{:#}\n{}", service.service_status(), service.log()));
    assert!(alarmed["looks_total"].as_u64() >= Some(1), "{alarmed:#}");
    assert_eq!(alarmed["checks_total"], checks, "all are asked only later: {alarmed:#}");
    assert_eq!(descriptor(&service, &["verify"]).0, Some(1), "{alarmed:#}");
    assert!(service.log().contains("another publisher holds this service's key"));
    wait_until("status tells of it", 30, || {
        let status = service.service_status();
        let told = status["state"] == "degraded" && status["verification"]["alarm"] == true;
        (told && status["verification"]["foreign_total"].as_u64() >= Some(1)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{:#}", service.service_status()));

    // It is stopped: ours is published above it, and the alarm ends after two clean checks.
    drop(other);
    wait_until_good(&service);
    let status = service.service_status();
    assert_eq!(status["state"], "ready", "{status:#}");
    assert_eq!(status["verification"]["alarm"], false, "{status:#}");
    client.fetch_fresh(&service.onion, 80, "/").expect("clients come to the one that is left");
}
