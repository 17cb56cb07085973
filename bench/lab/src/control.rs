//! tor's control port (control-spec): commands, and descriptors as tor's own client sees them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::socks::Stream;

/// Where a control port is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlAddress {
    /// On loopback.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// More HSDirs than a descriptor can have in both time periods.
const HSDIRS_MAX: usize = 64;

/// A conversation.
pub struct Control {
    /// What tor says.
    reader: BufReader<Stream>,
    /// What we say.
    writer: Stream,
    /// Events that came and that nobody has asked for yet.
    events: Vec<String>,
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
        let mut control = Control { reader: BufReader::new(stream), writer, events: Vec::new() };
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
            // Events may come in between; `event` looks at them later.
            if code == "650" {
                self.events.push(text);
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

    /// Have tor fetch a descriptor from the HSDirs; the document, as tor accepted it.
    ///
    /// # Errors
    /// When no HSDir has one that tor accepts.
    pub fn fetch_descriptor(&mut self, onion: &str) -> Result<String> {
        let address = onion.trim_end_matches(".onion");
        self.command("SETEVENTS HS_DESC HS_DESC_CONTENT")?;
        self.command(&format!("HSFETCH {address}"))?;
        // tor asks one HSDir for a command, and remembers whom it has asked.
        for _ in 0..HSDIRS_MAX {
            let event = self.event(|text| {
                let ours = text.contains(address);
                ours && (text.starts_with("HS_DESC FAILED") || text.starts_with("HS_DESC_CONTENT"))
            })?;
            if let Some(reason) = event.strip_prefix("HS_DESC FAILED") {
                if reason.contains("REASON=QUERY_NO_HSDIR") {
                    break;
                }
                self.command(&format!("HSFETCH {address}"))?;
                continue;
            }
            // After a failure comes an empty one.
            let document = event.split_once('\n').map_or("", |(_, document)| document).trim();
            if !document.is_empty() {
                return Ok(document.to_owned());
            }
        }
        bail!("no HSDir has a descriptor of {onion} that tor accepts")
    }

    /// Make tor forget descriptors and circuits, and wait until it has: it may put it off for 10 s.
    ///
    /// # Errors
    /// When tor does not do it.
    pub fn new_identity(&mut self) -> Result<()> {
        self.command("SETEVENTS SIGNAL")?;
        self.command("SIGNAL NEWNYM")?;
        self.event(|text| text == "SIGNAL NEWNYM").map(|_| ())
    }

    /// Wait for an event that is wanted.
    fn event(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(index) = self.events.iter().position(|text| wanted(text)) {
                return Ok(self.events.swap_remove(index));
            }
            let (code, _, text) = self.reply_line().context("tor tells no such event")?;
            if code == "650" {
                self.events.push(text);
            }
        }
        bail!("tor tells no such event")
    }
}
