//! The descriptor: how it is built and signed.
//!
//! Fresh signing key for each descriptor, certified by the vault with the blinded key; the points'
//! certificates are made by arti's builder from their public keys. At most
//! [`limits::INTRO_POINTS_MAX`] points: C tor clients reject the whole descriptor above that, and
//! arti's builder would let it pass. See rend-spec-v3, section 2.4.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tor_cell::chancell::msg::HandshakeType;
use tor_hscrypto::RevisionCounter;
use tor_hscrypto::pk::HsDescSigningKeypair;
use tor_llcrypto::pk::ed25519;
use tor_netdir::params::NetParameters;
use tor_netdoc::NetdocBuilder as _;
use tor_netdoc::doc::hsdesc::{HsDescBuilder, IntroPointDesc};
use tor_protover::Protocols;
use tor_units::IntegerMinutes;

use super::period::PeriodKeys;
use crate::limits;
use crate::vault::SignError;

/// Why a descriptor could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// More points than clients accept.
    #[error("{count} introduction points are more than the {max} that clients accept")]
    TooManyPoints {
        /// How many there were.
        count: usize,
        /// How many there may be.
        max: u8,
    },
    /// The signing key's certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] SignError),
    /// The document could not be encoded.
    #[error("cannot encode the descriptor: {0}")]
    Encode(String),
    /// The document is larger than is good for those who fetch it, or than HSDirs accept.
    #[error("a descriptor of {points} points has {bytes} bytes, at most {max} may be sent")]
    TooLarge {
        /// Introduction points in it.
        points: usize,
        /// Its size.
        bytes: usize,
        /// The size that it may have.
        max: usize,
    },
}

/// A signed descriptor, ready for upload.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// The document.
    pub(super) text: Arc<str>,
}

/// Whether two points are at one relay: then they do not stand in one descriptor.
pub(super) fn at_same_relay(one: &IntroPointDesc, other: &IntroPointDesc) -> bool {
    one.link_specifiers().iter().any(|specifier| other.link_specifiers().contains(specifier))
}

/// The consensus's `cc_sendme_inc`, which instances that do congestion control go by.
pub(super) fn sendme_increment(params: &NetParameters) -> u8 {
    params.cc_sendme_inc.into()
}

/// What we advertise as flow control: authenticated SENDMEs and congestion control. Doubles a
/// client's throughput.
fn flow_control(params: &NetParameters) -> (Protocols, u8) {
    use tor_protover::named::{FLOWCTRL_AUTH_SENDME, FLOWCTRL_CC};
    ([FLOWCTRL_AUTH_SENDME, FLOWCTRL_CC].into_iter().collect(), sendme_increment(params))
}

impl Descriptor {
    /// The document as HSDirs get it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The size that a descriptor with so many points may have: what HSDirs accept, and with no more
/// than the default number of points also what clients with the vanguards add-on do.
fn size_max(points: usize, params: &NetParameters) -> usize {
    let accepted = usize::try_from(params.hsdir_max_desc_size.get()).unwrap_or(usize::MAX);
    match points <= usize::from(limits::INTRO_POINTS_DEFAULT) {
        true => accepted.min(limits::DESCRIPTOR_BYTES_GOOD_MAX),
        false => accepted,
    }
}

/// What tells a point from all others: the key that its relay knows it by.
pub(super) fn point_name(point: &IntroPointDesc) -> [u8; 32] {
    let key: &tor_llcrypto::pk::ed25519::PublicKey = point.ipt_sid_key().as_ref();
    *key.as_bytes()
}

/// The points in the order of their keys: an order that says nothing of instances, and stays as
/// long as the points do. C tor's client finds a point by its relay (`hs_client.c`,
/// `find_desc_intro_point_by_legacy_id`), so of two at one relay it only ever uses the first:
/// which one that is shall be chance, and not always the instance with the lower number.
fn shuffled(points: &[(usize, IntroPointDesc)]) -> Vec<IntroPointDesc> {
    let mut points: Vec<IntroPointDesc> = points.iter().map(|(_, point)| point.clone()).collect();
    points.sort_by_cached_key(point_name);
    points
}

/// Build and sign the descriptor of one period, from points with the numbers of their instances,
/// at most [`limits::INTRO_POINTS_MAX`]. `congestion_control`: whether every one of them does it.
///
/// # Errors
/// [`DescriptorError`].
pub fn build(
    period: &PeriodKeys,
    points: &[(usize, IntroPointDesc)],
    revision: u64,
    congestion_control: bool,
    params: &NetParameters,
    now: SystemTime,
) -> Result<Descriptor, DescriptorError> {
    let count = points.len();
    if count > usize::from(limits::INTRO_POINTS_MAX) {
        return Err(DescriptorError::TooManyPoints { count, max: limits::INTRO_POINTS_MAX });
    }
    let points = shuffled(points);
    let mut rng = rand::rng();
    let expiry = now + Duration::from_secs(limits::DESCRIPTOR_CERT_LIFETIME_SECONDS);
    let signing = HsDescSigningKeypair::from(ed25519::Keypair::generate(&mut rng));
    let certificate = period.signer.certify(&signing.as_ref().verifying_key(), expiry)?;
    let text = HsDescBuilder::default()
        .blinded_id(&period.blinded)
        .hs_desc_sign(signing.as_ref())
        .hs_desc_sign_cert(certificate)
        .create2_formats(&[HandshakeType::NTOR])
        .auth_required(None)
        .is_single_onion_service(false)
        .intro_points(&points)
        .intro_auth_key_cert_expiry(expiry)
        .intro_enc_key_cert_expiry(expiry)
        .flow_control(congestion_control.then(|| flow_control(params)))
        .lifetime(IntegerMinutes::new(limits::DESCRIPTOR_LIFETIME_MINUTES))
        .revision_counter(RevisionCounter::from(revision))
        .subcredential(period.subcredential)
        .auth_clients(None)
        // What may be sent is decided below: it says what to do about it.
        .max_generated_len(usize::MAX)
        .build_sign(&mut rng)
        .map_err(|error| DescriptorError::Encode(error.to_string()))?;
    let (bytes, max) = (text.len(), size_max(count, params));
    if bytes > max {
        return Err(DescriptorError::TooLarge { points: count, bytes, max });
    }
    Ok(Descriptor { text: text.into() })
}

#[cfg(test)]
pub(super) mod tests;
