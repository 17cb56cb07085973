//! What has to be true again once a fault is over, and requests that go on all the while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustbalance_lab::{Client, wait_until};

use crate::service::Service;

/// Requests on fresh circuits, one after another, and those that failed.
#[derive(Debug, Default)]
pub struct Fetched {
    /// How many there were.
    pub count: usize,
    /// When each failed one began, and why it failed.
    pub failed: Vec<(Duration, String)>,
}

impl Fetched {
    /// Fetch until `over`; each request has this long.
    pub fn until(over: &AtomicBool, client: &Client, onion: &str, patience: Duration) -> Fetched {
        let client = client.clone().with_timeout(patience);
        let (begun, mut fetched) = (Instant::now(), Fetched::default());
        let (_never, pause) = std::sync::mpsc::sync_channel::<()>(1);
        while !over.load(Ordering::Relaxed) {
            let at = begun.elapsed();
            fetched.count += 1;
            if let Err(error) = client.fetch_fresh(onion, 80, "/") {
                fetched.failed.push((at, format!("{error:#}")));
                // A tor client that knows no way says so at once: such failures are not to count
                // for more than those that take their time.
                let _ =
                    pause.recv_timeout(Duration::from_secs(1).saturating_sub(begun.elapsed() - at));
            }
        }
        fetched
    }
}

/// Wait until five requests in a row are served; how long that took.
pub fn served_again(client: &Client, service: &Service, seconds: u64) -> Duration {
    let (started, mut in_a_row) = (Instant::now(), 0);
    wait_until("five requests in a row", seconds, || {
        in_a_row = match client.fetch_fresh(&service.onion, 80, "/") {
            Ok(_) => in_a_row + 1,
            Err(_) => 0,
        };
        (in_a_row == 5).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
    started.elapsed()
}

/// Wait until the service is ready with every point; how long that took.
pub fn whole_again(service: &Service) -> Duration {
    let started = Instant::now();
    wait_until("every instance serves", 180, || {
        let main = service.try_status()?["services"][0].clone();
        let instances = main["instances"].as_array()?.clone();
        let whole = |one: &serde_json::Value| one["state"] == "serving" && one["intro_points"] == 3;
        (main["state"] == "ready" && instances.iter().all(whole)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", service.status(), service.log()));
    started.elapsed()
}

/// Wait until the service is degraded for a reason that has `word` in it.
pub fn degraded_for(service: &Service, word: &str, seconds: u64) {
    wait_until(&format!("degraded: {word}"), seconds, || {
        let main = service.try_status()?["services"][0].clone();
        let says = main["reason"].as_str()?.contains(word);
        (main["state"] == "degraded" && says).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", service.status(), service.log()));
}
