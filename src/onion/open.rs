//! The client circuits that are open on one core, and what can be seen of them from our side of
//! tor-proto, so that those of the least use are found when memory is short.
//!
//! | shared | written by | read by |
//! |---|---|---|
//! | a circuit's times and streams | its core, when a stream comes and goes | control core |
//! | bytes that a stream has moved, if it waits | its core, at a read or write | control core |
//! | since when it has moved none | control core, at each look | the same |
//!
//! A look costs nothing while nothing is short: there is none.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rand::RngExt as _;
use tokio::sync::{Notify, Semaphore};

use crate::base::overload::{ClosedFor, Shortage};
use crate::limits;
use crate::runtime::time;

/// Milliseconds since somebody first asked; never 0.
pub(super) fn now_ms() -> u64 {
    u64::try_from(time::uptime().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// One open stream. tor-proto does not tell what waits in a stream's queues. What can be seen is
/// whether it takes what the backend sends, and whether we take what the client sends: where the
/// other side does not, a queue is full, which is [`limits::STREAM_STUCK_BYTES`].
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes that went through, both ways.
    moved: AtomicU64,
    /// The client takes nothing now.
    outward_waits: AtomicBool,
    /// What the client sends is not taken now.
    inward_waits: AtomicBool,
    /// [`Self::moved`] at the last look.
    seen: AtomicU64,
    /// When that was first seen; 0 before the first look.
    seen_at_ms: AtomicU64,
}

/// What a look finds of a stream, or of all those of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// Bytes that wait, about.
    held: u64,
    /// Of these, those that have not moved for long.
    stuck: u64,
    /// For how long nothing has moved.
    quiet_ms: u64,
}

impl Flow {
    /// The client was offered bytes; so many were taken, or none yet.
    pub(super) fn note_outward(&self, taken: Option<usize>) {
        self.note(taken, &self.outward_waits, taken.is_none());
    }

    /// The client was asked for bytes; so many came, or none yet. Somebody who takes them asks
    /// again until none comes.
    pub(super) fn note_inward(&self, came: Option<usize>) {
        self.note(came, &self.inward_waits, came.is_some_and(|bytes| bytes > 0));
    }

    /// Bytes have moved or not, and somebody waits or not.
    fn note(&self, bytes: Option<usize>, waits: &AtomicBool, now_waits: bool) {
        if let Some(bytes) = bytes {
            self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        waits.store(now_waits, Ordering::Relaxed);
    }

    /// Look at it.
    fn look(&self, now_ms: u64) -> Found {
        let moved = self.moved.load(Ordering::Relaxed);
        let since = self.seen_at_ms.load(Ordering::Relaxed);
        let quiet_ms = match since != 0 && self.seen.load(Ordering::Relaxed) == moved {
            true => now_ms.saturating_sub(since),
            false => {
                self.seen.store(moved, Ordering::Relaxed);
                self.seen_at_ms.store(now_ms, Ordering::Relaxed);
                0
            }
        };
        let waits = [&self.outward_waits, &self.inward_waits];
        let waits = waits.iter().filter(|one| one.load(Ordering::Relaxed)).count() as u64;
        let held = waits * limits::STREAM_STUCK_BYTES;
        let stuck = if quiet_ms >= limits::STREAM_STUCK_MS { held } else { 0 };
        Found { held, stuck, quiet_ms }
    }
}

/// One circuit.
#[derive(Debug)]
pub(super) struct OpenCircuit {
    /// Streams that may still be served.
    free: Arc<Semaphore>,
    /// Streams that may be served in all.
    streams_max: usize,
    /// When it opened.
    opened_ms: u64,
    /// When a stream last began or ended; 0 while there was none.
    used_ms: AtomicU64,
    /// How long it may be without a stream while something is short.
    idle_ms_max: u64,
    /// Its open streams, and some that are gone.
    flows: Mutex<Vec<Weak<Flow>>>,
    /// Whether it was told to close.
    told: AtomicBool,
    /// Rings when the circuit shall close.
    close: Notify,
}

/// Whose turn it is to close: the first ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// It never had a stream: the oldest first.
    Unused,
    /// It has none any more: the longest without first.
    Idle,
    /// It never had a stream, and its client may still begin one: the oldest first.
    Young,
    /// Its streams hold bytes that do not move: the most bytes first.
    Stuck,
    /// Its streams have moved nothing for a while: the longest first.
    Quiet,
    /// Its streams move: the one that holds the most bytes first.
    Moving,
}

impl Turn {
    /// What is counted when it closes.
    pub(super) fn reason(self) -> ClosedFor {
        match self {
            Turn::Unused | Turn::Young => ClosedFor::Unused,
            Turn::Idle => ClosedFor::Idle,
            Turn::Stuck | Turn::Quiet | Turn::Moving => ClosedFor::Bytes,
        }
    }
}

/// A circuit that may be closed to make room.
#[derive(Debug)]
pub(super) struct Candidate {
    /// When it is its turn.
    pub(super) turn: Turn,
    /// Among those of the same turn: the smallest first.
    pub(super) order: Reverse<u64>,
    /// It has been without a stream for longer than it may be while something is short.
    pub(super) overdue: bool,
    /// Bytes that it gives back, about.
    pub(super) bytes: u64,
    /// The circuit.
    pub(super) circuit: Arc<OpenCircuit>,
}

impl OpenCircuit {
    /// Streams that are being served.
    fn streams(&self) -> usize {
        self.streams_max.saturating_sub(self.free.available_permits())
    }

    /// A stream has begun, or is about to give back its permit.
    pub(super) fn note_used(&self, now_ms: u64) {
        self.used_ms.store(now_ms, Ordering::Relaxed);
    }

