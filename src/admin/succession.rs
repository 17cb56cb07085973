//! One process takes over from another: both sides of their conversation on the admin socket.
//!
//! ```text
//!   new process                         old process
//!   {"command":"handover"}       ->     serves and publishes
//!                                <-     {"handover":"offered","state_dir":"...",
//!                                        "creates":25,"rest_ms":0}
//!   ... gets a directory and introduction points ...
//!   {"handover":"take"}          ->     publishes no more, unlocks the state directory
//!                                <-     {"handover":"yours"}
//!   ... publishes ...
//!   {"handover":"published"}     ->     serves who still comes to its points, then ends
//!                                <-     {"handover":"leaving"}
//!                                <-     {"handover":"draining"}, once its points close
//!                                <-     (the connection ends with the process)
//! ```
//!
//! Until that end both build circuits slowly, since a guard that sees two links from one address
//! refuses circuits that come fast. A connection that ends before `published`, or takes too long,
//! changes nothing: the old process goes on.

use std::io::{self, BufRead as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::client::AskError;
use crate::limits;

/// A running service as its successor sees it: what is asked of it, in this order.
pub trait Succession: Send + Sync + 'static {
    /// Somebody wants to take over: what the two will share.
    ///
    /// # Errors
    /// Why that cannot be now, in one sentence.
    fn offer(&self) -> Result<Offer, String>;

    /// Publish no more, and let go of the state directory.
    ///
    /// # Errors
    /// Why that cannot be, in one sentence; it goes on as before.
    fn yield_state(&self) -> Result<(), String>;

    /// The successor has published: serve who still comes, then end.
    fn leave(&self);

    /// Ready once it takes no new client, after [`Succession::leave`].
    fn drains(&self) -> BoxFuture<'static, ()>;

    /// The successor is gone and has not published: go on as before.
    ///
    /// # Errors
    /// When the successor still holds the state directory.
    fn go_on(&self) -> Result<(), String>;
}

/// What two processes share while one takes over from the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The state directory, which the old process holds.
    pub state_dir: PathBuf,
    /// Circuits that the new process may ask of each guard at once: a guard sees one address with
    /// two links, and refuses circuits of both if there are too many.
    #[serde(default)]
    pub creates: u64,
    /// It waits for so long before it opens its first link: guards have just made many circuits.
    #[serde(default)]
    pub rest_ms: u64,
}

/// What the new process asks, after `{"command":"handover"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "handover", rename_all = "lowercase")]
enum Ask {
    /// Publish no more: the state directory is about to be ours.
    Take,
    /// Our descriptors are on their HSDirs.
    Published,
}

/// What the old process answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "handover", rename_all = "lowercase")]
enum Answer {
    /// It can be taken over.
    Offered(Offer),
    /// It publishes no more, and the state directory is free.
    Yours,
    /// It will end.
    Leaving,
    /// Its points close: new clients come to the successor alone.
    Draining,
}

/// How long the old process waits before it looks again whether the state directory is free.
const GO_ON_LOOK: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 200 });
/// How often it looks: a process that holds the directory for so long is alive, and serves.
const GO_ON_LOOKS_MAX: usize = 300;

// ---------- the old process ----------

/// Talk to a successor that has said `{"command":"handover"}`, to the end.
pub(super) async fn converse(
    mut read: impl AsyncBufRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    old: &dyn Succession,
) -> io::Result<()> {
    let offer = match old.offer() {
        Ok(offer) => offer,
        Err(error) => return refuse(&mut write, &error).await,
    };
    let deadline = Duration::from_secs(limits::HANDOVER_SECONDS_MAX);
    let dialogue = dialogue(&mut read, &mut write, old, offer);
    let published = matches!(tokio::time::timeout(deadline, dialogue).await, Ok(Ok(())));
    if published {
        old.leave();
        say(&mut write, &Answer::Leaving).await?;
        tokio::select! {
            ended = until_end(&mut read) => return ended,
            () = old.drains() => say(&mut write, &Answer::Draining).await?,
        }
        // The connection lasts as long as this process: by its end the other knows of ours.
        return until_end(&mut read).await;
    }
    // The other process is ending; until it has, it may still publish.
    for _ in 0..GO_ON_LOOKS_MAX {
        match old.go_on() {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!("the new process is silent: {error}"),
        }
        tokio::time::sleep(GO_ON_LOOK).await;
    }
    old.leave();
    Ok(())
}

/// The part until the successor has published.
async fn dialogue(
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    old: &dyn Succession,
    offer: Offer,
) -> io::Result<()> {
    say(write, &Answer::Offered(offer)).await?;
    expect(read, Ask::Take).await?;
    if let Err(error) = old.yield_state() {
        refuse(write, &error).await?;
        return Err(io::Error::other(error));
    }
    say(write, &Answer::Yours).await?;
    expect(read, Ask::Published).await
}

