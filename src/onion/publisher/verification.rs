//! Whether the HSDirs hold what we published, and whether somebody else publishes with our key.
//!
//! ```text
//!   idle -- time, or the operator --> asking, some HSDirs at a time -- all have answered --> idle
//!                                                                             |
//!                      a descriptor signed with our key that we did not publish: alarm
//!                      an older one of ours, or none: that HSDir gets the newest again
//! ```
//!
//! An HSDir sees which descriptor is asked for, though not from where. No other service fetches its
//! own, so as few as will do are asked ([`Scope`]): all when the operator wants it or has
//! configured it, and during an alarm; those that refused a descriptor for a higher counter,
//! once, some time later; and every few hours a single one, for a second publisher uploads to all.
//!
//! The alarm ends after [`limits::ALARM_CLEAN_CHECKS`] checks of all in a row that find nothing of
//! the kind. Pure bookkeeping, as [`super::round`]: it says whom to ask and takes in the answers;
//! the publisher asks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::HsBlindId;
use tor_linkspec::OwnedCircTarget;
use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::super::hsdir::{Held, HeldDescriptor};
use super::super::published::Published;
use super::super::status::{HeldState, HeldStatus, Position, Share, Verification};
use super::round::UploadName;
use crate::limits;

/// What the operator is told when somebody else has signed with our key.
const ALARM: &str = "another publisher holds this service's key: an HSDir has a descriptor that is \
                     signed with it and that was not published here. Where tor, OnionBalance or \
                     another RustBalance publishes the same address, stop it; where none does, the \
                     key was stolen";

/// One HSDir to be asked.
#[derive(Clone)]
pub(super) struct Question {
    /// Its upload.
    pub(super) name: UploadName,
    /// Number of the time period.
    pub(super) period: u64,
    /// The relay.
    pub(super) hsdir: OwnedCircTarget,
    /// Where it stands.
    pub(super) position: Position,
    /// Under which blinded key.
    pub(super) blinded: HsBlindId,
    /// What the descriptor is encrypted with.
    pub(super) subcredential: Subcredential,
    /// The counter that it should hold; a higher one of ours is good as well.
    pub(super) revision: u64,
    /// Whether it has taken the descriptor.
    pub(super) has_taken: bool,
}

/// An answer.
pub(super) struct Answer {
    /// Number of the check.
    check: u64,
    /// Index of the question.
    question: usize,
    /// What it holds.
    held: Held,
}

/// What follows from an answer, for the publisher to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The HSDir has lost our descriptor: upload it again.
    Upload(UploadName),
    /// It holds a foreign one with this counter: publish one with a higher counter.
    Exceed(HsBlindId, u64),
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every HSDir of every live period.
    All,
    /// Those that held a higher counter.
    Doubts,
    /// One of the current period, at random.
    One,
}

/// A check that is under way.
struct Check {
    /// Its number.
    number: u64,
    /// Whom it asks.
    scope: Scope,
    /// The highest number of a request that it answers.
    answers: u64,
    /// Whom it asks.
    questions: Vec<Question>,
    /// How many were asked.
    asked: usize,
    /// What was found.
    found: Vec<Option<HeldStatus>>,
}

/// What there is of checks.
pub(super) struct Verifier {
    /// Time between two checks of all; `None`: only when asked.
    interval: Option<Duration>,
    /// Time between two looks at a single one; `None`: never.
    theft_interval: Option<Duration>,
    /// When the next check of all is due.
    next: Option<Instant>,
    /// When the next look at a single one is due.
    next_theft: Option<Instant>,
    /// HSDirs in doubt, by period and relay, and when they are looked at.
    doubts: BTreeMap<(u64, String), Instant>,
    /// Checks so far, of any scope.
    number: u64,
    /// Checks of all so far.
    of_all: u64,
    /// Others so far, and when the last one ended.
    looks: (u64, Option<String>),
    /// The one that is under way.
    check: Option<Check>,
    /// What the last one of all found.
    last: Option<Verification>,
    /// Checks in a row without a foreign descriptor since the alarm, while there is one.
    alarm: Option<u32>,
    /// Foreign descriptors so far.
    foreign_total: u64,
}

impl Verifier {
    /// Check all, and look at a single one, that often.
    pub(super) fn new(interval: Option<Duration>, theft_interval: Option<Duration>) -> Verifier {
        Verifier {
            interval,
            theft_interval,
            next: None,
            next_theft: None,
            doubts: BTreeMap::new(),
            number: 0,
            of_all: 0,
            looks: (0, None),
            check: None,
            last: None,
            alarm: None,
            foreign_total: 0,
        }
    }

    /// Descriptors are published: the first check comes some time later.
    pub(super) fn note_published(&mut self, now: Instant) {
        if self.next.is_none() {
            self.next = self.next_time(now);
        }
        if self.next_theft.is_none() {
            self.next_theft = self.next_theft_time(now);
        }
    }