    /// A stream is open for as long as what comes back is kept.
    pub(super) fn open_flow(&self) -> Arc<Flow> {
        let flow = Arc::new(Flow::default());
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        // As often as the list would grow.
        if flows.len() == flows.capacity() {
            flows.retain(|one| one.strong_count() > 0);
        }
        flows.push(Arc::downgrade(&flow));
        flow
    }

    /// Look at all its streams.
    fn look(&self, now_ms: u64) -> Found {
        let mut all = Found { held: 0, stuck: 0, quiet_ms: u64::MAX };
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.retain(|flow| {
            let Some(flow) = flow.upgrade() else { return false };
            let found = flow.look(now_ms);
            all.held += found.held;
            all.stuck += found.stuck;
            all.quiet_ms = all.quiet_ms.min(found.quiet_ms);
            true
        });
        all
    }

    /// Whether and when it is its turn; its place among those of the same turn, and the bytes that
    /// it gives back.
    fn turn(&self, now_ms: u64, shortage: Shortage) -> Option<(Turn, u64, u64)> {
        let scarce = shortage >= Shortage::Scarce;
        let used_ms = self.used_ms.load(Ordering::Relaxed);
        if self.streams() > 0 {
            let Found { held, stuck, quiet_ms } = self.look(now_ms);
            // Those that are not accepted yet wait for a backend since the last one began.
            let quiet_ms = quiet_ms.min(self.idle_ms(now_ms));
            let bytes = limits::CIRCUIT_BYTES + held;
            return match () {
                () if scarce && stuck > 0 => Some((Turn::Stuck, stuck, bytes)),
                // A stream that moves nothing must not be a way to hold a circuit for ever.
                () if scarce && quiet_ms >= self.idle_ms_max => {
                    Some((Turn::Quiet, quiet_ms, bytes))
                }
                () if shortage < Shortage::Full => None,
                () if quiet_ms >= limits::STREAM_STUCK_MS => Some((Turn::Quiet, quiet_ms, bytes)),
                () => Some((Turn::Moving, held, bytes)),
            };
        }
        let (idle_ms, bytes) = (self.idle_ms(now_ms), limits::CIRCUIT_BYTES);
        match used_ms {
            0 if idle_ms >= limits::CIRCUIT_UNUSED_MS => Some((Turn::Unused, idle_ms, bytes)),
            0 if scarce && idle_ms >= limits::CIRCUIT_UNUSED_MS_MIN => {
                Some((Turn::Young, idle_ms, bytes))
            }
            0 => None,
            _ if scarce || idle_ms >= self.idle_ms_max => Some((Turn::Idle, idle_ms, bytes)),
            _ => None,
        }
    }

    /// For how long no stream has begun or ended.
    fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.used_ms.load(Ordering::Relaxed).max(self.opened_ms))
    }

    /// Have it close; `false` when it was told before.
    pub(super) fn tell_to_close(&self) -> bool {
        self.close.notify_one();
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// Wait until the circuit shall close.
    pub(super) async fn close_wanted(&self) {
        self.close.notified().await;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OpenCircuits {
    /// By serial, so the oldest first.
    by_serial: Mutex<BTreeMap<u32, Arc<OpenCircuit>>>,
}

/// A circuit's place in the list, which it leaves when this is dropped.
pub(super) struct Place<'a> {
    /// The list.
    list: &'a OpenCircuits,
    /// Its key.
    serial: u32,
    /// The circuit.
    pub(super) circuit: Arc<OpenCircuit>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.list.lock().remove(&self.serial);
    }
}

impl OpenCircuits {
    /// The list.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<OpenCircuit>>> {
        self.by_serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A circuit has opened at this time; `free` of its `streams_max` streams may still be served.
    pub(super) fn enter(
        &self,
        serial: u32,
        (free, streams_max): (Arc<Semaphore>, usize),
        opened_ms: u64,
    ) -> Place<'_> {
        let bounds = limits::CIRCUIT_IDLE_MS_MIN..=limits::CIRCUIT_IDLE_MS_MAX;
        let circuit = Arc::new(OpenCircuit {
            free,
            streams_max,
            opened_ms,
            used_ms: AtomicU64::new(0),
            idle_ms_max: rand::rng().random_range(bounds),
            flows: Mutex::default(),
            told: AtomicBool::new(false),
            close: Notify::new(),
        });
        self.lock().insert(serial, Arc::clone(&circuit));
        Place { list: self, serial, circuit }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether the one of this serial is open.
    pub(super) fn has(&self, serial: u32) -> bool {
        self.lock().contains_key(&serial)
    }

    /// Have the one of this serial close; `false` when there is none.
    pub(super) fn close(&self, serial: u32) -> bool {
        let circuit = self.lock().get(&serial).cloned();
        circuit.map(|circuit| circuit.tell_to_close()).is_some()
    }

    /// Have all of them close.
    pub(super) fn close_all(&self) {
        for circuit in self.lock().values() {
            circuit.tell_to_close();
        }
    }

    /// Those that may be closed while something is so short, in no order.
    pub(super) fn candidates(&self, now_ms: u64, shortage: Shortage) -> Vec<Candidate> {
        let all: Vec<_> = self.lock().values().cloned().collect();
        let candidate = |circuit: Arc<OpenCircuit>| {
            if circuit.told.load(Ordering::Relaxed) {
                return None;
            }
            let (turn, order, bytes) = circuit.turn(now_ms, shortage)?;
            let serves_nobody = turn <= Turn::Young;
            let overdue = serves_nobody && circuit.idle_ms(now_ms) >= circuit.idle_ms_max;
            Some(Candidate { turn, order: Reverse(order), overdue, bytes, circuit })
        };
        all.into_iter().filter_map(candidate).collect()
    }
}

#[cfg(test)]
mod tests;
