//! Whether memory is short, as every core sees it: set by the control core, read at each
//! introduction. And what was done for want of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::limits;

/// How short memory is, or room for circuits on a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    /// Who serves nobody goes.
    Short,
    /// Soon new clients would have to be refused.
    Scarce,
    /// All of it is used.
    Full,
}

impl Shortage {
    /// How short it is with `used` of `max`, scarce from so many percent on.
    pub fn of(used: u64, max: u64, scarce_percent: u64) -> Option<Shortage> {
        let above = |percent: u64| used / 100 >= max / 10_000 * percent;
        match () {
            () if above(100) => Some(Shortage::Full),
            () if above(scarce_percent) => Some(Shortage::Scarce),
            () if above(limits::SHORT_PERCENT) => Some(Shortage::Short),
            () => None,
        }
    }
}

/// Why a circuit was closed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedFor {
    /// It never had a stream.
    Unused,
    /// It had no stream any more.
    Idle,
    /// It held the most.
    Bytes,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Overload {
    /// New clients are refused.
    short: AtomicBool,
    /// Clients that were refused.
    refused_total: AtomicU64,
    /// Circuits that were closed because they never had a stream.
    closed_unused_total: AtomicU64,
    /// Circuits that were closed because they had no stream any more.
    closed_idle_total: AtomicU64,
    /// Circuits that were closed because they held the most.
    closed_bytes_total: AtomicU64,
}

impl Overload {
    /// Whether a new client has to be refused; it is counted then.
    pub fn refuses(&self) -> bool {
        let short = self.is_short();
        if short {
            self.refused_total.fetch_add(1, Ordering::Relaxed);
        }
        short
    }

    /// Whether new clients are refused.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Say whether new clients are refused from now on.
    pub fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// The counter of those that were closed for this reason.
    fn counter(&self, reason: ClosedFor) -> &AtomicU64 {
        match reason {
            ClosedFor::Unused => &self.closed_unused_total,
            ClosedFor::Idle => &self.closed_idle_total,
            ClosedFor::Bytes => &self.closed_bytes_total,
        }
    }

    /// A circuit was closed.
    pub fn note_closed(&self, reason: ClosedFor) {
        self.counter(reason).fetch_add(1, Ordering::Relaxed);
    }

    /// Clients refused so far.
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// Circuits closed so far for this reason.
    pub fn closed_total(&self, reason: ClosedFor) -> u64 {
        self.counter(reason).load(Ordering::Relaxed)
    }
}
