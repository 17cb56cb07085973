//! A conversation with a C tor daemon's control port (control-spec, version 1).
//!
//! ```text
//!   AUTHENTICATE cookie --> commands, each with one reply
//!                       '-> 650 events between them: those of introduction circuits are noted
//! ```
//!
//! Used by [`super::daemon`]. Every read is bounded in bytes and in time. What cannot be understood
//! ends the conversation; nothing of it is in an error but the code and the text of a refusal.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::lines::Lines;
use crate::limits;

/// Bytes of a control port's cookie.
const COOKIE_BYTES: usize = 32;

/// A conversation.
#[derive(Debug)]
pub struct Control {
    /// What tor says; we write to the same socket.
    lines: Lines<BufReader<UnixStream>>,
    /// An event of an introduction circuit has come since the last look.
    intro_changed: bool,
}

/// Why there is no conversation, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket.
    #[error("cannot {action} the control port {path}: {source}", path = .path.display())]
    Socket {
        /// What was done.
        action: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The cookie is not there, or not one.
    #[error("there is no cookie in {path}", path = .path.display())]
    Cookie {
        /// Its file.
        path: PathBuf,
    },
    /// tor has closed it, or the system has.
    #[error("the control port is closed: {0}")]
    Closed(#[from] io::Error),
    /// It does not answer in time.
    #[error("the control port does not answer")]
    Silent,
    /// A reply that is none, or that is too long.
    #[error("the control port says what is no reply")]
    Malformed,
    /// tor says no.
    #[error("tor refuses {command}: {code} {text}")]
    Refused {
        /// The first word of what it was asked.
        command: String,
        /// Its code.
        code: String,
        /// Why.
        text: String,
    },
}

/// One line of a reply, with its data.
struct ReplyLine {
    /// Three digits.
    code: String,
    /// Whether the reply ends with it.
    last: bool,
    /// The rest, and each line of data below it.
    text: String,
}

impl Control {
    /// Connect to the unix socket `path` and log in with the cookie that lies in `cookie`.
    ///
    /// # Errors
    /// [`ControlError`]; a daemon that has just been started is not there yet.
    pub async fn connect(path: &Path, cookie: &Path) -> Result<Control, ControlError> {
        let failed =
            |action, source| ControlError::Socket { action, path: path.to_owned(), source };
        let socket =
            UnixStream::connect(path).await.map_err(|error| failed("connect to", error))?;
        let lines = Lines::new(BufReader::new(socket), limits::CTOR_LINE_BYTES_MAX);
        let mut control = Control { lines, intro_changed: false };
        let bytes = std::fs::read(cookie).map(Zeroizing::new);
        let bytes = bytes.ok().filter(|bytes| bytes.len() == COOKIE_BYTES);
        let bytes = bytes.ok_or_else(|| ControlError::Cookie { path: cookie.to_owned() })?;
        let mut login = Zeroizing::new(String::from("AUTHENTICATE "));
        for byte in bytes.iter() {
            for digit in [byte >> 4, byte & 15] {
                login.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        control.command(&login).await?;
        Ok(control)
    }

    /// Send a command, and wait for its reply: the text of each line, without its code, data below
    /// it.
    ///
    /// # Errors
    /// [`ControlError`]; only [`ControlError::Refused`] leaves a conversation that can go on.
    pub async fn command(&mut self, command: &str) -> Result<Vec<String>, ControlError> {
        let patience = Duration::from_millis(limits::CTOR_ANSWER_MS_MAX);
        let answered = tokio::time::timeout(patience, self.exchange(command)).await;
        answered.unwrap_or(Err(ControlError::Silent))
    }

    /// Wait until an introduction circuit has come up or gone. Dropping the call loses nothing.
    ///
    /// # Errors
    /// When the conversation has ended.
    pub async fn intro_circuit(&mut self) -> Result<(), ControlError> {
        while !std::mem::take(&mut self.intro_changed) {
            let line = self.line().await?;
            if !line.starts_with("650") {
                return Err(ControlError::Malformed);
            }
            self.note_event(&line);
        }
        Ok(())
    }

    /// [`Control::command`], for however long it takes.
    async fn exchange(&mut self, command: &str) -> Result<Vec<String>, ControlError> {
        let writer = self.lines.reader_mut();
        writer.write_all(command.as_bytes()).await?;
        writer.write_all(b"\r\n").await?;
        writer.flush().await?;
        let (mut texts, mut bytes) = (Vec::new(), 0);
        loop {
            let line = self.reply_line().await?;
            if line.code == "650" {
                continue;
            }
            if !line.code.starts_with('2') {
                let command = command.split(' ').next().unwrap_or_default().to_owned();
                let text = line.text.chars().take(limits::CTOR_REFUSAL_CHARS_MAX).collect();
                return Err(ControlError::Refused { command, code: line.code, text });
            }
            bytes += line.text.len();
            if bytes > limits::CTOR_REPLY_BYTES_MAX {
                return Err(ControlError::Malformed);
            }
            texts.push(line.text);
            if line.last {
                return Ok(texts);
            }
        }
    }

    /// One line of a reply, or an event.
    async fn reply_line(&mut self) -> Result<ReplyLine, ControlError> {
        let line = self.line().await?;
        self.note_event(&line);
        let Some((code, rest)) = line.split_at_checked(3) else {
            return Err(ControlError::Malformed);
        };
        let Some((kind, text)) = rest.split_at_checked(1) else {
            return Err(ControlError::Malformed);
        };
        let mut text = text.to_owned();
        if kind == "+" {
            loop {
                let data = self.line().await?;
                if data == "." {
                    break;
                }
                text.push('\n');
                // A dot at the beginning comes twice.
                text.push_str(data.strip_prefix('.').unwrap_or(&data));
                if text.len() > limits::CTOR_REPLY_BYTES_MAX {
                    return Err(ControlError::Malformed);
                }
            }
        }
        Ok(ReplyLine { code: code.to_owned(), last: kind == " ", text })
    }

    /// Remember that an introduction circuit has changed, if that is what a line says.
    fn note_event(&mut self, line: &str) {
        if line.starts_with("650 CIRC ") && line.contains("PURPOSE=HS_SERVICE_INTRO") {
            self.intro_changed = true;
        }
    }

    /// One line.
    async fn line(&mut self) -> Result<String, ControlError> {
        let line = self.lines.next().await?;
        line.ok_or_else(|| ControlError::Closed(io::ErrorKind::UnexpectedEof.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{UnixListener, UnixStream};

    use super::{Control, ControlError};

    /// Something in a daemon's place.
    struct Stage {
        /// Goes away with this.
        directory: tempfile::TempDir,
        /// Where it listens.
        listener: UnixListener,
    }

    impl Stage {
        /// With a cookie.
        fn new() -> Stage {
            let directory = tempfile::tempdir().expect("a temporary directory");
            std::fs::write(directory.path().join("cookie"), [0xab; 32]).expect("it is ours");
            let listener = UnixListener::bind(directory.path().join("c")).expect("a short path");
            Stage { directory, listener }
        }

        /// A path in it.
        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        /// Both ends of a conversation that has logged in.
        async fn both(&self) -> (Control, UnixStream) {
            let (path, cookie) = (self.path("c"), self.path("cookie"));
            let server = async {
                let (mut socket, _) = self.listener.accept().await.expect("somebody connects");
                let mut login = vec![0; "AUTHENTICATE ".len() + 64 + 2];
                socket.read_exact(&mut login).await.expect("it logs in");
                assert_eq!(login, format!("AUTHENTICATE {}\r\n", "ab".repeat(32)).into_bytes());
                socket.write_all(b"250 OK\r\n").await.expect("it is open");
                socket
            };
            let (control, server) = tokio::join!(Control::connect(&path, &cookie), server);
            (control.expect("it logs in"), server)
        }
    }

    #[tokio::test]
    async fn data_events_and_refusals_are_told_apart() {
        let stage = Stage::new();
        let (mut control, mut server) = stage.both().await;
        let answer =
            b"650 CIRC 7 BUILT $A PURPOSE=HS_SERVICE_INTRO HS_STATE=A\r\n250+a=\r\none\r\n\
                       ..two\r\n.\r\n250-b=c\r\n250 OK\r\n";
        server.write_all(answer).await.expect("it is open");
        assert_eq!(
            control.command("GETINFO a b").await.expect("it answers"),
            ["a=\none\n.two", "b=c", "OK"]
        );
        control.intro_circuit().await.expect("it was told before");
        server.write_all(b"650 CIRC 8 CLOSED PURPOSE=GENERAL\r\n552 no\r\n").await.expect("open");
        let error = control.command("GETINFO secret").await.expect_err("it refuses");
        assert_eq!(error.to_string(), "tor refuses GETINFO: 552 no");
        server.write_all(b"650 CIRC 9 CLOSED PURPOSE=HS_SERVICE_INTRO\r\n").await.expect("open");
        control.intro_circuit().await.expect("it goes on after a refusal");
        drop(server);
        let error = control.intro_circuit().await.expect_err("it is over");
        assert!(matches!(error, ControlError::Closed(_)), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_reply_ends_it_and_endless_data_does_too() {
        let stage = Stage::new();
        for nonsense in ["x\r\n".to_owned(), "250\r\n".to_owned(), "y".repeat(1 << 20)] {
            let (mut control, mut server) = stage.both().await;
            let writing = async {
                // Nobody listens to the end of it.
                let _ = server.write_all(nonsense.as_bytes()).await;
                std::future::pending().await
            };
            let answer = tokio::select! {
                answer = control.command("GETINFO a") => answer,
                never = writing => never,
            };
            assert!(matches!(answer, Err(ControlError::Malformed | ControlError::Closed(_))));
        }
        let (mut control, mut server) = stage.both().await;
        let endless = async {
            let _ = server.write_all(b"250+a=\r\n").await;
            while server.write_all(b"more and more\r\n").await.is_ok() {}
        };
        tokio::select! {
            answer = control.command("GETINFO a") => {
                assert!(matches!(answer, Err(ControlError::Malformed)), "{answer:?}");
            }
            () = endless => panic!("it is read to its end"),
        }
    }

    #[tokio::test]
    async fn a_cookie_that_is_none_is_an_error() {
        let stage = Stage::new();
        std::fs::write(stage.path("cookie"), "short").expect("it is ours");
        let error = Control::connect(&stage.path("c"), &stage.path("cookie")).await;
        assert!(matches!(error, Err(ControlError::Cookie { .. })), "{error:?}");
    }
}
