//! The publisher's part in checks: it asks the HSDirs, and does what follows from their answers.

use std::sync::Arc;
use std::time::Instant;

use super::verification::{Answer, Remedy};
use super::{Publisher, seconds};
use crate::onion::hsdir;
use crate::runtime;

impl Publisher {
    /// Whether there is something to ask HSDirs for.
    pub(super) fn can_verify(&self) -> bool {
        self.round.is_some() && self.netdir().is_some() && !self.service.is_handed_over()
    }

    /// Ask HSDirs what they hold, when it is time, or somebody wants to know.
    pub(super) fn verify(&mut self, now: Instant) {
        if self.service.is_handed_over() {
            self.verifier.give_up();
            return;
        }
        let wanted = self.service.last_check_wanted();
        if self.verifier.is_due(wanted, now)
            && self.can_verify()
            && let Some(round) = &self.round
        {
            self.verifier.begin(round, wanted, now);
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
        let Some(round) = &mut self.round else { return };
        match self.verifier.note(answer, round, &self.published) {
            Some(Remedy::Upload(name)) => round.note_lost(name, now),
            Some(Remedy::Exceed(key, counter)) => {
                self.revisions.note_seen(key, counter, seconds());
                self.pacing.want(now);
            }
            None => {}
        }
    }
}
