//! One round: a descriptor for each live period, and its uploads to every HSDir.
//!
//! Pure bookkeeping: it says which upload is due and takes in how it ended; the publisher runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt as _;
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::HsBlindId;
use tor_linkspec::{HasRelayIds as _, OwnedCircTarget, RelayIds};
use tor_netdir::NetDir;
use tor_netdoc::doc::hsdesc::IntroPointDesc;

use super::super::descriptor::{self, Descriptor, DescriptorError};
use super::super::period::{Period, PeriodError};
use super::super::revision::{RevisionError, Revisions};
use super::super::status::DescriptorStatus;
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

/// Names one upload: which round, which descriptor of it, which HSDir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UploadName {
    /// Number of the round.
    round: u64,
    /// Index of the descriptor.
    descriptor: usize,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadEnd {
    /// The HSDir has the descriptor.
    Taken,
    /// The HSDir said no, and would say so again: it may hold one with this counter.
    Refused(Option<(HsBlindId, u64)>),
    /// It did not come to that.
    Failed,
}

/// An upload that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadDone {
    /// Which one.
    pub(super) name: UploadName,
    /// How.
    pub(super) end: UploadEnd,
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
    /// Where the upload stands.
    progress: Progress,
    /// The wait after the next failure.
    backoff_ms: u64,
    /// Whether an attempt has failed.
    failed: bool,
}

/// One descriptor and its HSDirs.
struct Publication {
    /// Number of the time period.
    period: u64,
    /// The period's blinded key.
    blinded: HsBlindId,
    /// The period's subcredential.
    subcredential: Subcredential,
    /// The document.
    descriptor: Descriptor,
    /// Where it goes.
    targets: Vec<Target>,
}

/// The descriptors of one round.
pub(super) struct Round {
    /// The round's number.
    number: u64,
    /// One descriptor for each live period.
    publications: Vec<Publication>,
    /// The points in it.
    points: Vec<IntroPointDesc>,
    /// When it was built.
    published_at: SystemTime,
    /// Whether an HSDir has refused a descriptor of it.
    refused: bool,
}

/// Rounds are numbered, so that a late upload of an old one is not taken for one of the new.
static NEXT_ROUND: AtomicU64 = AtomicU64::new(0);

impl Round {
    /// Build the descriptors of all `periods` with the same `points`, and the offer of congestion
    /// control if every one of them does it.
    pub(super) fn build(
        periods: &[Period],
        points: &[(usize, IntroPointDesc)],
        congestion_control: bool,
        revisions: &mut Revisions,
        netdir: &NetDir,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Round, RoundError> {
        let seconds =
            wall.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| RoundError::ClockBehind)?;
        let mut publications = Vec::new();
        for period in periods {
            let by_time = period.counter_at(wall).ok_or(RoundError::ClockBehind)?;
            let revision = revisions.next(period.blinded_id(), by_time, seconds.as_secs())?;
            let params = netdir.params();
            let descriptor = descriptor::build(
                &period.keys,
                points,
                revision,
                congestion_control,
                params,
                wall,
            )?;
            let target = |hsdir: OwnedCircTarget| Target {
                ids: RelayIds::from_relay_ids(&hsdir),
                hsdir,
                progress: Progress::Waiting(now),
                backoff_ms: limits::UPLOAD_BACKOFF_MS_MIN,
                failed: false,
            };
            publications.push(Publication {
                period: period.time_period().interval_num(),
                blinded: period.blinded_id(),
                subcredential: period.keys.subcredential,
                descriptor,
                targets: period.hsdirs(netdir)?.into_iter().map(target).collect(),
            });
        }
        Ok(Round {
            number: NEXT_ROUND.fetch_add(1, Ordering::Relaxed),
            publications,
            points: points.iter().map(|(_, point)| point.clone()).collect(),
            published_at: wall,
            refused: false,
        })
    }

    /// Whether this point is in the descriptors.
    pub(super) fn contains(&self, point: &IntroPointDesc) -> bool {
        self.points.iter().any(|known| known.ipt_sid_key() == point.ipt_sid_key())
    }

    /// Whether the period's HSDirs are still the ones that this round uploads to.
    pub(super) fn has_hsdirs(&self, period: &Period, netdir: &NetDir) -> bool {
        let number = period.time_period().interval_num();
        let Some(publication) = self.publications.iter().find(|one| one.period == number) else {
            return false;
        };
        let Ok(now) = period.hsdirs(netdir) else { return true };
        let known = |hsdir: &OwnedCircTarget| {
            publication.targets.iter().any(|target| hsdir.same_relay_ids(&target.ids))
        };
        now.iter().all(known)
    }

    /// The next upload that is due, which counts as under way from now on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Attempt> {
        for (descriptor, publication) in self.publications.iter_mut().enumerate() {
            for (hsdir, target) in publication.targets.iter_mut().enumerate() {
                if matches!(target.progress, Progress::Waiting(at) if at <= now) {
                    target.progress = Progress::Running;
                    return Some(Attempt {
                        name: UploadName { round: self.number, descriptor, hsdir },
                        hsdir: target.hsdir.clone(),
                        text: Arc::clone(&publication.descriptor.text),
                        blinded: publication.blinded,
                        subcredential: publication.subcredential,
                    });
                }
            }
        }
        None
    }

    /// When the next upload is due.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let targets = self.publications.iter().flat_map(|one| &one.targets);
        let waiting = targets.filter_map(|target| match target.progress {
            Progress::Waiting(at) => Some(at),
            Progress::Running | Progress::Done => None,
        });
        waiting.min()
    }

    /// Take in how an upload ended; one of an older round is nothing to us. Says whether it is the
    /// round's first that was refused: then another round is needed.
    pub(super) fn note_done(&mut self, done: UploadDone, now: Instant) -> bool {
        if done.name.round != self.number {
            return false;
        }
        let publication = self.publications.get_mut(done.name.descriptor);
        let target = publication.and_then(|one| one.targets.get_mut(done.name.hsdir));
        let Some(target) = target else { return false };
        if done.end == UploadEnd::Taken {
            target.progress = Progress::Done;
            target.failed = false;
            return false;
        }
        let jitter_ms = rand::rng().random_range(0..=target.backoff_ms / 2);
        let wait = Duration::from_millis(target.backoff_ms + jitter_ms);
        target.progress = Progress::Waiting(now + wait);
        target.backoff_ms = (target.backoff_ms * 2).min(limits::UPLOAD_BACKOFF_MS_MAX);
        target.failed = true;
        let refused = matches!(done.end, UploadEnd::Refused(_));
        let first = refused && !self.refused;
        self.refused |= refused;
        first
    }

    /// Whether an HSDir has refused a descriptor of this round.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Whether some HSDir has failed to take its descriptor so far.
    pub(super) fn has_failures(&self) -> bool {
        self.publications.iter().flat_map(|one| &one.targets).any(|target| target.failed)
    }

    /// What status shows.
    pub(super) fn status(&self) -> Vec<DescriptorStatus> {
        let done = |target: &&Target| target.progress == Progress::Done;
        let publication = |one: &Publication| DescriptorStatus {
            period: one.period,
            revision: one.descriptor.revision,
            intro_points: one.descriptor.intro_points,
            size_bytes: one.descriptor.text.len(),
            hsdirs_ok: one.targets.iter().filter(done).count(),
            hsdirs_total: one.targets.len(),
            published_at: self.published_at,
            instances: one.descriptor.instances,
        };
        self.publications.iter().map(publication).collect()
    }
}
