//! One round of a time period: its descriptor, and the uploads to every HSDir.
//!
//! Pure bookkeeping: it says which upload is due and takes in how it ended; the publisher runs it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt as _;
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::HsBlindId;
use tor_linkspec::{HasRelayIds as _, OwnedCircTarget, RelayIds};
use tor_netdir::NetDir;
use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::super::descriptor::{self, Descriptor, DescriptorError, point_name};
use super::super::hsdir::HeldDescriptor;
use super::super::period::{Period, PeriodError};
use super::super::published::Digest;
use super::super::revision::{RevisionError, Revisions};
use super::super::ring::Place;
use super::super::spread::Spread;
use super::super::status::{
    DescriptorStatus, Position, Share, UploadState, UploadStatus, VariantStatus,
};
use super::verification::Question;
use crate::limits;

/// Why a round could not be built: nothing was published.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    /// A descriptor could not be built.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// The HSDirs could not be chosen.
    #[error(transparent)]
    Period(#[from] PeriodError),
    /// The counter could not be kept.
    #[error(transparent)]
    Revision(#[from] RevisionError),
    /// Our clock is before the beginning of the period's shared random run.
    #[error("this machine's clock is behind the consensus: set it")]
    ClockBehind,
}

/// Names one upload: which round, which HSDir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UploadName {
    /// Number of the round.
    round: u64,
    /// Index of the HSDir.
    hsdir: usize,
}

/// An upload that is due.
pub(super) struct Attempt {
    /// Its name, for [`UploadDone`].
    pub(super) name: UploadName,
    /// Where to.
    pub(super) hsdir: OwnedCircTarget,
    /// What.
    pub(super) text: Arc<str>,
    /// Under which blinded key.
    pub(super) blinded: HsBlindId,
    /// What the descriptor is encrypted with.
    pub(super) subcredential: Subcredential,
}

/// How an upload ended.
#[derive(Clone, Debug)]
pub(super) enum UploadEnd {
    /// The HSDir has the descriptor.
    Taken,
    /// The HSDir said no, and would say so again: it holds this one of the blinded key, if any.
    Refused(Option<(HsBlindId, HeldDescriptor)>),
    /// The descriptor went out, and no receipt came back: it holds this one, if any.
    NoReceipt(Option<(HsBlindId, HeldDescriptor)>),
    /// It did not come to that.
    Failed,
}

impl UploadEnd {
    /// What the HSDir was found to hold instead of an answer.
    pub(super) fn held(&self) -> Option<&(HsBlindId, HeldDescriptor)> {
        match self {
            UploadEnd::Refused(held) | UploadEnd::NoReceipt(held) => held.as_ref(),
            UploadEnd::Taken | UploadEnd::Failed => None,
        }
    }
}

/// What follows from the end of an upload, for the publisher to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sequel {
    /// Nothing.
    None,
    /// The HSDir holds a higher counter: look at it later, and publish anew if it is the `first` of
    /// the round.
    HigherCounter {
        /// Whether no other HSDir of the round has refused before.
        first: bool,
        /// The relay, as [`Position`] names it.
        relay: String,
    },
}

/// An upload that has ended.
#[derive(Clone, Debug)]
pub(super) struct UploadDone {
    /// Which one.
    pub(super) name: UploadName,
    /// How.
    pub(super) end: UploadEnd,
    /// What was in the way.
    pub(super) error: Option<String>,
}

/// Where the upload to one HSDir stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// To be tried at this time.
    Waiting(Instant),
    /// Under way.
    Running,
    /// The HSDir has it.
    Done,
}

/// One HSDir of one descriptor.
struct Target {
    /// The relay.
    hsdir: OwnedCircTarget,
    /// Its identities.
    ids: RelayIds,
    /// Where it stands on the ring.
    place: Place,
    /// Which of the documents it gets.
    variant: usize,
    /// Where the upload stands.
    progress: Progress,
    /// The wait after the next failure.
    backoff_ms: u64,
    /// Attempts so far.
    attempts: u32,
    /// When it took the descriptor.
    uploaded_at: Option<SystemTime>,
    /// Why the last attempt failed, if it did.
    error: Option<String>,
}

