//! The introduction points of one instance: each slot keeps one point up.
//!
//! ```text
//!            choose a relay         establish
//!   empty ------------------> held -----------> up ---- lifetime or INTRODUCE2 used up --.
//!     ^                        |  ^              |                                       v
//!     |   failed 3 times       |  '- backoff ----'  circuit lost: same relay,       lingers until
//!     '------------------------'                    same keys (cached descriptors   clients have
//!                                                   stay good)                      forgotten it
//! ```
//!
//! A point that is lost soon after it came up counts as a failed attempt: a relay that establishes
//! and closes, again and again, loses its place. Its lifetime runs from the choice of the relay.
//!
//! A slot tells the service when its point comes up, and when a first attempt to bring a lost one
//! back has failed. It never waits for another slot, so readiness never depends on all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tor_linkspec::{HasRelayIds as _, OwnedCircTarget, RelayIds};
use tor_netdir::{NetDir, Timeliness};
use tor_netdoc::doc::hsdesc::IntroPointDesc;
use tor_relay_selection::{RelayExclusion, RelaySelector, RelayUsage};

use super::intro::{self, EstablishedPoint, Introduction, PointKeys};
use super::service::{Seat, Service};
use crate::limits;
use crate::runtime::{self, Mailbox};
use crate::tor::stack::CircuitPool;

/// What the slots of one instance share; all on one core.
pub(super) struct Points {
    /// The service.
    service: Arc<Service>,
    /// The instance's seat.
    seat: Arc<Seat>,
    /// Circuits of this core.
    pool: CircuitPool,
    /// Where INTRODUCE2 go.
    introductions: Mailbox<Introduction>,
    /// What is up, by slot.
    up: Mutex<Vec<Option<IntroPointDesc>>>,
    /// Relays of this instance's points, those that linger aside.
    own_relays: Mutex<Vec<RelayIds>>,
    /// Points that were replaced and still answer, oldest first.
    lingering: Mutex<std::collections::VecDeque<Lingering>>,
}

/// A point that was replaced and still answers those who hold an older descriptor.
struct Lingering {
    /// The point.
    point: EstablishedPoint,
    /// Its keys.
    keys: Arc<PointKeys>,
    /// When no descriptor names it any more.
    until: Instant,
}

impl Lingering {
    /// Whether it answers anybody.
    fn is_of_use(&self, now: Instant) -> bool {
        !self.point.tunnel.is_closed() && now < self.until && !self.keys.seen.is_full()
    }
}

/// A relay with the keys that a point has there. Gives the relay back when dropped.
struct Held {
    /// The instance's points; the relay is reserved at their service.
    points: Arc<Points>,
    /// The relay.
    relay: OwnedCircTarget,
    /// Its identities, as reserved.
    ids: RelayIds,
    /// The keys.
    keys: Arc<PointKeys>,
    /// When the point has served its time.
    ends: Instant,
    /// Attempts that failed, and short lives, since the point was last up for long.
    failures: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.points.service.release_relay(&self.ids);
        let mut own = self.points.own_relays.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|relay| *relay != self.ids);
    }
}

/// How a point that was up ended.
enum Ending {
    /// Its circuit closed.
    Lost,
    /// It has served its time.
    Spent,
}

impl Points {
    /// The slots of one instance, none of them up.
    pub(super) fn new(
        service: &Arc<Service>,
        seat: &Arc<Seat>,
        pool: &CircuitPool,
        introductions: &Mailbox<Introduction>,
    ) -> Arc<Points> {
        let slots = usize::from(service.settings.intro_points_per_instance);
        Arc::new(Points {
            service: Arc::clone(service),
            seat: Arc::clone(seat),
            pool: pool.clone(),
            introductions: introductions.clone(),
            up: Mutex::new(vec![None; slots]),
            own_relays: Mutex::default(),
            lingering: Mutex::default(),
        })
    }

