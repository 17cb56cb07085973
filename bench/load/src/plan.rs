//! What a run shall do, and the check that it may.
//!
//! The binary makes a [`Plan`] from its arguments, a benchmark makes one in code. Everything that
//! can be refused is refused here, before the first connection.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::limits;
use crate::target::Target;

/// What a run shall do. Begin with [`Plan::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// SOCKS5 proxies that take a user name; client *i* uses number *i* modulo their count.
    pub socks: Vec<SocketAddr>,
    /// What is asked for.
    pub target: Target,
    /// Clients: requests that may be under way at once.
    pub clients: usize,
    /// When requests begin.
    pub load: Load,
    /// When a client takes new circuits.
    pub circuits: Circuits,
    /// No request is meant to begin later than this after the start; those that are under way
    /// then are still waited for.
    pub duration: Duration,
    /// Requests in all, at most.
    pub requests: u64,
    /// Time for a request, from its intended start to its last byte.
    pub timeout: Duration,
    /// Closed loop and hold: the clients begin evenly over this time. Open loop: the rate rises
    /// evenly over this time. Zero: all at once.
    pub ramp: Duration,
    /// SHA-256 that each body must have.
    pub expect_sha256: Option<[u8; 32]>,
    /// Bytes of a body after which a request ends as a success, its connection closed.
    pub bytes_max: Option<u64>,
    /// Samples that the report keeps: those of the first requests that end.
    pub samples_max: usize,
}

/// When requests begin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Load {
    /// Each client sends its next request when the last one has ended; after a failure it rests
    /// for [`limits::FAILURE_REST`].
    Closed,
    /// Requests begin at instants fixed in advance, whether or not earlier ones have ended. One
    /// that finds no free client waits, and its waiting counts.
    Open {
        /// Requests a second, of all clients together.
        rate: f64,
    },
    /// Each client opens its circuit, keeps it until the duration is over, and sends a request
    /// through it at fixed instants.
    Hold {
        /// From one request of a client to its next.
        #[serde(rename = "every_s", serialize_with = "seconds")]
        every: Duration,
    },
}

/// When a client takes new circuits. Tor isolates streams by the SOCKS user name
/// (`IsolateSOCKSAuth`, on by default).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuits {
    /// A user name, and so circuits, of its own for each request, and a connection of its own.
    Fresh,
    /// One user name for each client; its HTTP connection is kept open as long as the service does.
    Kept,
}

/// Why a plan cannot be carried out; each is a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not a URL of this kind.
    #[error("write the URL as http://ADDRESS.onion[:PORT]/PATH")]
    Url,
    /// TLS is not spoken.
    #[error(
        "https is not supported: an onion service is encrypted and authenticated by its address, \
         so measure it over http://"
    )]
    Https,
    /// User and password.
    #[error("a URL with a user or a password is not supported: leave out what is before the @")]
    UserInUrl,
    /// Somewhere else than at an onion service.
    #[error(
        "the host is not an onion service: this tool measures onion services that you run \
         yourself, and sends nothing elsewhere"
    )]
    NoOnion,
    /// Not a version 3 address.
    #[error("the onion address is not whole: 56 letters and digits (a-z, 2-7) before .onion")]
    OnionAddress,
    /// No proxy.
    #[error("name the SOCKS port of a tor, such as --socks 127.0.0.1:9050")]
    NoSocks,
    /// A number that is too small or too large.
    #[error("{what} is {value}: choose from {min} to {max}")]
    OutOfRange {
        /// What the number is.
        what: &'static str,
        /// As given.
        value: String,
        /// Smallest.
        min: String,
        /// Largest.
        max: String,
    },
    /// A hash of half a body.
    #[error("a hash needs the whole body: leave out either --expect-sha256 or --bytes-max")]
    HashOfPart,
    /// Held clients keep their circuits.
    #[error("held clients keep their circuits: leave out either --hold or --circuits fresh")]
    HoldFresh,
    /// More descriptors than the process may have.
    #[error(
        "{clients} clients need {needed} open files, and this process may have {allowed}: raise \
         the limit (ulimit -n) or take fewer clients"
    )]
    Descriptors {
        /// As given.
        clients: usize,
        /// Files that they need.
        needed: u64,
        /// The limit.
        allowed: u64,
    },
}

impl Plan {
    /// A closed loop of ten clients on kept circuits, bounded to 30 s and 10,000 requests.
    #[must_use]
    pub fn new(socks: Vec<SocketAddr>, target: Target) -> Plan {
        Plan {
            socks,
            target,
            clients: limits::CLIENTS_DEFAULT,
            load: Load::Closed,
            circuits: Circuits::Kept,
            duration: limits::DURATION_DEFAULT,
            requests: limits::REQUESTS_DEFAULT,
            timeout: limits::TIMEOUT_DEFAULT,
            ramp: Duration::ZERO,
            expect_sha256: None,
            bytes_max: None,
            samples_max: limits::SAMPLES_DEFAULT,
        }
    }

