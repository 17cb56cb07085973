//! What the plane tells about itself.

use serde::{Deserialize, Serialize};

/// Whether a backend gets streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Health checks are good, and the last connection was accepted or none was tried yet.
    Up,
    /// Health checks fail, or the last connection did.
    Down,
    /// It gets no new stream.
    Draining,
    /// It gets no new stream and is not checked.
    Maintenance,
}

/// What an operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendOrder {
    /// Give it streams.
    Ready,
    /// Give it no new stream; open ones go on, and it is still checked.
    Drain,
    /// Give it no new stream, and do not check it.
    Maintenance,
}

/// What is said of a client's circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing.
    #[default]
    Normal,
    /// It gets the backends for those who are preferred, where there are some.
    Preferred,
    /// It gets the backends for those who are banned, where there are some, or is refused.
    Banned,
}

/// What limits and verdicts have led to, for all circuits of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitsStatus {
    /// Circuits that are preferred now.
    pub preferred: u64,
    /// Circuits that are banned now.
    pub banned: u64,
    /// Streams that were refused because their circuit had as many as it may.
    pub refused_streams_total: u64,
    /// Streams that were refused because their circuit began too many a second.
    pub refused_rate_total: u64,
    /// Streams that were refused because their circuit is banned.
    pub refused_banned_total: u64,
    /// Streams that were ended because their circuit carried too many bytes a second.
    pub ended_bytes_total: u64,
    /// Streams that asked for a port that is not served.
    #[serde(default)]
    pub unknown_ports_total: u64,
    /// Circuits of which something was forgotten, the least first, to make room for others.
    #[serde(default)]
    pub forgotten_total: u64,
    /// Streams and verdicts of circuits that could not be remembered, for bans alone are: such
    /// streams share the limits of one circuit, such verdicts are refused.
    #[serde(default)]
    pub not_remembered_total: u64,
}

/// One backend of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// The (first) virtual port.
    #[serde(rename = "virtual")]
    pub virtual_port: u16,
    /// Its address.
    pub address: String,
    /// Whether it gets streams.
    pub state: BackendState,
    /// Connections that are open or being made.
    pub open: u64,
    /// Connections that failed.
    pub failed_total: u64,
    /// What the last health check found: `ok` or what is wrong; `null` when there was none.
    #[serde(default)]
    pub check: Option<String>,
    /// Streams that wait for a backend of its port.
    #[serde(default)]
    pub queued: u32,
    /// Streams that waited for one in vain, found the queue full, or made room for another
    /// circuit's.
    #[serde(default)]
    pub queue_refused_total: u64,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenStatus {
    /// Where it listens.
    pub address: String,
    /// The service whose backends serve who comes.
    pub service: String,
    /// Whether its socket was passed to the process, by systemd say.
    #[serde(default)]
    pub passed: bool,
    /// Connections that were accepted.
    pub accepted_total: u64,
    /// PROXY headers that were wrong, or did not come in time.
    pub headers_refused_total: u64,
    /// Connections that another core was given.
    pub handed_off_total: u64,
    /// Connections that were to go to another core whose queue was full.
    pub handoff_full_total: u64,
    /// Streams that are open.
    pub streams_open: u64,
    /// Streams that were accepted.
    pub streams_total: u64,
    /// Streams that were refused.
    pub streams_refused_total: u64,
    /// Payload from clients, in bytes.
    pub bytes_in_total: u64,
    /// Payload to clients, in bytes.
    pub bytes_out_total: u64,
}
