//! A new process takes over from the one that runs, while a stock C tor client fetches all the
//! while; and one that dies on the way.

use nix::sys::signal::{Signal, kill};
use rustbalance_lab::measure::has_ended;
use rustbalance_lab::wait_until;

use crate::service::{Service, Spec};
use crate::upgrading::{process, serving, upgrade, upgrade_under_requests};

/// One: each takes a minute, since both processes build circuits slowly. `long_upgrades` has ten.
#[test]
fn an_upgrade_loses_no_request() {
    let (lab, _) = crate::lab();
    upgrade_under_requests(lab, 1);
}

#[test]
fn a_new_process_that_dies_leaves_the_old_one_serving() {
    let (lab, client) = crate::lab();
    let spec = Spec { top_lines: "drain_s = 3".to_owned(), ..Spec::default() };
    let service = Service::start(lab, &spec);
    let old = serving(&service).expect("it answers");
    service.signal(Signal::SIGUSR2);
    let children = format!("/proc/{old}/task/{old}/children");
    let new = wait_until("a new process is there", 10, || {
        service.log().contains("to take over").then_some(())?;
        std::fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()
    })
    .expect("it is started");
    let _ = kill(process(new), Signal::SIGKILL);
    wait_until("the old process goes on", 10, || {
        service.log().contains("this one goes on").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    assert_eq!(serving(&service), Some(old));
    client.fetch_fresh(&service.onion, 80, "/").expect("it serves");
    upgrade(lab, &service).unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    let last = serving(&service).expect("it answers");
    let _ = kill(process(last), Signal::SIGTERM);
    wait_until("the last one ends", 30, || has_ended(last).then_some(())).expect("it drains");
}
