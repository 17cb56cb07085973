//! What is known of one remote instance, and which of its points may be published. Synchronous: it
//! takes in what fetches and probes have found.

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::probe::Presence;
use crate::limits;
use crate::onion::foreign::Foreign;

/// How long a descriptor holds.
const LIFETIME: Duration = Duration::from_secs(limits::DESCRIPTOR_LIFETIME_MINUTES as u64 * 60);

/// What is known of one remote instance.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Its descriptor.
    known: Option<Known>,
    /// Whether a relay has said, since the last failed fetch, that it has one of its points.
    confirmed: bool,
    /// Why the last fetch failed, if it did.
    failed: Option<String>,
    /// Which point is the next to be probed.
    turn: usize,
}

/// A descriptor that was read.
#[derive(Debug)]
struct Known {
    /// Number of its period.
    period: u64,
    /// Its revision counter.
    revision: u64,
    /// Its points; `false` for one that its relay does not know.
    points: Vec<(IntroPointDesc, bool)>,
    /// What it offers.
    congestion_control: Option<NonZeroU8>,
    /// When it was read last.
    read_at: Instant,
}

/// Which points may be published, or why none may.
pub(super) type Verdict<'a> = Result<(Vec<IntroPointDesc>, Option<NonZeroU8>), &'a str>;

impl View {
    /// A descriptor was fetched; whether it brings other points. A copy that is older than the
    /// known one is an HSDir's that has not got the newer: it says nothing.
    pub(super) fn note_descriptor(&mut self, period: u64, found: Foreign, now: Instant) -> bool {
        self.failed = None;
        let known = self.known.take();
        if let Some(known) = known {
            if known.period == period && known.revision > found.revision {
                self.known = Some(known);
                return false;
            }
            let before = |point: &IntroPointDesc| {
                let mut points = known.points.iter();
                points.find(|(other, _)| other.ipt_sid_key() == point.ipt_sid_key())
            };
            let same = known.points.len() == found.points.len()
                && found.points.iter().all(|point| before(point).is_some());
            let points = found.points.iter().map(|point| {
                // A relay's word holds until it says otherwise.
                (point.clone(), before(point).is_none_or(|(_, there)| *there))
            });
            let points = points.collect();
            self.known = Some(Known::new(period, &found, points, now));
            return !same;
        }
        let points = found.points.iter().map(|point| (point.clone(), true)).collect();
        self.known = Some(Known::new(period, &found, points, now));
        true
    }

    /// The fetch failed.
    pub(super) fn note_failure(&mut self, reason: String) {
        self.failed = Some(reason);
        self.confirmed = false;
    }

    /// The revision that is known in a period: HSDirs are asked for no older one.
    pub(super) fn revision_in(&self, period: u64) -> Option<u64> {
        self.known.as_ref().filter(|known| known.period == period).map(|known| known.revision)
    }

    /// The points to be probed now: one after the other, so many at a time.
    pub(super) fn take_probes(&mut self) -> Vec<IntroPointDesc> {
        let Some(known) = &self.known else { return Vec::new() };
        let count = known.points.len();
        let some = count.min(limits::PROBES_AT_ONCE_MAX);
        let first = self.turn;
        self.turn = (first + some) % count.max(1);
        (0..some).map(|step| known.points[(first + step) % count].0.clone()).collect()
    }

    /// A relay was asked for a point; whether it has lost one that it had.
    pub(super) fn note_presence(&mut self, point: &IntroPointDesc, presence: Presence) -> bool {
        self.confirmed |= presence == Presence::There;
        let Some(known) = &mut self.known else { return false };
        let mut points = known.points.iter_mut();
        let Some((_, there)) = points.find(|(other, _)| other.ipt_sid_key() == point.ipt_sid_key())
        else {
            return false;
        };
        match presence {
            Presence::There => {
                *there = true;
                false
            }
            Presence::Gone => std::mem::replace(there, false),
            Presence::Unknown => false,
        }
    }

    /// What may be published, after `failures` fetches that have failed in a row.
    pub(super) fn verdict(&self, failures: u32, now: Instant) -> Verdict<'_> {
        let Some(known) = &self.known else {
            return Err(self.failed.as_deref().unwrap_or("its descriptor is being fetched"));
        };
        if now.saturating_duration_since(known.read_at) >= LIFETIME {
            return Err("its descriptor has expired, and no HSDir has another");
        }
        let there = known.points.iter().filter(|(_, there)| *there);
        let points: Vec<IntroPointDesc> = there.map(|(point, _)| point.clone()).collect();
        if points.is_empty() {
            return Err("its introduction points are gone: it has ended, or has new ones");
        }
        if failures >= limits::REMOTE_FAILURES_MAX && !self.confirmed {
            return Err(self.failed.as_deref().unwrap_or("it cannot be reached"));
        }
        Ok((points, known.congestion_control))
    }

    /// Whether anything was ever found.
    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }
}

impl Known {
    /// What `found` says, with these points.
    fn new(
        period: u64,
        found: &Foreign,
        points: Vec<(IntroPointDesc, bool)>,
        now: Instant,
    ) -> Known {
        Known {
            period,
            revision: found.revision,
            points,
            congestion_control: found.congestion_control,
            read_at: now,
        }
    }
}

#[cfg(test)]
mod tests;
