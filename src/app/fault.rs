//! Faults on demand, for tests: only in programs that are built with the feature `fault-injection`,
//! which no release is.
//!
//! `RUSTBALANCE_FAULT=core-died:NUMBER:SECONDS` has a data core panic, once, so long after it began
//! to serve.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::runtime;

/// Panics when a fault of this core is due; otherwise never ends.
///
/// # Panics
/// See above.
pub(super) async fn due(core: u16) {
    static HAPPENED: AtomicBool = AtomicBool::new(false);
    if let Some(seconds) = planned(core)
        && !HAPPENED.load(Ordering::Relaxed)
    {
        runtime::sleep(Duration::from_secs(seconds)).await;
        HAPPENED.store(true, Ordering::Relaxed);
        panic!("a fault that a test has asked for");
    }
    std::future::pending().await
}

/// Seconds until the fault of a core.
fn planned(core: u16) -> Option<u64> {
    let fault = std::env::var("RUSTBALANCE_FAULT").ok()?;
    let (number, seconds) = fault.strip_prefix("core-died:")?.split_once(':')?;
    (number.parse() == Ok(core)).then(|| seconds.parse().ok()).flatten()
}
