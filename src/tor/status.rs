//! What the Tor stack tells about itself: plain values, no types of arti.

use serde::{Deserialize, Serialize};

/// One link to a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The stack it belongs to, counted from 0.
    pub stack: u16,
    /// The data core that drives it; `None` while the control core does.
    pub core: Option<u16>,
    /// A number for the relay: equal numbers are the same relay. Never a name or an address.
    pub guard: u64,
    /// Circuits on it that are in use; `None` for a link that was opened for the directory alone,
    /// or a moment ago.
    pub circuits: Option<u64>,
    /// Bytes received, TLS included.
    pub bytes_in_total: u64,
    /// Bytes sent, TLS included.
    pub bytes_out_total: u64,
    /// CREATEs that the relay refused, of circuits that were asked for when they were needed;
    /// `None` as above.
    pub creates_refused_total: Option<u64>,
}

/// The way into the Tor network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Why there is none, in words; `None` while nothing is in the way.
    pub trouble: Option<String>,
    /// When the directory is asked for again at the latest (RFC 3339, UTC), while there is none.
    pub next_try_at: Option<String>,
    /// Connections to relays that came about.
    pub connected_total: u64,
    /// Connections to relays that did not.
    pub failed_total: u64,
}
