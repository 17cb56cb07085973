//! Whether the HSDirs hold what we published, and whether somebody else publishes with our key.
//!
//! ```text
//!   idle -- time, or the operator --> asking, some HSDirs at a time -- all have answered --> idle
//!                                                                             |
//!                      a descriptor signed with our key that we did not publish: alarm
//!                      an older one of ours, or none: that HSDir gets the newest again
//! ```
//!
//! The alarm ends after [`limits::ALARM_CLEAN_CHECKS`] checks in a row that find nothing of the
//! kind. Pure bookkeeping, as [`super::round`]: it says whom to ask and takes in the answers; the
//! publisher asks.

use std::time::{Duration, Instant, SystemTime};

use rand::RngExt as _;
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::HsBlindId;
use tor_linkspec::OwnedCircTarget;

use super::super::hsdir::{Held, HeldDescriptor};
use super::super::published::Published;
use super::super::status::{HeldState, HeldStatus, Position, Share, Verification};
use super::round::{Round, UploadName};
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

/// A check that is under way.
struct Check {
    /// Its number.
    number: u64,
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
    /// Time between two checks; `None`: only when asked.
    interval: Option<Duration>,
    /// When the next one is due.
    next: Option<Instant>,
    /// Checks so far.
    number: u64,
    /// The one that is under way.
    check: Option<Check>,
    /// What the last one found.
    last: Option<Verification>,
    /// Checks in a row without a foreign descriptor since the alarm, while there is one.
    alarm: Option<u32>,
    /// Foreign descriptors so far.
    foreign_total: u64,
}

impl Verifier {
    /// Check that often.
    pub(super) fn new(interval: Option<Duration>) -> Verifier {
        Verifier {
            interval,
            next: None,
            number: 0,
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
    }

    /// When the next check is due.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.next.filter(|_| self.check.is_none())
    }

    /// Whether a check has to begin now: it is due, or a request with this number waits.
    pub(super) fn is_due(&self, wanted: u64, now: Instant) -> bool {
        let answered = self.last.as_ref().map_or(0, |last| last.answers);
        let due = self.next.is_some_and(|at| at <= now) || wanted > answered;
        due && self.check.is_none()
    }

    /// Ask what a round has published.
    pub(super) fn begin(&mut self, round: &Round, wanted: u64, now: Instant) {
        let questions = round.questions();
        self.next = self.next_time(now);
        self.number += 1;
        let found = questions.iter().map(|_| None).collect();
        let (number, answers) = (self.number, wanted);
        self.check = Some(Check { number, answers, questions, asked: 0, found });
        self.finish_if_answered();
    }

    /// Another process publishes: what is found from now on says nothing.
    pub(super) fn give_up(&mut self) {
        self.check = None;
        self.next = None;
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

    /// Take in an answer. `round` is the one that is published now.
    pub(super) fn note(
        &mut self,
        answer: Answer,
        round: &Round,
        published: &Published,
    ) -> Option<Remedy> {
        let check = self.check.as_mut().filter(|check| check.number == answer.check)?;
        let question = check.questions.get(answer.question)?;
        let found = judge(question, answer.held, round, published);
        let remedy = match (found.state, found.revision) {
            (HeldState::Foreign, Some(theirs)) if theirs >= question.revision => {
                Some(Remedy::Exceed(question.blinded, theirs))
            }
            (HeldState::Newest | HeldState::Unreachable, _) => None,
            _ if question.has_taken => Some(Remedy::Upload(question.name)),
            _ => None,
        };
        if found.state == HeldState::Foreign {
            self.foreign_total += 1;
            if self.alarm.is_none() {
                tracing::error!("{ALARM}");
            }
            self.alarm = Some(0);
        }
        check.found[answer.question] = Some(found);
        self.finish_if_answered();
        remedy
    }

    /// End the check once every HSDir has answered.
    fn finish_if_answered(&mut self) {
        let answered = |check: &mut Check| check.found.iter().all(Option::is_some);
        let Some(check) = self.check.take_if(answered) else { return };
        let done = Verification {
            number: check.number,
            answers: check.answers,
            checked_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
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
                tracing::warn!("no HSDir holds another publisher's descriptor any more");
            }
        }
        let lost = done.hsdirs.len() as u64 - done.count(HeldState::Newest);
        tracing::debug!(hsdirs = done.hsdirs.len(), lost, "checked what the HSDirs hold");
        self.last = Some(done);
    }

    /// When the next check comes: at a random time around the interval, sooner during an alarm.
    fn next_time(&self, now: Instant) -> Option<Instant> {
        let alarmed = Duration::from_secs(limits::ALARM_CHECK_SECONDS);
        let interval = match self.alarm {
            Some(_) => Some(self.interval.map_or(alarmed, |interval| interval.min(alarmed))),
            None => self.interval,
        };
        let share = rand::rng().random_range(75..=125);
        interval.map(|interval| now + interval * share / 100)
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

/// What an answer means.
fn judge(question: &Question, held: Held, round: &Round, published: &Published) -> HeldStatus {
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
            let owners = points.iter().filter_map(|point| round.instance_of(point));
            found.points = Share::count(owners);
        }
    }
    found
}

#[cfg(test)]
mod tests;