    /// Whether it can be carried out: everything is within the [`limits`] and fits together.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.socks.is_empty() {
            return Err(PlanError::NoSocks);
        }
        within("the number of SOCKS proxies", self.socks.len(), 1, limits::SOCKS_MAX)?;
        within("the number of clients", self.clients, 1, limits::CLIENTS_MAX)?;
        within("the number of requests", self.requests, 1, limits::REQUESTS_MAX)?;
        let millisecond = Duration::from_millis(1);
        within_time("the duration", self.duration, millisecond, limits::DURATION_MAX)?;
        within_time("the timeout", self.timeout, millisecond, limits::TIMEOUT_MAX)?;
        within_time("the ramp", self.ramp, Duration::ZERO, limits::DURATION_MAX)?;
        within("the number of samples", self.samples_max, 0, limits::SAMPLES_MAX)?;
        within("the most bytes of a body", self.bytes_max.unwrap_or(1), 1, u64::MAX)?;
        match self.load {
            Load::Closed => {}
            // Not a number, also, is outside of any range.
            Load::Open { rate } => within("the rate", rate, 0.001, limits::RATE_MAX)?,
            Load::Hold { every } => {
                within_time("the interval", every, limits::EVERY_MIN, limits::DURATION_MAX)?;
                if self.circuits == Circuits::Fresh {
                    return Err(PlanError::HoldFresh);
                }
            }
        }
        if self.expect_sha256.is_some() && self.bytes_max.is_some() {
            return Err(PlanError::HashOfPart);
        }
        Ok(())
    }
}

/// Refuse a number outside of its range.
fn within<T>(what: &'static str, value: T, min: T, max: T) -> Result<(), PlanError>
where
    T: PartialOrd + ToString,
{
    if min <= value && value <= max {
        return Ok(());
    }
    let (value, min, max) = (value.to_string(), min.to_string(), max.to_string());
    Err(PlanError::OutOfRange { what, value, min, max })
}

/// Refuse a time outside of its range.
fn within_time(
    what: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), PlanError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let [value, min, max] = [value, min, max].map(|time| format!("{} s", time.as_secs_f64()));
    Err(PlanError::OutOfRange { what, value, min, max })
}

/// A time as serde shows it: in seconds.
fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Circuits, Load, Plan, PlanError};

    fn plan() -> Plan {
        let target = format!("http://{}d.onion/", "a".repeat(55)).parse().expect("a good URL");
        Plan::new(vec![([127, 0, 0, 1], 9050).into()], target)
    }

    /// The plan, with one thing changed.
    fn changed(change: impl FnOnce(&mut Plan)) -> Result<(), PlanError> {
        let mut plan = plan();
        change(&mut plan);
        plan.check()
    }

    #[test]
    fn the_default_is_allowed_and_so_is_each_maximum() {
        changed(|_| {}).expect("the default");
        changed(|plan| {
            plan.clients = 2000;
            plan.load = Load::Open { rate: 2000.0 };
            plan.duration = Duration::from_secs(24 * 3600);
        })
        .expect("the maxima");
    }

    #[test]
    fn each_bound_is_kept() {
        let open = |rate| move |plan: &mut Plan| plan.load = Load::Open { rate };
        let results = [
            changed(|plan| plan.clients = 2001),
            changed(|plan| plan.clients = 0),
            changed(|plan| plan.requests = 0),
            changed(|plan| plan.requests = 10_000_001),
            changed(|plan| plan.duration = Duration::from_secs(24 * 3600 + 1)),
            changed(|plan| plan.duration = Duration::ZERO),
            changed(|plan| plan.timeout = Duration::from_secs(3601)),
            changed(|plan| plan.bytes_max = Some(0)),
            changed(|plan| plan.samples_max = 1_000_001),
            changed(|plan| plan.load = Load::Hold { every: Duration::ZERO }),
            changed(open(2000.1)),
            changed(open(0.0)),
            changed(open(-1.0)),
            changed(open(f64::NAN)),
        ];
        for (index, result) in results.into_iter().enumerate() {
            assert!(matches!(result, Err(PlanError::OutOfRange { .. })), "{index}: {result:?}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert_eq!(changed(|plan| plan.socks.clear()), Err(PlanError::NoSocks));
        let hash_of_part = changed(|plan| {
            plan.expect_sha256 = Some([0; 32]);
            plan.bytes_max = Some(1);
        });
        assert_eq!(hash_of_part, Err(PlanError::HashOfPart));
        let hold_fresh = changed(|plan| {
            plan.load = Load::Hold { every: Duration::from_secs(1) };
            plan.circuits = Circuits::Fresh;
        });
        assert_eq!(hold_fresh, Err(PlanError::HoldFresh));
    }
}
