//! What a client's circuit may do: how many streams at a time and a second, how many bytes a
//! second; and what somebody has said of it: that it is preferred, or banned.
//!
//! ```text
//!   new stream --> Gates::enter --pass--> backends of its verdict --> all bytes: Pass::note
//!                       '-- banned, or over a limit: END, or the circuit closes
//! ```
//!
//! A circuit is known only while there is something to remember of it: no limit and no verdict cost
//! nothing, neither time nor memory. Rates are kept as one number (GCRA, ITU-T I.371: the time at
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

    /// Whether there is nothing to remember.
    fn is_idle(&self, now: u64) -> bool {
        self.open.load(Ordering::Relaxed) == 0
            && self.verdict(now) == Verdict::Normal
            && self.streams.is_full(now)
            && self.bytes.is_full(now)
    }
}

/// Some of the circuits.
#[derive(Debug, Default)]
struct Shard {
    /// Those of which something is remembered, and some of which nothing is any more.
    gates: HashMap<CircuitId, Arc<Gate>>,
    /// With so many it is time to forget.
    sweep_at: usize,
}

impl Shard {
    /// What is remembered of a circuit, from now on if it was not before; `None` when too much is
    /// remembered already.
    fn gate(&mut self, circuit: CircuitId, now: u64) -> Option<Arc<Gate>> {
        if let Some(gate) = self.gates.get(&circuit) {
            return Some(Arc::clone(gate));
        }
        if self.gates.len() >= self.sweep_at {
            // Whoever has just taken one is about to note something in it.
            self.gates.retain(|_, gate| !gate.is_idle(now) || Arc::strong_count(gate) > 1);
            self.sweep_at = (2 * self.gates.len()).clamp(SWEEP_MIN, limits::GATES_MAX / SHARDS);
        }
        if self.gates.len() >= limits::GATES_MAX / SHARDS {
            return None;
        }
        let gate = Arc::<Gate>::default();
        self.gates.insert(circuit, Arc::clone(&gate));
        Some(gate)
    }
}

