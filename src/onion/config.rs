//! What an onion service is told, checked by `config` before it arrives here.

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
    /// Instances elsewhere whose descriptors are fetched.
    pub remotes: Vec<RemoteConfig>,
    /// How often HSDirs are asked what they hold; `None`: only when the operator asks.
    pub verify_interval: Option<std::time::Duration>,
}

/// Parameters of the introduction points' DoS defence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntroDos {
    /// INTRODUCE2 cells a second.
    pub rate_per_second: u32,
    /// INTRODUCE2 cells in a burst.
    pub burst: u32,
}

/// A remote instance: an onion service in OnionBalance's instance mode, whose descriptor is
/// fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Its own address.
    pub address: OnionAddress,
    /// Its name in log and status.
    pub name: String,
    /// Its share of the points beside those of the others, 1 to
    /// [`limits::REMOTE_WEIGHT_MAX`](crate::limits::REMOTE_WEIGHT_MAX).
    pub weight: u16,
}

impl RemoteConfig {
    /// The remote instance number `number` of a service, by what was typed for its address.
    ///
    /// # Errors
    /// A sentence, when that is no address.
    pub fn new(address: &str, number: usize) -> Result<RemoteConfig, String> {
        let address = address.parse::<OnionAddress>().map_err(|error| error.to_string())?;
        Ok(RemoteConfig { address, name: format!("remote-{number}"), weight: 1 })
    }
}
