//! One upload of one descriptor to one HSDir (rend-spec-v3, section 2.2.6), and one look at what an
//! HSDir holds.
//!
//! Called by the publisher on the control core; retries are the publisher's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tor_checkable::{SelfSigned as _, Timebound as _};
use tor_dirclient::request::{HsDescDownloadRequest, HsDescUploadRequest};
use tor_dirclient::{SourceInfo, send_request};
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::HsBlindId;
use tor_linkspec::OwnedCircTarget;
use tor_netdir::Timeliness;
use tor_netdoc::doc::hsdesc::{HsDesc, IntroPointDesc};

use super::published::Digest;
use crate::limits;
use crate::runtime::{self, CoreRuntime};
use crate::tor::load::LaunchError;
use crate::tor::stack::CircuitPool;
use crate::tor::turns::Purpose;

/// Why an HSDir does not have our descriptor.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// No directory.
    #[error("no usable directory: {0}")]
    Directory(#[source] tor_netdir::Error),
    /// No circuit.
    #[error("cannot reach the HSDir: {0}")]
    Circuit(#[from] LaunchError),
    /// The request failed on the way.
    #[error("the request failed: {0}")]
    Request(String),
    /// The descriptor went out, and no answer came: the HSDir may have it.
    #[error("no receipt: {0}")]
    NoReceipt(String),
    /// The HSDir said no.
    #[error("the HSDir refused the descriptor: {0}")]
    Refused(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// It was not wanted any more when its turn to ask for a circuit had come.
    #[error("not wanted any more")]
    NotWanted,
}

/// Upload `descriptor` to `hsdir`, once, if that is still `wanted` when its turn has come.
///
/// # Errors
/// [`UploadError`].
pub(super) async fn upload(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    descriptor: Arc<str>,
    wanted: impl FnOnce() -> bool,
) -> Result<(), UploadError> {
    pool.turn(Purpose::Upload).await?;
    if !wanted() {
        return Err(UploadError::NotWanted);
    }
    let deadline = Duration::from_millis(limits::UPLOAD_ATTEMPT_MS_MAX);
    let sent = AtomicBool::new(false);
    match runtime::timeout(deadline, attempt(pool, hsdir, descriptor, &sent)).await {
        Ok(ended) => ended,
        Err(_) if sent.load(Ordering::Relaxed) => {
            Err(UploadError::NoReceipt(UploadError::Timeout.to_string()))
        }
        Err(_) => Err(UploadError::Timeout),
    }
}

/// See [`upload`]. `sent` tells from when on the HSDir may have the descriptor.
async fn attempt(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    descriptor: Arc<str>,
    sent: &AtomicBool,
) -> Result<(), UploadError> {
    let netdir = pool.directory().netdir(Timeliness::Timely).map_err(UploadError::Directory)?;
    let tunnel = pool.circuits().get_or_launch_svc_dir(&netdir, hsdir);
    let tunnel = pool.build(tunnel).await.map_err(UploadError::Circuit)?;
    let _open = pool.count_open(&tunnel.unique_id());
    drop(netdir);
    let source = SourceInfo::from_tunnel(&tunnel)
        .map_err(|error| UploadError::Request(error.to_string()))?;
    let mut stream = tunnel.begin_dir_stream().await.map_err(LaunchError::from)?;
    let request = HsDescUploadRequest::new(descriptor);
    sent.store(true, Ordering::Relaxed);
    let response = send_request(&CoreRuntime, &request, &mut stream, source)
        .await
        .map_err(|error| UploadError::NoReceipt(error.to_string()))?;
    response.into_output_string().map_err(|error| UploadError::Refused(error.to_string()))?;
    Ok(())
}

/// What an HSDir holds under a blinded key.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// No descriptor.
    Nothing,
    /// It could not be asked.
    Unreachable(String),
    /// Something that is not signed by the blinded key, or not any more: the HSDir's own doing.
    Unreadable(String),
    /// A descriptor that is signed by the blinded key.
    Descriptor(HeldDescriptor),
}

/// A descriptor that is signed by the blinded key, whoever signed it.
#[derive(Clone, Debug)]
pub(super) struct HeldDescriptor {
    /// Its name.
    pub(super) digest: Digest,
    /// Its revision counter; `None` when its inner layers are none that our clients could read.
    pub(super) revision: Option<u64>,
    /// The introduction points in it.
    pub(super) points: Vec<IntroPointDesc>,
}

/// Ask `hsdir` what it holds under a blinded key, once.
pub(super) async fn held(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    blinded: HsBlindId,
    subcredential: Subcredential,
) -> Held {
    match download(pool, hsdir, blinded).await {
        Ok(Some(text)) => read(&text, blinded, subcredential, SystemTime::now()),
        Ok(None) => Held::Nothing,
        Err(error) => Held::Unreachable(error.to_string()),
    }
}

/// What a document is that came from an HSDir.
fn read(text: &str, blinded: HsBlindId, subcredential: Subcredential, now: SystemTime) -> Held {
    let unreadable = |error: &dyn std::fmt::Display| Held::Unreadable(error.to_string());
    let signed = match HsDesc::parse(text, &blinded) {
        Ok(parsed) => parsed.check_signature().map_err(|error| unreadable(&error)),
        Err(error) => Err(unreadable(&error)),
    };
    match signed.and_then(|signed| signed.if_valid_at(&now).map_err(|error| unreadable(&error))) {
        Ok(_) => {}
        Err(held) => return held,
    }
    let whole = HsDesc::parse_decrypt_validate(text, &blinded, &subcredential, None)
        .map_err(|error| error.to_string())
        .and_then(|whole| whole.if_valid_at(&now).map_err(|error| error.to_string()))
        .inspect_err(|error| tracing::debug!("the inner layers of what an HSDir holds: {error}"));
    let digest = Digest::of(text);
    Held::Descriptor(match whole {
        Ok(whole) => HeldDescriptor {
            digest,
            revision: Some(whole.revision().into()),
            points: whole.intro_points().to_vec(),
        },
        Err(_) => HeldDescriptor { digest, revision: outer_revision(text), points: Vec::new() },
    })
}

/// The revision counter of a document whose signature was checked: it stands in its outer layer.
fn outer_revision(text: &str) -> Option<u64> {
    let document = text.get(text.find("hs-descriptor ")?..)?;
    let line = document.lines().find_map(|line| line.strip_prefix("revision-counter "));
    line?.trim().parse().ok()
}

/// Fetch what an HSDir holds under a blinded key, once. `None`: it holds nothing.
///
/// # Errors
/// [`UploadError`].
pub(super) async fn download(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    blinded: HsBlindId,
) -> Result<Option<String>, UploadError> {
    pool.turn(Purpose::Look).await?;
    let deadline = Duration::from_millis(limits::UPLOAD_ATTEMPT_MS_MAX);
    let fetched = runtime::timeout(deadline, fetch(pool, hsdir, blinded)).await;
    fetched.unwrap_or(Err(UploadError::Timeout))
}

/// See [`download`]; over a circuit like any client's: one for uploads
/// is closed when more than a few cells come back (`tor-proto`, `n_incoming_cells_permitted`).
async fn fetch(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    blinded: HsBlindId,
) -> Result<Option<String>, UploadError> {
    let netdir = pool.directory().netdir(Timeliness::Timely).map_err(UploadError::Directory)?;
    let tunnel = pool.circuits().get_or_launch_client_dir(&netdir, hsdir);
    let tunnel = pool.build(tunnel).await.map_err(UploadError::Circuit)?;
    let _open = pool.count_open(&tunnel.unique_id());
    drop(netdir);
    let source = SourceInfo::from_tunnel(&tunnel)
        .map_err(|error| UploadError::Request(error.to_string()))?;
    let mut stream = tunnel.begin_dir_stream().await.map_err(LaunchError::from)?;
    let request = HsDescDownloadRequest::new(blinded);
    let response = send_request(&CoreRuntime, &request, &mut stream, source)
        .await
        .map_err(|error| UploadError::Request(error.to_string()))?;
    if response.status_code() == 404 {
        return Ok(None);
    }
    let text = response.into_output_string();
    text.map(Some).map_err(|error| UploadError::Request(error.to_string()))
}

#[cfg(test)]
mod tests;
