//! The publisher's part in rounds: it builds them, runs their uploads, and does what follows from
//! how those end.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tor_hscrypto::pk::HsBlindId;
use tor_netdir::NetDir;

use super::live::Live;
use super::round::{Attempt, Round, RoundError, Sequel, UploadDone, UploadEnd};
use super::{Publisher, seconds};
use crate::onion::descriptor::{self, DescriptorError};
use crate::onion::hsdir::{self, Held, HeldDescriptor, UploadError};
use crate::onion::spread::{Board, spread};
use crate::runtime;

impl Publisher {
    /// Begin the rounds that are wanted and may begin.
    pub(super) fn begin_rounds(&mut self, now: Instant) {
        // First: without a directory what is wanted stays wanted.
        let Some(netdir) = self.netdir() else { return };
        let due = |(index, live): (usize, &mut Live)| live.times.take(now).then_some(index);
        let due: Vec<usize> = self.live.iter_mut().enumerate().filter_map(due).collect();
        for index in due {
            self.begin_round(index, &netdir, now);
        }
    }

    /// Build the descriptor of a new round of a period.
    fn begin_round(&mut self, index: usize, netdir: &NetDir, now: Instant) {
        let built = self.build_round(index, netdir, now);
        let others = self.live.iter().enumerate().filter(|(other, _)| *other != index);
        let others: Vec<Instant> = others.filter_map(|(_, one)| one.times.republish_at()).collect();
        let live = &mut self.live[index];
        match built {
            Ok(round) => {
                let was_refused = live.round.as_ref().is_some_and(Round::was_refused);
                live.times.note_begun(was_refused, &others, now);
                self.published.record(round.digests(), seconds());
                self.verifier.note_published(now);
                live.round = Some(round);
                live.failed = None;
            }
            Err(error) => {
                if let Some(more) = self.not_built.say() {
                    tracing::error!("cannot build a descriptor: {error}{more}");
                }
                live.failed = Some(error.to_string());
                live.times.note_failed(now);
            }
        }
    }

    /// Deal the points and build the documents; with fewer points in each, if any is too large.
    fn build_round(
        &mut self,
        index: usize,
        netdir: &NetDir,
        now: Instant,
    ) -> Result<Round, RoundError> {
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
            let (period, revisions) = (&self.live[index].period, &mut self.revisions);
            match Round::build(period, dealt, offer, revisions, netdir, now, wall) {
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
    pub(super) fn launch_uploads(&mut self, now: Instant) {
        if self.service.is_handed_over() {
            return;
        }
        let take = |live: &mut Live| live.round.as_mut()?.take_due(now);
        loop {
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
            let Some(attempt) = self.live.iter_mut().find_map(take) else { return };
            let Attempt { name, hsdir, text, blinded, subcredential } = attempt;
            let (pool, done) = (self.pool.clone(), self.done.clone());
            let (service, questions) = (Arc::clone(&self.service), Arc::clone(&self.questions));
            runtime::spawn(async move {
                let wanted = || !service.is_handed_over();
                let result = hsdir::upload(&pool, hsdir.clone(), text, wanted).await;
                // Others upload while this one is asked.
                drop(slot);
                if let Err(error) = &result {
                    tracing::debug!("upload: {error}");
                }
                // Only this one is asked, and only where its answer leaves a doubt.
                let held = async {
                    // Never closed.
                    let _question = questions.acquire().await;
                    hsdir::held(&pool, hsdir, blinded, subcredential).await
                };
                let signed = |held| match held {
                    Held::Descriptor(held) => Some((blinded, held)),
                    _ => None,
                };
                let end = match &result {
                    Ok(()) => UploadEnd::Taken,
                    Err(UploadError::Refused(_)) => UploadEnd::Refused(signed(held.await)),
                    Err(UploadError::NoReceipt(_)) => UploadEnd::NoReceipt(signed(held.await)),
                    Err(_) => UploadEnd::Failed,
                };
                let error = result.err().map(|error| error.to_string());
                // Full only when the publisher has stopped: then nobody wants to know.
                let _ = done.push(UploadDone { name, end, error });
            });
        }
    }

    /// An upload has ended.
    pub(super) fn note_done(&mut self, done: UploadDone, now: Instant) {
        if let Some((key, held)) = done.end.held() {
            self.note_conflict(*key, held);
        }
        let of_it =
            |live: &&mut Live| live.round.as_ref().is_some_and(|round| round.has_upload(done.name));
        let Some(live) = self.live.iter_mut().find(of_it) else { return };
        let Some(round) = &mut live.round else { return };
        let period = round.period();
        if let Sequel::HigherCounter { first, relay } = round.note_done(done, now) {
            self.verifier.note_doubt(period, relay, now);
            if first {
                live.times.note_refused(now);
            }
        }
    }

    /// An HSDir has not taken a descriptor, and holds this one: the next one's counter is above it.
    fn note_conflict(&mut self, key: HsBlindId, held: &HeldDescriptor) {
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
}
