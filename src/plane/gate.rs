//! What a client's circuit may do: how many streams at a time and a second, how many bytes a
//! second; and what somebody has said of it: that it is preferred, or banned.
//!
//! ```text
//!   new stream --> Gates::enter --pass--> backends of its verdict --> all bytes: Pass::note
//!                       '-- banned, or over a limit: END, or the circuit closes
//! ```
//!
//! A circuit is known only while there is something to remember of it: no limit and no verdict cost
//! nothing, neither time nor memory; a circuit that closes is forgotten, with what was said of it.
//!
//! **When as many are known as may be**, what has no effect goes first, and of that the oldest:
//! what is over; then what a circuit without open streams has used of a rate; then preferences;
//! then counts of open streams. A ban that holds never goes. Where there are only bans, the
//! circuits that come share one allowance, as if they were one: they are neither refused nor free
//! of limits. All of it is counted.
//!
//! Rates are kept as one number (GCRA, ITU-T I.371: the time at
//! which everything so far would have been allowed), so bytes are counted without a lock.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::config::{CircuitLimits, OverLimit, Rate};
use super::status::{CircuitsStatus, Verdict};
use crate::base::stream::CircuitId;
use crate::limits;
use crate::runtime::time;

/// Microseconds since somebody first asked; never 0.
fn now_us() -> u64 {
    time::uptime().as_micros() as u64 + 1
}

/// How much of a rate has been used.
#[derive(Debug, Default)]
struct Bucket {
    /// When everything so far would have been allowed, in [`now_us`].
    allowed_at_us: AtomicU64,
}

impl Bucket {
    /// Take so much; `false` when that is more than there is. With `anyway` it is taken all the
    /// same: it has happened.
    fn take(&self, amount: u64, rate: Rate, now: u64, anyway: bool) -> bool {
        let microseconds = |amount: u64| amount.saturating_mul(1_000_000) / rate.per_second.max(1);
        let (cost, most) = (microseconds(amount), microseconds(rate.burst));
        let mut within = false;
        let _ = self.allowed_at_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
            let then = at.max(now).saturating_add(cost);
            within = then - now <= most;
            (within || anyway).then_some(then)
        });
        within
    }

    /// Whether nothing of it is used.
    fn is_full(&self, now: u64) -> bool {
        self.allowed_at_us.load(Ordering::Relaxed) <= now
    }
}

/// What is remembered of one circuit.
#[derive(Debug, Default)]
struct Gate {
    /// What somebody has said of it, a [`Verdict`].
    verdict: AtomicU8,
    /// Until when that holds, in [`now_us`].
    verdict_until_us: AtomicU64,
    /// Streams that are open.
    open: AtomicU32,
    /// New streams.
    streams: Bucket,
    /// Bytes both ways.
    bytes: Bucket,
    /// When a stream of it was begun last, or something said of it, in [`now_us`].
    touched_us: AtomicU64,
}

/// What is lost when a circuit is forgotten, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Nothing.
    Nothing,
    /// What it has used of a rate.
    Rate,
    /// That it is preferred.
    Preference,
    /// How many streams are open.
    Open,
    /// That it is banned.
    Ban,
}

impl Gate {
    /// What holds now.
    fn verdict(&self, now: u64) -> Verdict {
        match self.verdict.load(Ordering::Relaxed) {
            _ if self.verdict_until_us.load(Ordering::Relaxed) <= now => Verdict::Normal,
            said if said == Verdict::Preferred as u8 => Verdict::Preferred,
            said if said == Verdict::Banned as u8 => Verdict::Banned,
            _ => Verdict::Normal,
        }
    }

    /// What is lost when it is forgotten.
    fn worth(&self, now: u64) -> Worth {
        match self.verdict(now) {
            Verdict::Banned => Worth::Ban,
            _ if self.open.load(Ordering::Relaxed) > 0 => Worth::Open,
            Verdict::Preferred => Worth::Preference,
            Verdict::Normal if self.streams.is_full(now) && self.bytes.is_full(now) => {
                Worth::Nothing
            }
            Verdict::Normal => Worth::Rate,
        }
    }
}

/// Some of the circuits.
#[derive(Debug, Default)]
struct Shard {
    /// Those of which something is remembered, and some of which nothing is any more.
    gates: HashMap<CircuitId, Arc<Gate>>,
    /// With so many it is time to forget.
    sweep_at: usize,
    /// What circuits share that cannot be remembered.
    shared: Arc<Gate>,
}

/// What became of a circuit that shall be remembered.
struct Remembered {
    /// What is remembered of it.
    gate: Arc<Gate>,
    /// Whether that is its own.
    own: bool,
    /// Others of which something was forgotten to make room.
    forgotten: usize,
}

