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
//! A *round* builds a descriptor for each live period (or several, where there are more points than
//! one holds: [`super::spread`]) and uploads it to every HSDir of the period.
//! A round begins when
//! * points have changed (collected for a second; [`pacing`] bounds the rate, but not when an
//!   instance is gone),
//! * a period begins or an HSDir set changes with a new consensus,
//! * the published descriptors are an hour or two old,
//! * an HSDir has refused a descriptor, as it does when it holds a higher counter: it is asked for
//!   what it holds, and the next round's is higher (with a wait that doubles, for it may have had
//!   another reason).
//!
//! New subcredentials are on all cores before a period's first descriptor is uploaded, and stay
//! there until the last descriptor of an old period has expired.
//!
//! Runs on the control core. The loop waits for one event and applies it synchronously.

mod asking;
pub mod pacing;
mod round;
mod verification;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use rand::RngExt as _;
use tokio::sync::{Semaphore, watch};
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::HsBlindId;
use tor_hscrypto::time::TimePeriod;
use tor_netdir::{NetDir, Timeliness};

use self::pacing::Pacing;
use self::round::{Attempt, Round, RoundError, UploadDone, UploadEnd};
use self::verification::{Answer, Verifier};
use super::descriptor::{self, DescriptorError};
use super::hsdir::{self, Held, HeldDescriptor, UploadError};
use super::period::{Period, PeriodError};
use super::published::Published;
use super::revision::Revisions;
use super::ring::live_rings;
use super::service::Service;
use super::spread::{Board, spread};
use super::status::{DescriptorStatus, PublisherStatus, ServiceState};
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
    /// Live periods.
    periods: Vec<Period>,
    /// Subcredentials of periods that are over, and when they may go.
    retired: Vec<(Subcredential, Instant)>,
    /// The descriptors of the last round, and their uploads.
    round: Option<Round>,
    /// When a round may begin.
    pacing: Pacing,
    /// When the first point came up.
    first_point: Option<Instant>,
    /// When the published descriptors are to be replaced.
    republish_at: Option<Instant>,
    /// Whether the service has been ready.
    was_ready: bool,
    /// What is in the way, if anything.
    obstacle: Option<String>,
    /// Why the last round could not be built, if it could not.
    round_failed: Option<String>,
    /// Rounds in a row of which an HSDir refused a descriptor.
    refusals: u32,
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
        let interval = service.settings.verify_interval;
        let publisher = Publisher {
            service,
            stack,
            pool,
            master,
            published: Published::load(&revisions.beside("published")),
            revisions,
            periods: Vec::new(),
            retired: Vec::new(),
            round: None,
            pacing: Pacing::new(Instant::now()),
            first_point: None,
            republish_at: None,
            was_ready: false,
            obstacle: None,
            round_failed: None,
            refusals: 0,
            warned_of_clock: false,
            was_handed_over: false,
            // Every upload that runs can end without anybody waiting.
            done: Mailbox::new(limits::UPLOADS_AT_ONCE_MAX * 64),
            slots: Arc::new(Semaphore::new(limits::UPLOADS_AT_ONCE_MAX)),
            verifier: Verifier::new(interval),
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
            tracing::warn!("this machine's clock is {}: set it, by NTP best", in_words(skew));
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
        let waited = self.first_point.filter(|_| self.round.is_none()).map(|at| at + first_wait);
        let times = [
            self.pacing.next_round().filter(|_| free),
            self.round.as_ref().and_then(Round::next_attempt).filter(|_| may_upload),
            self.republish_at,
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
            Event::Done(done) => {
                if let UploadEnd::Refused(Some((key, held))) = &done.end {
                    self.note_refusal(*key, held);
                }
                if self.round.as_mut().is_some_and(|round| round.note_done(done, now)) {
                    self.want_higher_counter(now);
                }
            }
            Event::Answer(answer) => self.note_answer(answer, now),
            Event::Tick => {}
        }
        if self.republish_at.is_some_and(|at| at <= now) {
            self.republish_at = None;
            self.pacing.want(now);
        }
        self.watch_hand_over(now);
        self.expire_subcredentials(now);
        self.watch_clock();
        self.obstacle = self.find_obstacle(now);
        if self.obstacle.is_none() && self.pacing.take(now) {
            self.begin_round(now);
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
            self.pacing.want(now);
        }
    }

    /// An HSDir has refused a descriptor, and holds this one: the next one's counter is above it.
    fn note_refusal(&mut self, key: HsBlindId, held: &HeldDescriptor) {
        let Some(counter) = held.revision else { return };
        let is_news = self.revisions.note_seen(key, counter, seconds());
        if !is_news || self.published.contains(&held.digest) {
            return;
        }
        match counter {
            u64::MAX => tracing::error!(
                "an HSDir holds a descriptor with the highest counter there is, which was not \
                 published here: ours is refused until the time period is over"
            ),
            _ => tracing::warn!(
                "an HSDir holds a descriptor with the counter {counter}, which was not published \
                 here (other software did, or somebody who has the key): the next one is above it"
            ),
        }
    }

    /// An HSDir has refused a descriptor of the round: bring the next one forward.
    fn want_higher_counter(&mut self, now: Instant) {
        let wait = limits::REFUSED_WAIT_SECONDS_MIN << self.refusals.min(16);
        let wait = Duration::from_secs(wait.min(limits::REFUSED_WAIT_SECONDS_MAX));
        self.refusals = self.refusals.saturating_add(1);
        self.republish_at = Some(self.republish_at.map_or(now + wait, |at| at.min(now + wait)));
    }

    /// Points have changed: does the descriptor have to?
    fn note_points(&mut self, now: Instant) {
        if !self.service.has_points() {
            return;
        }
        self.first_point.get_or_insert(now);
        // Nothing of what clients know works any more: then the rate bound would only hurt.
        let published_is_gone = self.round.as_ref().is_some_and(|round| {
            let hands = self.service.hands();
            !hands.iter().any(|hand| hand.points.iter().any(|point| round.contains(point)))
        });
        if published_is_gone {
            self.pacing.want_now(now);
        } else if self.round.as_ref().is_some_and(|round| self.has_lost_an_instance(round)) {
            self.pacing.want_soon(now);
        } else {
            self.pacing.want(now);
        }
    }

    /// Whether an instance that is in `round` has nothing for the next.
    fn has_lost_an_instance(&self, round: &Round) -> bool {
        let hands = self.service.hands();
        let mut before = round.instances();
        before.any(|instance| {
            hands.get(instance).is_none_or(|hand| hand.share == 0 || hand.points.is_empty())
        })
    }

    /// The directory has changed: periods, HSDirs.
    fn note_directory(&mut self, now: Instant) {
        let Some(netdir) = self.netdir() else { return };
        match self.update_periods(&netdir, now) {
            Ok(changed) => {
                let moved = self.round.as_ref().is_some_and(|round| {
                    self.periods.iter().any(|period| !round.has_hsdirs(period, &netdir))
                });
                if changed || moved {
                    self.pacing.want(now);
                }
            }
            Err(error) => tracing::warn!("cannot derive a time period's keys: {error}"),
        }
    }

    /// Derive what is new among the live periods. Their subcredentials are on all cores when this
    /// returns. Says whether anything changed.
    fn update_periods(&mut self, netdir: &NetDir, now: Instant) -> Result<bool, PeriodError> {
        let mut known = std::mem::take(&mut self.periods);
        let mut changed = false;
        for ring in live_rings(netdir) {
            let same = |period: &Period| period.ring == ring;
            match known.iter().position(same) {
                Some(index) => self.periods.push(known.swap_remove(index)),
                None => {
                    changed = true;
                    self.periods.push(Period::derive(&self.master, ring)?);
                }
            }
        }
        let keep = Duration::from_secs(u64::from(limits::DESCRIPTOR_LIFETIME_MINUTES) * 60);
        let still_live = |time_period: TimePeriod| {
            self.periods.iter().any(|period| period.time_period() == time_period)
        };
        for over in known {
            changed = true;
            if !still_live(over.time_period()) {
                self.retired.push((over.keys.subcredential, now + keep));
            }
        }
        if changed {
            self.share_subcredentials();
        }
        Ok(changed)
    }

    /// Put the subcredentials of all live and recent periods on all cores.
    fn share_subcredentials(&self) {
        let live = self.periods.iter().map(|period| period.keys.subcredential);
        let recent = self.retired.iter().map(|(subcredential, _)| *subcredential);
        self.service.set_subcredentials(live.chain(recent).collect());
    }

    /// Forget the subcredentials of descriptors that have expired everywhere.
    fn expire_subcredentials(&mut self, now: Instant) {
        let before = self.retired.len();
        self.retired.retain(|(_, until)| *until > now);
        if self.retired.len() != before {
            self.share_subcredentials();
        }
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
            && skew.unsigned_abs() >= limits::CLOCK_SKEW_PUBLISH_MS_MAX
        {
            return Some(format!(
                "this machine's clock is {}: nothing is published until it is set",
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
        if self.round.is_none() && !waited && !self.service.has_points_everywhere() {
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

    /// Build the descriptors of a new round.
    fn begin_round(&mut self, now: Instant) {
        let Some(netdir) = self.netdir() else { return };
        match self.build_round(&netdir, now) {
            Ok(round) => {
                if !self.round.as_ref().is_some_and(Round::was_refused) {
                    self.refusals = 0;
                }
                self.published.record(round.digests(), seconds());
                self.verifier.note_published(now);
                self.round = Some(round);
                self.round_failed = None;
                let bounds = limits::REPUBLISH_SECONDS_MIN..=limits::REPUBLISH_SECONDS_MAX;
                let wait = Duration::from_secs(rand::rng().random_range(bounds));
                self.republish_at = Some(now + wait);
            }
            Err(error) => {
                tracing::error!("cannot build a descriptor: {error}");
                self.round_failed = Some(error.to_string());
                self.pacing.want(now + Duration::from_secs(limits::PUBLISH_ROUND_INTERVAL_SECONDS));
            }
        }
    }

    /// Deal the points and build the documents; with fewer points in each, if any is too large.
    fn build_round(&mut self, netdir: &NetDir, now: Instant) -> Result<Round, RoundError> {
        let hands = self.service.hands();
        let offer = descriptor::sendme_increment(netdir.params());
        let offer = self.service.offers_congestion_control(offer);
        let settings = &self.service.settings;
        let number = |value: i32| usize::try_from(value).unwrap_or(1).max(1);
        let params = netdir.params();
        let mut board = Board {
            replicas: number(params.hsdir_n_replicas.get()),
            asked: number(params.hsdir_spread_fetch.get().min(params.hsdir_spread_store.get())),
            points_max: usize::from(settings.intro_points_max),
            may_differ: settings.distinct_descriptors,
        };
        loop {
            let dealt = spread(&hands, board, descriptor::at_same_relay);
            let wall = SystemTime::now();
            let (periods, revisions) = (&self.periods, &mut self.revisions);
            match Round::build(periods, dealt, offer, revisions, netdir, now, wall) {
                Err(RoundError::Descriptor(DescriptorError::TooLarge {
                    points, bytes, ..
                })) if points > 1 => {
                    board.points_max = points - points.div_ceil(4);
                    let fewer = board.points_max;
                    tracing::warn!("{points} points make {bytes} bytes: at most {fewer} in each");
                }
                built => return built,
            }
        }
    }

    /// Start the uploads that are due.
    fn launch_uploads(&mut self, now: Instant) {
        if self.service.is_handed_over() {
            return;
        }
        let Some(round) = &mut self.round else { return };
        loop {
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
            let Some(attempt) = round.take_due(now) else { return };
            let Attempt { name, hsdir, text, blinded, subcredential } = attempt;
            let (pool, done) = (self.pool.clone(), self.done.clone());
            runtime::spawn(async move {
                let result = hsdir::upload(&pool, hsdir.clone(), text).await;
                if let Err(error) = &result {
                    tracing::debug!("upload: {error}");
                }
                let end = match &result {
                    Ok(()) => UploadEnd::Taken,
                    Err(UploadError::Refused(_)) => {
                        let held = hsdir::held(&pool, hsdir, blinded, subcredential);
                        UploadEnd::Refused(match held.await {
                            Held::Descriptor(held) => Some((blinded, held)),
                            _ => None,
                        })
                    }
                    Err(_) => UploadEnd::Failed,
                };
                drop(slot);
                let error = result.err().map(|error| error.to_string());
                // Full only when the publisher has stopped: then nobody wants to know.
                let _ = done.push(UploadDone { name, end, error });
            });
        }
    }

    /// Tell what is the case.
    fn tell(&mut self) {
        let descriptors: Vec<DescriptorStatus> =
            self.round.as_ref().map(Round::status).unwrap_or_default();
        let published = !descriptors.is_empty()
            && descriptors
                .iter()
                .all(|one| one.hsdirs_total > 0 && one.hsdirs_ok * 2 >= one.hsdirs_total);
        self.was_ready |= published;
        let waiting = self.obstacle.clone().or_else(|| self.round_failed.clone());
        let (state, reason) = match (published, waiting) {
            (true, None) if self.stack.is_refused_circuits() => {
                let why = "a guard refuses circuits: fewer are asked for, so clients wait longer";
                (ServiceState::Degraded, Some(why.to_owned()))
            }
            (true, None) => (ServiceState::Ready, None),
            (_, Some(why)) if self.was_ready => (ServiceState::Degraded, Some(why)),
            (_, Some(why)) => (ServiceState::Starting, Some(why)),
            (false, None) if self.round.is_none() => {
                (ServiceState::Starting, Some("about to publish".to_owned()))
            }
            (false, None) if self.round.as_ref().is_some_and(Round::has_failures) => {
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
        let status = PublisherStatus {
            state,
            reason,
            descriptors,
            clock_skew_ms: self.stack.clock_skew_ms(),
            verification: self.verifier.last().cloned(),
            alarm,
            foreign_total: self.verifier.foreign_total(),
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }
}
