//! What the plane tells about itself.

use serde::{Deserialize, Serialize};

/// Whether a backend gets streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// The last connection was accepted, or none was tried yet.
    Up,
    /// The last connection failed.
    Down,
    /// It gets no new stream.
    Draining,
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
    /// Streams open to it.
    pub open: u64,
    /// Connections that failed.
    pub failed_total: u64,
}
