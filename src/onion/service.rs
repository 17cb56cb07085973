//! What the cores of one service share, and how a rendezvous finds its core.
//!
//! | shared | written by | read by |
//! |---|---|---|
//! | subcredentials | control core, before a period's first upload | every core |
//! | points of a seat | that seat's core | control core |
//! | whether a seat gives up its share | control core | control core, status |
//! | points and state of a guest | control core | control core, status |
//! | cookies | every core | every core |
//! | relays in use | every core that looks for a relay | the same |
//! | a seat's queue | every core (push) | that seat's core (pop) |
//!
//! No lock here is held across an await, and none is on the path of a byte.

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::Notify;
use tor_hscrypto::Subcredential;
use tor_linkspec::RelayIds;
use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::config::ServiceSettings;
use super::guest::{Guest, GuestConfig};
use super::open::OpenCircuits;
use super::rendezvous::RendezvousRequest;
use super::replay::SeenCookies;
use super::spread::Hand;
use super::status::{Engine, GuestState};
use crate::base::counters::InstanceCounters;
use crate::base::overload::Overload;
use crate::base::stream::CircuitId;
use crate::limits;
use crate::runtime::{Full, Mailbox};

/// One instance's place at the service: what other cores see of it.
#[derive(Debug)]
pub struct Seat {
    /// Counters, written by the instance's core.
    pub counters: Arc<InstanceCounters>,
    /// Rendezvous that this core shall serve.
    pub(super) rendezvous: Mailbox<RendezvousRequest>,
    /// Public halves of the points that are up.
    points: Mutex<Arc<Vec<IntroPointDesc>>>,
    /// Whether the instance runs: a core that died gets no work.
    alive: AtomicBool,
    /// Why it leaves its share of the points to others, while it does. For the control core.
    given_up: Mutex<Option<&'static str>>,
    /// Client circuits that are open.
    pub(super) circuits: OpenCircuits,
}

/// What the cores of one service share.
#[derive(Debug)]
pub struct Service {
    /// What was configured.
    pub settings: ServiceSettings,
    /// One seat an in-process instance.
    seats: Vec<Arc<Seat>>,
    /// Instances that are not in this process; their numbers follow those of the seats.
    guests: Vec<Arc<Guest>>,
    /// The master's subcredentials of every live period.
    subcredentials: RwLock<Arc<Vec<Subcredential>>>,
    /// Cookies whose rendezvous was begun.
    pub(super) cookies: SeenCookies,
    /// Relays that carry points of ours, or are about to, and how many.
    relays_in_use: Mutex<HashMap<RelayIds, usize>>,
    /// How much of their share the instances on this machine shall have, in percent.
    local_percent: AtomicU8,
    /// Rings when a seat's or a guest's points change, or their share.
    points_changed: Notify,
    /// Rings when an introduction point has come up, for those who wait to try again.
    point_up: Notify,
    /// Set while another process is taking over: it publishes, and this one does not.
    handed_over: AtomicBool,
    /// How often somebody has asked what the HSDirs hold.
    checks_wanted: AtomicU64,
    /// Rings when somebody asks.
    check_wanted: Notify,
    /// Whether memory is short, for every service of the process.
    pub(super) overload: Arc<Overload>,
}

/// A place where a rendezvous can go: why there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// Every core's queue is full.
    QueuesFull,
    /// Every core has as many open circuits as it may.
    CoresFull,
}

impl Seat {
    /// Live work of this core, as a number to compare: circuits open, being built and waiting,
    /// and streams once more, since it is the streams that cost bytes.
    fn load(&self) -> u64 {
        self.counters.rendezvous_open() + self.counters.streams_open() + self.waiting()
    }

    /// Requests that wait in the queue.
    fn waiting(&self) -> u64 {
        self.rendezvous.len() as u64
    }

