//! A C tor client, and requests through it.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::Lab;
use crate::control::{Control, ControlAddress};
use crate::node::{self, Side};
use crate::socks;
pub use crate::socks::{SocksAddress, Stream};
use crate::wait::{free_port, wait_until};

/// How long one request may take, unless said otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A running C tor client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its SOCKS port.
    socks: SocksAddress,
    /// Its control port.
    control: ControlAddress,
    /// Its process.
    pid: u32,
    /// How long it waits for each answer.
    timeout: Duration,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// From the first byte sent to tor to the first byte of the answer.
    pub first_byte: Duration,
    /// From the first byte sent to tor to the last of the answer.
    pub elapsed: Duration,
}

impl Response {
    /// The body's hash in hexadecimal.
    pub fn sha256(&self) -> String {
        sha256(&self.body)
    }
}

/// A hash in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// User names that were not used before, so that each gets fresh circuits.
pub fn fresh_user() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let turn = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{turn}", std::process::id())
}

impl Lab {
    /// Start a C tor client, and wait until it can be used.
    ///
    /// # Errors
    /// When it does not start.
    pub fn client(&self, name: &str) -> Result<Client> {
        self.client_with(name, "")
    }

    /// Start a C tor client with further lines in its torrc.
    ///
    /// # Errors
    /// When it does not start.
    pub fn client_with(&self, name: &str, extra: &str) -> Result<Client> {
        let dir = self.new_directory(&format!("client-{name}"))?;
        let (socks, control, mut torrc) = match &self.record().namespaces {
            None => {
                let (socks, control) = (free_port()?, free_port()?);
                let torrc = format!(
                    "SocksPort 127.0.0.1:{socks} IsolateSOCKSAuth\n\
                     ControlPort 127.0.0.1:{control}\n"
                );
                let local = |port: u16| ([127, 0, 0, 1], port).into();
                (SocksAddress::Tcp(local(socks)), ControlAddress::Tcp(local(control)), torrc)
            }
            Some(namespaces) => {
                let (socks, control) = (dir.join("socks"), dir.join("control"));
                let torrc = format!(
                    "SocksPort unix:{} IsolateSOCKSAuth\nControlPort unix:{}\n\
                     OutboundBindAddress {}\n",
                    socks.display(),
                    control.display(),
                    namespaces.add_service_address()?
                );
                (SocksAddress::Unix(socks), ControlAddress::Unix(control), torrc)
            }
        };
        torrc.push_str(extra);
        torrc.push('\n');
        torrc.push_str(&self.record().dir_authorities);
        node::write_torrc(&dir, &torrc)?;
        let mut progress = self.progress(&format!("client {name}"), 5);
        progress.tell("starting");
        let namespaces = self.record().namespaces.as_ref();
        let mut child = node::start(self.keeper(), namespaces, Side::Services, &dir)?;
        node::wait_for_log(&dir, &mut child, "Bootstrapped 100%", 90)?;
        let client = Client { socks, control, pid: child.id(), timeout: REQUEST_TIMEOUT };
        // With part of the directory it could build circuits, but not find every HSDir: it would
        // then wait for the next consensus with a fetch.
        progress.tell("reading the directory");
        let mut tor = client.control()?;
        wait_until("the whole directory", 90, || tor.knows_every_relay().transpose())??;
        progress.done("bootstrapped");
        Ok(client)
    }
}

impl Client {
    /// The same, which gives a request up after `timeout`.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Client {
        Client { timeout, ..self }
    }

    /// Its SOCKS port.
    pub fn socks(&self) -> &SocksAddress {
        &self.socks
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its control port is.
    pub fn control_address(&self) -> &ControlAddress {
        &self.control
    }

    /// A conversation with its control port.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn control(&self) -> Result<Control> {
        Control::connect(&self.control)
    }

    /// Open a stream, on circuits that `user` alone has.
    ///
    /// # Errors
    /// When tor cannot.
    pub fn stream(&self, host: &str, port: u16, user: &str) -> Result<Stream> {
        socks::connect(&self.socks, host, port, user, self.timeout)
    }

    /// Fetch `path` on circuits that `user` alone has.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn fetch(&self, host: &str, port: u16, path: &str, user: &str) -> Result<Response> {
        let started = Instant::now();
        let mut stream = self.stream(host, port, user)?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = vec![0; 64 * 1024];
        let first = stream.read(&mut answer).context("no answer")?;
        let first_byte = started.elapsed();
        answer.truncate(first);
        stream.read_to_end(&mut answer).context("the answer broke off")?;
        parse(&answer, first_byte, started.elapsed())
    }

    /// Fetch `path` on fresh circuits.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn fetch_fresh(&self, host: &str, port: u16, path: &str) -> Result<Response> {
        self.fetch(host, port, path, &fresh_user())
    }
}

/// Take an HTTP answer apart.
fn parse(answer: &[u8], first_byte: Duration, elapsed: Duration) -> Result<Response> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer has no head")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|code| code.parse().ok()).context("no status in the answer")?;
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let body = answer[end + 4..].to_vec();
    if let Some(length) = headers.get("content-length")
        && length.parse() != Ok(body.len())
    {
        bail!("the body has {} of {length} bytes", body.len());
    }
    Ok(Response { status, headers, body, first_byte, elapsed })
}

/// Write `bytes` random bytes to a file below `root`; its hash in hexadecimal.
///
/// # Errors
/// When the file cannot be written.
pub fn random_file(root: &Path, name: &str, bytes: usize) -> Result<String> {
    let mut content = vec![0_u8; bytes];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut content);
    let path: PathBuf = root.join(name);
    std::fs::write(&path, &content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(sha256(&content))
}
