//! Descriptors of other onion services: the keys of a period by an address alone, and what a
//! document says once its signatures hold.
//!
//! Whoever wrote the document may be hostile, for instance an instance that was taken over: what is
//! read here goes into the descriptor that we sign, so it is bounded in number and size, and a
//! point that no client could use is left out.

use std::num::NonZeroU8;
use std::time::SystemTime;

use tor_bytes::Writer as _;
use tor_checkable::Timebound as _;
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::{HsBlindId, HsIdKey};
use tor_hscrypto::time::TimePeriod;
use tor_netdir::NetDir;
use tor_netdoc::doc::hsdesc::{HsDesc, IntroPointDesc};

use crate::limits;
use crate::vault::OnionAddress;

/// Why a descriptor tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The address has no keys.
    #[error("the address is no public key: {0}")]
    Address(String),
    /// It is not a descriptor of this address, or its signatures do not hold.
    #[error("the document is not its descriptor: {0}")]
    Invalid(String),
    /// Its certificates have expired, or begin later.
    #[error("its descriptor has expired, or a clock is wrong")]
    Expired,
    /// Clients have to authenticate.
    #[error("it wants its clients to authenticate, which ours cannot")]
    WantsAuthentication,
    /// There is no usable point in it.
    #[error("its descriptor names no introduction point that could be used")]
    NoPoint,
}

/// The public keys of an address in one period.
#[derive(Clone, Copy)]
pub struct ForeignKeys {
    /// The period.
    pub period: TimePeriod,
    /// What HSDirs know the descriptor by.
    pub blinded: HsBlindId,
    /// What the descriptor is encrypted with.
    subcredential: Subcredential,
}

/// What a descriptor says.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Its revision counter.
    pub revision: u64,
    /// The points that can be used, each once.
    pub points: Vec<IntroPointDesc>,
    /// `cc_sendme_inc` of the congestion control that it offers, if it does.
    pub congestion_control: Option<NonZeroU8>,
}

impl ForeignKeys {
    /// The keys of `address` in `period`.
    ///
    /// # Errors
    /// [`ForeignError::Address`].
    pub fn derive(address: OnionAddress, period: TimePeriod) -> Result<ForeignKeys, ForeignError> {
        let failed = |error: &dyn std::fmt::Display| ForeignError::Address(error.to_string());
        let key = HsIdKey::try_from(address.hs_id()).map_err(|error| failed(&error))?;
        let (blinded, subcredential) =
            key.compute_blinded_key(period).map_err(|error| failed(&error))?;
        Ok(ForeignKeys { period, blinded: blinded.id(), subcredential })
    }

    /// Read a descriptor.
    ///
    /// # Errors
    /// [`ForeignError`].
    pub fn read(
        &self,
        text: &str,
        netdir: &NetDir,
        now: SystemTime,
    ) -> Result<Foreign, ForeignError> {
        let document =
            HsDesc::parse_decrypt_validate(text, &self.blinded, &self.subcredential, None)
                .map_err(|error| ForeignError::Invalid(error.to_string()))?
                .if_valid_at(&now)
                .map_err(|_| ForeignError::Expired)?;
        if document.requires_intro_authentication() {
            return Err(ForeignError::WantsAuthentication);
        }
        let points = usable(document.intro_points(), |point| {
            netdir
                .circ_target_from_verbatim_linkspecs(point.link_specifiers(), point.ipt_ntor_key())
                .is_ok()
        });
        if points.is_empty() {
            return Err(ForeignError::NoPoint);
        }
        let flow_control = document.flow_control();
        let congestion_control = flow_control
            .filter(|(protocols, _)| {
                protocols.supports_named_subver(tor_protover::named::FLOWCTRL_CC)
            })
            .map(|(_, increment)| increment);
        Ok(Foreign { revision: document.revision().into(), points, congestion_control })
    }
}

/// The points that clients can use, each once and no more than a descriptor holds.
fn usable(
    points: &[IntroPointDesc],
    leads_to_a_relay: impl Fn(&IntroPointDesc) -> bool,
) -> Vec<IntroPointDesc> {
    let mut usable: Vec<IntroPointDesc> = Vec::new();
    for point in points {
        let known = usable.iter().any(|other| other.ipt_sid_key() == point.ipt_sid_key());
        if !known && is_small(point) && leads_to_a_relay(point) {
            usable.push(point.clone());
        }
    }
    usable.truncate(usize::from(limits::INTRO_POINTS_MAX));
    usable
}

/// Whether a point's way to its relay is no longer than those that relays have: a longer one would
/// take the room of the others in our descriptor.
fn is_small(point: &IntroPointDesc) -> bool {
    let mut encoded = Vec::new();
    let specifiers = point.link_specifiers();
    specifiers.len() <= limits::LINK_SPECIFIERS_MAX
        && specifiers.iter().all(|one| encoded.write(one).is_ok())
        && encoded.len() <= limits::LINK_SPECIFIERS_BYTES_MAX
}

#[cfg(test)]
mod tests;
