//! tor's control port (control-spec): commands, and descriptors as tor's own client sees them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::socks::Stream;

/// Where a control port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAddress {
    /// On loopback.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A conversation.
pub struct Control {
    /// What tor says.
    reader: BufReader<Stream>,
    /// What we say.
    writer: Stream,
}

impl Control {
    /// Connect and log in with the cookie.
    pub(crate) fn connect(address: &ControlAddress) -> Result<Control> {
        let stream = match address {
            ControlAddress::Tcp(address) => {
                Stream::Tcp(TcpStream::connect_timeout(address, TIMEOUT)?)
            }
            ControlAddress::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        stream.set_timeout(TIMEOUT)?;
        let writer = stream.try_clone()?;
        let mut control = Control { reader: BufReader::new(stream), writer };
        let info = control.command("PROTOCOLINFO 1")?.join("\n");
        let cookie = info.split("COOKIEFILE=\"").nth(1).and_then(|rest| rest.split('"').next());
        let cookie = std::fs::read(cookie.context("tor names no cookie")?)?;
        let hex: String = cookie.iter().map(|byte| format!("{byte:02x}")).collect();
        control.command(&format!("AUTHENTICATE {hex}"))?;
        Ok(control)
    }

    /// Send a command; the lines of the answer, without their codes.
    ///
    /// # Errors
    /// When tor says no.
    pub fn command(&mut self, command: &str) -> Result<Vec<String>> {
        self.writer.write_all(format!("{command}\r\n").as_bytes())?;
        let mut lines = Vec::new();
        loop {
            let (code, last, text) = self.reply_line()?;
            // Asynchronous events may come in between; whoever wants them uses `event`.
            if code == "650" {
                continue;
            }
            if !code.starts_with('2') {
                bail!("tor answers {command:?} with {code} {text}");
            }
            lines.push(text);
            if last {
                return Ok(lines);
            }
        }
    }

    /// One reply line: its code, whether it is the last, its text with any data that follows.
    fn reply_line(&mut self) -> Result<(String, bool, String)> {
        let line = self.line()?;
        let (code, rest) = line.split_at_checked(3).context("a short line from tor")?;
        let mut text = rest.get(1..).unwrap_or_default().to_owned();
        let last = rest.starts_with(' ');
        if rest.starts_with('+') {
            loop {
                let data = self.line()?;
                if data == "." {
                    break;
                }
                text.push('\n');
                text.push_str(&data);
            }
        }
        Ok((code.to_owned(), last, text))
    }

    /// One line.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("tor closed the control connection");
        }
        Ok(line.trim_end().to_owned())
    }

    /// `Some` when tor has a microdescriptor of every relay in its consensus.
    pub(crate) fn knows_every_relay(&mut self) -> Result<Option<()>> {
        let count = |lines: Vec<String>, start: &str| {
            lines
                .iter()
                .flat_map(|text| text.lines())
                .filter(|line| line.starts_with(start))
                .count()
        };
        let relays = count(self.command("GETINFO ns/all")?, "r ");
        let described = count(self.command("GETINFO md/all")?, "onion-key");
        Ok((relays > 0 && described >= relays).then_some(()))
    }

    /// Have tor fetch a descriptor from the HSDirs; the document, as tor accepted it.
    ///
    /// # Errors
    /// When tor finds none, or refuses what it finds.
    pub fn fetch_descriptor(&mut self, onion: &str) -> Result<String> {
        let address = onion.trim_end_matches(".onion");
        self.command("SETEVENTS HS_DESC HS_DESC_CONTENT")?;
        self.command(&format!("HSFETCH {address}"))?;
        loop {
            let (code, _, text) = self.reply_line()?;
            if code != "650" {
                continue;
            }
            if text.starts_with("HS_DESC_CONTENT") {
                let document = text.split_once('\n').map(|(_, rest)| rest.trim().to_owned());
                match document {
                    Some(document) if !document.is_empty() => return Ok(document),
                    // An HSDir that did not have it; tor asks the next one.
                    _ => continue,
                }
            }
        }
    }

    /// The nickname of the relay at which tor introduces itself during `request`.
    ///
    /// # Errors
    /// When the request fails, or tor builds no circuit to an introduction point for it.
    pub fn introduction_point(&mut self, request: impl FnOnce() -> Result<()>) -> Result<String> {
        self.command("SETEVENTS CIRC")?;
        request()?;
        loop {
            let (_, _, text) = self.reply_line()?;
            // CIRC number BUILT $fingerprint~nickname,... PURPOSE=... (control-spec 4.1.1).
            let mut fields = text.split(' ');
            if fields.nth(2) == Some("BUILT") && text.contains("PURPOSE=HS_CLIENT_INTRO") {
                let point = fields.next().and_then(|path| path.rsplit('~').next());
                return Ok(point.context("a circuit without relays")?.to_owned());
            }
        }
    }

    /// Make tor forget descriptors and circuits.
    ///
    /// # Errors
    /// When tor does not answer.
    pub fn new_identity(&mut self) -> Result<()> {
        self.command("SIGNAL NEWNYM").map(|_| ())
    }
}
