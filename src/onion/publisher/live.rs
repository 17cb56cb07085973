//! The publisher's part in time periods: which are live, what of them the cores know, and whose
//! HSDirs have moved.

use std::time::{Duration, Instant};

use tor_hscrypto::time::TimePeriod;
use tor_netdir::NetDir;

use super::Publisher;
use super::round::Round;
use super::timetable::{Timetable, Urgency};
use crate::limits;
use crate::onion::period::{Period, PeriodError};
use crate::onion::ring::live_rings;

/// One live period.
pub(super) struct Live {
    /// Keys and HSDirs.
    pub(super) period: Period,
    /// Its last descriptor, and the uploads.
    pub(super) round: Option<Round>,
    /// When its rounds begin.
    pub(super) times: Timetable,
    /// Why the last round could not be built, if it could not.
    pub(super) failed: Option<String>,
}

impl Publisher {
    /// The directory has changed: periods, HSDirs.
    pub(super) fn note_directory(&mut self, now: Instant) {
        let Some(netdir) = self.netdir() else { return };
        if let Err(error) = self.update_periods(&netdir, now) {
            return tracing::warn!("cannot derive a time period's keys: {error}");
        }
        // Each period for itself: the other's descriptor is where it has to be.
        for live in &mut self.live {
            let moved =
                live.round.as_ref().is_some_and(|round| !round.has_hsdirs(&live.period, &netdir));
            if moved {
                live.times.want(Urgency::Turn, now);
            }
        }
    }

    /// Derive what is new among the live periods; a round of it is wanted. Their subcredentials are
    /// on all cores when this returns.
    fn update_periods(&mut self, netdir: &NetDir, now: Instant) -> Result<(), PeriodError> {
        let mut changed = false;
        let mut live = Vec::new();
        for ring in live_rings(netdir) {
            let same = |one: &Live| one.period.time_period() == ring.time_period();
            match self.live.iter().position(same) {
                Some(index) => {
                    let mut known = self.live.swap_remove(index);
                    if known.period.ring != ring {
                        known.period.ring = ring;
                        known.times.want(Urgency::Turn, now);
                    }
                    live.push(known);
                }
                None => {
                    changed = true;
                    let period = Period::derive(&self.master, ring)?;
                    let times = Timetable::new(now);
                    live.push(Live { period, round: None, times, failed: None });
                }
            }
        }
        let keep = Duration::from_secs(u64::from(limits::DESCRIPTOR_LIFETIME_MINUTES) * 60);
        for over in std::mem::replace(&mut self.live, live) {
            changed = true;
            self.retired.push((over.period.keys.subcredential, now + keep));
        }
        if changed {
            self.share_subcredentials();
        }
        Ok(())
    }

    /// Put the subcredentials of all live and recent periods on all cores.
    fn share_subcredentials(&self) {
        let live = self.live.iter().map(|live| live.period.keys.subcredential);
        let recent = self.retired.iter().map(|(subcredential, _)| *subcredential);
        self.service.set_subcredentials(live.chain(recent).collect());
    }

    /// Forget the subcredentials of descriptors that have expired everywhere.
    pub(super) fn expire_subcredentials(&mut self, now: Instant) {
        let before = self.retired.len();
        self.retired.retain(|(_, until)| *until > now);
        if self.retired.len() != before {
            self.share_subcredentials();
        }
    }

    /// The number of the period that clients use now.
    pub(super) fn current_period(&self) -> Option<u64> {
        let number = |netdir: &NetDir| TimePeriod::interval_num(&netdir.hs_time_period());
        self.netdir().map(|netdir| number(&netdir))
    }

    /// Why some period's last round could not be built, if it could not.
    pub(super) fn round_failed(&self) -> Option<String> {
        self.live.iter().find_map(|live| live.failed.clone())
    }
}