impl Target {
    /// Where the HSDir stands, for status.
    fn position(&self) -> Position {
        let identity = self.hsdir.rsa_identity();
        Position {
            replica: self.place.replica,
            position: self.place.position,
            asked: self.place.asked,
            relay: identity.map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// Its receipt.
    fn status(&self) -> UploadStatus {
        UploadStatus {
            hsdir: self.position(),
            variant: self.variant,
            state: match self.progress {
                Progress::Done => UploadState::Ok,
                Progress::Running => UploadState::Running,
                Progress::Waiting(_) if self.error.is_some() => UploadState::Failed,
                Progress::Waiting(_) => UploadState::Waiting,
            },
            attempts: self.attempts,
            uploaded_at: self
                .uploaded_at
                .map(|at| humantime::format_rfc3339_seconds(at).to_string()),
            error: self.error.clone(),
        }
    }
}

/// The descriptor of one period, and its HSDirs.
pub(super) struct Round {
    /// The round's number.
    number: u64,
    /// Number of the time period.
    period: u64,
    /// The period's blinded key.
    blinded: HsBlindId,
    /// The period's subcredential.
    subcredential: Subcredential,
    /// The counter of all its documents.
    revision: u64,
    /// The documents.
    variants: Vec<Descriptor>,
    /// Where it goes.
    targets: Vec<Target>,
    /// The points in its documents, with the numbers of their instances.
    spread: Spread<IntroPointDesc>,
    /// When it was built.
    published_at: SystemTime,
    /// Whether an HSDir has refused a descriptor of it.
    refused: bool,
}

/// The document for an HSDir.
fn variant(spread: &Spread<IntroPointDesc>, place: Place) -> usize {
    spread.set_for(usize::from(place.replica), usize::from(place.position))
}

/// Rounds are numbered, so that a late upload of an old one, or of another period's, is not taken
/// for one of the new.
static NEXT_ROUND: AtomicU64 = AtomicU64::new(0);

impl Round {
    /// Build the descriptor of a period with these points, and the offer of congestion control if
    /// every one of them does it.
    pub(super) fn build(
        period: &Period,
        spread: Spread<IntroPointDesc>,
        congestion_control: bool,
        revisions: &mut Revisions,
        netdir: &NetDir,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Round, RoundError> {
        let seconds =
            wall.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| RoundError::ClockBehind)?;
        // A consensus is signed when it begins: a clock that is behind does not stop us.
        let at_least = netdir.lifetime().valid_after();
        let by_time = period.counter_at(wall.max(at_least)).ok_or(RoundError::ClockBehind)?;
        let revision = revisions.next(period.blinded_id(), by_time, seconds.as_secs())?;
        let params = netdir.params();
        let document = |set: &Vec<_>| {
            descriptor::build(&period.keys, set, revision, congestion_control, params, wall)
        };
        let variants = spread.sets.iter().map(document).collect::<Result<_, _>>()?;
        let target = |(index, hsdir): (usize, OwnedCircTarget)| Target {
            ids: RelayIds::from_relay_ids(&hsdir),
            hsdir,
            place: Place::of(index, netdir),
            variant: variant(&spread, Place::of(index, netdir)),
            progress: Progress::Waiting(now),
            backoff_ms: limits::UPLOAD_BACKOFF_MS_MIN,
            attempts: 0,
            uploaded_at: None,
            error: None,
        };
        Ok(Round {
            number: NEXT_ROUND.fetch_add(1, Ordering::Relaxed),
            period: period.time_period().interval_num(),
            blinded: period.blinded_id(),
            subcredential: period.keys.subcredential,
            revision,
            variants,
            targets: period.hsdirs(netdir)?.into_iter().enumerate().map(target).collect(),
            spread,
            published_at: wall,
            refused: false,
        })
    }

    /// Whether this is an upload of this round.
    pub(super) fn has_upload(&self, name: UploadName) -> bool {
        name.round == self.number
    }

    /// Whether this point is in the descriptors.
    pub(super) fn contains(&self, point: &IntroPointDesc) -> bool {
        self.instance_of(point).is_some()
    }

    /// The instance whose point this is, if it is in the descriptors.
    pub(super) fn instance_of(&self, point: &IntroPointDesc) -> Option<usize> {
        let known =
            |(_, known): &&(usize, IntroPointDesc)| known.ipt_sid_key() == point.ipt_sid_key();
        self.spread.sets.iter().flatten().find(known).map(|(instance, _)| *instance)
    }

    /// What status shows of the documents.
    fn variants(&self) -> Vec<VariantStatus> {
        let documents = self.spread.sets.iter().zip(&self.variants).enumerate();
        let status = documents.map(|(variant, (set, document))| VariantStatus {
            variant,
            size_bytes: document.text().len(),
            points: Share::count(set.iter().map(|(instance, _)| *instance)),
        });
        status.collect()
    }

    /// How many points of how many instances the documents name together.
    fn count(&self) -> (usize, usize) {
        let named = || self.spread.sets.iter().flatten();
        let points: BTreeSet<_> = named().map(|(_, point)| point_name(point)).collect();
        let instances: BTreeSet<usize> = named().map(|(instance, _)| *instance).collect();
        (points.len(), instances.len())
    }

    /// The names of the documents that are about to be uploaded.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.variants.iter().map(|document| Digest::of(document.text()))
    }

    /// Every HSDir, to be asked what it holds.
    pub(super) fn questions(&self) -> Vec<Question> {
        let question = |(hsdir, target): (usize, &Target)| Question {
            name: UploadName { round: self.number, hsdir },
            period: self.period,
            hsdir: target.hsdir.clone(),
            position: target.position(),
            blinded: self.blinded,
            subcredential: self.subcredential,
            revision: self.revision,
            has_taken: target.progress == Progress::Done,
        };
        self.targets.iter().enumerate().map(question).collect()
    }

    /// An HSDir has lost a descriptor that it had taken: it gets it again, unless a newer round is
    /// on its way to it.
    pub(super) fn note_lost(&mut self, name: UploadName, now: Instant) {
        if let Some(target) = self.target(name)
            && target.progress == Progress::Done
        {
            target.progress = Progress::Waiting(now);
            target.uploaded_at = None;
        }
    }

    /// The HSDir of an upload of this round.
    fn target(&mut self, name: UploadName) -> Option<&mut Target> {
        self.targets.get_mut(name.hsdir).filter(|_| name.round == self.number)
    }

    /// The numbers of the instances that have a point in it.
    pub(super) fn instances(&self) -> impl Iterator<Item = usize> {
        self.spread.sets.iter().flatten().map(|(instance, _)| *instance)
    }

    /// Whether the HSDirs of `period`, whose round this is, are still those that it uploads to.
    pub(super) fn has_hsdirs(&self, period: &Period, netdir: &NetDir) -> bool {
        let Ok(now) = period.hsdirs(netdir) else { return true };
        let known = |hsdir: &OwnedCircTarget| {
            self.targets.iter().any(|target| hsdir.same_relay_ids(&target.ids))
        };
        now.iter().all(known)
    }

    /// The next upload that is due, which counts as under way from now on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Attempt> {
        let is_due =
            |target: &Target| matches!(target.progress, Progress::Waiting(at) if at <= now);
        let (hsdir, target) =
            self.targets.iter_mut().enumerate().find(|(_, target)| is_due(target))?;
        target.progress = Progress::Running;
        target.attempts = target.attempts.saturating_add(1);
        Some(Attempt {
            name: UploadName { round: self.number, hsdir },
            hsdir: target.hsdir.clone(),
            text: Arc::clone(&self.variants[target.variant].text),
            blinded: self.blinded,
            subcredential: self.subcredential,
        })
    }

