//! One virtual port: its backends, in the order in which they are thought of.
//!
//! A stream looks at four groups, one after another, and gets a backend of the first that has one
//! which it has not tried yet:
//!
//! 1. backends that are up
//! 2. backup backends that are up
//! 3. backends that refused lately: better to try than to refuse a client unheard; where this is
//!    all there is, none of them is left alone for more than a second, so that those that come back
//!    share the load again
//! 4. backup backends that refused lately
//!
//! All of them are of the lane of the stream's circuit, see [`super::gate`].
//!
//! A backend that health checks call down, or that the operator has taken out, is in none of them.
//! Where all of a group have as many connections as they may, the stream waits.

use std::sync::Arc;

use super::backend::{Backend, Place};
use super::config::{PortConfig, PortTarget, Verdict};
use super::forward::Patience;
use super::proxy_protocol;
use super::queue::Queue;
use super::select::{Selector, Set};
use super::status::{BackendOrder, BackendStatus};
use crate::base::stream::CircuitId;
use crate::plane::buffers::Buffer;
use crate::plane::config::{BackendAddress, BackendConfig};

/// A backend as this port uses it.
#[derive(Debug)]
pub(super) struct Member {
    /// The backend.
    pub(super) backend: Arc<Backend>,
    /// See [`BackendConfig::backup`].
    backup: bool,
    /// See [`BackendConfig::connections_max`].
    connections_max: Option<u32>,
    /// See [`BackendConfig::lane`].
    lane: Verdict,
}

/// One virtual port, or a range of them with the same backends.
#[derive(Debug)]
pub(super) struct Port {
    /// What was configured.
    pub(super) config: PortConfig,
    /// The backends, in order; none for the built-in page.
    pub(super) members: Vec<Member>,
    /// Which of them.
    selector: Selector,
    /// Streams that wait for one.
    pub(super) queue: Arc<Queue>,
}

/// What a stream gets.
pub(super) enum Choice {
    /// This backend, by its index, and a place there.
    Take(usize, Place),
    /// None now: all have as many connections as they may.
    Full,
    /// None.
    None,
}

impl Port {
    /// A port whose backends come from `backend`.
    pub(super) fn new(
        config: PortConfig,
        queue: Arc<Queue>,
        backend: impl Fn(&BackendAddress) -> Arc<Backend>,
    ) -> Port {
        let backends: &[BackendConfig] = match &config.target {
            PortTarget::Backends(backends) => backends,
            PortTarget::Hello => &[],
        };
        let member = |one: &BackendConfig| Member {
            backend: backend(&one.address),
            backup: one.backup,
            connections_max: one.connections_max,
            lane: one.lane,
        };
        let members: Vec<Member> = backends.iter().map(member).collect();
        if config.check.is_none() {
            members.iter().for_each(|member| member.backend.forget_checks());
        }
        let selector = Selector::new(config.balance, backends.iter().map(|one| one.weight));
        Port { config, members, selector, queue }
    }

    /// Whether it serves `virtual_port`.
    pub(super) fn serves(&self, virtual_port: u16) -> bool {
        (self.config.virtual_first..=self.config.virtual_last).contains(&virtual_port)
    }

    /// Whether there is a backend for circuits of which this is said.
    pub(super) fn has_lane(&self, lane: Verdict) -> bool {
        self.members.iter().any(|member| member.lane == lane)
    }

    /// Whose backends a circuit gets of which this is said.
    pub(super) fn lane(&self, said: Verdict) -> Verdict {
        match said {
            Verdict::Preferred if !self.has_lane(Verdict::Preferred) => Verdict::Normal,
            said => said,
        }
    }

    /// A backend of this lane for a stream of this circuit that has `tried` some already.
    pub(super) fn choose(&self, circuit: CircuitId, lane: Verdict, tried: &Set) -> Choice {
        let usable = Set::of(self.members.len(), |index| {
            let backend = &self.members[index].backend;
            self.members[index].lane == lane
                && backend.order() == BackendOrder::Ready
                && !backend.is_checked_down()
        });
        let fit = usable.without(tried);
        for (backup, last_resort) in [(false, false), (true, false), (false, true), (true, true)] {
            if last_resort && !backup {
                self.shorten_waits(&usable);
            }
            let group = Set::of(self.members.len(), |index| {
                let member = &self.members[index];
                fit.has(index) && member.backup == backup && (last_resort || member.backend.is_up())
            });
            if group.is_empty() {
                continue;
            }
            match self.choose_from(group, circuit, last_resort) {
                // Others are trying all of them: see whether there are others.
                Choice::None => {}
                chosen => return chosen,
            }
        }
        Choice::None
    }

    /// Where none of these backends is up, none is left alone for long.
    fn shorten_waits(&self, usable: &Set) {
        let usable = || (0..self.members.len()).filter(|index| usable.has(*index));
        if !usable().any(|index| self.members[index].backend.is_up()) {
            usable().for_each(|index| self.members[index].backend.shorten_wait());
        }
    }

    /// A backend of this group.
    fn choose_from(&self, mut group: Set, circuit: CircuitId, last_resort: bool) -> Choice {
        let slow_start = self.config.slow_start;
        let mut eager = Set::of(self.members.len(), |index| {
            group.has(index) && self.members[index].backend.takes_share(slow_start)
        });
        let open = |index: usize| self.members[index].backend.open_now();
        let mut full = false;
        loop {
            let first = self.selector.pick(&eager, circuit, open);
            let Some(index) = first.or_else(|| self.selector.pick(&group, circuit, open)) else {
                return if full { Choice::Full } else { Choice::None };
            };
            let Member { backend, connections_max, .. } = &self.members[index];
            match backend.take_place(*connections_max, &self.queue, last_resort) {
                Some(place) => return Choice::Take(index, place),
                None => full |= connections_max.is_some_and(|most| open(index) >= u64::from(most)),
            }
            group.remove(index);
            eager.remove(index);
        }
    }

    /// How long its streams may be without bytes.
    pub(super) fn patience(&self) -> Patience {
        Patience { idle: self.config.idle_timeout, half_close: self.config.half_close_timeout }
    }

    /// What this backend gets before a client's first byte.
    pub(super) fn preface(&self, index: usize, circuit: CircuitId, port: u16) -> Option<Buffer> {
        let version = self.config.proxy_protocol?;
        match self.members[index].backend.address() {
            BackendAddress::Handler(_) => None,
            _ => Some(Buffer::holding(&proxy_protocol::header(version, circuit, port))),
        }
    }

    /// What status shows.
    pub(super) fn status(&self) -> impl Iterator<Item = BackendStatus> + '_ {
        self.members.iter().map(|member| {
            let mut status = member.backend.status(self.config.virtual_first);
            status.queued = self.queue.waiting();
            status.queue_refused_total = self.queue.refused_total();
            status
        })
    }
}
