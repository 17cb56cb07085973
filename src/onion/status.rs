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
}
