//! The counters of one instance: written by its data core, read by status and by the balancing.
//!
//! All are relaxed atomics on a cache line of their own core's; nothing is decided by two of them
//! together. Gauges (`..._open`) go down when their guard is dropped, so no path can forget it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct InstanceCounters {
    /// INTRODUCE2 that arrived.
    introductions_total: AtomicU64,
    /// INTRODUCE2 that did not decrypt or asked for what we do not offer.
    introductions_invalid_total: AtomicU64,
    /// INTRODUCE2 that could not be served for want of a directory.
    introductions_no_directory_total: AtomicU64,
    /// INTRODUCE2 on which our own code panicked.
    introductions_panicked_total: AtomicU64,
    /// INTRODUCE2 and cookies that were seen before.
    replays_refused_total: AtomicU64,
    /// Requests dropped because a queue or every core was full.
    queue_full_total: AtomicU64,
    /// Requests that another core was given.
    handed_off_total: AtomicU64,
    /// Rendezvous that are being built or open.
    rendezvous_open: AtomicU64,
    /// Rendezvous that are being built, or whose client has not begun a stream yet and still may.
    rendezvous_young: AtomicU64,
    /// Rendezvous that are being built.
    rendezvous_building: AtomicU64,
    /// Rendezvous that were built.
    rendezvous_total: AtomicU64,
    /// Rendezvous that could not be built.
    rendezvous_failed_total: AtomicU64,
    /// Of these, those that were not begun: circuits had to come slowly, and too many waited.
    rendezvous_braked_total: AtomicU64,
    /// Of those that failed, the ones that were given up because newer ones waited.
    rendezvous_given_up_total: AtomicU64,
    /// Rendezvous closed by us because they had long been without a stream.
    rendezvous_idle_closed_total: AtomicU64,
    /// Streams that are open.
    streams_open: AtomicU64,
    /// Streams that were accepted.
    streams_total: AtomicU64,
    /// Streams that were refused, for whatever reason.
    streams_refused_total: AtomicU64,
    /// Payload from clients, in bytes.
    bytes_in_total: AtomicU64,
    /// Payload to clients, in bytes.
    bytes_out_total: AtomicU64,
}

