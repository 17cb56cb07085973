//! How far our clock is off, as relays tell when a link opens (tor-spec, NETINFO), and whether it
//! is proven to be fast.
//!
//! arti has an estimate of its own, but for clients in trouble: it waits for eight relays and for
//! 15 minutes. A service has a link or two. What is shown is the median of what their relays say;
//! it is warned of, whichever way it is off. No link is opened to ask.
//!
//! Nothing is published with a clock that is *proven* to be fast by
//! [`limits::CLOCK_SKEW_PUBLISH_MS_MAX`] or more: revision counters from the future would block the
//! next publisher for as long. A guard stays for months; if its word alone were believed, it could
//! silence the service in a way that does not look like its doing. So a proof needs more:
//!
//! * three relays or more: their median, unless it puts the time before the beginning of the
//!   consensus, which the authorities have signed;
//! * one or two: their median, if by our clock the consensus is over, and by theirs it is not.
//!
//! That by our clock the consensus is over proves nothing alone: an old one may be all that could
//! be had. The consensus alone cannot show less than what it has left of its three hours, so a
//! clock that is fast by minutes, and one or two relays that say so, are a warning: the counters
//! are ahead by those minutes, which is how long another publisher would be refused.
//!
//! An HSDir's refusal proves nothing of the kind. It refuses a counter that is *below* the one that
//! it holds: at most that says that our clock is slow, or was fast before. And a slow clock does
//! not block: its counters are refused at worst, and exceed what the HSDir holds the next time
//! (`onion::revision`).
//!
//! A link tells once. A clock that is set later is noticed by comparing it with the time since the
//! machine's start, which nobody sets, and which runs on while the machine sleeps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use tor_llcrypto::pk::rsa::RsaIdentity;
use tor_netdoc::doc::netstatus::Lifetime;
use tor_proto::ClockSkew;

use crate::limits;

/// Both clocks at one time.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    /// The one that is set: time since 1970.
    wall: Duration,
    /// The one that nobody sets: time since the machine's start, `CLOCK_BOOTTIME`.
    boot: Duration,
}

impl Clocks {
    /// What they show now.
    fn now() -> Clocks {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Clocks { wall, boot }
    }

    /// How far the wall clock was set ahead since `then`, in milliseconds.
    fn set_ahead_since(self, then: Clocks) -> i64 {
        let whole = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let wall = whole(self.wall).saturating_sub(whole(then.wall));
        wall.saturating_sub(whole(self.boot).saturating_sub(whole(then.boot)))
    }
}

/// What shows that our clock is fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastProof {
    /// So many relays, of whom the one in the middle says so.
    Relays(usize),
    /// A relay or two, and the consensus's times.
    Consensus,
}

impl fmt::Display for FastProof {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FastProof::Relays(count) => write!(out, "{count} relays tell"),
            FastProof::Consensus => out.write_str("a guard and the times of the consensus tell"),
        }
    }
}

/// What one relay said.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Which one.
    relay: RsaIdentity,
    /// Our clock's skew in milliseconds, positive when it was behind.
    skew_ms: i64,
    /// When.
    at: Clocks,
}

/// What the relays of open links said.
#[derive(Debug, Default)]
pub(super) struct Skews {
    /// By the link's number; `None` for a link that cannot be asked.
    by_link: Mutex<BTreeMap<u64, Option<Told>>>,
    /// Whether a consensus has shown that our clock is fast: until it, or relays, say otherwise.
    was_shown: AtomicBool,
}

impl Skews {
    /// The list.
    fn list(&self) -> MutexGuard<'_, BTreeMap<u64, Option<Told>>> {
        self.by_link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forget links that have closed.
    pub(super) fn keep_only(&self, open: &[u64]) {
        self.list().retain(|number, _| open.contains(number));
    }

    /// Whether this link's relay was asked.
    pub(super) fn knows(&self, link: u64) -> bool {
        self.list().contains_key(&link)
    }

