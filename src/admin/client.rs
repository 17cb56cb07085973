//! The asking side of the admin socket: what `rustbalance status` uses. Blocks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::status::ProcessStatus;
use crate::limits;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no RustBalance answers on {path} ({source}); is it running, and is this its socket? Name \
         it with --socket, or the configuration with --config"
    )]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The connection failed.
    #[error("the conversation on {path} failed: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The answer is none that we understand.
    #[error("the answer on {path} makes no sense ({source}): is it another version?")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Ask for the status.
///
/// # Errors
/// [`AskError`].
pub fn status(path: &Path) -> Result<ProcessStatus, AskError> {
    let line = ask(path, "{\"command\":\"status\"}\n")?;
    serde_json::from_str(&line)
        .map_err(|source| AskError::Answer { path: path.to_owned(), source })
}

/// Send one line, get one line.
fn ask(path: &Path, request: &str) -> Result<String, AskError> {
    let io_error = |source| AskError::Io { path: path.to_owned(), source };
    let mut stream = UnixStream::connect(path)
        .map_err(|source| AskError::Nobody { path: path.to_owned(), source })?;
    let timeout = Some(Duration::from_secs(limits::ADMIN_SECONDS_MAX));
    stream.set_read_timeout(timeout).map_err(io_error)?;
    stream.set_write_timeout(timeout).map_err(io_error)?;
    stream.write_all(request.as_bytes()).map_err(io_error)?;
    let mut line = String::new();
    BufReader::new(stream.take(limits::ADMIN_ANSWER_BYTES_MAX as u64))
        .read_line(&mut line)
        .map_err(io_error)?;
    Ok(line)
}
