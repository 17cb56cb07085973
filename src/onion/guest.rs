//! Instances that are not in this process: a C tor daemon that it runs, or a remote instance whose
//! descriptor it fetches. Their introduction points go into the same descriptor.
//!
//! ```text
//!              points                 none any more, or none that is fresh
//!   starting ----------> serving ----------------------------------------> failed
//!                          ^  |  told to leave                               |
//!                          |  '----------------> draining                    |
//!                          '-------------------------------------------------'
//! ```
//!
//! Whoever brings the points runs on the control core and tells the [`Service`](super::Service),
//! which wakes the publisher; status reads.

use std::num::NonZeroU8;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::status::{Engine, GuestState};

/// What a guest is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// What carries it: `Ctor` or `Remote`.
    pub engine: Engine,
    /// Its name in status and log: no address.
    pub label: String,
    /// Its own onion address, for status; never in the log.
    pub address: Option<String>,
    /// Its share of the points beside those of the others, from 1 on; in-process instances have 1.
    pub weight: u16,
}

/// One instance that is not in this process.
#[derive(Debug)]
pub struct Guest {
    /// What it was made with.
    pub config: GuestConfig,
    /// How much of its share it shall have, in percent: less while it is unwell.
    percent: AtomicU8,
    /// How it stands.
    now: Mutex<GuestNow>,
}

/// How a guest stands.
#[derive(Clone, Debug, Default)]
pub struct GuestNow {
    /// Its state.
    pub state: GuestState,
    /// Why it does not serve.
    pub reason: Option<String>,
    /// The points that may be published.
    pub points: Arc<Vec<IntroPointDesc>>,
    /// `cc_sendme_inc` of the congestion control that it offers its clients, if it does. One
    /// descriptor makes one offer for every point in it.
    pub congestion_control: Option<NonZeroU8>,
    /// When its points were last heard of.
    pub received_at: Option<SystemTime>,
    /// When they last changed.
    pub changed_at: Option<SystemTime>,
}

impl Guest {
    /// A guest of which nothing has been heard.
    pub fn new(config: GuestConfig) -> Guest {
        Guest { config, percent: AtomicU8::new(100), now: Mutex::default() }
    }

    /// How it stands.
    pub fn now(&self) -> GuestNow {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The points that may be published.
    pub fn points(&self) -> Arc<Vec<IntroPointDesc>> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner).points)
    }

    /// How much of its share it shall have, in percent.
    pub fn percent(&self) -> u8 {
        self.percent.load(Ordering::Relaxed)
    }

    /// See [`Self::percent`]; whether that changes anything.
    pub(super) fn set_percent(&self, percent: u8) -> bool {
        let percent = percent.min(100);
        self.percent.swap(percent, Ordering::Relaxed) != percent
    }

    /// These points were heard of just now, and what their descriptor offers; whether that changes
    /// anything.
    pub(super) fn set_points(
        &self,
        points: Vec<IntroPointDesc>,
        congestion_control: Option<NonZeroU8>,
    ) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let time = SystemTime::now();
        now.received_at = Some(time);
        if !points.is_empty() {
            (now.state, now.reason) = (GuestState::Serving, None);
        }
        let changed = !same_points(&now.points, &points);
        if changed {
            now.changed_at = Some(time);
            now.points = Arc::new(points);
        }
        let offered = std::mem::replace(&mut now.congestion_control, congestion_control);
        changed || offered != congestion_control
    }

    /// It does not serve, and why. One that has failed has no points; whether it had some.
    pub(super) fn set_state(&self, state: GuestState, reason: Option<String>) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        (now.state, now.reason) = (state, reason);
        let gone = state == GuestState::Failed && !now.points.is_empty();
        if gone {
            now.changed_at = Some(SystemTime::now());
            now.points = Arc::default();
        }
        gone
    }
}

/// Whether two lists have the same points, in whatever order.
fn same_points(before: &[IntroPointDesc], now: &[IntroPointDesc]) -> bool {
    let is_in = |point: &IntroPointDesc, list: &[IntroPointDesc]| {
        list.iter().any(|other| {
            other.ipt_sid_key() == point.ipt_sid_key()
                && other.svc_ntor_key() == point.svc_ntor_key()
        })
    };
    before.len() == now.len() && before.iter().all(|point| is_in(point, now))
}

#[cfg(test)]
mod tests;