    /// Keep one slot's point up, for as long as the future is polled.
    pub(super) async fn keep_slot(self: &Arc<Self>, slot: usize) {
        let mut held: Option<Held> = None;
        let mut backoff_ms = limits::POINT_BACKOFF_MS_MIN;
        loop {
            if held.as_ref().is_some_and(|held| held.failures >= limits::POINT_RETRIES_SAME_RELAY) {
                held = None;
                self.withdraw(slot);
            }
            let Some(mut place) = held.take().or_else(|| self.choose()) else {
                self.backoff(&mut backoff_ms).await;
                continue;
            };
            match self.establish(&place).await {
                Ok(point) => {
                    let up_since = Instant::now();
                    self.announce(slot, Some(point.description.clone()));
                    self.service.note_point_up();
                    let ending = keep(&point, &place).await;
                    let steady = up_since.elapsed().as_secs() >= limits::POINT_STEADY_SECONDS;
                    match ending {
                        Ending::Spent => {
                            backoff_ms = limits::POINT_BACKOFF_MS_MIN;
                            self.linger(point, &place.keys);
                        }
                        Ending::Lost if steady => {
                            place.failures = 0;
                            backoff_ms = limits::POINT_BACKOFF_MS_MIN;
                            held = Some(place);
                        }
                        Ending::Lost => {
                            place.failures += 1;
                            held = Some(place);
                            self.backoff(&mut backoff_ms).await;
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(slot, "introduction point: {error}");
                    place.failures += u32::from(!error.is_ours());
                    self.withdraw(slot);
                    held = Some(place);
                    self.backoff(&mut backoff_ms).await;
                }
            }
        }
    }

    /// Wait before the next attempt, twice as long as last time, with jitter; or until some point
    /// of the service comes up: the network is back, and the waits begin anew.
    async fn backoff(&self, backoff_ms: &mut u64) {
        let jitter = rand::rng().random_range(0..=*backoff_ms / 2);
        tokio::select! {
            () = runtime::sleep(Duration::from_millis(*backoff_ms + jitter)) => {
                *backoff_ms = (*backoff_ms * 2).min(limits::POINT_BACKOFF_MS_MAX);
            }
            () = self.service.point_is_up(), if *backoff_ms > limits::POINT_BACKOFF_MS_MIN => {
                *backoff_ms = limits::POINT_BACKOFF_MS_MIN;
                let jitter = rand::rng().random_range(0..=limits::POINT_BACKOFF_MS_MIN);
                runtime::sleep(Duration::from_millis(jitter)).await;
            }
        }
    }

    /// Close points that were replaced once they are of no use to anybody, for as long as the
    /// future is polled.
    pub(super) async fn expire_lingering(&self) {
        loop {
            runtime::sleep(Duration::from_millis(limits::POINTS_LINGERING_LOOK_MS)).await;
            let now = Instant::now();
            let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
            lingering.retain(|old| old.is_of_use(now));
        }
    }

    /// Close the point that was replaced longest ago; whether there was one.
    pub(super) fn close_lingering(&self) -> bool {
        self.lingering.lock().unwrap_or_else(PoisonError::into_inner).pop_front().is_some()
    }

    /// One attempt at a relay.
    async fn establish(&self, place: &Held) -> Result<EstablishedPoint, intro::IntroError> {
        let dos = self.service.settings.intro_dos;
        let counters = &self.seat.counters;
        intro::establish(&self.pool, &place.relay, &place.keys, dos, &self.introductions, counters)
            .await
    }

    /// A relay that carries no point of this service, and fresh keys for it. Where the directory
    /// has none left, as in a network of few relays, one that carries none of this instance: no
    /// descriptor names a relay twice all the same. `None` when there is none of these either.
    fn choose(self: &Arc<Self>) -> Option<Held> {
        let netdir = self.pool.directory().netdir(Timeliness::Timely).ok()?;
        let own = self.own_relays.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (relay, shared) = match select(&netdir, &self.service.relays_in_use()) {
            Some(relay) => (relay, false),
            None => (select(&netdir, &own)?, true),
        };
        let ids = RelayIds::from_relay_ids(&relay);
        if !self.service.reserve_relay(&ids, shared) {
            return None;
        }
        self.own_relays.lock().unwrap_or_else(PoisonError::into_inner).push(ids.clone());
        Some(Held {
            points: Arc::clone(self),
            relay,
            ids,
            keys: PointKeys::generate(),
            ends: Instant::now() + lifetime(),
            failures: 0,
        })
    }

    /// Take a slot's point out of the descriptor, unless it was replaced and still answers.
    fn withdraw(&self, slot: usize) {
        let up = self.up.lock().unwrap_or_else(PoisonError::into_inner)[slot].clone();
        let Some(up) = up else { return };
        let answers = {
            let (now, same) = (Instant::now(), up.ipt_sid_key());
            let lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
            let mut alive = lingering.iter().filter(|old| old.is_of_use(now));
            alive.any(|old| old.point.description.ipt_sid_key() == same)
        };
        if !answers {
            self.announce(slot, None);
        }
    }

    /// Say what is up in a slot, if that is news.
    fn announce(&self, slot: usize, point: Option<IntroPointDesc>) {
        let points = {
            let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
            let same = match (&up[slot], &point) {
                (None, None) => true,
                (Some(old), Some(new)) => old.ipt_sid_key() == new.ipt_sid_key(),
                _ => false,
            };
            if same {
                return;
            }
            up[slot] = point;
            up.iter().flatten().cloned().collect()
        };
        self.service.set_points(&self.seat, points);
    }

    /// Let a point answer on while clients may still know it.
    fn linger(&self, point: EstablishedPoint, keys: &Arc<PointKeys>) {
        let now = Instant::now();
        let until = now + Duration::from_secs(limits::POINT_LINGER_SECONDS);
        let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
        lingering.retain(|old| old.is_of_use(now));
        if lingering.len() >= limits::POINTS_LINGERING_MAX {
            lingering.pop_front();
        }
        lingering.push_back(Lingering { point, keys: Arc::clone(keys), until });
    }
}

/// A relay for an introduction point that is none of `taken`.
fn select(netdir: &NetDir, taken: &[RelayIds]) -> Option<OwnedCircTarget> {
    let exclusion = RelayExclusion::exclude_identities(
        taken.iter().flat_map(|ids| ids.identities().map(|id| id.to_owned())).collect(),
    );
    let selector = RelaySelector::new(RelayUsage::new_intro_point(), exclusion);
    let (relay, _) = selector.select_relay(&mut rand::rng(), netdir);
    relay.map(|relay| OwnedCircTarget::from_circ_target(&relay))
}

/// Wait until the point ends, and say how.
async fn keep(point: &EstablishedPoint, place: &Held) -> Ending {
    tokio::select! {
        () = point.tunnel.wait_for_close() => Ending::Lost,
        () = place.keys.worn_out.notified() => Ending::Spent,
        () = runtime::sleep_until(place.ends) => Ending::Spent,
    }
}

/// How long a point serves, drawn anew for each set of keys.
fn lifetime() -> Duration {
    let bounds = limits::POINT_LIFETIME_SECONDS_MIN..=limits::POINT_LIFETIME_SECONDS_MAX;
    Duration::from_secs(rand::rng().random_range(bounds))
}