    /// A link's relay has told.
    pub(super) fn note(&self, link: u64, relay: RsaIdentity, skew: ClockSkew) {
        self.note_at(link, relay, skew, Clocks::now());
    }

    /// See [`Self::note`].
    fn note_at(&self, link: u64, relay: RsaIdentity, skew: ClockSkew, at: Clocks) {
        self.list().insert(link, Some(Told { relay, skew_ms: milliseconds(skew), at }));
    }

    /// A link's relay cannot be asked.
    pub(super) fn note_silent(&self, link: u64) {
        self.list().insert(link, None);
    }

    /// The median, of two middle ones the smaller skew; `None` while no relay has told.
    pub(super) fn median_ms(&self) -> Option<i64> {
        self.median_ms_at(Clocks::now())
    }

    /// See [`Self::median_ms`].
    fn median_ms_at(&self, now: Clocks) -> Option<i64> {
        median(&self.told_at(now))
    }

    /// What each relay says, in order; of a relay with several links, the newest.
    fn told_at(&self, now: Clocks) -> Vec<i64> {
        let skew = |told: &Told| told.skew_ms.saturating_sub(now.set_ahead_since(told.at));
        let list = self.list();
        let by_relay = list.values().flatten().map(|told| (told.relay, skew(told)));
        let by_relay: BTreeMap<RsaIdentity, i64> = by_relay.collect();
        let mut all: Vec<i64> = by_relay.into_values().collect();
        all.sort_unstable();
        all
    }

    /// What shows that our clock is fast by so much that nothing may be published, if anything
    /// does; `consensus` is the lifetime of the newest one.
    pub(super) fn proof_of_fast(&self, consensus: Option<&Lifetime>) -> Option<FastProof> {
        self.proof_of_fast_at(consensus, Clocks::now())
    }

    /// See [`Self::proof_of_fast`].
    fn proof_of_fast_at(&self, consensus: Option<&Lifetime>, now: Clocks) -> Option<FastProof> {
        let told = self.told_at(now);
        let tolerance = Duration::from_millis(limits::CLOCK_SKEW_PUBLISH_MS_MAX);
        let fast = median(&told).filter(|skew| *skew < 0).map(i64::unsigned_abs);
        let fast = fast.map(Duration::from_millis).filter(|fast| *fast >= tolerance);
        let Some(fast) = fast else {
            self.was_shown.store(false, Ordering::Relaxed);
            return None;
        };
        let ours = SystemTime::UNIX_EPOCH + now.wall;
        let theirs = SystemTime::UNIX_EPOCH + now.wall.saturating_sub(fast);
        let has_begun = |consensus: &Lifetime| theirs + tolerance >= consensus.valid_after();
        if told.len() >= limits::CLOCK_RELAYS_MIN && consensus.is_none_or(has_begun) {
            return Some(FastProof::Relays(told.len()));
        }
        let consensus = consensus?;
        if ours <= consensus.valid_until() {
            self.was_shown.store(false, Ordering::Relaxed);
        } else if has_begun(consensus) && theirs <= consensus.valid_until() {
            self.was_shown.store(true, Ordering::Relaxed);
        }
        self.was_shown.load(Ordering::Relaxed).then_some(FastProof::Consensus)
    }
}

/// The median of what is in order, of two middle ones the smaller skew.
fn median(all: &[i64]) -> Option<i64> {
    let (low, high) = (*all.get(all.len().checked_sub(1)? / 2)?, *all.get(all.len() / 2)?);
    Some(if low.unsigned_abs() <= high.unsigned_abs() { low } else { high })
}

/// Positive when our clock is behind.
fn milliseconds(skew: ClockSkew) -> i64 {
    let whole = |skew: Duration| i64::try_from(skew.as_millis()).unwrap_or(i64::MAX);
    match skew {
        ClockSkew::Slow(skew) => whole(skew),
        ClockSkew::Fast(skew) => -whole(skew),
        ClockSkew::None => 0,
    }
}

#[cfg(test)]
mod tests;
