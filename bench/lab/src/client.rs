//! A C tor client, and requests through it.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Lab;
use crate::control::{Control, ControlAddress};
use crate::keeper::Process;
use crate::node::{self, Side};
use crate::socks;
pub use crate::socks::{SocksAddress, Stream};

/// How long a client may take to bootstrap.
const BOOTSTRAP_SECONDS_MAX: u64 = 120;

/// How long one request may wait for the next byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A running C tor client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    /// Its SOCKS port.
    socks: SocksAddress,
    /// Its control port.
    control: ControlAddress,
    /// Its process.
    process: Process,
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
    /// The C tor client of this name, ready to be used; it is started where it does not run yet.
    /// Other processes have clients of their own, except those that have joined the same lab.
    ///
    /// # Errors
    /// When the name is no name, or it does not start.
    pub fn client(&self, name: &str) -> Result<Client> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            bail!("{name:?} is no name for a client: use letters, digits, - and _");
        }
        // Held while it starts: whoever asks for the same one waits for it.
        let mut clients =
            self.clients.lock().map_err(|_| anyhow::anyhow!("a client's start panicked"))?;
        let record = self.dir().join(format!("client-{name}.json"));
        let known = clients.get(name).cloned().or_else(|| {
            let text = std::fs::read(&record).ok().filter(|_| self.lasting)?;
            serde_json::from_slice(&text).ok()
        });
        if let Some(client) = known
            && client.process.runs()
        {
            return Ok(client);
        }
        let client = self.client_with(name, "")?;
        if self.lasting {
            std::fs::write(&record, serde_json::to_vec(&client)?)
                .with_context(|| format!("cannot write {}", record.display()))?;
        }
        clients.insert(name.to_owned(), client.clone());
        Ok(client)
    }

    /// Start another C tor client, with further lines in its torrc.
    ///
    /// # Errors
    /// When it does not start.
    pub fn client_with(&self, name: &str, extra: &str) -> Result<Client> {
        let dir = self.new_directory(&format!("client-{name}"))?;
        // Unix sockets can be reached from another network namespace.
        let mut torrc = match &self.record().namespaces {
            None => {
                "SocksPort 127.0.0.1:auto IsolateSOCKSAuth\nControlPort 127.0.0.1:auto\n".to_owned()
            }
            Some(namespaces) => format!(
                "SocksPort unix:{dir}/socks IsolateSOCKSAuth\nControlPort unix:{dir}/control\n\
                 OutboundBindAddress {}\n",
                namespaces.add_service_address()?,
                dir = dir.display(),
            ),
        };
        torrc.push_str("GeoIPFile /dev/null\nGeoIPv6File /dev/null\n");
        torrc.push_str(extra);
        torrc.push('\n');
        torrc.push_str(&self.record().dir_authorities);
        node::write_torrc(&dir, &torrc)?;
        let mut progress = self.progress(&format!("client {name}"), 5);
        progress.tell("starting");
        let namespaces = self.record().namespaces.as_ref();
        let mut child = node::start(self.keeper(), namespaces, Side::Services, &dir)?;
        node::wait_for_log(&dir, &mut child, "Bootstrapped 100%", BOOTSTRAP_SECONDS_MAX)?;
        progress.done("bootstrapped");
        let process = Process::of(child.id()).context("the client ended")?;
        let (socks, control) = match namespaces {
            None => (
                SocksAddress::Tcp(node::listener(&dir, "Socks")?),
                ControlAddress::Tcp(node::listener(&dir, "Control")?),
            ),
            Some(_) => {
                (SocksAddress::Unix(dir.join("socks")), ControlAddress::Unix(dir.join("control")))
            }
        };
        Ok(Client { socks, control, process })
    }
}

impl Client {
    /// Its SOCKS port.
    pub fn socks(&self) -> &SocksAddress {
        &self.socks
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid
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

    /// Send a command to the control port; the lines of the answer, without their codes.
    ///
    /// # Errors
    /// When tor says no.
    pub fn control_command(&self, command: &str) -> Result<Vec<String>> {
        self.control()?.command(command)
    }

    /// Have this tor fetch a descriptor from the HSDirs; the document, as tor accepted it.
    ///
    /// # Errors
    /// When no HSDir has one that tor accepts.
    pub fn hs_fetch_descriptor(&self, onion: &str) -> Result<String> {
        self.control()?.fetch_descriptor(onion)
    }

    /// Make this tor forget all descriptors, and use no circuit again that it has. Takes up to
    /// 10 s, since tor does not do it more often.
    ///
    /// # Errors
    /// When tor does not.
    pub fn forget_descriptors(&self) -> Result<()> {
        self.control()?.new_identity()
    }

    /// Open a stream, on circuits that `user` alone has.
    ///
    /// # Errors
    /// When tor cannot.
    pub fn stream(&self, host: &str, port: u16, user: &str) -> Result<Stream> {
        socks::connect(&self.socks, host, port, user, REQUEST_TIMEOUT)
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
