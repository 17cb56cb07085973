//! What circuits may do, and what follows from what is said of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::serve::refused;
use super::support::{begin, listen, port_80, serve, soon};
use crate::base::counters::InstanceCounters;
use crate::base::stream::{CircuitId, EndReason};
use crate::plane::config::{
    BackendAddress, BackendConfig, CircuitLimits, OverLimit, PortConfig, PortTarget, Rate, Verdict,
};
use crate::plane::{Plane, StreamOutcome};

/// The circuit of every stream that tests begin.
const CIRCUIT: CircuitId = CircuitId { instance: 0, serial: 1 };
/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(3600);

/// A plane whose port 80 has a backend for each of these verdicts.
fn plane(backends: Vec<(BackendAddress, Verdict)>) -> Arc<Plane> {
    let backend = |(address, lane): (BackendAddress, Verdict)| BackendConfig {
        lane,
        ..BackendConfig::from(address)
    };
    let target = PortTarget::Backends(backends.into_iter().map(backend).collect());
    Plane::new(vec![PortConfig { target, ..port_80(Vec::new()) }])
}

#[tokio::test]
async fn each_verdict_has_backends_of_its_own() {
    let ((normal, at_normal), (preferred, at_preferred), (banned, at_banned)) =
        (listen().await, listen().await, listen().await);
    let plane = plane(vec![
        (at_normal, Verdict::Normal),
        (at_preferred, Verdict::Preferred),
        (at_banned, Verdict::Banned),
    ]);
    let counters = Arc::new(InstanceCounters::default());
    for (verdict, listener) in
        [(Verdict::Normal, normal), (Verdict::Preferred, preferred), (Verdict::Banned, banned)]
    {
        assert!(plane.set_verdict(CIRCUIT, verdict, LONG));
        for _ in 0..3 {
            let (begun, _client, _fate) = begin(80);
            let served = serve(&plane, begun, &counters);
            soon(listener.accept()).await.expect("it comes here");
            served.abort();
        }
    }
    assert_eq!((plane.circuits().preferred, plane.circuits().banned), (0, 1));
}

#[tokio::test]
async fn without_such_backends_the_preferred_are_as_others_and_the_banned_are_refused() {
    let (listener, address) = listen().await;
    let plane = plane(vec![(address, Verdict::Normal)]);
    let counters = Arc::new(InstanceCounters::default());
    assert!(plane.set_verdict(CIRCUIT, Verdict::Preferred, LONG));
    let (begun, _client, _fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    soon(listener.accept()).await.expect("it comes here");
    served.abort();
    assert!(plane.set_verdict(CIRCUIT, Verdict::Banned, LONG));
    assert_eq!(refused(&plane, 80).await, EndReason::ResourceLimit);
    assert_eq!(plane.circuits().refused_banned_total, 1);
    assert!(plane.set_verdict(CIRCUIT, Verdict::Normal, LONG));
    let (begun, _client, _fate) = begin(80);
    let served = serve(&plane, begun, &counters);
    soon(listener.accept()).await.expect("it comes here");
    served.abort();
}

#[tokio::test]
async fn a_circuit_that_begins_too_many_streams_is_refused_and_counted() {
    let (_listener, address) = listen().await;
    let plane = plane(vec![(address, Verdict::Normal)]);
    let streams = Some(Rate { per_second: 1, burst: 2 });
    plane.set_circuit_limits(CircuitLimits { streams, ..CircuitLimits::default() });
    let counters = Arc::new(InstanceCounters::default());
    let served: Vec<_> = (0..2)
        .map(|_| {
            let (begun, client, _fate) = begin(80);
            (serve(&plane, begun, &counters), client)
        })
        .collect();
    while counters.streams_open() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(refused(&plane, 80).await, EndReason::ResourceLimit);
    assert_eq!(plane.circuits().refused_rate_total, 1);
    served.into_iter().for_each(|(task, _client)| task.abort());
}

#[tokio::test]
async fn a_circuit_that_sends_too_much_ends_as_it_was_configured() {
    for over in [OverLimit::End, OverLimit::Close] {
        let (listener, address) = listen().await;
        let plane = plane(vec![(address, Verdict::Normal)]);
        let bytes = Some(Rate { per_second: 1000, burst: 100_000 });
        plane.set_circuit_limits(CircuitLimits { bytes, over, ..CircuitLimits::default() });
        let counters = Arc::new(InstanceCounters::default());
        let (begun, mut client, fate) = begin(80);
        let served = serve(&plane, begun, &counters);
        let (mut backend, _) = soon(listener.accept()).await.expect("it comes here");
        client.write_all(&[1; 50_000]).await.expect("half of it may pass");
        soon(backend.read_exact(&mut [0; 50_000])).await.expect("it passes");
        let _ = client.write_all(&[1; 100_000]).await;
        assert_eq!(soon(served).await.expect("no panic"), StreamOutcome::OverLimit);
        assert_eq!(plane.circuits().ended_bytes_total, 1);
        let fate = fate.lock().expect("no panic");
        // Where a circuit is not ours to close, its stream is aborted.
        assert_eq!(fate.aborted, Some(EndReason::ResourceLimit));
    }
}