/// Circuits are spread over so many locks, each held for the time of one look.
const SHARDS: usize = 32;
/// Fewer circuits are not worth to be looked through.
const SWEEP_MIN: usize = 64;

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

    /// Say something of a circuit for so long; `false` when too much is remembered already.
    pub(super) fn set_verdict(
        &self,
        circuit: CircuitId,
        verdict: Verdict,
        lifetime: Duration,
    ) -> bool {
        let now = now_us();
        let Some(gate) = self.shard(circuit).gate(circuit, now) else { return false };
        let lifetime = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
        gate.verdict.store(verdict as u8, Ordering::Relaxed);
        gate.verdict_until_us.store(now.saturating_add(lifetime), Ordering::Relaxed);
        self.verdicts_total.fetch_add(1, Ordering::Relaxed);
        true
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
        if limits.is_none() && self.verdicts_total.load(Ordering::Relaxed) == 0 {
            return Ok(Pass(None));
        }
        let now = now_us();
        let Some(gate) = self.shard(circuit).gate(circuit, now) else { return Ok(Pass(None)) };
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
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Bucket, Gates, Refused};
    use crate::base::stream::CircuitId;
    use crate::limits;
    use crate::plane::config::{CircuitLimits, OverLimit, Rate};
    use crate::plane::status::Verdict;

    /// The circuit of this number.
    fn circuit(serial: u32) -> CircuitId {
        CircuitId { instance: 0, serial }
    }

    /// So many circuits of which something is remembered.
    fn known(gates: &Gates) -> usize {
        gates.shards.iter().map(|shard| shard.lock().expect("no panic").gates.len()).sum()
    }

    #[test]
    fn a_rate_lets_a_burst_through_and_then_so_many_a_second() {
        let (bucket, rate) = (Bucket::default(), Rate { per_second: 10, burst: 5 });
        let mut now = 1;
        let passed = (0..20).filter(|_| bucket.take(1, rate, now, false)).count();
        assert_eq!(passed, 5);
        let mut passed = 0;
        for _ in 0..1000 {
            now += 10_000;
            passed += usize::from(bucket.take(1, rate, now, false));
        }
        // Ten seconds.
        assert!((99..=101).contains(&passed), "{passed}");
        assert!(!bucket.is_full(now) && bucket.is_full(now + 500_000));
        // What has happened is owed.
        assert!(!bucket.take(100, rate, now, true));
        assert!(!bucket.take(1, rate, now + 9_000_000, false));
        assert!(bucket.take(1, rate, now + 11_000_000, false));
    }

    #[test]
    fn a_circuit_has_so_many_streams_and_others_are_not_concerned() {
        let limits = CircuitLimits { streams_max: Some(2), ..CircuitLimits::default() };
        let gates = Gates::new(limits);
        let first = gates.enter(circuit(1), false).expect("there is room");
        let _second = gates.enter(circuit(1), false).expect("there is room");
        let refused = gates.enter(circuit(1), false).expect_err("there is none");
        assert_eq!(refused, Refused { close: false });
        let _other = gates.enter(circuit(2), false).expect("another circuit");
        drop(first);
        let _third = gates.enter(circuit(1), false).expect("there is room again");
        assert_eq!(gates.status().refused_streams_total, 1);
        gates.set_limits(CircuitLimits::default());
        let _free = gates.enter(circuit(1), false).expect("no limit holds");
    }

    #[test]
    fn who_sends_too_much_is_told_and_its_circuit_closes_where_that_is_wanted() {
        let bytes = Some(Rate { per_second: 1000, burst: 5000 });
        let limits = CircuitLimits { bytes, over: OverLimit::Close, ..CircuitLimits::default() };
        let gates = Gates::new(limits);
        let (one, two) = (gates.enter(circuit(1), false), gates.enter(circuit(1), false));
        let (one, two) = (one.expect("it may"), two.expect("it may"));
        assert_eq!(one.note(3000), Ok(()));
        assert_eq!(two.note(3000), Err(Refused { close: true }));
        assert_eq!(gates.status().ended_bytes_total, 1);
    }

    #[test]
    fn a_verdict_holds_for_its_time_and_the_last_one_counts() {
        let gates = Gates::new(CircuitLimits::default());
        assert_eq!(gates.verdict(circuit(1)), Verdict::Normal);
        assert_eq!(known(&gates), 0);
        assert!(gates.set_verdict(circuit(1), Verdict::Preferred, Duration::from_secs(60)));
        assert_eq!(gates.verdict(circuit(1)), Verdict::Preferred);
        assert_eq!(gates.verdict(circuit(2)), Verdict::Normal);
        assert!(gates.set_verdict(circuit(1), Verdict::Banned, Duration::from_secs(60)));
        assert!(gates.enter(circuit(1), false).is_err());
        assert!(gates.enter(circuit(1), true).is_ok());
        let status = gates.status();
        assert_eq!((status.preferred, status.banned, status.refused_banned_total), (0, 1, 1));
        assert!(gates.set_verdict(circuit(1), Verdict::Banned, Duration::ZERO));
        assert_eq!(gates.verdict(circuit(1)), Verdict::Normal);
    }

    #[test]
    fn what_is_over_is_forgotten_and_what_is_remembered_is_bounded() {
        let streams = Some(Rate { per_second: 1_000_000, burst: 1 });
        let gates = Gates::new(CircuitLimits { streams, ..CircuitLimits::default() });
        for serial in 0..200_000 {
            drop(gates.enter(circuit(serial), false));
        }
        assert!(known(&gates) < 200_000 / 4, "{}", known(&gates));
        let gates = Gates::new(CircuitLimits::default());
        let long = Duration::from_secs(3600);
        let more = u32::try_from(limits::GATES_MAX + 10_000).expect("a small number");
        let said = (0..more).filter(|at| gates.set_verdict(circuit(*at), Verdict::Banned, long));
        let said = said.count();
        assert!(said <= limits::GATES_MAX && said > limits::GATES_MAX * 9 / 10, "{said}");
        assert_eq!(known(&gates), said);
        // Once they are over there is room again.
        (0..more).for_each(|at| {
            gates.set_verdict(circuit(at), Verdict::Banned, Duration::ZERO);
        });
        let again = (more..2 * more)
            .filter(|at| gates.set_verdict(circuit(*at), Verdict::Banned, Duration::ZERO));
        assert_eq!(u32::try_from(again.count()), Ok(more));
        assert_eq!(Arc::strong_count(&gates), 1);
    }
}
