//! One upload of one descriptor to one HSDir (rend-spec-v3, section 2.2.6).
//!
//! Called by the publisher on the control core; retries are the publisher's.

use std::sync::Arc;
use std::time::Duration;

use tor_circmgr::hspool::HsCircPool;
use tor_dirclient::request::HsDescUploadRequest;
use tor_dirclient::{SourceInfo, send_request};
use tor_linkspec::OwnedCircTarget;
use tor_netdir::{NetDirProvider, Timeliness};

use crate::limits;
use crate::runtime::CoreRuntime;

/// Why an HSDir does not have our descriptor.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// No directory.
    #[error("no usable directory: {0}")]
    Directory(#[source] tor_netdir::Error),
    /// No circuit.
    #[error("cannot reach the HSDir: {0}")]
    Circuit(#[source] tor_circmgr::Error),
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
    pool: &Arc<HsCircPool<CoreRuntime>>,
    directory: &Arc<dyn NetDirProvider>,
    hsdir: OwnedCircTarget,
    descriptor: Arc<str>,
) -> Result<(), UploadError> {
    let deadline = Duration::from_millis(limits::UPLOAD_ATTEMPT_MS_MAX);
    tokio::time::timeout(deadline, attempt(pool, directory, hsdir, descriptor))
        .await
        .unwrap_or(Err(UploadError::Timeout))
}

/// See [`upload`].
async fn attempt(
    pool: &Arc<HsCircPool<CoreRuntime>>,
    directory: &Arc<dyn NetDirProvider>,
    hsdir: OwnedCircTarget,
    descriptor: Arc<str>,
) -> Result<(), UploadError> {
    let netdir = directory.netdir(Timeliness::Timely).map_err(UploadError::Directory)?;
    let tunnel = pool.get_or_launch_svc_dir(&netdir, hsdir).await.map_err(UploadError::Circuit)?;
    drop(netdir);
    let source = SourceInfo::from_tunnel(&tunnel)
        .map_err(|error| UploadError::Request(error.to_string()))?;
    let mut stream = tunnel.begin_dir_stream().await.map_err(UploadError::Circuit)?;
    let request = HsDescUploadRequest::new(descriptor);
    let response = send_request(&CoreRuntime, &request, &mut stream, source)
        .await
        .map_err(|error| UploadError::Request(error.to_string()))?;
    response.into_output_string().map_err(|error| UploadError::Refused(error.to_string()))?;
    Ok(())
}
