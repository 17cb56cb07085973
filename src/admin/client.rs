//! The asking side of the admin socket: what `rustbalance status` uses. Blocks.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::status::{ProcessStatus, PublishedStatus, VerifiedStatus};
use super::{BackendRequest, CircuitId, VerdictRequest};
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
        source: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error(
        "may not ask on {path} ({source}): run this as the user who runs RustBalance, or as root"
    )]
    NotAllowed {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody listens and says nothing.
    #[error(
        "no answer on {path} within {seconds} s: its control core is busy or stuck; see its log"
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The connection failed.
    #[error("the conversation on {path} failed: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not do what was asked.
    #[error("RustBalance on {path} says no: {text}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it said.
        text: String,
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
    let answer = request(path, "status", Duration::from_secs(limits::ADMIN_SECONDS_MAX))?;
    serde_json::from_value(answer)
        .map_err(|source| AskError::Answer { path: path.to_owned(), source })
}

/// Ask for the published descriptors.
///
/// # Errors
/// [`AskError`].
pub fn descriptors(path: &Path) -> Result<Vec<PublishedStatus>, AskError> {
    let answer = request(path, "descriptor", Duration::from_secs(limits::ADMIN_SECONDS_MAX))?;
    serde_json::from_value(answer)
        .map_err(|source| AskError::Answer { path: path.to_owned(), source })
}

/// Have the HSDirs of each service, or of the one with this name, asked what they hold. Takes as
/// long as Tor takes, at most [`limits::VERIFY_SECONDS_WAIT_MAX`] and a little.
///
/// # Errors
/// [`AskError`]; [`AskError::Refused`] when there is no such service.
pub fn verify(path: &Path, service: Option<&str>) -> Result<Vec<VerifiedStatus>, AskError> {
    let command = serde_json::json!({ "command": "verify", "service": service });
    let seconds = limits::VERIFY_SECONDS_WAIT_MAX + limits::ADMIN_SECONDS_MAX;
    serde_json::from_value(send(path, &command, Duration::from_secs(seconds))?)
        .map_err(|source| AskError::Answer { path: path.to_owned(), source })
}

/// Take backends out or put them back; how many were meant.
///
/// # Errors
/// [`AskError`]; [`AskError::Refused`] when there is no such backend.
pub fn order_backend(path: &Path, request: &BackendRequest) -> Result<u64, AskError> {
    let answer_error = |source| AskError::Answer { path: path.to_owned(), source };
    let mut command = serde_json::to_value(request).map_err(answer_error)?;
    command["command"] = "backend".into();
    let answer = send(path, &command, Duration::from_secs(limits::ADMIN_SECONDS_MAX))?;
    serde_json::from_value(answer["changed"].clone()).map_err(answer_error)
}

/// Close a client's circuit.
///
/// # Errors
/// [`AskError`]; [`AskError::Refused`] when it is not open.
pub fn close_circuit(path: &Path, circuit: CircuitId) -> Result<(), AskError> {
    let command = serde_json::json!({ "command": "circuit", "close": circuit.to_string() });
    send(path, &command, Duration::from_secs(limits::ADMIN_SECONDS_MAX)).map(drop)
}

/// Say something of a client's circuit, in whole seconds.
///
/// # Errors
/// [`AskError`]; [`AskError::Refused`] when too much is remembered already.
pub fn set_verdict(path: &Path, request: &VerdictRequest) -> Result<(), AskError> {
    let command = serde_json::json!({
        "command": "circuit",
        "circuit": request.circuit.to_string(),
        "verdict": request.verdict,
        "seconds": request.lifetime.as_secs(),
    });
    send(path, &command, Duration::from_secs(limits::ADMIN_SECONDS_MAX)).map(drop)
}

/// Send `command`, get the answer. No single read or write waits longer than `timeout`.
///
/// # Errors
/// [`AskError`].
pub fn request(path: &Path, command: &str, timeout: Duration) -> Result<Value, AskError> {
    send(path, &serde_json::json!({ "command": command }), timeout)
}

/// Send a request, get the answer.
fn send(path: &Path, request: &Value, timeout: Duration) -> Result<Value, AskError> {
    let answer_error = |source| AskError::Answer { path: path.to_owned(), source };
    let line = ask(path, &format!("{request}\n"), timeout)
        .map_err(|source| explain(path, timeout, source))?;
    let answer: Value = serde_json::from_str(&line).map_err(answer_error)?;
    match answer.get("error").and_then(Value::as_str) {
        Some(text) => Err(AskError::Refused { path: path.to_owned(), text: text.to_owned() }),
        None => Ok(answer),
    }
}

/// Send one line, get one line.
fn ask(path: &Path, request: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(limits::ADMIN_ANSWER_BYTES_MAX as u64)).read_line(&mut line)?;
    match line.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(line),
    }
}

/// What an error of the system means here.
pub(super) fn explain(path: &Path, timeout: Duration, source: io::Error) -> AskError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::Nobody { path, source }
        }
        io::ErrorKind::PermissionDenied => AskError::NotAllowed { path, source },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::Silent { path, seconds: timeout.as_secs() }
        }
        _ => AskError::Io { path, source },
    }
}
