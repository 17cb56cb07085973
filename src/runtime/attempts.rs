//! What became of the connections to relays that were tried: what the network does where none
//! comes about, which arti keeps to itself.
//!
//! Written by every core at each connection, read by `tor::network` and status.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::core::CoreGroup;

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The relay, or something in its place, took the connection.
    Connected,
    /// The kernel knows no way to it.
    NoRoute,
    /// It said no.
    Refused,
    /// Nobody answered.
    Silent,
    /// This machine's own rules forbid it.
    Forbidden,
    /// Something else.
    Other,
}

/// How often each happened since the last one that connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// No way to the relay.
    pub no_route: u64,
    /// The relay said no.
    pub refused: u64,
    /// No answer.
    pub silent: u64,
    /// Forbidden by this machine.
    pub forbidden: u64,
    /// Something else.
    pub other: u64,
}

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Since the last one that connected.
    pub failures: Failures,
    /// Connections that came about, so far.
    pub connected_total: u64,
    /// Connections that did not, so far.
    pub failed_total: u64,
}

impl Attempts {
    /// One has ended.
    pub fn note(&mut self, outcome: Outcome) {
        let failures = &mut self.failures;
        let count = match outcome {
            Outcome::Connected => {
                *failures = Failures::default();
                self.connected_total += 1;
                return;
            }
            Outcome::NoRoute => &mut failures.no_route,
            Outcome::Refused => &mut failures.refused,
            Outcome::Silent => &mut failures.silent,
            Outcome::Forbidden => &mut failures.forbidden,
            Outcome::Other => &mut failures.other,
        };
        *count += 1;
        self.failed_total += 1;
    }
}

/// What an error of `connect(2)` says.
fn outcome(error: &io::Error) -> Outcome {
    match error.kind() {
        // ENETUNREACH, EHOSTUNREACH, ENETDOWN, and an address that this machine cannot use.
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => Outcome::NoRoute,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Outcome::Refused,
        io::ErrorKind::TimedOut => Outcome::Silent,
        // A rule of the packet filter, or of the service manager (`IPAddressDeny`).
        io::ErrorKind::PermissionDenied => Outcome::Forbidden,
        _ => Outcome::Other,
    }
}

/// The attempts of all cores.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Attempts>);

impl Record {
    /// One has ended.
    fn note(&self, outcome: Outcome) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(outcome);
    }

    /// So far.
    pub(super) fn now(&self) -> Attempts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is being made. One that is given up was not answered.
pub(super) struct Attempt(Option<Arc<CoreGroup>>);

impl Attempt {
    /// It begins.
    pub(super) fn begin(group: Option<Arc<CoreGroup>>) -> Attempt {
        Attempt(group)
    }

    /// It has ended.
    pub(super) fn end<T>(mut self, result: &io::Result<T>) {
        if let Some(group) = self.0.take() {
            group.attempts_record().note(match result {
                Ok(_) => Outcome::Connected,
                Err(error) => outcome(error),
            });
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // A relay has several addresses: what is dropped may be the other one of a success,
            // and is forgotten with the next.
            group.attempts_record().note(Outcome::Silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Attempts, Failures, Outcome, outcome};

    #[test]
    fn each_error_of_the_kernel_has_its_meaning() {
        let meaning = |number| outcome(&io::Error::from_raw_os_error(number));
        use nix::errno::Errno;
        for number in [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::ENETDOWN] {
            assert_eq!(meaning(number as i32), Outcome::NoRoute, "{number}");
        }
        assert_eq!(meaning(Errno::EADDRNOTAVAIL as i32), Outcome::NoRoute);
        assert_eq!(meaning(Errno::ECONNREFUSED as i32), Outcome::Refused);
        assert_eq!(meaning(Errno::ETIMEDOUT as i32), Outcome::Silent);
        for number in [Errno::EPERM, Errno::EACCES] {
            assert_eq!(meaning(number as i32), Outcome::Forbidden, "{number}");
        }
        assert_eq!(meaning(Errno::EMFILE as i32), Outcome::Other);
    }

    #[test]
    fn what_failed_is_forgotten_with_the_next_that_connects() {
        let mut attempts = Attempts::default();
        for outcome in [Outcome::Refused, Outcome::Silent, Outcome::Refused] {
            attempts.note(outcome);
        }
        assert_eq!((attempts.failures.refused, attempts.failures.silent), (2, 1));
        attempts.note(Outcome::Connected);
        assert_eq!(attempts.failures, Failures::default());
        assert_eq!((attempts.connected_total, attempts.failed_total), (1, 3));
    }
}
