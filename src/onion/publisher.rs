//! The publisher: merges the points of all instances into one descriptor for each live time
//! period, and keeps it on every responsible HSDir.
//!
//! ```text
//!              points of every instance, or 5 s after the first
//!   starting ---------------------------------------------------> publishing
//!      ^                                                              | half of every period's
//!      | no point, no directory, clock off                            v HSDirs have it
//!   degraded <--------------------------------------------------->  ready
//! ```
//!
//! A *round* builds a descriptor for one live period (or several, where there are more points than
//! one holds: [`super::spread`]) and uploads it to every HSDir of the period.
//! Rounds of all periods begin when points have changed (collected for a second; [`pacing`] bounds
//! the rate, but not when an instance is gone). A round of one period begins when
//! * the period begins, or its HSDir set changes with a new consensus,
//! * its published descriptor is an hour or two old: at a time of its own ([`timetable`]),
//! * an HSDir has refused its descriptor, as it does when it holds a higher counter: it is asked
//!   for what it holds, and the next round's is higher (with a wait that doubles, for it may have
//!   had another reason).
//!
//! New subcredentials are on all cores before a period's first descriptor is uploaded, and stay
//! there until the last descriptor of an old period has expired.
//!
//! Runs on the control core. The loop waits for one event and applies it synchronously.

mod asking;
mod live;
pub mod pacing;
mod round;
mod timetable;
mod uploading;
mod verification;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use tokio::sync::{Semaphore, watch};
use tor_hscrypto::Subcredential;
use tor_netdir::{NetDir, Timeliness};

use self::live::Live;
use self::round::{Round, UploadDone};
use self::timetable::Urgency;
use self::verification::{Answer, Verifier};
use super::published::Published;
use super::revision::Revisions;
use super::service::Service;
use super::status::{DescriptorStatus, PublisherStatus, ServiceState};
use crate::base::repeats::Repeats;
use crate::limits;
use crate::runtime::{self, Mailbox};
use crate::tor::stack::{CircuitPool, TorStack};
use crate::vault::MasterKey;

/// Publishes the descriptors of one service.
pub struct Publisher {
    /// What the cores share.
    service: Arc<Service>,
    /// Asked for clock skew, and for guards that refuse.
    stack: Arc<TorStack>,
    /// Circuits of the control core.
    pool: CircuitPool,
    /// The service's identity.
    master: Arc<MasterKey>,
    /// Revision counters.
    revisions: Revisions,
    /// Live periods, each with its last round.
    live: Vec<Live>,
    /// Subcredentials of periods that are over, and when they may go.
    retired: Vec<(Subcredential, Instant)>,
    /// When the first point came up.
    first_point: Option<Instant>,
    /// Whether the service has been ready.
    was_ready: bool,
    /// What is in the way, if anything.
    obstacle: Option<String>,
    /// Rounds that could not be built.
    not_built: Repeats,
    /// Whether the operator was warned of the clock.
    warned_of_clock: bool,
    /// Whether another process published in our place when we last looked.
    was_handed_over: bool,
    /// Uploads that have ended.
    done: Mailbox<UploadDone>,
    /// Bounds uploads that run at the same time.
    slots: Arc<Semaphore>,
    /// What was published so far, also by processes before this one.
    published: Published,
    /// Checks of what HSDirs hold.
    verifier: Verifier,
    /// HSDirs that have answered a check.
    answers: Mailbox<Answer>,
    /// Bounds how many HSDirs are asked at the same time.
    questions: Arc<Semaphore>,
    /// Where status goes.
    status: watch::Sender<PublisherStatus>,
}

/// What wakes the publisher.
enum Event {
    /// Some instance's points have changed.
    Points,
    /// The directory has changed.
    Directory,
    /// An upload has ended.
    Done(UploadDone),
    /// An HSDir has said what it holds.
    Answer(Answer),
    /// Time has passed, or somebody wants to know what the HSDirs hold.
    Tick,
}

/// A skew of our clock, positive when it is behind.
fn in_words(skew_ms: i64) -> String {
    let side = if skew_ms > 0 { "slow" } else { "fast" };
    format!("{} s {side}", skew_ms.unsigned_abs() / 1000)
}

