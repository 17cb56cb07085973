//! Each way in which a request fails is told apart.

use std::net::TcpListener;
use std::time::Duration;

use rustbalance_load::{
    Error, Failure, Load, Observer, Phase, Plan, Report, Sample, run, run_until,
};

use crate::server::{HELLO, Server, plan};

/// The report of two requests of one client, changed as wanted.
async fn two(port: u16, path: &str, change: impl FnOnce(&mut Plan)) -> Report {
    let server = Server::start().await;
    let mut plan = Plan { clients: 1, requests: 2, ..plan(&[&server], port, path) };
    change(&mut plan);
    run(plan, |_| {}).await.expect("the run begins")
}

/// Both requests failed, and in this way.
fn expect_failure(report: &Report, failure: Failure) {
    let failures: Vec<_> =
        report.failures.iter().map(|count| (count.failure, count.count)).collect();
    assert_eq!(failures, [(failure, 2)]);
    assert_eq!((report.requests, report.succeeded, report.failed), (2, 0, 2));
    assert_eq!(report.first_byte.count(), 0, "latencies are of what succeeded");
    assert!(report.samples.iter().all(|sample| sample.outcome == Err(failure)));
}

#[tokio::test]
async fn replies_of_the_proxy_are_told_by_their_code() {
    for code in [1, 4, 8, 9, 0xF0, 0xF2, 0xF7] {
        let report = two(1000 + u16::from(code), "/", |_| {}).await;
        expect_failure(&report, Failure::SocksReply(code));
        assert_eq!((report.connections, report.circuits_new), (0, 0));
    }
}

#[tokio::test]
async fn a_proxy_that_closes_in_the_handshake_is_told() {
    expect_failure(&two(1, "/", |_| {}).await, Failure::SocksHandshake);
}

#[tokio::test]
async fn each_timeout_says_what_took_the_time() {
    // Long enough to connect also on a busy machine.
    let short = |plan: &mut Plan| plan.timeout = Duration::from_millis(300);
    expect_failure(&two(2, "/", short).await, Failure::Timeout(Phase::Connecting));
    expect_failure(&two(80, "/hang", short).await, Failure::Timeout(Phase::Responding));
}

/// A request whose time is over before a client is free fails, and is not left out.
#[tokio::test]
async fn waiting_for_a_client_has_an_end() {
    let report = two(80, "/hang", |plan| {
        plan.timeout = Duration::from_millis(50);
        plan.load = Load::Open { rate: 2000.0 };
        plan.requests = 60;
    });
    let report = report.await;
    assert_eq!((report.requests, report.failed), (60, 60));
    let is_timeout = |failure: Failure| matches!(failure, Failure::Timeout(_));
    assert!(report.failures.iter().all(|count| is_timeout(count.failure)), "{report:?}");
    for sample in &report.samples {
        let lasted = sample.ended - sample.intended;
        assert!(lasted >= Duration::from_millis(49), "{sample:?}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_before_the_response_is_told() {
    expect_failure(&two(80, "/mute", |_| {}).await, Failure::NoResponse);
}

#[tokio::test]
async fn a_status_is_told_and_the_connection_kept() {
    for status in [301, 404, 503] {
        let report = two(80, &format!("/status/{status}"), |_| {}).await;
        expect_failure(&report, Failure::Status(status));
        assert_eq!(report.connections, 1);
    }
}

#[tokio::test]
async fn a_short_body_is_told() {
    let report = two(80, "/short", |_| {}).await;
    expect_failure(&report, Failure::ShortBody);
    assert_eq!(report.bytes, 2 * HELLO.len() as u64, "what came is counted");
}

#[tokio::test]
async fn a_wrong_hash_is_told_and_a_right_one_is_not() {
    let report = two(80, "/hello", |plan| plan.expect_sha256 = Some([7; 32])).await;
    expect_failure(&report, Failure::WrongHash);
    let right: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(HELLO).into();
    let report = two(80, "/hello", |plan| plan.expect_sha256 = Some(right)).await;
    assert_eq!((report.succeeded, report.failed), (2, 0));
}

/// The run does not begin when the proxy is not there at all.
#[tokio::test]
async fn a_proxy_that_is_not_there_is_an_error() {
    let server = Server::start().await;
    let mut plan = plan(&[&server], 80, "/hello");
    // Bound, let go, and so nobody's: other tests bind other addresses.
    let gone = TcpListener::bind("127.0.0.2:0").expect("loopback").local_addr().expect("bound");
    plan.socks.push(gone);
    let error = run(plan, |_| {}).await.expect_err("one of two proxies is not there");
    assert!(matches!(error, Error::Proxy { address, .. } if address == gone), "{error}");
    assert!(error.to_string().contains(&gone.to_string()));
}

/// A proxy that goes away during a run fails requests, and not the run.
#[tokio::test]
async fn a_proxy_that_goes_away_fails_requests() {
    /// Closes the proxy when the first request has ended.
    struct Closer(Option<TcpListener>);
    impl Observer for Closer {
        fn sample(&mut self, _: &Sample) {
            self.0 = None;
        }
    }
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.3:0").expect("loopback");
    let mut plan = Plan { clients: 1, requests: 3, ..plan(&[&server], 80, "/hello") };
    plan.socks = vec![listener.local_addr().expect("bound")];
    plan.timeout = Duration::from_millis(50);
    // It listens, but nobody takes its connections: the first request gets no answer.
    let report = run_until(plan, &mut Closer(Some(listener)), std::future::pending()).await;
    let outcomes: Vec<_> =
        report.expect("the run begins").samples.iter().map(|sample| sample.outcome).collect();
    let timeout = Err(Failure::Timeout(Phase::Connecting));
    assert_eq!(outcomes, [timeout, Err(Failure::Connect), Err(Failure::Connect)]);
}
