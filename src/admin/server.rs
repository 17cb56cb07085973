//! The server's side of the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{BackendRequest, CircuitId, StatusSource, Verdict, VerdictRequest, succession};
use crate::base::repeats::Repeats;
use crate::base::socket_file::{self, SocketFile};
use crate::base::stream::NoCircuitId;
use crate::limits;
use crate::runtime;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Somebody answers there already.
    #[error("the admin socket {path} is in use; name another one as [admin] socket")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is something else, which is not ours to remove.
    #[error("{path} is there and is no socket; name another path as [admin] socket")]
    NotASocket {
        /// The path.
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
    /// The published descriptors.
    Descriptor,
    /// What the HSDirs hold.
    Verify {
        /// The name of a service; all of them by default.
        #[serde(default)]
        service: Option<String>,
    },
    /// Take backends out, or put them back.
    Backend(BackendRequest),
    /// Close a client's circuit, or say something of it.
    Circuit {
        /// The id of one that shall close.
        #[serde(default)]
        close: Option<String>,
        /// The id of one of which something is said.
        #[serde(default)]
        circuit: Option<String>,
        /// What.
        #[serde(default)]
        verdict: Verdict,
        /// For how long.
        #[serde(default)]
        seconds: u64,
    },
    /// Make room for a new process.
    Handover,
}

/// Connections that wait to be accepted.
const QUEUE: i32 = limits::ADMIN_CONNECTIONS_MAX as i32;

/// Whether a socket can be made at `path`, as far as that can be told without making it.
/// `in_state_dir`: its directory is the state directory, which is made later, and whose lock tells
/// of others. Nothing connects to a socket that is there.
///
/// # Errors
/// What [`serve`] would meet.
pub fn check(path: &Path, in_state_dir: bool) -> Result<(), AdminError> {
    let io_error = |action, source| AdminError::Io { action, path: path.to_owned(), source };
    // A path can be too long for a socket (unix(7): 107 bytes).
    std::os::unix::net::SocketAddr::from_pathname(path)
        .map_err(|source| io_error("name", source))?;
    match socket_file::is_socket(path).map_err(|source| io_error("look at", source))? {
        Some(false) => Err(AdminError::NotASocket { path: path.to_owned() }),
        _ if in_state_dir => Ok(()),
        Some(true) if socket_file::is_listened_on(path) => {
            Err(AdminError::InUse { path: path.to_owned() })
        }
        // Left by a process that has died, most likely; what else it is, `serve` will say.
        Some(true) => Ok(()),
        None => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            match std::fs::metadata(directory.unwrap_or(Path::new("."))) {
                Ok(found) if found.is_dir() => Ok(()),
                Ok(_) => Err(io_error("make", io::ErrorKind::NotADirectory.into())),
                Err(source) => Err(io_error("make", source)),
            }
        }
    }
}

/// Whose place a new socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody's, or that of a process that is dead.
    Free,
    /// That of the process that has handed over to us.
    Predecessor,
}

