//! One backend: how to connect to it, whether it is fit for streams, and what is counted.
//!
//! ```text
//!   health check:  up --fall bad ones--> down --rise good ones--> up
//!   streams:       up --refused--> aside for 1 s, 2 s, ... 30 s --one stream tries--> up
//!                  aside --a good check, or a stream that tried out of turn--> up
//!                  aside, as all of its port --> aside for 1 s at most
//!   operator:      ready | draining (no new stream) | maintenance (no check either)
//! ```

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt as _;

use super::config::BackendAddress;
use super::queue::Queue;
use super::reach::{Path, Reach, Way};
use super::status::{BackendOrder, BackendState, BackendStatus};
use crate::base::stream::{Apart, CircuitId};
use crate::limits;
use crate::runtime::{self, net, time};

/// Milliseconds since somebody first asked; never 0.
fn now_ms() -> u64 {
    time::uptime().as_millis() as u64 + 1
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The backend was silent.
    #[error("no answer in time")]
    Timeout,
    /// This process has no descriptor left.
    #[error("no descriptor left: {0}")]
    Exhausted(#[source] io::Error),
    /// The backend, or the system, said no.
    #[error("refused: {0}")]
    Refused(#[source] io::Error),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Backend {
    /// Where it listens.
    address: BackendAddress,
    /// The way to it.
    path: Path,
    /// Connections that are open or being made.
    open: AtomicU64,
    /// Connections that failed.
    failed_total: AtomicU64,
    /// Streams that were refused in a row, each in its turn: of those that were under way
    /// together the first alone, and none that tried out of turn.
    failed_in_a_row: AtomicU32,
    /// Until then no stream tries it, in [`now_ms`].
    aside_until_ms: AtomicU64,
    /// Whether health checks say that it is down.
    checked_down: AtomicBool,
    /// When it came up again, in [`now_ms`]; 0 while it never was down.
    up_since_ms: AtomicU64,
    /// What the operator wants, a [`BackendOrder`].
    order: AtomicU8,
    /// What is wrong by the last health check; empty when it was good.
    check: Mutex<Option<String>>,
}

/// A connection's place at a backend, until this is dropped.
pub(super) struct Place {
    /// The backend.
    pub(super) backend: Arc<Backend>,
    /// Who waits for such a place.
    queue: Arc<Queue>,
    /// The stream tries for all others, and until then they leave the backend alone.
    trial: Option<u64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(until) = self.trial {
            // It went before it knew: let the next one try.
            self.backend.end_wait(until);
        }
        self.backend.open.fetch_sub(1, Ordering::AcqRel);
        self.queue.note_free();
    }
}

impl Place {
    /// Connect in this way, within this time, for a stream of this circuit to this port.
    pub(super) async fn connect(
        &mut self,
        (way, timeout): (Way, Duration),
        circuit: CircuitId,
        port: u16,
    ) -> Result<net::Stream, ConnectError> {
        let connecting = self.backend.path.connect(way, circuit, port);
        let connected = match runtime::timeout(timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if is_exhaustion(&error) => Err(ConnectError::Exhausted(error)),
            Ok(Err(error)) => Err(ConnectError::Refused(error)),
            Err(_) => Err(ConnectError::Timeout),
        };
        match &connected {
            Ok(_) => self.backend.note_fit(),
            // Our own lack of descriptors says nothing about the backend.
            Err(ConnectError::Exhausted(_)) => {}
            // Nor does a name that was not found yet: it is up as soon as it is.
            Err(_) if self.backend.path.is_unknown() => {}
            Err(_) => self.backend.note_refused(self.trial.take().is_some()),
        }
        if connected.is_ok() {
            self.trial = None;
        } else {
            self.backend.failed_total.fetch_add(1, Ordering::Relaxed);
        }
        connected
    }
}

impl Backend {
    /// A backend that nothing is known of yet.
    pub(super) fn new(address: BackendAddress, reach: &Reach, apart: Apart) -> Backend {
        let path = Path::new(&address, reach, apart);
        Backend {
            address,
            path,
            open: AtomicU64::new(0),
            failed_total: AtomicU64::new(0),
            failed_in_a_row: AtomicU32::new(0),
            aside_until_ms: AtomicU64::new(0),
            checked_down: AtomicBool::new(false),
            up_since_ms: AtomicU64::new(0),
            order: AtomicU8::new(BackendOrder::Ready as u8),
            check: Mutex::new(None),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &BackendAddress {
        &self.address
    }

    /// The way to it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Connections that are open or being made.
    pub(super) fn open_now(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// What the operator wants.
    pub(super) fn order(&self) -> BackendOrder {
        match self.order.load(Ordering::Relaxed) {
            order if order == BackendOrder::Drain as u8 => BackendOrder::Drain,
            order if order == BackendOrder::Maintenance as u8 => BackendOrder::Maintenance,
            _ => BackendOrder::Ready,
        }
    }

    /// Do what the operator wants.
    pub(super) fn set_order(&self, order: BackendOrder) {
        self.order.store(order as u8, Ordering::Relaxed);
    }

    /// Whether streams may be given to it, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        !self.checked_down.load(Ordering::Relaxed)
            && !self.path.is_unknown()
            && self.aside_until_ms.load(Ordering::Relaxed) <= now_ms()
    }

    /// Whether a backend that has come up shall get this stream, as its share has grown so far.
    pub(super) fn takes_share(&self, slow_start: Duration) -> bool {
        let up_since = self.up_since_ms.load(Ordering::Relaxed);
        let whole = slow_start.as_millis() as u64;
        if up_since == 0 || whole == 0 {
            return true;
        }
        let percent = now_ms().saturating_sub(up_since).saturating_mul(100) / whole;
        let percent = percent.max(limits::BACKEND_SLOW_START_PERCENT_MIN);
        percent >= 100 || rand::rng().random_range(0..100) < percent
    }

    /// Take a place, unless it has `connections_max` already, or is aside and another stream is
    /// trying it; with `last_resort`, that does not matter.
    pub(super) fn take_place(
        self: &Arc<Backend>,
        connections_max: Option<u32>,
        queue: &Arc<Queue>,
        last_resort: bool,
    ) -> Option<Place> {
        let most = connections_max.map_or(u64::MAX, u64::from);
        let room = |open: u64| (open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room).ok()?;
        let (backend, queue) = (Arc::clone(self), Arc::clone(queue));
        let mut place = Place { backend, queue, trial: None };
        let until = self.aside_until_ms.load(Ordering::Relaxed);
        if until != 0 && !last_resort {
            place.trial = Some(self.claim_trial(until)?);
        }
        Some(place)
    }

    /// Until when others leave it alone, if this stream may go there after its time aside: the
    /// first, which tries for all others.
    fn claim_trial(&self, until: u64) -> Option<u64> {
        let now = now_ms();
        let again = now + self.aside_ms();
        (until <= now && self.replace_wait(until, again)).then_some(again)
    }

    /// Set its time aside, if it still is what it was.
    fn replace_wait(&self, until: u64, again: u64) -> bool {
        let until_ms = &self.aside_until_ms;
        until_ms.compare_exchange(until, again, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The next stream may try it, unless somebody has set another time meanwhile.
    fn end_wait(&self, until: u64) {
        self.replace_wait(until, now_ms());
    }

    /// No backend of its port is up. When the first of them comes back, it shall not be alone for
    /// long: this one is tried again soon, and waits as after one refusal if it is not back yet.
    pub(super) fn shorten_wait(&self) {
        self.failed_in_a_row.fetch_min(1, Ordering::Relaxed);
        let soon = now_ms() + limits::BACKEND_ALL_OUT_MS_MAX;
        self.aside_until_ms.fetch_min(soon, Ordering::Relaxed);
    }

    /// How long it is left alone, after as many refusals in a row as there were.
    fn aside_ms(&self) -> u64 {
        let doublings = self.failed_in_a_row.load(Ordering::Relaxed).saturating_sub(1).min(16);
        (limits::BACKEND_ASIDE_MS_MIN << doublings).min(limits::BACKEND_ASIDE_MS_MAX)
    }

    /// A stream was refused. Only `in_trial` does it lengthen the wait: one that was under way when
    /// another was refused, or that tried out of turn, says nothing new.
    fn note_refused(&self, in_trial: bool) {
        if in_trial {
            self.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
            self.aside_until_ms.store(now_ms() + self.aside_ms(), Ordering::Relaxed);
        } else if self.replace_wait(0, now_ms() + limits::BACKEND_ASIDE_MS_MIN) {
            self.failed_in_a_row.store(1, Ordering::Relaxed);
        }
    }

    /// It has accepted a connection, or passed a check: what streams met before that is over.
    fn note_fit(&self) {
        // Both, for another core may have set one of them only.
        let failed = self.failed_in_a_row.swap(0, Ordering::Relaxed);
        if self.aside_until_ms.swap(0, Ordering::Relaxed) != 0 || failed != 0 {
            self.up_since_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// What the last health check found.
    pub(super) fn note_check(&self, found: Result<(), String>) {
        if found.is_ok() && !self.is_checked_down() {
            self.note_fit();
        }
        *self.check.lock().unwrap_or_else(PoisonError::into_inner) = Some(match found {
            Ok(()) => "ok".to_owned(),
            Err(wrong) => wrong,
        });
    }

    /// Nothing is checked any more.
    pub(super) fn forget_checks(&self) {
        *self.check.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.checked_down.store(false, Ordering::Relaxed);
    }

    /// Whether health checks say that it is down.
    pub(super) fn is_checked_down(&self) -> bool {
        self.checked_down.load(Ordering::Relaxed)
    }

    /// Health checks have found it up or down.
    pub(super) fn set_checked(&self, up: bool) {
        self.checked_down.store(!up, Ordering::Relaxed);
        if up {
            // What streams met before that is over.
            self.failed_in_a_row.store(0, Ordering::Relaxed);
            self.aside_until_ms.store(0, Ordering::Relaxed);
            self.up_since_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// What status shows.
    pub(super) fn status(&self, virtual_port: u16) -> BackendStatus {
        let failing = self.failed_in_a_row.load(Ordering::Relaxed) != 0 || self.path.is_unknown();
        BackendStatus {
            virtual_port,
            address: self.address.to_string(),
            state: match self.order() {
                BackendOrder::Drain => BackendState::Draining,
                BackendOrder::Maintenance => BackendState::Maintenance,
                BackendOrder::Ready if failing || self.is_checked_down() => BackendState::Down,
                BackendOrder::Ready => BackendState::Up,
            },
            open: self.open_now(),
            failed_total: self.failed_total.load(Ordering::Relaxed),
            check: self.check.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            queued: 0,
            queue_refused_total: 0,
        }
    }
}

/// Whether the error is about this process or machine: no descriptor, no port, no memory.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOMEM | libc::ENOBUFS)
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Backend, Place};
    use crate::base::stream::{Apart, CircuitId};
    use crate::limits::BACKEND_ASIDE_MS_MIN;
    use crate::plane::config::BackendAddress;
    use crate::plane::queue::Queue;
    use crate::plane::reach::{Reach, Way};

    /// A backend where nothing listens.
    fn dead() -> Arc<Backend> {
        let address = BackendAddress::Unix(PathBuf::from("/nonexistent/rustbalance.sock"));
        Arc::new(Backend::new(address, &Reach::default(), Apart::from_all_others()))
    }

    /// A stream's place there.
    fn place(backend: &Arc<Backend>, last_resort: bool) -> Option<Place> {
        backend.take_place(None, &Arc::new(Queue::default()), last_resort)
    }

    /// Try to connect, in vain.
    async fn fail(place: &mut Place) {
        let how = (Way::Ring, Duration::from_secs(60));
        place.connect(how, CircuitId { instance: 0, serial: 1 }, 80).await.expect_err("nothing");
    }

    #[tokio::test]
    async fn refusals_of_one_moment_count_once_and_those_out_of_turn_not_at_all() {
        let backend = dead();
        let mut under_way: Vec<Place> = (0..16).filter_map(|_| place(&backend, false)).collect();
        assert_eq!(under_way.len(), 16);
        for place in &mut under_way {
            fail(place).await;
        }
        assert!(!backend.is_up());
        assert_eq!(backend.aside_ms(), BACKEND_ASIDE_MS_MIN);
        for _ in 0..16 {
            fail(&mut place(&backend, true).expect("a place out of turn")).await;
        }
        assert_eq!(backend.aside_ms(), BACKEND_ASIDE_MS_MIN);
        assert_eq!(backend.status(80).failed_total, 32);
    }

    #[tokio::test]
    async fn a_trial_that_fails_doubles_the_wait_and_one_that_ends_early_is_handed_on() {
        let backend = dead();
        fail(&mut place(&backend, false).expect("it is up")).await;
        let its_turn = || backend.aside_until_ms.store(1, std::sync::atomic::Ordering::Relaxed);
        its_turn();
        fail(&mut place(&backend, false).expect("the trial")).await;
        assert_eq!(backend.aside_ms(), 2 * BACKEND_ASIDE_MS_MIN);
        its_turn();
        let trial = place(&backend, false).expect("the trial");
        assert!(!backend.is_up() && place(&backend, false).is_none());
        // Its client goes before the backend has answered.
        drop(trial);
        assert!(backend.is_up() && place(&backend, false).is_some());
        assert_eq!(backend.open_now(), 0);
    }
}
