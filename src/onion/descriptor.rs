//! The descriptor: which points go into it, and how it is built and signed.
//!
//! Fresh signing key for each descriptor, certified by the blinded key; the points' certificates
//! are made by arti's builder from their public keys. At most
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
use tor_netdoc::doc::hsdesc::{HsDescBuilder, IntroPointDesc, create_desc_sign_key_cert};
use tor_protover::Protocols;
use tor_units::IntegerMinutes;

use super::period::PeriodKeys;
use crate::limits;

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
    #[error("cannot certify the descriptor's signing key: {0}")]
    Certificate(String),
    /// The document could not be encoded; above all, when it is larger than HSDirs accept.
    #[error("cannot encode the descriptor: {0}")]
    Encode(String),
}

/// A signed descriptor, ready for upload.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// The document.
    pub(super) text: Arc<str>,
    /// Its revision counter.
    pub(super) revision: u64,
    /// Introduction points in it.
    pub(super) intro_points: usize,
    /// Instances that have at least one point in it.
    pub(super) instances: usize,
}

/// One instance, as the merge sees it.
#[derive(Clone, Debug)]
pub(super) struct Place<T> {
    /// Its number.
    pub(super) instance: usize,
    /// The points that it has.
    pub(super) points: Arc<Vec<T>>,
    /// What it shall have of the descriptor beside the others: its weight times the percent of it
    /// that it is well enough for.
    pub(super) share: u32,
}

/// The points that go into the descriptor: a share for every instance, at most `points_max`.
///
/// Breadth first: every instance's first point, then every instance's second, and so on. The order
/// within an instance is its own, so a set stays the same while points stay the same. An instance
/// without a share has points only if no other has any.
pub(super) fn select<T: Clone>(places: &[Place<T>], points_max: usize) -> Vec<(usize, T)> {
    let has_points = |place: &&Place<T>| !place.points.is_empty();
    let wanted = places.iter().filter(has_points).any(|place| place.share > 0);
    let places = places.iter().filter(|place| place.share > 0 || !wanted);
    let deepest = places.clone().map(|place| place.points.len()).max().unwrap_or(0);
    let breadth_first = (0..deepest).flat_map(|depth| {
        places.clone().filter_map(move |place| {
            place.points.get(depth).map(|point| (place.instance, point.clone()))
        })
    });
    breadth_first.take(points_max).collect()
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
    let mut instances: Vec<usize> = points.iter().map(|(instance, _)| *instance).collect();
    instances.sort_unstable();
    instances.dedup();
    let points: Vec<IntroPointDesc> = points.iter().map(|(_, point)| point.clone()).collect();
    let mut rng = rand::rng();
    let expiry = now + Duration::from_secs(limits::DESCRIPTOR_CERT_LIFETIME_SECONDS);
    let signing = HsDescSigningKeypair::from(ed25519::Keypair::generate(&mut rng));
    let certificate =
        create_desc_sign_key_cert(&signing.as_ref().verifying_key(), &period.keypair, expiry)
            .map_err(|error| DescriptorError::Certificate(error.to_string()))?;
    let size_max: i32 = params.hsdir_max_desc_size.get();
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
        .max_generated_len(usize::try_from(size_max).unwrap_or(usize::MAX))
        .build_sign(&mut rng)
        .map_err(|error| DescriptorError::Encode(error.to_string()))?;
    Ok(Descriptor { text: text.into(), revision, intro_points: count, instances: instances.len() })
}

#[cfg(test)]
pub(super) mod tests;