    /// An HSDir refused a descriptor for a higher counter.
    pub(super) fn note_doubt(&mut self, period: u64, relay: String, now: Instant) {
        if self.doubts.len() < limits::DOUBTS_MAX {
            self.doubts.entry((period, relay)).or_insert_with(|| doubt_time(now));
        }
    }

    /// When the next check is due.
    pub(super) fn next_check(&self) -> Option<Instant> {
        let doubts = self.doubts.values().min().copied();
        let times = [self.next, self.next_theft.filter(|_| self.alarm.is_none()), doubts];
        times.into_iter().flatten().min().filter(|_| self.check.is_none())
    }

    /// Which check has to begin now, if any: one is due, or a request with this number waits.
    pub(super) fn due(&self, wanted: u64, now: Instant) -> Option<Scope> {
        if self.check.is_some() {
            return None;
        }
        let answered = self.last.as_ref().map_or(0, |last| last.answers);
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match () {
            () if wanted > answered || is_past(self.next) => Some(Scope::All),
            () if is_past(self.doubts.values().min().copied()) => Some(Scope::Doubts),
            // During an alarm all are asked, and often.
            () if self.alarm.is_none() && is_past(self.next_theft) => Some(Scope::One),
            () => None,
        }
    }

    /// Ask what is published, of which these are all `questions`; `current` is the number of the
    /// current period.
    pub(super) fn begin(
        &mut self,
        scope: Scope,
        questions: Vec<Question>,
        current: Option<u64>,
        wanted: u64,
        now: Instant,
    ) {
        let questions = match scope {
            Scope::All => {
                self.next = self.next_time(now);
                self.next_theft = self.next_theft_time(now);
                self.doubts.clear();
                questions
            }
            Scope::Doubts => self.take_doubts(questions, now),
            Scope::One => {
                self.next_theft = self.next_theft_time(now);
                let is_current = |question: &Question| Some(question.period) == current;
                questions
                    .into_iter()
                    .filter(is_current)
                    .choose(&mut rand::rng())
                    .into_iter()
                    .collect()
            }
        };
        if scope != Scope::All && questions.is_empty() {
            return;
        }
        self.number += 1;
        let found = questions.iter().map(|_| None).collect();
        let (number, answers) = (self.number, wanted);
        self.check = Some(Check { number, scope, answers, questions, asked: 0, found });
        self.finish_if_answered(now);
    }

    /// The HSDirs in doubt whose time has come. One that has not taken the newest yet is left for
    /// later, and one that is not responsible any more is forgotten.
    fn take_doubts(&mut self, questions: Vec<Question>, now: Instant) -> Vec<Question> {
        let mut before = std::mem::take(&mut self.doubts);
        let mut asked = Vec::new();
        for question in questions {
            let name = (question.period, question.position.relay.clone());
            match before.remove(&name) {
                None => {}
                Some(at) if at > now => drop(self.doubts.insert(name, at)),
                Some(_) if question.has_taken => asked.push(question),
                Some(_) => drop(self.doubts.insert(name, doubt_time(now))),
            }
        }
        asked
    }

    /// Another process publishes: what is found from now on says nothing.
    pub(super) fn give_up(&mut self) {
        self.check = None;
        (self.next, self.next_theft) = (None, None);
        self.doubts.clear();
    }

    /// The next HSDir to be asked, with a place for its answer.
    pub(super) fn take_question(
        &mut self,
    ) -> Option<(Question, impl FnOnce(Held) -> Answer + use<>)> {
        let check = self.check.as_mut()?;
        let question = check.questions.get(check.asked)?.clone();
        let (check_number, index) = (check.number, check.asked);
        check.asked += 1;
        Some((question, move |held| Answer { check: check_number, question: index, held }))
    }