    /// Whether this core may take another client.
    fn has_room(&self) -> bool {
        self.alive.load(Ordering::Relaxed) && self.circuits_now() < limits::RENDEZVOUS_OPEN_MAX
    }

    /// Client circuits of this core: open, being built and waited for.
    pub(super) fn circuits_now(&self) -> u64 {
        self.counters.rendezvous_open() + self.waiting()
    }

    /// The points that are up.
    pub fn points(&self) -> Arc<Vec<IntroPointDesc>> {
        Arc::clone(&self.points.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the instance runs.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Why it leaves its share of the points to others, while it does.
    pub fn given_up(&self) -> Option<&'static str> {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Say whether the instance runs. Set by its own core.
    pub fn set_alive(&self, alive: bool) {
        self.alive.store(alive, Ordering::Relaxed);
    }
}

impl Service {
    /// A service with `instances` seats and these `guests`, which serves no new client while
    /// `overload` says so.
    pub fn new(
        settings: ServiceSettings,
        instances: usize,
        guests: Vec<GuestConfig>,
        overload: Arc<Overload>,
    ) -> Arc<Service> {
        let seat = || Seat {
            counters: Arc::new(InstanceCounters::default()),
            rendezvous: Mailbox::new(limits::RENDEZVOUS_WAITING_MAX),
            points: Mutex::default(),
            alive: AtomicBool::new(false),
            given_up: Mutex::default(),
            circuits: OpenCircuits::default(),
        };
        Arc::new(Service {
            settings,
            seats: (0..instances).map(|_| Arc::new(seat())).collect(),
            guests: guests.into_iter().map(|config| Arc::new(Guest::new(config))).collect(),
            subcredentials: RwLock::default(),
            cookies: SeenCookies::new(Instant::now()),
            relays_in_use: Mutex::default(),
            local_percent: AtomicU8::new(100),
            points_changed: Notify::new(),
            point_up: Notify::new(),
            handed_over: AtomicBool::new(false),
            checks_wanted: AtomicU64::new(0),
            check_wanted: Notify::new(),
            overload,
        })
    }

    /// All seats, by instance number.
    pub fn seats(&self) -> &[Arc<Seat>] {
        &self.seats
    }

    /// The instances that are not in this process. The first one's number is that of seats.
    pub fn guests(&self) -> &[Arc<Guest>] {
        &self.guests
    }

    /// What there is to merge: every instance with its points, by number.
    pub(super) fn hands(&self) -> Vec<Hand<IntroPointDesc>> {
        let local = self.local_percent();
        let seat = |seat: &Arc<Seat>| {
            let percent = if seat.given_up().is_some() { 0 } else { local };
            (seat.points(), 1, percent)
        };
        let seats = self.seats.iter().map(seat);
        let guest = |guest: &Arc<Guest>| {
            let here = if guest.config.engine == Engine::Remote { 100 } else { local };
            (guest.points(), guest.config.weight, guest.percent().min(here))
        };
        let guests = self.guests.iter().map(guest);
        let hand = |(instance, (points, weight, percent))| Hand {
            instance,
            points,
            share: u32::from(weight) * u32::from(percent),
        };
        seats.chain(guests).enumerate().map(hand).collect()
    }

    /// Replace the subcredentials. Every core uses the new ones from its next INTRODUCE2 on.
    pub(super) fn set_subcredentials(&self, all: Vec<Subcredential>) {
        *self.subcredentials.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
    }

    /// The subcredentials of every live period.
    pub(super) fn subcredentials(&self) -> Arc<Vec<Subcredential>> {
        Arc::clone(&self.subcredentials.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replace the points of one seat and tell the control core.
    pub(super) fn set_points(&self, seat: &Seat, points: Vec<IntroPointDesc>) {
        *seat.points.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(points);
        self.points_changed.notify_one();
    }

    /// A guest's points were heard of just now, and the `cc_sendme_inc` of the congestion control
    /// that its descriptor offers. Tells the publisher if they are new.
    pub fn set_guest_points(
        &self,
        guest: &Guest,
        points: Vec<IntroPointDesc>,
        congestion_control: Option<NonZeroU8>,
    ) {
        if guest.set_points(points, congestion_control) {
            self.points_changed.notify_one();
        }
    }

    /// A guest's state, and why it does not serve. The points of one that has failed leave the
    /// descriptor.
    pub fn set_guest_state(&self, guest: &Guest, state: GuestState, reason: Option<String>) {
        if guest.set_state(state, reason) {
            self.points_changed.notify_one();
        }
    }

    /// How much of its share of the points a guest shall have, in percent.
    pub fn set_guest_percent(&self, guest: &Guest, percent: u8) {
        if guest.set_percent(percent) {
            self.points_changed.notify_one();
        }
    }

    /// How much of their share of the points the instances on this machine shall have, in percent:
    /// in-process ones and C tor daemons, which share what is behind them.
    pub fn set_local_percent(&self, percent: u8) {
        let percent = percent.min(100);
        if self.local_percent.swap(percent, Ordering::Relaxed) != percent {
            self.points_changed.notify_one();
        }
    }

    /// See [`Self::set_local_percent`].
    pub fn local_percent(&self) -> u8 {
        self.local_percent.load(Ordering::Relaxed)
    }

    /// Say why an in-process instance leaves its share of the points to others, if it does; whether
    /// that changes anything. On the control core alone.
    pub fn set_given_up(&self, instance: usize, why: Option<&'static str>) -> bool {
        let Some(seat) = self.seats.get(instance) else { return false };
        let mut given_up = seat.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = given_up.is_some() != why.is_some();
        *given_up = why;
        if changed {
            self.points_changed.notify_one();
        }
        changed
    }

    /// Whether every instance with points does congestion control with this `cc_sendme_inc`, as
    /// ours do: the descriptor offers it for all points, or for none.
    pub(super) fn offers_congestion_control(&self, increment: u8) -> bool {
        self.guests.iter().map(|guest| guest.now()).all(|now| {
            now.points.is_empty() || now.congestion_control.map(NonZeroU8::get) == Some(increment)
        })
    }

    /// Wait until some points or shares have changed since the last call. For the control core
    /// alone.
    pub(super) async fn points_changed(&self) {
        self.points_changed.notified().await;
    }

    /// An introduction point has come up.
    pub(super) fn note_point_up(&self) {
        self.point_up.notify_waiters();
    }

    /// Wait until some introduction point comes up.
    pub(super) async fn point_is_up(&self) {
        self.point_up.notified().await;
    }

    /// An instance has ended: it gets no work, and its points leave the descriptor.
    pub fn note_instance_down(&self, instance: usize) {
        if let Some(seat) = self.seats.get(instance) {
            seat.set_alive(false);
            self.set_points(seat, Vec::new());
        }
    }

    /// Reserve a relay for a point. `false` when it carries one already, unless it may be `shared`
    /// with another instance's.
    pub(super) fn reserve_relay(&self, relay: &RelayIds, shared: bool) -> bool {
        let mut relays = self.relays_in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let points = relays.entry(relay.clone()).or_default();
        let reserved = shared || *points == 0;
        *points += usize::from(reserved);
        reserved
    }

    /// Give a relay back.
    pub(super) fn release_relay(&self, relay: &RelayIds) {
        let mut relays = self.relays_in_use.lock().unwrap_or_else(PoisonError::into_inner);
        match relays.get_mut(relay) {
            Some(points) if *points > 1 => *points -= 1,
            _ => drop(relays.remove(relay)),
        }
    }

    /// The relays that carry our points.
    pub(super) fn relays_in_use(&self) -> Vec<RelayIds> {
        let relays = self.relays_in_use.lock().unwrap_or_else(PoisonError::into_inner);
        relays.keys().cloned().collect()
    }

    /// Hand a rendezvous to the core with the least live work; `from` wins a tie. Returns the core.
    ///
    /// # Errors
    /// [`NoSeat`], when no core can take it: the client's request is dropped and counted.
    pub(super) fn dispatch(
        &self,
        from: usize,
        request: RendezvousRequest,
    ) -> Result<usize, NoSeat> {
        let mut order: Vec<(u64, bool, usize)> = self
            .seats
            .iter()
            .enumerate()
            .filter(|(_, seat)| seat.has_room())
            .map(|(number, seat)| (seat.load(), number != from, number))
            .collect();
        if order.is_empty() {
            return Err(NoSeat::CoresFull);
        }
        order.sort_unstable();
        let mut request = request;
        for (_, elsewhere, number) in order {
            match self.seats[number].rendezvous.push(request) {
                Ok(()) => {
                    if elsewhere {
                        self.seats[from].counters.note_handed_off();
                    }
                    return Ok(number);
                }
                Err(Full(back)) => request = back,
            }
        }
        Err(NoSeat::QueuesFull)
    }

    /// Say whether another process publishes in our place. On the control core alone: no descriptor
    /// is built after this returns.
    pub fn set_handed_over(&self, handed_over: bool) {
        self.handed_over.store(handed_over, Ordering::Relaxed);
    }

    /// Whether another process publishes in our place.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// Have the HSDirs asked what they hold. The answer is the first
    /// [`super::status::Verification`] whose `answers` is no less than the number that is returned.
    pub fn want_check(&self) -> u64 {
        let number = self.checks_wanted.fetch_add(1, Ordering::Relaxed) + 1;
        self.check_wanted.notify_one();
        number
    }

    /// Wait until somebody asks. For the control core alone.
    pub(super) async fn check_wanted(&self) {
        self.check_wanted.notified().await;
    }

    /// The number of the last request.
    pub(super) fn last_check_wanted(&self) -> u64 {
        self.checks_wanted.load(Ordering::Relaxed)
    }

    /// Client circuits that are open on every core.
    pub fn open_circuits(&self) -> usize {
        self.seats.iter().map(|seat| seat.circuits.len()).sum()
    }

    /// Whether a client circuit is open.
    pub fn has_circuit(&self, circuit: CircuitId) -> bool {
        let seat = self.seats.get(usize::from(circuit.instance));
        seat.is_some_and(|seat| seat.circuits.has(circuit.serial))
    }

    /// Close a client circuit, with the streams in it; `false` when it is not open.
    pub fn close_circuit(&self, circuit: CircuitId) -> bool {
        let seat = self.seats.get(usize::from(circuit.instance));
        seat.is_some_and(|seat| seat.circuits.close(circuit.serial))
    }

    /// Close every client circuit, with the streams in it.
    pub fn close_circuits(&self) {
        self.seats.iter().for_each(|seat| seat.circuits.close_all());
    }

    /// Whether every instance has an introduction point, but for guests that have failed.
    pub fn has_points_everywhere(&self) -> bool {
        let waited_for = |guest: &Arc<Guest>| {
            let now = guest.now();
            now.points.is_empty() && now.state != GuestState::Failed
        };
        self.seats.iter().all(|seat| !seat.points().is_empty())
            && !self.guests.iter().any(waited_for)
            && self.has_points()
    }

    /// Whether there is an introduction point.
    pub fn has_points(&self) -> bool {
        self.seats.iter().any(|seat| !seat.points().is_empty())
            || self.guests.iter().any(|guest| !guest.points().is_empty())
    }

    /// Whether a client is being served on any core, or has asked to be: a stream is open, or an
    /// introduction was accepted whose client has not begun a stream yet.
    pub fn is_busy(&self) -> bool {
        let busy = |seat: &Arc<Seat>| {
            let counters = &seat.counters;
            seat.waiting() + counters.rendezvous_young() + counters.streams_open() > 0
        };
        self.seats.iter().any(busy)
    }
}
