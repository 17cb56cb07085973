//! Faults on demand, for tests: only in programs that are built with the feature `fault-injection`,
//! which no release is.
//!
//! `RUSTBALANCE_FAULT=core-died:NUMBER:SECONDS` has a data core panic, once, so long after it began
//! to serve; with `core-dying` eight times in all; with `core-hung` it does nothing any more.
//! `RUSTBALANCE_FAULT=slots:NUMBER` has each core build no more rendezvous at a time.
//! `no-ring:THREAD` is `runtime::driver`'s: there is no memory for the ring of this thread.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::runtime;

/// Panics when a fault of this core is due; otherwise never ends.
///
/// # Panics
/// See above.
pub(super) async fn due(core: u16) {
    static HAPPENED: AtomicU32 = AtomicU32::new(0);
    if let Some((kind, seconds)) = planned(core)
        && HAPPENED.load(Ordering::Relaxed) < kind.times()
    {
        runtime::sleep(Duration::from_secs(seconds)).await;
        HAPPENED.fetch_add(1, Ordering::Relaxed);
        match kind {
            Kind::Died | Kind::Dying => panic!("a fault that a test has asked for"),
            Kind::Hung => loop {
                std::thread::park();
            },
        }
    }
    std::future::pending().await
}

/// Rendezvous that a core may build at a time, where a test has said so.
pub(super) fn slots() -> Option<usize> {
    std::env::var("RUSTBALANCE_FAULT").ok()?.strip_prefix("slots:")?.parse().ok()
}

/// What a core does.
#[derive(Clone, Copy)]
enum Kind {
    /// It panics.
    Died,
    /// It panics, again and again.
    Dying,
    /// It hangs.
    Hung,
}

impl Kind {
    /// How often that happens.
    fn times(self) -> u32 {
        match self {
            Kind::Died | Kind::Hung => 1,
            Kind::Dying => 8,
        }
    }
}

/// The fault of a core, and the seconds until then.
fn planned(core: u16) -> Option<(Kind, u64)> {
    let fault = std::env::var("RUSTBALANCE_FAULT").ok()?;
    let (kind, rest) = fault.split_once(':')?;
    let kind = match kind {
        "core-died" => Kind::Died,
        "core-dying" => Kind::Dying,
        "core-hung" => Kind::Hung,
        _ => return None,
    };
    let (number, seconds) = rest.split_once(':')?;
    let seconds = seconds.parse().ok()?;
    (number.parse() == Ok(core)).then_some((kind, seconds))
}
