//! The answer, byte for byte, and a socket that writes it to whoever connects.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::{answer, serve};
use crate::admin::status::{DescriptorStatus, InstanceStatus, ProcessStatus};
use crate::admin::tests::sample;
use crate::admin::{Place, StatusSource};
use crate::onion::status::Engine;

/// A service with a remote instance that was seen, one that was not, and one in this process.
fn status() -> ProcessStatus {
    let mut status = sample();
    let service = &mut status.services[0];
    let published = service.descriptors[0].clone();
    let descriptor = |period, at: &str| DescriptorStatus {
        period,
        published_at: at.to_owned(),
        ..published.clone()
    };
    // In whatever order they are: the earlier period is OnionBalance's first.
    service.descriptors =
        vec![descriptor(8, "2026-11-28T03:00:01Z"), descriptor(7, "2026-11-28T03:00:00Z")];
    let instance = service.instances[0].clone();
    let seen = InstanceStatus {
        engine: Engine::Remote,
        address: Some("seen.onion".to_owned()),
        intro_points: 3,
        received_at: Some("2026-11-28T02:59:59Z".to_owned()),
        changed_at: Some("2026-11-27T12:00:00Z".to_owned()),
        ..instance.clone()
    };
    let unseen = InstanceStatus {
        address: Some("unseen.onion".to_owned()),
        received_at: None,
        changed_at: None,
        ..seen.clone()
    };
    let here = InstanceStatus { engine: Engine::Arti, address: None, ..seen.clone() };
    service.instances = vec![seen, unseen, here];
    service.onion = "service.onion".to_owned();
    status.services.truncate(1);
    status
}

#[test]
fn the_answer_is_onionbalances_byte_for_byte() {
    let text = String::from_utf8(answer(&status())).expect("JSON is UTF-8");
    assert_eq!(
        text,
        "{\"services\": [{\"instances\": [{\"descriptorReceived\": \"2026-11-28 02:59:59\", \
         \"introPointsNum\": 3, \"introSetModified\": \"2026-11-27 12:00:00\", \
         \"onionAddress\": \"seen.onion\"}, {\"onionAddress\": \"unseen.onion\", \
         \"received\": null}], \"onionAddress\": \"service.onion\", \
         \"publishAttemptFirstDescriptor\": \"2026-11-28 03:00:00\", \
         \"publishAttemptSecondDescriptor\": \"2026-11-28 03:00:01\"}]}"
    );
}

#[test]
fn before_the_first_publication_there_is_no_time() {
    let mut status = status();
    status.services[0].descriptors.clear();
    status.services[0].instances.clear();
    let text = String::from_utf8(answer(&status)).expect("JSON is UTF-8");
    assert_eq!(
        text,
        "{\"services\": [{\"instances\": [], \"onionAddress\": \"service.onion\", \
         \"publishAttemptFirstDescriptor\": null, \"publishAttemptSecondDescriptor\": null}]}"
    );
}

/// Says always the same.
struct Told;

impl StatusSource for Told {
    fn status(&self) -> ProcessStatus {
        status()
    }
}

/// Proves that whoever connects is told without asking, as often as it likes, and then the
/// connection ends.
#[test]
fn whoever_connects_is_told_and_the_connection_ends() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("control");
    let driver = tokio::runtime::Builder::new_current_thread().enable_all().build();
    driver.expect("a driver").block_on(async {
        let source: Arc<dyn StatusSource> = Arc::new(Told);
        let mut served = std::pin::pin!(serve(&path, Place::Free, &source));
        // One poll binds the socket, or says why not.
        tokio::select! {
            biased;
            ended = &mut served => ended.expect("the socket can be made"),
            () = tokio::task::yield_now() => {}
        }
        let path = path.clone();
        let asked = tokio::task::spawn_blocking(move || {
            for _ in 0..3 {
                let mut told = Vec::new();
                let mut stream = UnixStream::connect(&path).expect("it listens");
                stream.read_to_end(&mut told).expect("it ends");
                assert_eq!(told, answer(&status()));
            }
        });
        tokio::select! {
            _ = &mut served => panic!("it has ended"),
            answer = asked => answer.expect("no panic"),
        }
    });
}
