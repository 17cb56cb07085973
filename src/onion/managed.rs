//! What a C tor daemon of ours says of its own points: the text of its descriptor, which it
//! publishes nowhere, as introduction points that can be merged.
//!
//! tor's current descriptor is that of a live period, or of one beside it for as long as its
//! consensus is not ours: so the neighbours are tried, too. Called by `app` on the control core.

use std::num::NonZeroU8;
use std::time::SystemTime;

use tor_checkable::Timebound as _;
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::{HsBlindId, HsIdKey};
use tor_hscrypto::time::TimePeriod;
use tor_netdir::{NetDir, Timeliness};
use tor_netdoc::doc::hsdesc::{HsDesc, IntroPointDesc};

use crate::limits;
use crate::tor::TorStack;
use crate::vault::OnionAddress;

/// Why its descriptor tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum ManagedError {
    /// There is no directory to look periods up in.
    #[error("no Tor directory yet")]
    NoDirectory,
    /// It names no address.
    #[error("the daemon has no address of its own")]
    Address,
    /// It is no descriptor of the daemon's in any period that is near.
    #[error("the daemon's descriptor cannot be read: {0}")]
    Descriptor(String),
}

/// What a descriptor says.
#[derive(Clone, Debug, Default)]
pub struct ManagedPoints {
    /// The instance's points.
    pub points: Vec<IntroPointDesc>,
    /// `cc_sendme_inc` of the congestion control that it offers, if it does.
    pub congestion_control: Option<NonZeroU8>,
}

/// The keys of an instance in one period.
#[derive(Clone)]
struct Keys {
    /// The instance.
    address: OnionAddress,
    /// What its descriptor is known by.
    blinded: HsBlindId,
    /// What it is encrypted with.
    subcredential: Subcredential,
}

/// Reads the descriptors of one instance.
#[derive(Default)]
pub struct ManagedReader {
    /// The keys of the last one, which most often fit the next.
    last: Option<Keys>,
}

impl ManagedReader {
    /// The points in a descriptor of the instance at `address` (without `.onion`); none, where it
    /// has none yet.
    ///
    /// # Errors
    /// [`ManagedError`].
    pub fn read(
        &mut self,
        address: &str,
        text: &str,
        stack: &TorStack,
    ) -> Result<ManagedPoints, ManagedError> {
        // A directory that has aged still knows which periods are near.
        let netdir = stack.directory().netdir(Timeliness::Unchecked);
        let netdir = netdir.map_err(|_| ManagedError::NoDirectory)?;
        let address: OnionAddress =
            format!("{address}.onion").parse().map_err(|_| ManagedError::Address)?;
        self.find(address, text, &periods(&netdir), SystemTime::now())
    }

    /// Read it with the keys of its period, whichever that is.
    fn find(
        &mut self,
        address: OnionAddress,
        text: &str,
        periods: &[TimePeriod],
        now: SystemTime,
    ) -> Result<ManagedPoints, ManagedError> {
        let last = self.last.as_ref().filter(|keys| keys.address == address);
        if let Some(Ok(points)) = last.map(|keys| keys.read(text, now)) {
            return Ok(points);
        }
        let mut error = ManagedError::Address;
        for period in periods {
            let keys = Keys::derive(address, *period)?;
            match keys.read(text, now) {
                Ok(points) => {
                    self.last = Some(keys);
                    return Ok(points);
                }
                Err(reason) => error = reason,
            }
        }
        Err(error)
    }
}

impl Keys {
    /// The keys of `address` in `period`.
    fn derive(address: OnionAddress, period: TimePeriod) -> Result<Keys, ManagedError> {
        let key = HsIdKey::try_from(address.hs_id()).map_err(|_| ManagedError::Address)?;
        let blinded = key.compute_blinded_key(period).map_err(|_| ManagedError::Address)?;
        let (blinded, subcredential) = (blinded.0.id(), blinded.1);
        Ok(Keys { address, blinded, subcredential })
    }

    /// The points of a descriptor of this period.
    fn read(&self, text: &str, now: SystemTime) -> Result<ManagedPoints, ManagedError> {
        let descriptor =
            HsDesc::parse_decrypt_validate(text, &self.blinded, &self.subcredential, None)
                .map_err(|error| ManagedError::Descriptor(error.to_string()))?
                .if_valid_at(&now)
                .map_err(|error| ManagedError::Descriptor(error.to_string()))?;
        let mut points = descriptor.intro_points().to_vec();
        points.truncate(usize::from(limits::INTRO_POINTS_MAX));
        let offered = descriptor.flow_control();
        let congestion_control = offered
            .filter(|(protocols, _)| {
                protocols.supports_named_subver(tor_protover::named::FLOWCTRL_CC)
            })
            .map(|(_, increment)| increment);
        Ok(ManagedPoints { points, congestion_control })
    }
}

/// The live periods, and those beside them.
fn periods(netdir: &NetDir) -> Vec<TimePeriod> {
    let live = netdir.hs_all_time_periods();
    let mut periods: Vec<TimePeriod> = live.iter().map(|params| params.time_period()).collect();
    for period in periods.clone() {
        for beside in [period.prev(), period.next()].into_iter().flatten() {
            if !periods.contains(&beside) {
                periods.push(beside);
            }
        }
    }
    periods
}
