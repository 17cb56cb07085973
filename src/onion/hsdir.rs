//! One upload of one descriptor to one HSDir (rend-spec-v3, section 2.2.6), and what the HSDir
//! holds when it refuses.
//!
//! Called by the publisher on the control core; retries are the publisher's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tor_checkable::Timebound as _;
use tor_dirclient::request::{HsDescDownloadRequest, HsDescUploadRequest};
use tor_dirclient::{SourceInfo, send_request};
use tor_hscrypto::Subcredential;
use tor_hscrypto::pk::HsBlindId;
use tor_linkspec::OwnedCircTarget;
use tor_netdir::Timeliness;
use tor_netdoc::doc::hsdesc::HsDesc;

use crate::limits;
use crate::runtime::{self, CoreRuntime};
use crate::tor::load::LaunchError;
use crate::tor::stack::CircuitPool;

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
    #[error("the upload failed: {0}")]
    Request(String),
    /// The HSDir said no.
    #[error("the HSDir refused the descriptor: {0}")]
    Refused(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

/// Upload `descriptor` to `hsdir`, once.
///
/// # Errors
/// [`UploadError`].
pub(super) async fn upload(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    descriptor: Arc<str>,
) -> Result<(), UploadError> {
    let deadline = Duration::from_millis(limits::UPLOAD_ATTEMPT_MS_MAX);
    runtime::timeout(deadline, attempt(pool, hsdir, descriptor))
        .await
        .unwrap_or(Err(UploadError::Timeout))
}

/// See [`upload`].
async fn attempt(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    descriptor: Arc<str>,
) -> Result<(), UploadError> {
    let netdir = pool.directory().netdir(Timeliness::Timely).map_err(UploadError::Directory)?;
    let tunnel = pool.circuits().get_or_launch_svc_dir(&netdir, hsdir);
    let tunnel = pool.launch(tunnel).await.map_err(UploadError::Circuit)?;
    let _open = pool.count_open(&tunnel.unique_id());
    drop(netdir);
    let source = SourceInfo::from_tunnel(&tunnel)
        .map_err(|error| UploadError::Request(error.to_string()))?;
    let mut stream = tunnel.begin_dir_stream().await.map_err(LaunchError::from)?;
    let request = HsDescUploadRequest::new(descriptor);
    let response = send_request(&CoreRuntime, &request, &mut stream, source)
        .await
        .map_err(|error| UploadError::Request(error.to_string()))?;
    response.into_output_string().map_err(|error| UploadError::Refused(error.to_string()))?;
    Ok(())
}

/// The revision counter of the descriptor that `hsdir` holds under a blinded key. `None` when it
/// holds none, or one that is not signed by that key: only its owner can make us skip counters.
pub(super) async fn held_counter(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    blinded: HsBlindId,
    subcredential: Subcredential,
) -> Option<u64> {
    let deadline = Duration::from_millis(limits::UPLOAD_ATTEMPT_MS_MAX);
    let text = runtime::timeout(deadline, download(pool, hsdir, blinded)).await;
    let text =
        text.ok()?.inspect_err(|error| tracing::debug!("what the HSDir holds: {error}")).ok()?;
    let held = HsDesc::parse_decrypt_validate(&text, &blinded, &subcredential, None)
        .inspect_err(|error| tracing::debug!("the HSDir's descriptor: {error}"))
        .ok()?;
    let held = held
        .if_valid_at(&SystemTime::now())
        .inspect_err(|error| tracing::debug!("the HSDir's descriptor: {error}"))
        .ok()?;
    Some(held.revision().into())
}

/// Fetch what an HSDir holds under a blinded key, over a circuit like any client's: one for uploads
/// is closed when more than a few cells come back (`tor-proto`, `n_incoming_cells_permitted`).
async fn download(
    pool: &CircuitPool,
    hsdir: OwnedCircTarget,
    blinded: HsBlindId,
) -> Result<String, UploadError> {
    let netdir = pool.directory().netdir(Timeliness::Timely).map_err(UploadError::Directory)?;
    let tunnel = pool.circuits().get_or_launch_client_dir(&netdir, hsdir);
    let tunnel = pool.launch(tunnel).await.map_err(UploadError::Circuit)?;
    let _open = pool.count_open(&tunnel.unique_id());
    drop(netdir);
    let source = SourceInfo::from_tunnel(&tunnel)
        .map_err(|error| UploadError::Request(error.to_string()))?;
    let mut stream = tunnel.begin_dir_stream().await.map_err(LaunchError::from)?;
    let request = HsDescDownloadRequest::new(blinded);
    let response = send_request(&CoreRuntime, &request, &mut stream, source)
        .await
        .map_err(|error| UploadError::Request(error.to_string()))?;
    response.into_output_string().map_err(|error| UploadError::Refused(error.to_string()))
}
