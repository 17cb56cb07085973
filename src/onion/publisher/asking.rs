//! The publisher's part in checks: it asks the HSDirs, and does what follows from their answers.

use std::sync::Arc;
use std::time::Instant;

use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::live::Live;
use super::round::Round;
use super::timetable::Urgency;
use super::verification::{Answer, Remedy};
use super::{Publisher, seconds};
use crate::onion::hsdir;
use crate::runtime;

impl Publisher {
    /// Whether there is something to ask HSDirs for.
    pub(super) fn can_verify(&self) -> bool {
        self.has_published() && self.netdir().is_some() && !self.service.is_handed_over()
    }

    /// Ask HSDirs what they hold, when it is time, or somebody wants to know.
    pub(super) fn verify(&mut self, now: Instant) {
        if self.service.is_handed_over() {
            self.verifier.give_up();
            return;
        }
        let wanted = self.service.last_check_wanted();
        if let Some(scope) = self.verifier.due(wanted, now)
            && self.can_verify()
        {
            let questions = self.rounds().flat_map(Round::questions).collect();
            let current = self.current_period();
            self.verifier.begin(scope, questions, current, wanted, now);
        }
        while self.verifier.has_questions() {
            let Ok(slot) = Arc::clone(&self.questions).try_acquire_owned() else { return };
            let Some((question, answer)) = self.verifier.take_question() else { return };
            let (pool, answers) = (self.pool.clone(), self.answers.clone());
            runtime::spawn(async move {
                let (blinded, subcredential) = (question.blinded, question.subcredential);
                let held = hsdir::held(&pool, question.hsdir, blinded, subcredential);
                let held = held.await;
                drop(slot);
                // Full only when the publisher has stopped: then nobody wants to know.
                let _ = answers.push(answer(held));
            });
        }
    }

    /// An HSDir has said what it holds: see that it holds the newest.
    pub(super) fn note_answer(&mut self, answer: Answer, now: Instant) {
        let rounds = || self.live.iter().filter_map(|live| live.round.as_ref());
        let owner = |point: &IntroPointDesc| rounds().find_map(|round| round.instance_of(point));
        match self.verifier.note(answer, owner, &self.published, now) {
            Some(Remedy::Upload(name)) => {
                let rounds = self.live.iter_mut().filter_map(|live| live.round.as_mut());
                rounds.for_each(|round| round.note_lost(name, now));
            }
            Some(Remedy::Exceed(key, counter)) => {
                self.revisions.note_seen(key, counter, seconds());
                let of_it = |live: &&mut Live| live.period.blinded_id() == key;
                if let Some(live) = self.live.iter_mut().find(of_it) {
                    live.times.want(Urgency::Turn, now);
                }
            }
            None => {}
        }
    }
}