impl Shard {
    /// What is remembered of a circuit, from now on if it was not before.
    fn remember(&mut self, circuit: CircuitId, now: u64) -> Remembered {
        if let Some(gate) = self.gates.get(&circuit) {
            gate.touched_us.store(now, Ordering::Relaxed);
            return Remembered { gate: Arc::clone(gate), own: true, forgotten: 0 };
        }
        if self.gates.len() >= self.sweep_at {
            // Whoever has just taken one is about to note something in it.
            self.gates
                .retain(|_, gate| gate.worth(now) > Worth::Nothing || Arc::strong_count(gate) > 1);
            self.sweep_at = (2 * self.gates.len()).clamp(SWEEP_MIN, SHARD_MAX);
        }
        let forgotten = if self.gates.len() >= SHARD_MAX { self.make_room(now) } else { 0 };
        if self.gates.len() >= SHARD_MAX {
            return Remembered { gate: Arc::clone(&self.shared), own: false, forgotten };
        }
        let gate = Arc::<Gate>::default();
        gate.touched_us.store(now, Ordering::Relaxed);
        self.gates.insert(circuit, Arc::clone(&gate));
        Remembered { gate, own: true, forgotten }
    }

    /// Forget those with the least worth, and of them the oldest; how many.
    fn make_room(&mut self, now: u64) -> usize {
        let worth = |(circuit, gate): (&CircuitId, &Arc<Gate>)| {
            let (worth, touched) = (gate.worth(now), gate.touched_us.load(Ordering::Relaxed));
            (worth < Worth::Ban).then_some((worth, touched, *circuit))
        };
        let mut all: Vec<_> = self.gates.iter().filter_map(worth).collect();
        // Not one by one: each look is at all of them.
        let count = all.len().min(SHARD_MAX / FORGET_ONE_OF);
        if count < all.len() {
            all.select_nth_unstable(count);
        }
        for (_, _, circuit) in &all[..count] {
            self.gates.remove(circuit);
        }
        count
    }
}

/// Circuits are spread over so many locks, each held for the time of one look.
const SHARDS: usize = 32;
/// Fewer circuits are not worth to be looked through.
const SWEEP_MIN: usize = 64;
/// Circuits that one of them may remember.
const SHARD_MAX: usize = limits::GATES_MAX / SHARDS;
/// One of so many is forgotten at a time when room is needed.
const FORGET_ONE_OF: usize = 16;

/// Why a stream is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Whether its circuit closes.
    pub(super) close: bool,
}

/// The circuits of one service.
#[derive(Debug)]
pub(super) struct Gates {
    /// What each may do.
    limits: RwLock<Arc<CircuitLimits>>,
    /// Verdicts that were given so far: while there is none, and no limit, nobody is looked at.
    verdicts_total: AtomicU64,
    /// All of them.
    shards: [Mutex<Shard>; SHARDS],
    /// Says which shard.
    hasher: RandomState,
    /// See [`CircuitsStatus`].
    refused_streams_total: AtomicU64,
    /// See [`CircuitsStatus`].
    refused_rate_total: AtomicU64,
    /// See [`CircuitsStatus`].
    refused_banned_total: AtomicU64,
    /// See [`CircuitsStatus`].
    ended_bytes_total: AtomicU64,
    /// See [`CircuitsStatus`].
    unknown_ports_total: AtomicU64,
    forgotten_total: AtomicU64,
    /// See [`CircuitsStatus`].
    not_remembered_total: AtomicU64,
}

impl Gates {
    /// With these limits, and nothing said of anybody.
    pub(super) fn new(limits: CircuitLimits) -> Arc<Gates> {
        Arc::new(Gates {
            limits: RwLock::new(Arc::new(limits)),
            verdicts_total: AtomicU64::new(0),
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            refused_streams_total: AtomicU64::new(0),
            refused_rate_total: AtomicU64::new(0),
            refused_banned_total: AtomicU64::new(0),
            ended_bytes_total: AtomicU64::new(0),
            unknown_ports_total: AtomicU64::new(0),
            forgotten_total: AtomicU64::new(0),
            not_remembered_total: AtomicU64::new(0),
        })
    }

