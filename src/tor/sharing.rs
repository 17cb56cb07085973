//! What arti builds unasked, at rest while another process has links to the same guards: spare
//! circuits of every pool, and those that arti measures its timeouts by.
//!
//! Spare circuits that are there already stay: each that is used saves the guard a CREATE.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tor_rtcompat::scheduler::TaskHandle;

use super::turns::GuardShare;

/// The schedules of the pools of a stack, by pool; a pool that is gone has none.
type Pools = Vec<Weak<Vec<TaskHandle>>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Unasked {
    /// Schedules of the circuit manager. Kept for their `Drop` as well, which ends its tasks.
    manager: Vec<TaskHandle>,
    /// The share that is in force, and the pools, which rest as it says.
    state: Mutex<(Option<GuardShare>, Pools)>,
}

/// Have schedules rest, or go on.
fn rest(schedules: &[TaskHandle], rests: bool) {
    for schedule in schedules {
        // One that has ended has nothing to rest from.
        let _ = if rests { schedule.suspend() } else { schedule.resume() };
    }
}

impl Unasked {
    /// With the schedules of the circuit manager, which has not been polled yet.
    pub(super) fn new(manager: Vec<TaskHandle>, share: Option<GuardShare>) -> Unasked {
        if share.is_some() {
            rest(&manager, true);
        }
        Unasked { manager, state: Mutex::new((share, Vec::new())) }
    }

    /// A pool has come, and was not polled yet.
    pub(super) fn add(&self, schedules: &Arc<Vec<TaskHandle>>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (share, pools) = &mut *state;
        if share.is_some() {
            rest(schedules, true);
        }
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(schedules));
    }

    /// Another share is in force; whether it is another.
    pub(super) fn set(&self, share: Option<GuardShare>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut state.0, share);
        if before.is_some() != share.is_some() {
            rest(&self.manager, share.is_some());
            let pools = state.1.iter().filter_map(Weak::upgrade);
            pools.for_each(|schedules| rest(&schedules, share.is_some()));
        }
        before != share
    }
}