/// A gauge that goes down when this is dropped.
#[derive(Debug)]
pub struct OpenGuard {
    /// Whose gauge.
    counters: Arc<InstanceCounters>,
    /// Which one.
    gauge: fn(&InstanceCounters) -> &AtomicU64,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Add to a counter, and read it.
macro_rules! counter {
    ($(#[$doc:meta])* $note:ident, $read:ident, $field:ident) => {
        $(#[$doc])*
        pub fn $note(&self) {
            self.$field.fetch_add(1, Ordering::Relaxed);
        }

        /// How many so far.
        pub fn $read(&self) -> u64 {
            self.$field.load(Ordering::Relaxed)
        }
    };
}

impl InstanceCounters {
    counter!(
        /// An INTRODUCE2 arrived.
        note_introduction,
        introductions_total,
        introductions_total
    );
    counter!(
        /// An INTRODUCE2 made no sense.
        note_introduction_invalid,
        introductions_invalid_total,
        introductions_invalid_total
    );
    counter!(
        /// An INTRODUCE2 came while there was no directory.
        note_introduction_no_directory,
        introductions_no_directory_total,
        introductions_no_directory_total
    );
    counter!(
        /// Our own code panicked on an INTRODUCE2.
        note_introduction_panicked,
        introductions_panicked_total,
        introductions_panicked_total
    );
    counter!(
        /// A replay was refused.
        note_replay_refused,
        replays_refused_total,
        replays_refused_total
    );
    counter!(
        /// A request was dropped because there was no room.
        note_queue_full,
        queue_full_total,
        queue_full_total
    );
    counter!(
        /// A request went to another core.
        note_handed_off,
        handed_off_total,
        handed_off_total
    );
    counter!(
        /// A rendezvous was built.
        note_rendezvous,
        rendezvous_total,
        rendezvous_total
    );
    counter!(
        /// A rendezvous could not be built.
        note_rendezvous_failed,
        rendezvous_failed_total,
        rendezvous_failed_total
    );
    counter!(
        /// A rendezvous was not begun: circuits had to come slowly, and too many waited.
        note_rendezvous_braked,
        rendezvous_braked_total,
        rendezvous_braked_total
    );
    counter!(
        /// A rendezvous was given up for a newer one.
        note_rendezvous_given_up,
        rendezvous_given_up_total,
        rendezvous_given_up_total
    );
    counter!(
        /// A rendezvous was closed for being idle.
        note_rendezvous_idle_closed,
        rendezvous_idle_closed_total,
        rendezvous_idle_closed_total
    );
    counter!(
        /// A stream was refused.
        note_stream_refused,
        streams_refused_total,
        streams_refused_total
    );

    /// A rendezvous begins; it counts as open until the guard is dropped.
    #[must_use]
    pub fn open_rendezvous(self: &Arc<Self>) -> OpenGuard {
        self.open(|counters| &counters.rendezvous_open)
    }

    /// A rendezvous has a place among those that are built; it has it until the guard is dropped.
    #[must_use]
    pub fn building_rendezvous(self: &Arc<Self>) -> OpenGuard {
        self.open(|counters| &counters.rendezvous_building)
    }

    /// A rendezvous begins; it counts as young until the guard is dropped.
    #[must_use]
    pub fn young_rendezvous(self: &Arc<Self>) -> OpenGuard {
        self.open(|counters| &counters.rendezvous_young)
    }

    /// A stream was accepted; it counts as open until the guard is dropped.
    #[must_use]
    pub fn open_stream(self: &Arc<Self>) -> OpenGuard {
        self.streams_total.fetch_add(1, Ordering::Relaxed);
        self.open(|counters| &counters.streams_open)
    }

    /// Raise a gauge for as long as the guard lives.
    fn open(self: &Arc<Self>, gauge: fn(&InstanceCounters) -> &AtomicU64) -> OpenGuard {
        gauge(self).fetch_add(1, Ordering::Relaxed);
        OpenGuard { counters: Arc::clone(self), gauge }
    }

    /// Rendezvous that are being built or open now.
    pub fn rendezvous_open(&self) -> u64 {
        self.rendezvous_open.load(Ordering::Relaxed)
    }

    /// Rendezvous that are being built now.
    pub fn rendezvous_building(&self) -> u64 {
        self.rendezvous_building.load(Ordering::Relaxed)
    }

    /// Rendezvous that are being built now, or still wait for their first stream.
    pub fn rendezvous_young(&self) -> u64 {
        self.rendezvous_young.load(Ordering::Relaxed)
    }

    /// Streams that are open now.
    pub fn streams_open(&self) -> u64 {
        self.streams_open.load(Ordering::Relaxed)
    }

    /// Streams accepted so far.
    pub fn streams_total(&self) -> u64 {
        self.streams_total.load(Ordering::Relaxed)
    }

    /// Payload came from a client.
    pub fn add_bytes_in(&self, bytes: usize) {
        self.bytes_in_total.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Payload went to a client.
    pub fn add_bytes_out(&self, bytes: usize) {
        self.bytes_out_total.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Payload from clients so far, in bytes.
    pub fn bytes_in_total(&self) -> u64 {
        self.bytes_in_total.load(Ordering::Relaxed)
    }

    /// Payload to clients so far, in bytes.
    pub fn bytes_out_total(&self) -> u64 {
        self.bytes_out_total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::InstanceCounters;

    #[test]
    fn a_gauge_goes_down_when_its_guard_is_dropped() {
        let counters = Arc::new(InstanceCounters::default());
        let first = counters.open_stream();
        let second = counters.open_stream();
        assert_eq!((counters.streams_open(), counters.streams_total()), (2, 2));
        drop(first);
        assert_eq!((counters.streams_open(), counters.streams_total()), (1, 2));
        drop(second);
        assert_eq!(counters.streams_open(), 0);
    }
}