    /// These limits hold from now on.
    pub(super) fn set_limits(&self, limits: CircuitLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    /// The limits.
    pub(super) fn limits(&self) -> Arc<CircuitLimits> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether circuits close that go over a limit, or are banned.
    pub(super) fn closes_circuits(&self) -> bool {
        self.limits().over == OverLimit::Close
    }

    /// A circuit has asked for a port that is not served: what follows.
    pub(super) fn unknown_port(&self) -> Refused {
        self.unknown_ports_total.fetch_add(1, Ordering::Relaxed);
        Refused { close: !self.limits().allow_unknown_ports }
    }

    /// The shard of a circuit.
    fn shard(&self, circuit: CircuitId) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(circuit) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of a circuit from now on, and whether that is its own.
    fn remember(&self, circuit: CircuitId, now: u64) -> (Arc<Gate>, bool) {
        let Remembered { gate, own, forgotten } = self.shard(circuit).remember(circuit, now);
        self.forgotten_total.fetch_add(forgotten as u64, Ordering::Relaxed);
        self.not_remembered_total.fetch_add(u64::from(!own), Ordering::Relaxed);
        (gate, own)
    }

    /// Say something of a circuit for so long; `false` when nothing can be forgotten for it: only
    /// bans are remembered.
    pub(super) fn set_verdict(
        &self,
        circuit: CircuitId,
        verdict: Verdict,
        lifetime: Duration,
    ) -> bool {
        let now = now_us();
        let (gate, own) = self.remember(circuit, now);
        if !own {
            return false;
        }
        let lifetime = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
        gate.verdict.store(verdict as u8, Ordering::Relaxed);
        gate.verdict_until_us.store(now.saturating_add(lifetime), Ordering::Relaxed);
        self.verdicts_total.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// A circuit has closed: nothing is remembered of it. Its streams that still end are counted
    /// where they began.
    pub(super) fn forget(&self, circuit: CircuitId) {
        if self.verdicts_total.load(Ordering::Relaxed) > 0 || !self.limits().is_none() {
            self.shard(circuit).gates.remove(&circuit);
        }
    }

    /// What is said of a circuit.
    pub(super) fn verdict(&self, circuit: CircuitId) -> Verdict {
        if self.verdicts_total.load(Ordering::Relaxed) == 0 {
            return Verdict::Normal;
        }
        let shard = self.shard(circuit);
        shard.gates.get(&circuit).map_or(Verdict::Normal, |gate| gate.verdict(now_us()))
    }

    /// A circuit begins a stream. `banned_are_served` says whether there is a backend for those who
    /// are banned.
    ///
    /// # Errors
    /// [`Refused`] when it may not.
    pub(super) fn enter(
        self: &Arc<Gates>,
        circuit: CircuitId,
        banned_are_served: bool,
    ) -> Result<Pass, Refused> {
        let limits = self.limits();
        if limits.is_none() && (banned_are_served || self.verdict(circuit) != Verdict::Banned) {
            return Ok(Pass(None));
        }
        let now = now_us();
        let (gate, _) = self.remember(circuit, now);
        let open = gate.open.fetch_add(1, Ordering::Relaxed);
        let known = Known { gate, gates: Arc::clone(self), limits };
        if known.gate.verdict(now) == Verdict::Banned && !banned_are_served {
            return Err(known.refused(&self.refused_banned_total));
        }
        if known.limits.streams_max.is_some_and(|most| open >= most) {
            return Err(known.refused(&self.refused_streams_total));
        }
        if let Some(rate) = known.limits.streams
            && !known.gate.streams.take(1, rate, now, false)
        {
            return Err(known.refused(&self.refused_rate_total));
        }
        Ok(Pass(Some(Box::new(known))))
    }

    /// What status shows.
    pub(super) fn status(&self) -> CircuitsStatus {
        let now = now_us();
        let mut status = CircuitsStatus {
            refused_streams_total: self.refused_streams_total.load(Ordering::Relaxed),
            refused_rate_total: self.refused_rate_total.load(Ordering::Relaxed),
            refused_banned_total: self.refused_banned_total.load(Ordering::Relaxed),
            ended_bytes_total: self.ended_bytes_total.load(Ordering::Relaxed),
            unknown_ports_total: self.unknown_ports_total.load(Ordering::Relaxed),
            forgotten_total: self.forgotten_total.load(Ordering::Relaxed),
            not_remembered_total: self.not_remembered_total.load(Ordering::Relaxed),
            preferred: 0,
            banned: 0,
        };
        if self.verdicts_total.load(Ordering::Relaxed) == 0 {
            return status;
        }
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for gate in shard.gates.values() {
                match gate.verdict(now) {
                    Verdict::Normal => {}
                    Verdict::Preferred => status.preferred += 1,
                    Verdict::Banned => status.banned += 1,
                }
            }
        }
        status
    }
}

/// A stream that is served, until this is dropped.
#[derive(Debug)]
pub(super) struct Pass(Option<Box<Known>>);

/// A stream of a circuit of which something is remembered.
#[derive(Debug)]
struct Known {
    /// Its circuit.
    gate: Arc<Gate>,
    /// All of them.
    gates: Arc<Gates>,
    /// What it may do: the limits that held when it began.
    limits: Arc<CircuitLimits>,
}

impl Known {
    /// It may not, which is counted there.
    fn refused(&self, counter: &AtomicU64) -> Refused {
        counter.fetch_add(1, Ordering::Relaxed);
        Refused { close: self.limits.over == OverLimit::Close }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pass {
    /// For streams that nobody limits.
    #[cfg(test)]
    pub(super) fn free() -> Pass {
        Pass(None)
    }

    /// Bytes have passed, whichever way.
    ///
    /// # Errors
    /// [`Refused`] when they are more than may pass: the stream ends.
    pub(super) fn note(&self, bytes: usize) -> Result<(), Refused> {
        let Some(known) = &self.0 else { return Ok(()) };
        let Some(rate) = known.limits.bytes else { return Ok(()) };
        if known.gate.bytes.take(bytes as u64, rate, now_us(), true) {
            return Ok(());
        }
        Err(known.refused(&known.gates.ended_bytes_total))
    }
}

#[cfg(test)]
mod tests;