/// Answer requests for as long as the future is polled; the socket goes away with it.
///
/// # Errors
/// [`AdminError`], at the start.
pub async fn serve(
    path: &Path,
    place: Place,
    source: Arc<dyn StatusSource>,
) -> Result<(), AdminError> {
    let (listener, _file) = listen(path, place)?;
    let slots = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    let repeats = Repeats::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = Arc::clone(&source);
                runtime::spawn(async move {
                    if let Err(error) = talk(stream, &*source).await {
                        tracing::debug!("admin socket: {error}");
                    }
                    drop(slot);
                });
            }
            // No descriptor left, most likely: the service goes on, and so does this, later.
            Err(error) => {
                if let Some(more) = repeats.say() {
                    tracing::warn!("admin socket: {error}{more}");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Bind the socket, for our own user alone; one that a dead process left is replaced.
pub(super) fn listen(path: &Path, place: Place) -> Result<(UnixListener, SocketFile), AdminError> {
    let io_error = |action, source| AdminError::Io { action, path: path.to_owned(), source };
    make_room(path, place)?;
    let (socket, file) = SocketFile::bind(path).map_err(|source| io_error("bind", source))?;
    let listener = socket.listen(QUEUE).and_then(|()| socket.set_nonblocking(true));
    let listener = listener.and_then(|()| UnixListener::from_std(socket.into()));
    Ok((listener.map_err(|source| io_error("listen on", source))?, file))
}

/// Remove a socket that nobody listens on, or that of our predecessor; leave everything else alone.
fn make_room(path: &Path, place: Place) -> Result<(), AdminError> {
    let io_error = |action, source| AdminError::Io { action, path: path.to_owned(), source };
    let look = |source| io_error("look at", source);
    match socket_file::is_socket(path).map_err(look)? {
        None => return Ok(()),
        Some(false) => return Err(AdminError::NotASocket { path: path.to_owned() }),
        Some(true) => {}
    }
    if place == Place::Free && socket_file::is_in_use(path).map_err(look)? {
        return Err(AdminError::InUse { path: path.to_owned() });
    }
    std::fs::remove_file(path).map_err(|source| io_error("replace", source))
}

/// Say something of a circuit.
fn said(
    source: &dyn StatusSource,
    circuit: CircuitId,
    verdict: Verdict,
    seconds: u64,
) -> serde_json::Result<Vec<u8>> {
    if seconds > limits::VERDICT_SECONDS_MAX {
        let most = limits::VERDICT_SECONDS_MAX;
        return error_text(&format!("{seconds} seconds are too long: at most {most}"));
    }
    let lifetime = Duration::from_secs(seconds);
    match source.set_verdict(&VerdictRequest { circuit, verdict, lifetime }) {
        0 => error_text("no such circuit is open, or as many as may be are banned already"),
        _ => serde_json::to_vec(&serde_json::json!({ "said": true })),
    }
}

/// What takes longer than an answer.
enum Longer<'source> {
    /// A hand-over to a new process.
    Handover(&'source dyn succession::Succession),
    /// A check of what the HSDirs of a service hold.
    Verify(Option<String>),
}

/// Answer one request, or hand over to a new process.
async fn talk(stream: UnixStream, source: &dyn StatusSource) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(limits::ADMIN_REQUEST_BYTES_MAX as u64));
    let answered = async {
        let mut line = String::new();
        read.read_line(&mut line).await?;
        let mut text = match serde_json::from_str(&line) {
            Ok(Request::Status) => serde_json::to_vec(&source.status())?,
            Ok(Request::Descriptor) => serde_json::to_vec(&source.descriptors())?,
            Ok(Request::Verify { service }) => return Ok(Some(Longer::Verify(service))),
            Ok(Request::Backend(request)) => match source.order_backend(&request) {
                0 => error_text(&format!("there is no such backend as {}", request.address))?,
                changed => serde_json::to_vec(&serde_json::json!({ "changed": changed }))?,
            },
            Ok(Request::Circuit { close: Some(close), .. }) => match close.parse::<CircuitId>() {
                Ok(circuit) if source.close_circuit(circuit).await => {
                    serde_json::to_vec(&serde_json::json!({ "closed": true }))?
                }
                Ok(_) => error_text(&format!("there is no open circuit {close}"))?,
                Err(error) => error_text(&error.to_string())?,
            },
            Ok(Request::Circuit { circuit, verdict, seconds, .. }) => {
                match circuit.unwrap_or_default().parse() {
                    Ok(circuit) => said(source, circuit, verdict, seconds)?,
                    Err(error) => error_text(&NoCircuitId::to_string(&error))?,
                }
            }
            Ok(Request::Handover) => match source.succession() {
                Some(succession) => return Ok(Some(Longer::Handover(succession))),
                None => error_text("nothing can be handed over here")?,
            },
            Err(error) => error_text(&error.to_string())?,
        };
        text.push(b'\n');
        write.write_all(&text).await?;
        write.shutdown().await.map(|()| None)
    };
    let deadline = Duration::from_secs(limits::ADMIN_SECONDS_MAX);
    let timed_out = |_| Err(io::ErrorKind::TimedOut.into());
    let answered = tokio::time::timeout(deadline, answered).await.unwrap_or_else(timed_out);
    match answered? {
        Some(Longer::Handover(succession)) => succession::converse(read, write, succession).await,
        Some(Longer::Verify(service)) => {
            let name = service.clone();
            let found = source.verify(service).await;
            let mut text = match (name, found.is_empty()) {
                (Some(name), true) => error_text(&format!("there is no service {name}"))?,
                _ => serde_json::to_vec(&found)?,
            };
            text.push(b'\n');
            let answered = async {
                write.write_all(&text).await?;
                write.shutdown().await
            };
            let too_long = |_| Err(io::ErrorKind::TimedOut.into());
            tokio::time::timeout(deadline, answered).await.unwrap_or_else(too_long)
        }
        None => Ok(()),
    }
}

/// The answer that says what is wrong.
fn error_text(error: &str) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&serde_json::json!({ "error": error }))
}
