//! When requests begin, over which circuits, and what the report counts.

use std::time::Duration;

use rustbalance_load::{
    Circuits, Error, Load, Observer, Plan, PlanError, Progress, run, run_until,
};

use crate::server::{BIG, HELLO, Server, plan};

/// An observer of nothing.
struct Nobody;

impl Observer for Nobody {}

const MILLISECOND: Duration = Duration::from_millis(1);

/// A closed loop sends exactly the requests that are allowed, over one circuit and connection for
/// each client, and every sample is in order.
#[tokio::test]
async fn a_closed_loop_sends_what_is_allowed() {
    let server = Server::start().await;
    let plan = Plan { clients: 7, requests: 100, ..plan(&[&server], 80, "/hello") };
    let report = run(plan, |_| {}).await.expect("the run begins");
    assert_eq!((report.requests, report.succeeded, report.failed), (100, 100, 0));
    assert_eq!((report.connections, report.circuits_new), (7, 7));
    assert_eq!(report.bytes, 100 * HELLO.len() as u64);
    assert_eq!((report.interrupted, report.unfinished, report.resent), (false, 0, 0));
    assert_eq!(report.connected.count(), 7, "kept connections are not connected again");
    assert_eq!((report.first_byte.count(), report.last_byte.count()), (100, 100));
    assert_eq!((server.users().len(), server.different_users()), (7, 7));
    assert_eq!(report.samples.len(), 100);
    for sample in &report.samples {
        let (first, last) = (sample.first_byte.expect("came"), sample.last_byte.expect("came"));
        assert!(sample.intended <= sample.start && sample.start <= first, "{sample:?}");
        assert!(first <= last && last <= sample.ended, "{sample:?}");
    }
}

/// The duration ends a run that has requests left.
#[tokio::test]
async fn the_duration_ends_a_run() {
    let server = Server::start().await;
    let duration = 100 * MILLISECOND;
    let plan = Plan { duration, requests: 10_000_000, ..plan(&[&server], 80, "/hello") };
    let report = run(plan, |_| {}).await.expect("the run begins");
    assert!(report.requests > 0 && report.failed == 0, "{report:?}");
    assert!(report.samples.iter().all(|sample| sample.intended < duration));
    assert_eq!(report.requests, report.samples.len() as u64 + report.samples_dropped);
}

/// An open loop begins as many requests as its rate and duration say.
#[tokio::test]
async fn an_open_loop_keeps_its_rate() {
    let server = Server::start().await;
    let plan = Plan {
        clients: 50,
        load: Load::Open { rate: 500.0 },
        duration: Duration::from_secs(1),
        ..plan(&[&server], 80, "/hello")
    };
    let report = run(plan, |_| {}).await.expect("the run begins");
    assert_eq!((report.requests, report.failed), (500, 0));
    let mut intended: Vec<_> = report.samples.iter().map(|sample| sample.intended).collect();
    intended.sort_unstable();
    for (index, at) in (0_u32..).zip(intended) {
        let expected = 2 * MILLISECOND * index;
        assert!(at.abs_diff(expected) < MILLISECOND / 1000, "{index}: {at:?}");
    }
}

/// No coordinated omission: when the service stalls, the requests that were meant to begin
/// meanwhile are charged from then, though the one client could only send them afterwards.
#[tokio::test]
async fn an_open_loop_measures_from_the_intended_start() {
    let server = Server::start().await;
    let plan = Plan {
        clients: 1,
        load: Load::Open { rate: 50.0 },
        requests: 20,
        ..plan(&[&server], 80, "/gate")
    };
    // The first progress comes after a second, when all twenty are due since 0.6 s.
    let opened = |progress: &Progress| {
        assert!(progress.elapsed >= Duration::from_secs(1));
        server.open_gate();
    };
    let report = run(plan, opened).await.expect("the run begins");
    assert_eq!((report.requests, report.failed), (20, 0));
    for (index, sample) in (0_u32..).zip(&report.samples) {
        assert!(sample.intended.abs_diff(20 * MILLISECOND * index) < MILLISECOND, "{sample:?}");
        let first_byte = sample.first_byte.expect("came");
        assert!(first_byte >= Duration::from_secs(1), "after the stall: {sample:?}");
        assert!(index == 0 || sample.start >= Duration::from_secs(1), "waited: {sample:?}");
    }
    let shortest = report.first_byte.quantile_s(0.0).expect("twenty");
    assert!(shortest > 0.6, "the histogram shows the waiting: {shortest}");
}

