//! One time period of a service: blinded keys, subcredential, and the responsible HSDirs.
//!
//! See rend-spec-v3, sections 2.2.1 (time periods) and A.2 (key blinding). Derived on the control
//! core from the master key; only the subcredential goes to the data cores.

use std::time::SystemTime;

use tor_hscrypto::Subcredential;
use tor_hscrypto::ope::AesOpeKey;
use tor_hscrypto::pk::{HsBlindId, HsBlindIdKey};
use tor_hscrypto::time::TimePeriod;
use tor_linkspec::OwnedCircTarget;
use tor_netdir::NetDir;

use super::ring::Ring;
use crate::vault::{MasterKey, PeriodSigner, SignError};

/// Why a period could not be derived.
#[derive(Debug, thiserror::Error)]
pub enum PeriodError {
    /// The vault does not serve it (a chance of one in 2^250).
    #[error(transparent)]
    Vault(#[from] SignError),
    /// The directory does not know the period (any more).
    #[error("cannot choose the HSDirs: the directory has no ring for this period")]
    HsDirs,
}

/// One live time period.
pub(super) struct Period {
    /// The ring of its HSDirs.
    pub(super) ring: Ring,
    /// The keys.
    pub(super) keys: PeriodKeys,
}

/// The keys of one time period; no secret key is among them.
pub struct PeriodKeys {
    /// Public blinded key.
    pub(super) blinded: HsBlindIdKey,
    /// Has the vault certify a descriptor's signing key.
    pub(super) signer: PeriodSigner,
    /// Goes into the keys of every INTRODUCE2.
    pub(super) subcredential: Subcredential,
    /// Makes revision counters.
    ope: AesOpeKey,
}

impl PeriodKeys {
    /// Derive the keys of one period.
    ///
    /// # Errors
    /// [`PeriodError::Vault`], with a chance of one in 2^250.
    pub fn derive(master: &MasterKey, time_period: TimePeriod) -> Result<PeriodKeys, PeriodError> {
        let signer = master.period(time_period)?;
        let (blinded, subcredential) = (signer.blinded().clone(), signer.subcredential());
        let ope = signer.counter_key()?;
        Ok(PeriodKeys { blinded, signer, subcredential, ope })
    }
}

impl Period {
    /// Derive the keys of one period.
    pub(super) fn derive(master: &MasterKey, ring: Ring) -> Result<Period, PeriodError> {
        let keys = PeriodKeys::derive(master, ring.time_period())?;
        Ok(Period { ring, keys })
    }

    /// The time period.
    pub(super) fn time_period(&self) -> TimePeriod {
        self.ring.time_period()
    }

    /// The blinded identity, which HSDirs know the descriptor by.
    pub(super) fn blinded_id(&self) -> HsBlindId {
        self.keys.blinded.id()
    }

    /// The revision counter that C tor would use at `now`. `None` before the period's shared
    /// random run has begun: then our clock or the consensus is wrong.
    pub(super) fn counter_at(&self, now: SystemTime) -> Option<u64> {
        self.ring.offset(now).map(|offset| self.keys.ope.encrypt(offset))
    }

    /// The HSDirs that this period's descriptor goes to, by the consensus `netdir`.
    pub(super) fn hsdirs(&self, netdir: &NetDir) -> Result<Vec<OwnedCircTarget>, PeriodError> {
        self.ring.hsdirs(netdir, self.blinded_id()).ok_or(PeriodError::HsDirs)
    }
}