/// Read what has to come next.
async fn expect(read: &mut (impl AsyncBufRead + Unpin), ask: Ask) -> io::Result<()> {
    let mut line = String::new();
    read.read_line(&mut line).await?;
    match serde_json::from_str::<Ask>(&line) {
        Ok(asked) if asked == ask => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Wait until the other side has ended.
async fn until_end(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    loop {
        let length = read.fill_buf().await?.len();
        if length == 0 {
            return Ok(());
        }
        read.consume(length);
    }
}

/// Say one line.
async fn say(write: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Say why not.
async fn refuse(write: &mut (impl AsyncWrite + Unpin), why: &str) -> io::Result<()> {
    say(write, &serde_json::json!({ "error": why })).await
}

// ---------- the new process ----------

/// The running service that this process takes over from.
#[derive(Debug)]
pub struct Predecessor {
    /// Its admin socket.
    path: PathBuf,
    /// The connection.
    stream: UnixStream,
    /// What it offers.
    pub offer: Offer,
}

impl Predecessor {
    /// Ask the service behind an admin socket whether it can be taken over. `None` when nobody
    /// answers there. Blocks.
    ///
    /// # Errors
    /// [`AskError`]: it cannot, and says why.
    pub fn find(path: &Path) -> Result<Option<Predecessor>, AskError> {
        let wait = Duration::from_secs(limits::ADMIN_SECONDS_MAX);
        let failed = |source| super::client::explain(path, wait, source);
        let mut stream = match UnixStream::connect(path).map_err(failed) {
            Ok(stream) => stream,
            Err(AskError::Nobody { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut line = String::new();
        let mut talk = || {
            stream.set_read_timeout(Some(wait))?;
            stream.set_write_timeout(Some(wait))?;
            stream.write_all(b"{\"command\":\"handover\"}\n")?;
            // It says one line, and waits for ours: nothing is read ahead.
            io::BufReader::new(&stream).read_line(&mut line)?;
            stream.set_nonblocking(true)
        };
        talk().map_err(failed)?;
        match understand(path, &line)? {
            Answer::Offered(offer) => {
                Ok(Some(Predecessor { path: path.to_owned(), stream, offer }))
            }
            other => Err(strange(path, &other)),
        }
    }

    /// Talk on, on the control core.
    ///
    /// # Errors
    /// When the runtime does not take the connection.
    pub fn wake(self) -> io::Result<Heir> {
        let stream = tokio::net::UnixStream::from_std(self.stream)?;
        Ok(Heir { path: self.path, stream: tokio::io::BufReader::new(stream) })
    }
}

/// The new process in the middle of its conversation with the old one.
#[derive(Debug)]
pub struct Heir {
    /// The old one's admin socket.
    path: PathBuf,
    /// The connection.
    stream: tokio::io::BufReader<tokio::net::UnixStream>,
}

impl Heir {
    /// Have the old process stop publishing and let go of the state directory.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn take(&mut self) -> Result<(), AskError> {
        self.ask(Ask::Take, &Answer::Yours).await
    }

    /// Tell the old process that it can go.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn published(&mut self) -> Result<(), AskError> {
        self.ask(Ask::Published, &Answer::Leaving).await
    }

    /// Wait until the old process takes no new client, or has ended.
    pub async fn drains(&mut self) {
        let mut line = String::new();
        let _ = self.stream.read_line(&mut line).await;
    }

    /// Wait for the end of the old process.
    pub async fn ended(&mut self) {
        // A connection that fails has ended as well.
        let _ = until_end(&mut self.stream).await;
    }

    /// Ask something; there is one good answer.
    async fn ask(&mut self, ask: Ask, good: &Answer) -> Result<(), AskError> {
        let wait = Duration::from_secs(limits::ADMIN_SECONDS_MAX);
        let mut line = String::new();
        let talk = async {
            say(&mut self.stream, &ask).await?;
            self.stream.read_line(&mut line).await?;
            match line.is_empty() {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => Ok(()),
            }
        };
        let timed_out = |_| Err(io::ErrorKind::TimedOut.into());
        let talked = tokio::time::timeout(wait, talk).await.unwrap_or_else(timed_out);
        talked.map_err(|source| super::client::explain(&self.path, wait, source))?;
        match understand(&self.path, &line)? {
            answer if answer == *good => Ok(()),
            other => Err(strange(&self.path, &other)),
        }
    }
}

/// What a line of the old process means.
fn understand(path: &Path, line: &str) -> Result<Answer, AskError> {
    let path = path.to_owned();
    let refused = serde_json::from_str::<serde_json::Value>(line).ok();
    let refused = refused.as_ref().and_then(|answer| answer.get("error")?.as_str());
    match refused {
        Some(text) => Err(AskError::Refused { path, text: text.to_owned() }),
        None => serde_json::from_str(line).map_err(|source| AskError::Answer { path, source }),
    }
}

/// An answer to something else.
fn strange(path: &Path, answer: &Answer) -> AskError {
    AskError::Refused { path: path.to_owned(), text: format!("{answer:?}") }
}

#[cfg(test)]
mod tests;
