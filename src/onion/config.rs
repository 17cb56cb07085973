//! What an onion service is told, checked by `config` before it arrives here.

use std::time::Duration;

use crate::limits;
pub use crate::vault::OnionAddress;

/// Settings of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The service's name in configuration, log and status.
    pub name: String,
    /// Introduction points that each instance keeps.
    pub intro_points_per_instance: u8,
    /// Introduction points in the published descriptor at most.
    pub intro_points_max: u8,
    /// Whether HSDirs get different descriptors where there are more points than one holds.
    pub distinct_descriptors: bool,
    /// INTRODUCE2 a second and burst that an introduction point shall let through, where it
    /// supports the DoS extension (rend-spec-v3, EST_INTRO_DOS_EXT). `None`: the relay's default.
    pub intro_dos: Option<IntroDos>,
    /// Streams that one client circuit may have open.
    pub streams_per_circuit_max: u32,
    /// Rendezvous that each core builds at the same time: [`limits::RENDEZVOUS_BUILDING_MAX`], less
    /// in a test alone.
    pub rendezvous_building_max: usize,
    /// Instances elsewhere whose descriptors are fetched.
    pub remotes: Vec<RemoteConfig>,
    /// How often all HSDirs are asked what they hold; `None`: only when the operator asks.
    pub verify_interval: Option<Duration>,
    /// How often a single one is asked, for the theft alarm; `None`: never.
    pub theft_check_interval: Option<Duration>,
    /// How often they are looked at.
    pub remote_interval: RemoteInterval,
}

/// Parameters of the introduction points' DoS defence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntroDos {
    /// INTRODUCE2 cells a second.
    pub rate_per_second: u32,
    /// INTRODUCE2 cells in a burst.
    pub burst: u32,
}

/// How often remote instances are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteInterval {
    /// Between two looks at their points, and between two fetches after something has changed.
    pub min: Duration,
    /// Between two fetches while nothing changes.
    pub max: Duration,
}

impl Default for RemoteInterval {
    fn default() -> RemoteInterval {
        RemoteInterval {
            min: Duration::from_secs(limits::REMOTE_INTERVAL_SECONDS_MIN_DEFAULT),
            max: Duration::from_secs(limits::REMOTE_INTERVAL_SECONDS_MAX_DEFAULT),
        }
    }
}

/// A remote instance: an onion service in OnionBalance's instance mode, whose descriptor is
/// fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Its own address.
    pub address: OnionAddress,
    /// Its name in log and status.
    pub name: String,
    /// Its share of the points beside those of the others, 1 to [`limits::REMOTE_WEIGHT_MAX`].
    pub weight: u16,
    /// Whether relays are asked if its points are still there.
    pub probe: bool,
}

impl RemoteConfig {
    /// The remote instance number `number` of a service, by what was typed for its address.
    ///
    /// # Errors
    /// A sentence, when that is no address.
    pub fn new(address: &str, number: usize) -> Result<RemoteConfig, String> {
        let address = address.parse::<OnionAddress>().map_err(|error| error.to_string())?;
        Ok(RemoteConfig { address, name: format!("remote-{number}"), weight: 1, probe: true })
    }
}
