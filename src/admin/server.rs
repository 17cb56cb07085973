//! The server's side of the admin socket.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::StatusSource;
use crate::limits;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Somebody answers there already.
    #[error("the admin socket {path} is in use; name another one as [admin] socket")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The system says no.
    #[error("cannot {action} the admin socket {path}: {source}")]
    Io {
        /// What was done.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A request.
#[derive(serde::Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
enum Request {
    /// The status of everything.
    Status,
}

/// Answer requests for as long as the future is polled.
///
/// # Errors
/// [`AdminError`], at the start.
pub async fn serve(path: &Path, source: Arc<dyn StatusSource>) -> Result<(), AdminError> {
    let listener = listen(path)?;
    let slots = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = Arc::clone(&source);
                tokio::spawn(async move {
                    let deadline = Duration::from_secs(limits::ADMIN_SECONDS_MAX);
                    let answered = tokio::time::timeout(deadline, answer(stream, &*source)).await;
                    if let Ok(Err(error)) = answered {
                        tracing::debug!("admin socket: {error}");
                    }
                    drop(slot);
                });
            }
            // No descriptor left, most likely: the service goes on, and so does this, later.
            Err(error) => {
                tracing::warn!("admin socket: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Bind the socket; one that a dead process left is replaced.
fn listen(path: &Path) -> Result<UnixListener, AdminError> {
    let io_error =
        |action, source| AdminError::Io { action, path: path.to_owned(), source };
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(AdminError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| io_error("replace", source))?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|source| io_error("make", source))?;
    // The directory is ours alone, so nobody could connect in between.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|source| io_error("protect", source))?;
    Ok(listener)
}

/// Answer one request.
async fn answer(stream: UnixStream, source: &dyn StatusSource) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let request_max = limits::ADMIN_REQUEST_BYTES_MAX as u64;
    BufReader::new(read.take(request_max)).read_line(&mut line).await?;
    let mut text = match serde_json::from_str(&line) {
        Ok(Request::Status) => serde_json::to_vec(&source.status())?,
        Err(error) => serde_json::to_vec(&serde_json::json!({ "error": error.to_string() }))?,
    };
    text.push(b'\n');
    write.write_all(&text).await?;
    write.shutdown().await
}
