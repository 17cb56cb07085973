//! Which core serves a connection, and the queues by which it gets there.
//!
//! A connection is given away before its first byte is read, as a descriptor: nothing of it is on
//! the core that accepted it. It goes to the core with the fewest streams, if that has clearly
//! fewer; of many cores two are drawn and the better one is taken (power of two choices). A full
//! queue means that it is served where it is.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::RngExt as _;

use super::front::Front;
use crate::limits;
use crate::runtime::{self, Full, Mailbox};

/// Up to so many cores all are looked at.
const LOOK_AT_ALL: usize = 8;
/// A core is given a stream if it has fewer by more than one of so many of its own.
const MARGIN_ONE_OF: u64 = 16;

/// A connection that has been accepted.
pub struct Arrival {
    /// The connection.
    pub(super) fd: OwnedFd,
    /// Where it came.
    pub(super) front: Arc<Front>,
}

impl Arrival {
    /// Serve it to its end, on the calling core.
    pub(super) async fn serve(self, live: Live) {
        self.front.serve(self.fd, live).await;
    }
}

/// One core's part.
#[derive(Debug)]
#[repr(align(128))]
struct Lane {
    /// Connections that it was given.
    arrivals: Mailbox<(Arrival, Live)>,
    /// Streams that it serves, those it was given included.
    live: AtomicU64,
    /// Whether it runs.
    up: AtomicBool,
}

/// All cores.
#[derive(Debug)]
pub struct Handoff {
    /// One for each.
    lanes: Box<[Arc<Lane>]>,
}

/// A stream that a core serves, until this is dropped.
#[derive(Debug)]
pub struct Live(Arc<Lane>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arrival at {:?}", self.front)
    }
}

impl Handoff {
    /// For so many data cores, none of which runs yet.
    pub fn new(cores: usize) -> Arc<Handoff> {
        let lane = |_| {
            Arc::new(Lane {
                arrivals: Mailbox::new(limits::HANDOFF_WAITING_MAX),
                live: AtomicU64::new(0),
                up: AtomicBool::new(false),
            })
        };
        Arc::new(Handoff { lanes: (0..cores).map(lane).collect() })
    }

    /// A core runs, or does so no more.
    pub fn set_up(&self, core: usize, up: bool) {
        self.lanes[core].up.store(up, Ordering::Relaxed);
    }

    /// Whether a core runs.
    #[cfg(test)]
    pub(super) fn is_up(&self, core: usize) -> bool {
        self.lanes[core].up.load(Ordering::Relaxed)
    }

    /// A stream is served by this core until the guard is dropped.
    #[must_use]
    pub fn count(&self, core: usize) -> Live {
        let lane = Arc::clone(&self.lanes[core]);
        lane.live.fetch_add(1, Ordering::Relaxed);
        Live(lane)
    }

    /// Streams that a core serves.
    pub fn live(&self, core: usize) -> u64 {
        self.lanes[core].live.load(Ordering::Relaxed)
    }

    /// Whether any core serves a stream.
    pub fn is_busy(&self) -> bool {
        (0..self.lanes.len()).any(|core| self.live(core) > 0)
    }

    /// Serve what this core is given, for as long as the future is polled.
    pub async fn run(self: Arc<Handoff>, core: usize) {
        loop {
            let (arrival, live) = self.lanes[core].arrivals.recv().await;
            runtime::spawn(arrival.serve(live));
        }
    }

    /// The core that shall serve the next stream in place of this one.
    pub(super) fn other_than(&self, core: usize) -> Option<usize> {
        let own = self.live(core);
        if own == 0 || self.lanes.len() < 2 {
            return None;
        }
        let up = |other: &usize| *other != core && self.lanes[*other].up.load(Ordering::Relaxed);
        let best = if self.lanes.len() <= LOOK_AT_ALL {
            (0..self.lanes.len()).filter(up).min_by_key(|other| self.live(*other))
        } else {
            let draw = || rand::rng().random_range(0..self.lanes.len());
            [draw(), draw()].into_iter().filter(up).min_by_key(|other| self.live(*other))
        };
        best.filter(|best| {
            let other = self.live(*best);
            own > other + other / MARGIN_ONE_OF
        })
    }

    /// Give a connection to this core.
    ///
    /// # Errors
    /// The connection, when its queue is full.
    pub(super) fn give(&self, core: usize, arrival: Arrival) -> Result<(), Arrival> {
        let live = self.count(core);
        self.lanes[core].arrivals.push((arrival, live)).map_err(|Full((arrival, _))| arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::Handoff;

    #[test]
    fn streams_that_all_come_to_one_core_end_up_even() {
        for cores in [2, 4, 32] {
            let handoff = Handoff::new(cores);
            (0..cores).for_each(|core| handoff.set_up(core, true));
            let live: Vec<_> = (0..200 * cores)
                .map(|_| handoff.count(handoff.other_than(0).unwrap_or(0)))
                .collect();
            let counts: Vec<u64> = (0..cores).map(|core| handoff.live(core)).collect();
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(least.zip(most).is_some_and(|(a, b)| b - a <= b / 10), "{counts:?}");
            drop(live);
            assert!((0..cores).all(|core| handoff.live(core) == 0));
        }
    }

    #[test]
    fn a_core_that_is_down_is_given_nothing() {
        let handoff = Handoff::new(2);
        handoff.set_up(0, true);
        let _live: Vec<_> = (0..10).map(|_| handoff.count(0)).collect();
        assert_eq!(handoff.other_than(0), None);
        handoff.set_up(1, true);
        assert_eq!(handoff.other_than(0), Some(1));
        assert_eq!(handoff.other_than(1), None);
    }
}