/// Fresh circuits are a user name and a connection for each request; kept ones are one of each for
/// a client.
#[tokio::test]
async fn fresh_circuits_have_user_names_of_their_own() {
    let server = Server::start().await;
    let plan = Plan {
        clients: 4,
        requests: 40,
        circuits: Circuits::Fresh,
        ..plan(&[&server], 80, "/hello")
    };
    let report = run(plan, |_| {}).await.expect("the run begins");
    assert_eq!((report.requests, report.failed), (40, 0));
    assert_eq!((report.circuits_new, report.connections), (40, 40));
    assert_eq!((server.users().len(), server.different_users()), (40, 40));
    assert_eq!(report.connected.count(), 40);
}

/// Where the service closes connections, a kept circuit stays the same: the user name does not
/// change.
#[tokio::test]
async fn kept_circuits_survive_a_closed_connection() {
    let server = Server::start().await;
    let once = Plan { clients: 1, requests: 5, ..plan(&[&server], 80, "/closing") };
    let report = run(once, |_| {}).await.expect("the run begins");
    assert_eq!((report.succeeded, report.failed), (5, 0), "{:?}", report.failures);
    assert_eq!((report.circuits_new, report.connections), (1, 5));
    assert_eq!((server.users().len(), server.different_users()), (5, 1));
}

/// A request that meets the closing of its kept connection is sent again, once, and counted.
#[tokio::test]
async fn a_request_on_a_closing_connection_is_sent_again() {
    let server = Server::start().await;
    let plan = Plan { clients: 1, requests: 5, ..plan(&[&server], 80, "/second") };
    let report = run(plan, |_| {}).await.expect("the run begins");
    assert_eq!((report.succeeded, report.failed), (5, 0), "{:?}", report.failures);
    assert_eq!((report.resent, report.connections, report.circuits_new), (4, 5, 1));
}

/// The clients are spread evenly over the proxies.
#[tokio::test]
async fn clients_are_spread_over_the_proxies() {
    let (first, second) = (Server::start().await, Server::start().await);
    let hello = plan(&[&first, &second], 80, "/gate");
    let plan = Plan { clients: 6, requests: 6, ..hello };
    // Nobody is done before everybody has asked.
    let all = async {
        tokio::join!(first.wait_for_requests(3), second.wait_for_requests(3));
        first.open_gate();
        second.open_gate();
    };
    let (report, ()) = tokio::join!(run(plan, |_| {}), all);
    assert_eq!(report.expect("the run begins").succeeded, 6);
    assert_eq!((first.different_users(), second.different_users()), (3, 3));
}

/// Held clients keep one circuit and one connection each, and send at their own instants.
#[tokio::test]
async fn held_clients_send_at_fixed_instants() {
    let server = Server::start().await;
    let every = 100 * MILLISECOND;
    let plan = Plan {
        clients: 10,
        load: Load::Hold { every },
        ramp: every,
        duration: 350 * MILLISECOND,
        ..plan(&[&server], 80, "/hello")
    };
    let report = run(plan, |_| {}).await.expect("the run begins");
    // Client i sends at 10 i, 100 + 10 i, 200 + 10 i, and the first five also at 300 + 10 i.
    assert_eq!((report.requests, report.failed), (35, 0));
    assert_eq!(
        (report.connections, report.circuits_new, report.connections_open_max),
        (10, 10, 10)
    );
    for sample in &report.samples {
        let offset = sample.intended.as_millis() % 100;
        assert_eq!(offset, 10 * sample.client as u128, "{sample:?}");
    }
}

