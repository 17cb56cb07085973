//! One backend: how to connect to it, whether it is fit for streams, and what is counted.
//!
//! ```text
//!   health check:  up --fall bad ones--> down --rise good ones--> up
//!   streams:       up --refused--> aside for 1 s, 2 s, ... 30 s --one stream tries--> up
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
    /// Streams that were refused in a row.
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
}

impl Drop for Place {
    fn drop(&mut self) {
        self.backend.open.fetch_sub(1, Ordering::AcqRel);
        self.queue.note_free();
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
        let place = Place { backend: Arc::clone(self), queue: Arc::clone(queue) };
        (last_resort || self.claim_trial()).then_some(place)
    }

    /// Whether this stream may go there: the first after a time aside, which tries for all others.
    fn claim_trial(&self) -> bool {
        let until = self.aside_until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let now = now_ms();
        let again = now + self.aside_ms();
        until <= now
            && self
                .aside_until_ms
                .compare_exchange(until, again, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// How long it is left alone, after as many refusals in a row as there were.
    fn aside_ms(&self) -> u64 {
        let doublings = self.failed_in_a_row.load(Ordering::Relaxed).saturating_sub(1).min(16);
        (limits::BACKEND_ASIDE_MS_MIN << doublings).min(limits::BACKEND_ASIDE_MS_MAX)
    }

    /// Connect in this way, within this time, for a stream of this circuit to this port.
    pub(super) async fn connect(
        &self,
        (way, timeout): (Way, Duration),
        circuit: CircuitId,
        port: u16,
    ) -> Result<net::Stream, ConnectError> {
        let connecting = self.path.connect(way, circuit, port);
        let connected = match runtime::timeout(timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if is_exhaustion(&error) => Err(ConnectError::Exhausted(error)),
            Ok(Err(error)) => Err(ConnectError::Refused(error)),
            Err(_) => Err(ConnectError::Timeout),
        };
        match &connected {
            Ok(_) => self.note_accepted(),
            // Our own lack of descriptors says nothing about the backend.
            Err(ConnectError::Exhausted(_)) => {}
            Err(_) => {
                self.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
                self.aside_until_ms.store(now_ms() + self.aside_ms(), Ordering::Relaxed);
            }
        }
        if connected.is_err() {
            self.failed_total.fetch_add(1, Ordering::Relaxed);
        }
        connected
    }

    /// A connection was accepted.
    fn note_accepted(&self) {
        if self.failed_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failed_in_a_row.store(0, Ordering::Relaxed);
            self.aside_until_ms.store(0, Ordering::Relaxed);
            self.up_since_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// What the last health check found.
    pub(super) fn note_check(&self, found: Result<(), String>) {
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
        let failing = self.failed_in_a_row.load(Ordering::Relaxed) != 0;
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
