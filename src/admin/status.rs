//! The status document (`rustbalance status --json`), field by field; `docs/operating/status.md`
//! explains them. Fields are added, never renamed. What is not known is `null`.

use serde::{Deserialize, Serialize};

pub use crate::onion::status::{
    Engine, HeldState, HeldStatus, Position, ServiceState, Share, UploadState, UploadStatus,
    VariantStatus, Verification,
};
use crate::plane::status::{BackendStatus, CircuitsStatus, ListenStatus};
use crate::tor::status::{LinkStatus, NetworkStatus};

/// The whole process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Version of the program.
    pub version: String,
    /// The process.
    #[serde(default)]
    pub pid: u32,
    /// Whether in-process instances run.
    pub turbo: bool,
    /// What the data cores wait on: `uring`, `epoll`, or `mixed`.
    pub io: String,
    /// How far our clock is off in milliseconds, positive when it is behind.
    pub clock_skew_ms: Option<i64>,
    /// The way into the Tor network.
    #[serde(default)]
    pub network: NetworkStatus,
    /// Tasks that live on its cores: a few for each circuit, stream and link.
    #[serde(default)]
    pub tasks: u64,
    /// The process's memory.
    #[serde(default)]
    pub memory: MemoryStatus,
    /// Look-ups of backends' names.
    #[serde(default)]
    pub look_ups: LookUpsStatus,
    /// Links to relays.
    pub links: Vec<LinkStatus>,
    /// C tor daemons that it runs.
    #[serde(default)]
    pub daemons: Vec<DaemonStatus>,
    /// Services, in the order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// Listeners for clients that other programs bring.
    #[serde(default)]
    pub listens: Vec<ListenStatus>,
}

/// A C tor daemon that the process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its name, as its instances have it.
    pub name: String,
    /// Numbers of the guards that it has links to: the same number is the same guard, for all
    /// daemons; they have nothing to do with those of `links`.
    pub guards: Vec<u64>,
}

/// The process's memory and what its budget has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Bytes that it may hold (`memory_max`).
    pub max_bytes: Option<u64>,
    /// Bytes that it holds.
    pub held_bytes: Option<u64>,
    /// Whether new clients are refused for want of memory.
    pub refusing: bool,
    /// Clients that were refused for want of memory.
    pub refused_total: u64,
    /// Circuits that were closed to make room, for whatever reason.
    pub circuits_closed_total: u64,
    /// Of these, those that never had a stream.
    #[serde(default)]
    pub circuits_closed_unused_total: u64,
    /// Those that had no stream any more.
    #[serde(default)]
    pub circuits_closed_idle_total: u64,
    /// Those that held the most.
    #[serde(default)]
    pub circuits_closed_bytes_total: u64,
}

/// Look-ups of backends' names by the system's resolver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookUpsStatus {
    /// Those that got no answer in time, and still have a thread.
    pub hanging: u64,
    /// Those that got no answer in time so far.
    pub silent_total: u64,
    /// Those that were refused so far because others hang.
    pub refused_total: u64,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its address, with `.onion`.
    pub onion: String,
    /// Its state.
    pub state: ServiceState,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// One line for people.
    pub summary: String,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
    /// Its descriptors, one for each live period.
    pub descriptors: Vec<DescriptorStatus>,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
    /// What limits and verdicts have led to.
    #[serde(default)]
    pub circuits: CircuitsStatus,
    /// What the HSDirs held when they were last asked.
    #[serde(default)]
    pub verification: VerificationStatus,
}

/// What the HSDirs of a service held when all were last asked, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationStatus {
    /// Checks of all HSDirs so far.
    pub checks_total: u64,
    /// When the last one ended (RFC 3339, UTC).
    pub checked_at: Option<String>,
    /// HSDirs that held our newest descriptor.
    pub newest: u64,
    /// HSDirs that held an older one of ours.
    pub older: u64,
    /// HSDirs that held one that is signed with our key, and that we did not publish.
    pub foreign: u64,
    /// HSDirs that held none, or something that our key did not sign.
    pub nothing: u64,
    /// HSDirs that could not be asked.
    pub unreachable: u64,
    /// Foreign descriptors that were found so far.
    pub foreign_total: u64,
    /// Whether somebody else seems to have the key.
    pub alarm: bool,
    /// Looks at some HSDirs only, so far: at one every few hours, and at those in doubt.
    #[serde(default)]
    pub looks_total: u64,
    /// When the last of them ended (RFC 3339, UTC).
    #[serde(default)]
    pub looked_at: Option<String>,
}

/// What one service has published, HSDir by HSDir: `rustbalance descriptor show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedStatus {
    /// Name of the service.
    pub service: String,
    /// Its address, with `.onion`.
    pub onion: String,
    /// One for each live period.
    pub descriptors: Vec<PublishedDescriptor>,
}

