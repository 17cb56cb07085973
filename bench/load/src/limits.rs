//! The bounds of a run: what a plan may ask for, and what the library keeps in memory.
//!
//! They are there so that a mistyped number does not become an attack on a service or on the Tor
//! network. [`Plan::check`](crate::Plan::check) enforces them.

use std::time::Duration;

/// Clients at once, at most.
pub const CLIENTS_MAX: usize = 2_000;

/// Requests a second in an open loop, at most.
pub const RATE_MAX: f64 = 2_000.0;

/// Requests of one run, at most.
pub const REQUESTS_MAX: u64 = 10_000_000;

/// Length of a run, at most.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Timeout of a request, at most.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// SOCKS proxies of one plan, at most.
pub const SOCKS_MAX: usize = 256;

/// The shortest interval between the requests of a held client.
pub const EVERY_MIN: Duration = Duration::from_millis(10);

/// Samples that a report keeps, at most; about 130 bytes each.
pub const SAMPLES_MAX: usize = 1_000_000;

/// Longest latency that a histogram tells apart; what is longer counts as this.
pub const LATENCY_MAX: Duration = Duration::from_secs(7200);

/// Default of [`Plan::clients`](crate::Plan::clients).
pub const CLIENTS_DEFAULT: usize = 10;

/// Default of [`Plan::requests`](crate::Plan::requests).
pub const REQUESTS_DEFAULT: u64 = 10_000;

/// Default of [`Plan::duration`](crate::Plan::duration).
pub const DURATION_DEFAULT: Duration = Duration::from_secs(30);

/// Default of [`Plan::timeout`](crate::Plan::timeout): half of C tor's own `SocksTimeout`, so that
/// a run does not wait for tor to give up.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// Default of [`Plan::samples_max`](crate::Plan::samples_max).
pub const SAMPLES_DEFAULT: usize = 10_000;

/// How long a proxy may take to accept the connection with which a run begins.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client in a closed loop rests after a failure, so that a proxy which refuses at once
/// is not asked thousands of times a second.
pub const FAILURE_REST: Duration = Duration::from_millis(100);

/// Finished requests that may wait for the collector; a client whose sample finds the queue full
/// waits, which the collector's speed makes rare.
pub(crate) const SAMPLE_QUEUE: usize = 4_096;

/// How often an observer hears of the progress.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

const _: () = assert!(LATENCY_MAX.as_secs() >= TIMEOUT_MAX.as_secs(), "every latency is told");
const _: () = assert!(TIMEOUT_MAX.as_secs() >= TIMEOUT_DEFAULT.as_secs());
const _: () = assert!(DURATION_MAX.as_secs() >= DURATION_DEFAULT.as_secs());
const _: () = assert!(CLIENTS_MAX >= CLIENTS_DEFAULT);
const _: () = assert!(SAMPLE_QUEUE >= CLIENTS_MAX, "each client's last sample has room");
const _: () = assert!(SAMPLES_MAX >= SAMPLES_DEFAULT);
