//! Services that come, change and go at SIGHUP, while another one is served.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustbalance_lab::client::fresh_user;
use rustbalance_lab::wait_until;
use serde_json::Value;

use crate::recovery::Fetched;
use crate::serve::echo;
use crate::service::{Service, Spec};

/// A second service with the built-in page, and an echo on the first one's port 7.
fn spec(main: &str, second: bool, echo: &str) -> Spec {
    let port = format!("[[service.port]]\nvirtual = 7\nbackends = [\"{echo}\"]");
    let second = match second {
        true => {
            "[[service]]\nname = \"second\"\nintro_points_per_instance = 2\n\
             [[service.port]]\nvirtual = 80\nhello = true"
        }
        false => "",
    };
    Spec {
        top_lines: "drain_s = 4".to_owned(),
        service_lines: format!("{main}\n{port}"),
        turbo_lines: second.to_owned(),
        ..Spec::default()
    }
}

/// Wait until the status says this.
fn wait(service: &Service, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, 60, || Some(service.status()).filter(&is_so))
        .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", service.status(), service.log()))
}

/// A number of the first instance of a service.
fn number(service: &Value, field: &str) -> u64 {
    service["instances"][0][field].as_u64().expect("it is known")
}

/// Send a line and have it back.
fn echoes(stream: &mut impl Echo) {
    stream.write_all(b"still there?").expect("the stream is open");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("it comes back");
    assert_eq!(&answer, b"still there?");
}

/// A stream through Tor.
trait Echo: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> Echo for T {}

#[test]
fn services_come_change_and_go_without_a_gap_for_the_others() {
    let (lab, client) = crate::lab();
    let echo = echo();
    let service = Service::start(lab, &spec("", false, &echo));
    let pid = service.pid();
    let mut stream =
        client.stream(&service.onion, 7, &fresh_user()).expect("the service can be reached");
    echoes(&mut stream);
    let over = AtomicBool::new(false);
    let patience = Duration::from_secs(60);
    let fetched = std::thread::scope(|scope| {
        let fetch = scope.spawn(|| Fetched::until(&over, client, &service.onion, patience));
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // A second one comes.
            service.configure(lab, &spec("", true, &echo));
            service.signal(Signal::SIGHUP);
            let status = wait(&service, "the second service is ready", |status| {
                status["services"][1]["state"] == "ready"
            });
            let second = &status["services"][1];
            assert_eq!(number(second, "intro_points"), 2);
            // The open stream's client, which may have come to either instance.
            let instances = status["services"][0]["instances"].as_array().expect("a list");
            let clients = instances.iter().filter_map(|one| one["rendezvous_total"].as_u64());
            assert!(clients.sum::<u64>() > 0, "{status:#}");
            let onion = second["onion"].as_str().expect("an address").to_owned();
            client.fetch_fresh(&onion, 80, "/").expect("the second service is served");
            assert!(service.log().contains(&format!("onion {onion}")), "{}", service.log());

            // The first one changes.
            service.configure(lab, &spec("intro_points_per_instance = 2", true, &echo));
            service.signal(Signal::SIGHUP);
            wait(&service, "the first one has other points", |status| {
                let first = &status["services"][0];
                let main = if first["name"] == "main" { first } else { &status["services"][1] };
                main["state"] == "ready" && number(main, "intro_points") == 2
            });
            client.fetch_fresh(&onion, 80, "/").expect("the second service is served");

            // The second one goes.
            service.configure(lab, &spec("intro_points_per_instance = 2", false, &echo));
            service.signal(Signal::SIGHUP);
            wait(&service, "one service is left", |status| status["services"][1].is_null());
            wait_until("the second one has ended", 30, || {
                service.log().contains("the service has ended").then_some(())
            })
            .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
            let impatient = client.clone().with_timeout(Duration::from_secs(10));
            impatient.fetch_fresh(&onion, 80, "/").expect_err("nobody serves it any more");
        }));
        over.store(true, Ordering::Relaxed);
        let fetched = fetch.join().expect("the client does not panic");
        changes.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        fetched
    });
    assert!(fetched.count >= 3, "only {} requests", fetched.count);
    assert!(fetched.failed.is_empty(), "{fetched:#?}\n{}", service.log());
    // What was open before everything is open still, and it is the same process.
    echoes(&mut stream);
    assert_eq!(service.status()["pid"], pid);
}

#[test]
fn a_key_that_is_gone_changes_nothing() {
    let (lab, client) = crate::lab();
    let service = Service::start(lab, &Spec::default());
    let key = crate::service::state_dir(&service).join("main.key");
    std::fs::remove_file(&key).expect("it is there");
    service.signal(Signal::SIGHUP);
    wait_until("it is refused", 10, || service.log().contains("its key file").then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    assert!(!key.exists(), "no other key was made");
    assert_eq!(service.service_status()["onion"], service.onion);
    client.fetch_fresh(&service.onion, 80, "/").expect("it is served on");
}
