//! One time period, as the vault serves it: a public key, certificates, a counter key.
//!
//! ```text
//!   master's scalar --blind--> blinded scalar --sign--> certificate of a descriptor's signing key
//!      (the vault)             (for an instant)         (leaves; so do public key and counter key)
//! ```
//!
//! Called by `onion::period`. The blinded secret never leaves this file: with the onion address,
//! which is public, it gives the master's scalar (a = a'/h, and h is public). It is made for each
//! certificate anew and wiped at once. The counter key is a digest of it, which leads nowhere.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tor_cert::EncodedEd25519Cert;
use tor_hscrypto::Subcredential;
use tor_hscrypto::ope::AesOpeKey;
use tor_hscrypto::pk::{HsBlindIdKey, HsBlindIdKeypair, HsIdKey};
use tor_hscrypto::time::TimePeriod;
use tor_llcrypto::pk::ed25519;
use tor_netdoc::doc::hsdesc::create_desc_sign_key_cert;
use zeroize::Zeroizing;

use super::address::OnionAddress;
use super::key::{Secret, keypair};
use super::stack;
use crate::base::redact::REDACTED;

/// Why the vault does not serve a period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key cannot be blinded (a chance of one in 2^250).
    #[error("cannot blind the master key: {0}")]
    Blinding(String),
    /// The certificate could not be made.
    #[error("cannot certify the descriptor's signing key: {0}")]
    Certificate(String),
}

/// Makes what the descriptors of one period need, without giving a secret key out. `Debug` prints
/// `[redacted]`.
pub struct PeriodSigner {
    /// The master's secret, which stands once in memory.
    secret: Arc<Secret>,
    /// The period.
    time_period: TimePeriod,
    /// The public blinded key.
    blinded: HsBlindIdKey,
    /// Goes into the keys of every INTRODUCE2.
    subcredential: Subcredential,
}

impl PeriodSigner {
    /// Of the key with this secret and this address.
    pub(super) fn derive(
        secret: &Arc<Secret>,
        address: OnionAddress,
        time_period: TimePeriod,
    ) -> Result<PeriodSigner, SignError> {
        let public = HsIdKey::try_from(address.hs_id()).expect("it was made from a key");
        let (blinded, subcredential) = public
            .compute_blinded_key(time_period)
            .map_err(|error| SignError::Blinding(error.to_string()))?;
        Ok(PeriodSigner { secret: Arc::clone(secret), time_period, blinded, subcredential })
    }

    /// The public blinded key.
    pub fn blinded(&self) -> &HsBlindIdKey {
        &self.blinded
    }

    /// What goes into the keys of every INTRODUCE2.
    pub fn subcredential(&self) -> Subcredential {
        self.subcredential
    }

    /// The key of the period's revision counters, derived as C tor does: its digest takes the
    /// prefix with its terminating zero byte and then the 64-byte blinded secret key
    /// (`hs_descriptor` revision counter, `crypto_ope`).
    ///
    /// # Errors
    /// [`SignError::Blinding`].
    pub fn counter_key(&self) -> Result<AesOpeKey, SignError> {
        self.with_blinded(|pair| {
            let expanded: &ed25519::ExpandedKeypair = pair.as_ref();
            let secret = Zeroizing::new(expanded.to_secret_key_bytes());
            let mut input = Zeroizing::new([0_u8; 65]);
            input[1..].copy_from_slice(&secret[..]);
            AesOpeKey::from_secret(&input[..])
        })
    }

    /// Certify the short-term key that signs a descriptor, until `expiry` (rend-spec-v3, section
    /// 2.4, `descriptor-signing-key-cert`).
    ///
    /// # Errors
    /// [`SignError`].
    pub fn certify(
        &self,
        signing: &ed25519::PublicKey,
        expiry: SystemTime,
    ) -> Result<EncodedEd25519Cert, SignError> {
        self.with_blinded(|pair| create_desc_sign_key_cert(signing, pair, expiry))?
            .map_err(|error| SignError::Certificate(error.to_string()))
    }

    /// Work with the blinded secret, of which nothing stays. `work` returns nothing of it.
    fn with_blinded<R>(&self, work: impl FnOnce(&HsBlindIdKeypair) -> R) -> Result<R, SignError> {
        stack::wiped(|| {
            let blinded = keypair(&self.secret).compute_blinded_key(self.time_period);
            let (_, pair, _) = blinded.map_err(|error| SignError::Blinding(error.to_string()))?;
            Ok(work(&pair))
        })
    }
}

impl fmt::Debug for PeriodSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PeriodSigner({REDACTED})")
    }
}