    /// Whether somebody is still to be asked.
    pub(super) fn has_questions(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.asked < check.questions.len())
    }

    /// Take in an answer. `owner` says whose a point is that is published now.
    pub(super) fn note(
        &mut self,
        answer: Answer,
        owner: impl Fn(&IntroPointDesc) -> Option<usize>,
        published: &Published,
        now: Instant,
    ) -> Option<Remedy> {
        let check = self.check.as_mut().filter(|check| check.number == answer.check)?;
        let question = check.questions.get(answer.question)?;
        let found = judge(question, answer.held, owner, published);
        let remedy = match (found.state, found.revision) {
            (HeldState::Foreign, Some(theirs)) if theirs >= question.revision => {
                Some(Remedy::Exceed(question.blinded, theirs))
            }
            (HeldState::Newest | HeldState::Unreachable, _) => None,
            _ if question.has_taken => Some(Remedy::Upload(question.name)),
            _ => None,
        };
        let is_foreign = found.state == HeldState::Foreign;
        check.found[answer.question] = Some(found);
        if is_foreign {
            self.ring(now);
        }
        self.finish_if_answered(now);
        remedy
    }

    /// Somebody else has signed with our key.
    fn ring(&mut self, now: Instant) {
        self.foreign_total += 1;
        if self.alarm.is_none() {
            tracing::error!("{ALARM}");
        }
        self.alarm = Some(0);
        // How far it reaches is not known yet; later it is looked at how it goes on.
        let soon = self.next_time(now);
        self.next = self.next.map_or(soon, |next| soon.map(|soon| soon.min(next)));
    }

    /// End the check once every HSDir has answered.
    fn finish_if_answered(&mut self, now: Instant) {
        let answered = |check: &mut Check| check.found.iter().all(Option::is_some);
        let Some(check) = self.check.take_if(answered) else { return };
        let checked_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        if check.scope != Scope::All {
            tracing::debug!(hsdirs = check.found.len(), "looked at what some HSDirs hold");
            self.looks = (self.looks.0 + 1, Some(checked_at));
            return;
        }
        self.of_all += 1;
        let done = Verification {
            number: self.of_all,
            answers: check.answers,
            checked_at,
            hsdirs: check.found.into_iter().flatten().collect(),
        };
        let seen = done.count(HeldState::Newest) > 0;
        if let Some(clean) = &mut self.alarm {
            match done.count(HeldState::Foreign) {
                0 if seen => *clean += 1,
                0 => {}
                _ => *clean = 0,
            }
            if *clean >= limits::ALARM_CLEAN_CHECKS {
                self.alarm = None;
                self.next = self.next_time(now);
                tracing::warn!("no HSDir holds another publisher's descriptor any more");
            }
        }
        let lost = done.hsdirs.len() as u64 - done.count(HeldState::Newest);
        tracing::debug!(hsdirs = done.hsdirs.len(), lost, "checked what the HSDirs hold");
        self.last = Some(done);
    }

    /// When the next check of all comes: at a random time around the interval, sooner during an
    /// alarm.
    fn next_time(&self, now: Instant) -> Option<Instant> {
        let alarmed = Duration::from_secs(limits::ALARM_CHECK_SECONDS);
        let interval = match self.alarm {
            Some(_) => Some(self.interval.map_or(alarmed, |interval| interval.min(alarmed))),
            None => self.interval,
        };
        let share = rand::rng().random_range(75..=125);
        interval.map(|interval| now + interval * share / 100)
    }

    /// When a single one is asked next.
    fn next_theft_time(&self, now: Instant) -> Option<Instant> {
        let bounds = limits::THEFT_CHECK_PERCENT_MIN..=limits::THEFT_CHECK_PERCENT_MAX;
        let share = rand::rng().random_range(bounds);
        self.theft_interval.map(|interval| now + interval * share / 100)
    }

    /// Looks at less than all so far, and when the last one ended.
    pub(super) fn looks(&self) -> (u64, Option<String>) {
        self.looks.clone()
    }

    /// What the last check found.
    pub(super) fn last(&self) -> Option<&Verification> {
        self.last.as_ref()
    }

    /// Why somebody else seems to have our key, if somebody does.
    pub(super) fn alarm(&self) -> Option<String> {
        self.alarm.map(|_| ALARM.to_owned())
    }

    /// Foreign descriptors so far.
    pub(super) fn foreign_total(&self) -> u64 {
        self.foreign_total
    }
}

/// When an HSDir that is in doubt now is looked at.
fn doubt_time(now: Instant) -> Instant {
    let bounds = limits::DOUBT_LOOK_SECONDS_MIN..=limits::DOUBT_LOOK_SECONDS_MAX;
    now + Duration::from_secs(rand::rng().random_range(bounds))
}

/// What an answer means.
fn judge(
    question: &Question,
    held: Held,
    owner: impl Fn(&IntroPointDesc) -> Option<usize>,
    published: &Published,
) -> HeldStatus {
    let mut found = HeldStatus {
        period: question.period,
        hsdir: question.position.clone(),
        state: HeldState::Nothing,
        expected_revision: question.revision,
        revision: None,
        intro_points: 0,
        points: Vec::new(),
        error: None,
    };
    match held {
        Held::Nothing => {}
        Held::Unreachable(error) => {
            (found.state, found.error) = (HeldState::Unreachable, Some(error));
        }
        Held::Unreadable(error) => {
            (found.state, found.error) = (HeldState::Unreadable, Some(error));
        }
        Held::Descriptor(HeldDescriptor { digest, revision, points }) => {
            found.state = match published.contains(&digest) {
                false => HeldState::Foreign,
                true if revision >= Some(question.revision) => HeldState::Newest,
                true => HeldState::Older,
            };
            found.revision = revision;
            found.intro_points = points.len();
            found.points = Share::count(points.iter().filter_map(owner));
        }
    }
    found
}

#[cfg(test)]
mod tests;