    /// When the next upload is due.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let waiting = self.targets.iter().filter_map(|target| match target.progress {
            Progress::Waiting(at) => Some(at),
            Progress::Running | Progress::Done => None,
        });
        waiting.min()
    }

    /// Take in how an upload ended; one of an older round is nothing to us.
    pub(super) fn note_done(&mut self, done: UploadDone, now: Instant) -> Sequel {
        let Some(variant) = self.target(done.name).map(|target| target.variant) else {
            return Sequel::None;
        };
        // The receipt may be lost, or it is refused a second time: what it holds says more.
        let held = done.end.held().map(|(_, held)| held.digest);
        let holds_ours = held.is_some_and(|held| held == Digest::of(self.variants[variant].text()));
        let first = !self.refused;
        let Some(target) = self.target(done.name) else { return Sequel::None };
        if matches!(done.end, UploadEnd::Taken) || holds_ours {
            target.progress = Progress::Done;
            target.uploaded_at = Some(SystemTime::now());
            target.error = None;
            return Sequel::None;
        }
        let jitter_ms = rand::rng().random_range(0..=target.backoff_ms / 2);
        let wait = Duration::from_millis(target.backoff_ms + jitter_ms);
        target.progress = Progress::Waiting(now + wait);
        target.backoff_ms = (target.backoff_ms * 2).min(limits::UPLOAD_BACKOFF_MS_MAX);
        target.error = Some(done.error.unwrap_or_else(|| "it failed".to_owned()));
        let relay = target.position().relay;
        if !matches!(done.end, UploadEnd::Refused(_)) {
            return Sequel::None;
        }
        self.refused = true;
        Sequel::HigherCounter { first, relay }
    }

    /// Number of the time period.
    pub(super) fn period(&self) -> u64 {
        self.period
    }

    /// Whether an HSDir has refused a descriptor of this round.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Whether some HSDir has failed to take its descriptor so far.
    pub(super) fn has_failures(&self) -> bool {
        self.targets.iter().any(|one| one.error.is_some())
    }

    /// What status shows.
    pub(super) fn status(&self) -> DescriptorStatus {
        let (intro_points, instances) = self.count();
        let done = |target: &&Target| target.progress == Progress::Done;
        DescriptorStatus {
            period: self.period,
            revision: self.revision,
            intro_points,
            size_bytes: self.variants.iter().map(|one| one.text().len()).max().unwrap_or(0),
            hsdirs_ok: self.targets.iter().filter(done).count(),
            hsdirs_total: self.targets.len(),
            published_at: self.published_at,
            instances,
            variants: self.variants(),
            uploads: self.targets.iter().map(Target::status).collect(),
        }
    }
}
