//! Somebody who wants nothing but that others are not served: circuits without a stream, and
//! rendezvous points that do not answer.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustbalance_lab::client::fresh_user;
use rustbalance_lab::{Client, backend, wait_until};
use serde_json::Value;

use crate::introducer::{Introducer, Meeting};
use crate::serve::echo;
use crate::service::{Service, Spec};

/// Numbers, one after another, until `over`; how many there were.
fn numbers(over: &Arc<AtomicBool>, written: &Arc<AtomicU64>) -> String {
    let (over, written) = (Arc::clone(over), Arc::clone(written));
    let serve = move |mut stream: std::net::TcpStream| {
        // A download that goes on for as long as it has to, and leaves the processor to others.
        let (_never, pace) = std::sync::mpsc::sync_channel::<()>(1);
        let mut next = 0_u64;
        while !over.load(Ordering::Relaxed) {
            let block: Vec<u8> = (next..next + 1024).flat_map(u64::to_le_bytes).collect();
            if stream.write_all(&block).is_err() {
                return;
            }
            next += 1024;
            written.store(next, Ordering::Relaxed);
            let _ = pace.recv_timeout(Duration::from_millis(10));
        }
    };
    backend(serve).expect("loopback has ports")
}

/// Read such numbers to their end, and compare each; how many came in order.
fn read_numbers(mut stream: rustbalance_lab::client::Stream) -> u64 {
    let mut expected = 0_u64;
    let mut number = [0; 8];
    while stream.read_exact(&mut number).is_ok() {
        assert_eq!(u64::from_le_bytes(number), expected);
        expected += 1;
    }
    expected
}

/// Whether a new client gets an answer.
fn reached(client: &Client, onion: &str) -> Result<(), String> {
    let mut stream =
        client.stream(onion, 80, &fresh_user()).map_err(|error| format!("{error:#}"))?;
    let mut answer = [0; 5];
    let asked = stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut answer));
    asked.map_err(|error| error.to_string())?;
    assert_eq!(answer, *b"hello");
    Ok(())
}

/// Ends the download when the test ends, however it does.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn silent_circuits_neither_shut_the_door_nor_touch_a_download() {
    let (lab, client) = crate::lab();
    let (over, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let download = numbers(&over, &written);
    let service_lines = format!("[[service.port]]\nvirtual = 9\nbackends = [\"{download}\"]");
    let spec = Spec { backends: vec![echo()], service_lines, instances: 1, ..Spec::default() };
    let memory = |service: &Service| service.status()["memory"].clone();
    let count = |memory: &Value, name: &str| memory[name].as_u64().expect("it is counted");
    let held = {
        let service = Service::start(lab, &spec);
        reached(client, &service.onion).expect("it serves");
        count(&memory(&service), "held_bytes")
    };
    // Room for 60 silent circuits until memory is short, and for a hundred more until new clients
    // would be refused.
    let top_lines = format!("memory_max = \"{} B\"", (held + 6_000_000) / 75 * 100);
    let service = Service::start(lab, &Spec { top_lines, ..spec });
    let stream = client.stream(&service.onion, 9, &fresh_user()).expect("it serves");
    std::thread::scope(|scope| {
        let end = End(&over);
        let reader = scope.spawn(|| read_numbers(stream));
        let silent = Meeting::Silent;
        // Those of the last ten seconds, which are nobody's turn yet, have room.
        let pace = Duration::from_secs(1);
        let flood = Introducer::start(lab, client, &service.onion, silent, pace);
        wait_until("far more silent circuits came than there is memory for", 300, || {
            let memory = memory(&service);
            assert_eq!(count(&memory, "refused_total"), 0, "{memory:#}\n{}", service.log());
            (flood.sent() >= 300 && count(&memory, "circuits_closed_unused_total") >= 100)
                .then_some(())
        })
        .unwrap_or_else(|error| {
            let (sent, failure) = (flood.sent(), flood.failure());
            panic!("{error}: {sent} ({failure}) {:#}\n{}", memory(&service), service.log())
        });
        for turn in 0..5 {
            reached(client, &service.onion).unwrap_or_else(|error| {
                panic!("{turn}: {error}: {:#}\n{}", memory(&service), service.log())
            });
        }
        drop(flood);
        drop(end);
        let read = reader.join().expect("every number is the one after the last");
        let memory = memory(&service);
        assert_eq!(read, written.load(Ordering::Relaxed), "{memory:#}\n{}", service.log());
        assert_eq!(count(&memory, "refused_total"), 0, "{memory:#}");
        assert_eq!(count(&memory, "circuits_closed_bytes_total"), 0, "{memory:#}");
    });
}

#[test]
fn rendezvous_points_that_do_not_answer_leave_places_to_honest_clients() {
    const SLOTS: u64 = 32;
    let (lab, client) = crate::lab();
    let spec = Spec { backends: vec![echo()], instances: 1, ..Spec::default() };
    let fault = format!("slots:{SLOTS}");
    let service = Service::start_with_fault(lab, &spec, &fault);
    // Connections come about, and nobody says anything.
    let nowhere = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let nowhere = Meeting::Nowhere(nowhere.local_addr().expect("it is bound"));
    let pace = Duration::from_millis(1500);
    let flood = Introducer::start(lab, client, &service.onion, nowhere, pace);
    let instance = || service.service_status()["instances"][0].clone();
    let full = |instance: &Value| instance["rendezvous_building"] == SLOTS;
    let long_full = wait_until("every place is taken, and more have come since", 120, || {
        let instance = instance();
        let came = instance["introductions_total"].as_u64()?;
        (full(&instance) && came >= 2 * SLOTS).then_some(())
    });
    long_full.unwrap_or_else(|error| {
        panic!("{error}: {} ({}) {:#}", flood.sent(), flood.failure(), instance())
    });
    let impatient = client.clone().with_timeout(Duration::from_secs(20));
    for turn in 0..5 {
        wait_until("every place is taken", 60, || full(&instance()).then_some(()))
            .unwrap_or_else(|error| panic!("{turn}: {error}: {:#}", instance()));
        reached(&impatient, &service.onion)
            .unwrap_or_else(|error| panic!("{turn}: {error}: {:#}", instance()));
    }
    let given_up = instance()["rendezvous_given_up_total"].as_u64();
    assert!(given_up > Some(0), "{:#}", instance());
}
