//! What a service tells about itself: plain values, no types of arti.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The state of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// No directory or no point yet; the reason says which.
    #[default]
    Starting,
    /// The first uploads are on their way.
    Publishing,
    /// A descriptor is on the HSDirs.
    Ready,
    /// It serves, but something is wrong; the reason says what.
    Degraded,
    /// It takes no new client and waits for the open streams.
    Draining,
}

/// What carries an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// This process.
    Arti,
    /// A C tor daemon that this process runs.
    Ctor,
    /// Somebody else: its descriptor is fetched.
    Remote,
}

/// The state of an instance that is not in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestState {
    /// Nothing has been heard of its points yet.
    #[default]
    Starting,
    /// Its points are in the descriptor, or about to be.
    Serving,
    /// It takes no new client.
    Draining,
    /// It has no points that could be published.
    Failed,
}

/// One published descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorStatus {
    /// Number of the time period.
    pub period: u64,
    /// Its revision counter.
    pub revision: u64,
    /// Introduction points in it.
    pub intro_points: usize,
    /// Size in bytes.
    pub size_bytes: usize,
    /// HSDirs that have it.
    pub hsdirs_ok: usize,
    /// HSDirs that shall have it.
    pub hsdirs_total: usize,
    /// When its uploads began.
    pub published_at: SystemTime,
    /// Instances with a point in it.
    pub instances: usize,
    /// The different documents under this counter.
    pub variants: Vec<VariantStatus>,
    /// Each HSDir that shall have one of them.
    pub uploads: Vec<UploadStatus>,
}

/// How many of its points an instance has in a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The instance's number.
    pub instance: usize,
    /// Its points.
    pub points: usize,
}

impl Share {
    /// The shares of these instances, each named once for each of its points.
    pub(crate) fn count(instances: impl Iterator<Item = usize>) -> Vec<Share> {
        let mut counts = std::collections::BTreeMap::<usize, usize>::new();
        instances.for_each(|instance| *counts.entry(instance).or_default() += 1);
        counts.into_iter().map(|(instance, points)| Share { instance, points }).collect()
    }
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantStatus {
    /// Its number, from 0.
    pub variant: usize,
    /// Its size.
    pub size_bytes: usize,
    /// Whose points are in it.
    pub points: Vec<Share>,
}

/// Where an HSDir stands on the ring of a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The replica, from 1.
    pub replica: u8,
    /// Which one after the replica's place on the ring, from 1.
    pub position: u8,
    /// Whether clients ask it: they ask the first three of each replica.
    pub asked: bool,
    /// The relay's identity, as anybody who knows the onion address can compute it.
    pub relay: String,
}

/// What became of the upload to one HSDir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// The HSDir.
    #[serde(flatten)]
    pub hsdir: Position,
    /// Number of the document that it gets.
    pub variant: usize,
    /// How it stands.
    pub state: UploadState,
    /// Attempts so far.
    pub attempts: u32,
    /// When it took the descriptor (RFC 3339, UTC).
    pub uploaded_at: Option<String>,
    /// What was in the way last.
    pub error: Option<String>,
}

/// How an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadState {
    /// Its first attempt comes soon.
    Waiting,
    /// An attempt is under way.
    Running,
    /// The HSDir has said that it has the descriptor.
    Ok,
    /// The last attempt failed; it is tried again.
    Failed,
}

/// What the HSDirs held when all of them were last asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Which one it was since the process began, from 1.
    pub number: u64,
    /// The highest number of a request that it answers.
    #[serde(skip)]
    pub answers: u64,
    /// When it ended (RFC 3339, UTC).
    pub checked_at: String,
    /// Each HSDir of each live period.
    pub hsdirs: Vec<HeldStatus>,
}

impl Verification {
    /// What there is to be held, the best first.
    pub fn states() -> [HeldState; 6] {
        use HeldState::{Foreign, Newest, Nothing, Older, Unreachable, Unreadable};
        [Newest, Older, Nothing, Foreign, Unreadable, Unreachable]
    }

    /// HSDirs that held this.
    pub fn count(&self, state: HeldState) -> u64 {
        self.hsdirs.iter().filter(|one| one.state == state).count() as u64
    }

    /// Whether every HSDir holds the newest descriptor.
    pub fn is_good(&self) -> bool {
        !self.hsdirs.is_empty() && self.hsdirs.iter().all(|one| one.state == HeldState::Newest)
    }
}

/// What one HSDir held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Number of the time period.
    pub period: u64,
    /// The HSDir.
    #[serde(flatten)]
    pub hsdir: Position,
    /// What it held.
    pub state: HeldState,
    /// The revision counter that it should hold.
    pub expected_revision: u64,
    /// The revision counter that it held.
    pub revision: Option<u64>,
    /// Introduction points in what it held.
    pub intro_points: usize,
    /// Whose points they are, as far as they are points of today.
    pub points: Vec<Share>,
    /// Why it is not known, or not what it should be.
    pub error: Option<String>,
}

/// What an HSDir held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldState {
    /// Our newest descriptor.
    Newest,
    /// An older one of ours.
    Older,
    /// One that is signed with our key, and that we did not publish.
    Foreign,
    /// None.
    Nothing,
    /// It could not be asked.
    Unreachable,
    /// Something that our key did not sign.
    Unreadable,
}

/// What the publisher knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublisherStatus {
    /// The state of the service, draining aside.
    pub state: ServiceState,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// Descriptors, one for each live period.
    pub descriptors: Vec<DescriptorStatus>,
    /// How far our clock is off; positive when it is behind. `None` while nobody has told.
    pub clock_skew_ms: Option<i64>,
    /// What the HSDirs held when they were last asked.
    pub verification: Option<Verification>,
    /// Why somebody else seems to have our key, if somebody does.
    pub alarm: Option<String>,
    /// Descriptors that were found so far, signed with our key, and that we did not publish.
    pub foreign_total: u64,
    /// Looks at some HSDirs only, so far.
    pub looks_total: u64,
    /// When the last of them ended (RFC 3339, UTC).
    pub looked_at: Option<String>,
}
