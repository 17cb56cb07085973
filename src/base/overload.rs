//! Whether memory is short, as every core sees it: set by the control core, read at each
//! introduction.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub struct Overload {
    /// New clients are refused.
    short: AtomicBool,
    /// Clients that were refused.
    refused_total: AtomicU64,
    /// Circuits that were closed to get memory back.
    closed_total: AtomicU64,
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

    /// So many circuits were closed.
    pub fn note_closed(&self, circuits: u64) {
        self.closed_total.fetch_add(circuits, Ordering::Relaxed);
    }

    /// Clients refused so far.
    pub fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// Circuits closed so far.
    pub fn closed_total(&self) -> u64 {
        self.closed_total.load(Ordering::Relaxed)
    }
}