/// A held client keeps its connection until the duration is over, also when it has nothing more to
/// send: the progress at one second finds all open, long after the only requests.
#[tokio::test]
async fn held_clients_are_held_to_the_end() {
    let server = Server::start().await;
    let plan = Plan {
        clients: 5,
        load: Load::Hold { every: Duration::from_secs(3600) },
        duration: Duration::from_millis(1300),
        ..plan(&[&server], 80, "/hello")
    };
    let mut open = Vec::new();
    let report = run(plan, |progress| open.push(progress.connections_open)).await;
    assert_eq!(report.expect("the run begins").succeeded, 5);
    assert_eq!(open, [5]);
}

/// A body is read no further than wanted, whatever else the service would send.
#[tokio::test]
async fn a_body_is_read_no_further_than_wanted() {
    let server = Server::start().await;
    let big = Plan { clients: 2, requests: 6, ..plan(&[&server], 80, "/big") };
    let whole = run(big.clone(), |_| {}).await.expect("the run begins");
    assert_eq!((whole.succeeded, whole.bytes, whole.connections), (6, 6 * BIG as u64, 2));
    let part = Plan { bytes_max: Some(1000), ..big };
    let part = run(part, |_| {}).await.expect("the run begins");
    assert_eq!((part.succeeded, part.bytes), (6, 6000));
    assert_eq!(part.connections, 6, "a connection in the middle of a body is of no use");
}

/// Stopping ends a run at once, with what was under way counted apart.
#[tokio::test]
async fn stopping_ends_a_run_with_its_report() {
    let server = Server::start().await;
    let plan = Plan { clients: 3, ..plan(&[&server], 80, "/hang") };
    let stop = server.wait_for_requests(3);
    let report = run_until(plan, &mut Nobody, stop).await.expect("the run begins");
    assert!(report.interrupted);
    assert_eq!((report.requests, report.unfinished, report.failed), (0, 3, 0));
}

/// In an open loop, requests that were due and found no client are unfinished as well.
#[tokio::test]
async fn stopping_counts_the_requests_that_wait() {
    let server = Server::start().await;
    let plan = Plan {
        clients: 1,
        requests: 8,
        load: Load::Open { rate: 1000.0 },
        ..plan(&[&server], 80, "/hang")
    };
    let (sender, mut receiver) = tokio::sync::watch::channel(false);
    /// Stops the run when the first progress comes, all requests being due then.
    struct Stopper(tokio::sync::watch::Sender<bool>);
    impl Observer for Stopper {
        fn progress(&mut self, _: &Progress) {
            self.0.send_replace(true);
        }
    }
    let stop = async { drop(receiver.wait_for(|stop| *stop).await) };
    let report = run_until(plan, &mut Stopper(sender), stop).await.expect("the run begins");
    assert_eq!((report.requests, report.unfinished), (0, 8));
}

/// Only so many samples are kept; the numbers are of all requests.
#[tokio::test]
async fn samples_are_bounded() {
    let server = Server::start().await;
    let plan = Plan { requests: 30, samples_max: 10, ..plan(&[&server], 80, "/hello") };
    let report = run(plan, |_| {}).await.expect("the run begins");
    assert_eq!((report.samples.len(), report.samples_dropped, report.requests), (10, 20, 30));
    assert_eq!(report.first_byte.count(), 30);
}

/// A plan out of bounds opens no connection.
#[tokio::test]
async fn a_plan_out_of_bounds_is_refused() {
    let server = Server::start().await;
    let plan = Plan { clients: 2001, ..plan(&[&server], 80, "/hello") };
    let error = run(plan, |_| {}).await.expect_err("too many clients");
    assert!(matches!(error, Error::Plan(PlanError::OutOfRange { .. })), "{error}");
    assert!(server.users().is_empty());
}