/// The time, in seconds since the epoch.
fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Publisher {
    /// A publisher, and where its status can be read. Call on the control core.
    pub fn new(
        service: Arc<Service>,
        stack: Arc<TorStack>,
        pool: CircuitPool,
        master: Arc<MasterKey>,
        revisions: Revisions,
    ) -> (Publisher, watch::Receiver<PublisherStatus>) {
        let (status, reader) = watch::channel(PublisherStatus::default());
        let settings = &service.settings;
        let verifier = Verifier::new(settings.verify_interval, settings.theft_check_interval);
        let publisher = Publisher {
            service,
            stack,
            pool,
            master,
            published: Published::load(&revisions.beside("published")),
            revisions,
            live: Vec::new(),
            retired: Vec::new(),
            first_point: None,
            was_ready: false,
            obstacle: None,
            not_built: Repeats::new(),
            warned_of_clock: false,
            was_handed_over: false,
            // Every upload that runs can end without anybody waiting.
            done: Mailbox::new(limits::UPLOADS_AT_ONCE_MAX * 64),
            slots: Arc::new(Semaphore::new(limits::UPLOADS_AT_ONCE_MAX)),
            verifier,
            answers: Mailbox::new(limits::QUESTIONS_AT_ONCE_MAX * 64),
            questions: Arc::new(Semaphore::new(limits::QUESTIONS_AT_ONCE_MAX)),
            status,
        };
        (publisher, reader)
    }

    /// Publish for as long as the future is polled.
    pub async fn run(mut self) {
        let mut directory_events = self.pool.directory().events();
        self.stack.meet_links().await;
        self.apply(Event::Directory);
        loop {
            let wake = self.next_wake();
            let event = tokio::select! {
                () = self.service.points_changed() => Event::Points,
                Some(_) = directory_events.next() => Event::Directory,
                done = self.done.recv() => Event::Done(done),
                answer = self.answers.recv() => Event::Answer(answer),
                () = self.service.check_wanted() => Event::Tick,
                () = runtime::sleep(wake) => Event::Tick,
            };
            self.stack.meet_links().await;
            self.apply(event);
        }
    }

    /// Warn of a clock that is off, each time that it goes off.
    fn watch_clock(&mut self) {
        let off = self
            .stack
            .clock_skew_ms()
            .filter(|skew| skew.unsigned_abs() >= limits::CLOCK_SKEW_WARN_MS);
        if let Some(skew) = off
            && !self.warned_of_clock
        {
            let off = in_words(skew);
            tracing::warn!("as relays tell, this machine's clock is {off}: set it, by NTP best");
        }
        self.warned_of_clock = off.is_some();
    }

    /// How long to sleep when nothing happens.
    fn next_wake(&self) -> Duration {
        let now = Instant::now();
        let longest = Duration::from_secs(5);
        // What cannot be done at its time must not wake us: events do, when it can.
        let free = self.obstacle.is_none();
        let may_upload = self.slots.available_permits() > 0 && !self.service.is_handed_over();
        let first_wait = Duration::from_millis(limits::FIRST_PUBLISH_WAIT_MS);
        let waited = self.first_point.filter(|_| !self.has_published()).map(|at| at + first_wait);
        let tables = || self.live.iter().map(|live| &live.times);
        let times = [
            tables().filter_map(|times| times.next_round()).min().filter(|_| free),
            self.rounds().filter_map(Round::next_attempt).min().filter(|_| may_upload),
            tables().filter_map(|times| times.republish_at()).min(),
            waited.filter(|at| *at > now),
            self.verifier.next_check().filter(|_| self.can_verify()),
        ];
        let earliest = times.into_iter().flatten().min();
        earliest.map_or(longest, |at| at.saturating_duration_since(now).min(longest))
    }

    /// Take in one event and do what is due.
    fn apply(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Points => self.note_points(now),
            Event::Directory => self.note_directory(now),
            Event::Done(done) => self.note_done(done, now),
            Event::Answer(answer) => self.note_answer(answer, now),
            Event::Tick => {}
        }
        self.live.iter_mut().for_each(|live| live.times.look(now));
        self.watch_hand_over(now);
        self.expire_subcredentials(now);
        self.watch_clock();
        self.obstacle = self.find_obstacle(now);
        if self.obstacle.is_none() {
            self.begin_rounds(now);
        }
        self.launch_uploads(now);
        self.verify(now);
        self.tell();
    }

    /// Publish again once a process that was to take over is gone: it may have used counters.
    fn watch_hand_over(&mut self, now: Instant) {
        let handed_over = self.service.is_handed_over();
        if std::mem::replace(&mut self.was_handed_over, handed_over) && !handed_over {
            if let Err(error) = self.revisions.reload() {
                tracing::warn!("{error}");
            }
            self.published.reload();
            self.want(Urgency::Turn, now);
        }
    }

    /// The last round of each period.
    fn rounds(&self) -> impl Iterator<Item = &Round> {
        self.live.iter().filter_map(|live| live.round.as_ref())
    }

    /// Whether there is a descriptor of some period.
    fn has_published(&self) -> bool {
        self.rounds().next().is_some()
    }

    /// Rounds of all periods are wanted.
    fn want(&mut self, urgency: Urgency, now: Instant) {
        self.live.iter_mut().for_each(|live| live.times.want(urgency, now));
    }

    /// Points have changed: does the descriptor have to?
    fn note_points(&mut self, now: Instant) {
        if !self.service.has_points() {
            return;
        }
        self.first_point.get_or_insert(now);
        // Nothing of what clients know works any more: then the rate bound would only hurt.
        let hands = self.service.hands();
        let is_gone = |round: &Round| {
            !hands.iter().any(|hand| hand.points.iter().any(|point| round.contains(point)))
        };
        let urgency = match () {
            () if self.rounds().any(is_gone) => Urgency::Now,
            () if self.rounds().any(|round| self.has_lost_an_instance(round)) => Urgency::Soon,
            () => Urgency::Turn,
        };
        self.want(urgency, now);
    }

    /// Whether an instance that is in `round` has nothing for the next.
    fn has_lost_an_instance(&self, round: &Round) -> bool {
        let hands = self.service.hands();
        let mut before = round.instances();
        before.any(|instance| {
            hands.get(instance).is_none_or(|hand| hand.share == 0 || hand.points.is_empty())
        })
    }

    /// A directory to publish by.
    fn netdir(&self) -> Option<Arc<NetDir>> {
        self.pool.directory().netdir(Timeliness::Timely).ok()
    }

    /// Why nothing can be published now, in words for the operator.
    fn find_obstacle(&self, now: Instant) -> Option<String> {
        if self.service.is_handed_over() {
            return Some("another process takes over, and publishes from now on".to_owned());
        }
        if let Some(skew) = self.stack.clock_skew_ms()
            && let Some(proof) = self.stack.proof_of_fast_clock()
        {
            return Some(format!(
                "this machine's clock is {}, as {proof}: nothing is published until it is set",
                in_words(skew)
            ));
        }
        if self.netdir().is_none() {
            return Some(self.explained("no timely Tor directory"));
        }
        if !self.service.has_points() {
            return Some(self.explained("no introduction point is up"));
        }
        let waited = self.first_point.is_some_and(|first| {
            now.saturating_duration_since(first)
                >= Duration::from_millis(limits::FIRST_PUBLISH_WAIT_MS)
        });
        if !self.has_published() && !waited && !self.service.has_points_everywhere() {
            return Some("waiting for every instance's first introduction point".to_owned());
        }
        None
    }

    /// An obstacle, with why no relay can be reached where that is so.
    fn explained(&self, obstacle: &str) -> String {
        match self.stack.why_unreachable() {
            Some(why) => format!("{obstacle}: {why}"),
            None => obstacle.to_owned(),
        }
    }

    /// Tell what is the case.
    fn tell(&mut self) {
        let descriptors: Vec<DescriptorStatus> = self.rounds().map(Round::status).collect();
        let published = !descriptors.is_empty()
            && descriptors
                .iter()
                .all(|one| one.hsdirs_total > 0 && one.hsdirs_ok * 2 >= one.hsdirs_total);
        self.was_ready |= published;
        let waiting = self.obstacle.clone().or_else(|| self.round_failed());
        let (state, reason) = match (published, waiting) {
            (true, None) if self.stack.is_refused_circuits() => {
                let why = "a guard refuses circuits: fewer are asked for, so clients wait longer";
                (ServiceState::Degraded, Some(why.to_owned()))
            }
            (true, None) => (ServiceState::Ready, None),
            (_, Some(why)) if self.was_ready => (ServiceState::Degraded, Some(why)),
            (_, Some(why)) => (ServiceState::Starting, Some(why)),
            (false, None) if !self.has_published() => {
                (ServiceState::Starting, Some("about to publish".to_owned()))
            }
            (false, None) if self.rounds().any(Round::has_failures) => {
                let why = Some("HSDirs did not take the descriptor yet; trying again".to_owned());
                let state =
                    if self.was_ready { ServiceState::Degraded } else { ServiceState::Publishing };
                (state, why)
            }
            // A new round of a service that is known: the old descriptors are still there.
            (false, None) if self.was_ready => (ServiceState::Ready, None),
            (false, None) => (ServiceState::Publishing, None),
        };
        let alarm = self.verifier.alarm();
        let (state, reason) = match (state, &alarm) {
            (ServiceState::Ready, Some(alarm)) => (ServiceState::Degraded, Some(alarm.clone())),
            _ => (state, reason),
        };
        let (looks_total, looked_at) = self.verifier.looks();
        let status = PublisherStatus {
            state,
            reason,
            descriptors,
            clock_skew_ms: self.stack.clock_skew_ms(),
            verification: self.verifier.last().cloned(),
            alarm,
            foreign_total: self.verifier.foreign_total(),
            looks_total,
            looked_at,
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }
}