/// One published descriptor, HSDir by HSDir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedDescriptor {
    /// As in the status.
    #[serde(flatten)]
    pub descriptor: DescriptorStatus,
    /// The documents under its counter.
    #[serde(default)]
    pub documents: Vec<VariantStatus>,
    /// The HSDirs.
    #[serde(default)]
    pub hsdirs: Vec<UploadStatus>,
}

/// What the HSDirs of one service hold: `rustbalance descriptor verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedStatus {
    /// Name of the service.
    pub service: String,
    /// Its address, with `.onion`.
    pub onion: String,
    /// What there is to say: that nothing is published, that somebody else has the key.
    pub reason: Option<String>,
    /// Whether somebody else seems to have the key.
    pub alarm: bool,
    /// What was found, unless nothing could be asked.
    pub verification: Option<Verification>,
}

impl VerifiedStatus {
    /// Whether every HSDir holds the newest descriptor, and nobody else has the key.
    pub fn is_good(&self) -> bool {
        !self.alarm && self.verification.as_ref().is_some_and(Verification::is_good)
    }
}

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// No introduction point yet.
    Starting,
    /// It has introduction points.
    Serving,
    /// It takes no new client.
    Draining,
    /// Its core has died and is being started again.
    Failed,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its number.
    pub id: u16,
    /// What carries it.
    pub engine: Engine,
    /// Its data core.
    pub core: Option<u16>,
    /// Its state.
    pub state: InstanceState,
    /// Introduction points that are up.
    pub intro_points: u64,
    /// Its name, of one that is not in this process.
    #[serde(default)]
    pub name: Option<String>,
    /// Its own onion address, of one that has one.
    #[serde(default)]
    pub address: Option<String>,
    /// Why it does not serve, of one that is not in this process.
    #[serde(default)]
    pub reason: Option<String>,
    /// When its points were last heard of, of one that is not in this process (RFC 3339, UTC).
    #[serde(default)]
    pub received_at: Option<String>,
    /// When they last changed, of one that is not in this process (RFC 3339, UTC).
    #[serde(default)]
    pub changed_at: Option<String>,
    /// INTRODUCE2 that arrived.
    pub introductions_total: Option<u64>,
    /// Rendezvous that are being built or open.
    pub rendezvous_open: Option<u64>,
    /// Rendezvous that were built.
    pub rendezvous_total: Option<u64>,
    /// Streams that are open.
    pub streams_open: Option<u64>,
    /// Streams that were accepted.
    pub streams_total: Option<u64>,
    /// Payload from clients, in bytes.
    pub bytes_in_total: Option<u64>,
    /// Payload to clients, in bytes.
    pub bytes_out_total: Option<u64>,
    /// Rendezvous that this instance gave to another core.
    pub handed_off_total: Option<u64>,
    /// INTRODUCE2 that made no sense.
    #[serde(default)]
    pub introductions_invalid_total: Option<u64>,
    /// Replays that were refused.
    #[serde(default)]
    pub replays_refused_total: Option<u64>,
    /// Requests dropped because there was no room.
    #[serde(default)]
    pub queue_full_total: Option<u64>,
    /// Rendezvous that could not be built.
    #[serde(default)]
    pub rendezvous_failed_total: Option<u64>,
    /// Of these, those that were not begun: circuits had to come slowly, and too many waited.
    #[serde(default)]
    pub rendezvous_braked_total: Option<u64>,
    /// Of those that failed, the ones that were given up because newer ones waited.
    #[serde(default)]
    pub rendezvous_given_up_total: Option<u64>,
    /// Rendezvous that are being built.
    #[serde(default)]
    pub rendezvous_building: Option<u64>,
    /// INTRODUCE2 that could not be served because this process had no directory.
    #[serde(default)]
    pub introductions_no_directory_total: Option<u64>,
    /// INTRODUCE2 on which this process's own code panicked.
    #[serde(default)]
    pub introductions_panicked_total: Option<u64>,
    /// Streams that were refused.
    #[serde(default)]
    pub streams_refused_total: Option<u64>,
    /// Reactors of circuits that were started on this core so far, for every service.
    #[serde(default)]
    pub circuits_started_total: Option<u64>,
    /// What its core waits on: `uring` or `epoll`.
    #[serde(default)]
    pub io: Option<String>,
}

/// One published descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorStatus {
    /// Number of the time period.
    pub period: u64,
    /// Its revision counter.
    pub revision: u64,
    /// Different descriptors under this counter.
    pub variants: u64,
    /// Introduction points in it.
    pub intro_points: u64,
    /// Its size.
    pub size_bytes: u64,
    /// HSDirs that have it.
    pub hsdirs_ok: u64,
    /// HSDirs that shall have it.
    pub hsdirs_total: u64,
    /// When its uploads began (RFC 3339, UTC).
    pub published_at: String,
}
