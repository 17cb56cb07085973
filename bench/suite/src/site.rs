//! What every subject serves, and who asks for it: a private Tor network, two clients, an nginx for
//! downloads, a sink for uploads.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustbalance_lab::client::{fresh_user, random_file};
use rustbalance_lab::{Client, Lab, Nginx, Size};
use sha2::{Digest as _, Sha256};

/// The port of nginx on every subject's address.
pub const WEB: u16 = 80;
/// The port of the sink on every subject's address.
pub const SINK: u16 = 81;
/// Bytes of the small page.
pub const PAGE_BYTES: usize = 1000;

/// How long a client waits for an answer. A C tor client that has lost a circuit while it was being
/// introduced may take two minutes to notice; such a round is void either way.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything around the subjects.
pub struct Site {
    /// The network.
    pub lab: Lab,
    /// Those who ask. Two, because one C tor client is slower than what is measured.
    pub clients: Vec<Client>,
    /// The web server.
    nginx: Nginx,
    /// Where uploads go.
    sink: SocketAddr,
    /// What nginx serves.
    root: PathBuf,
    /// Hash of the small page.
    page: String,
    /// The rustbalance binary.
    pub rustbalance: PathBuf,
}

impl Site {
    /// Bring everything up, in the lab that `RUSTBALANCE_LAB_DIR` names or in a new one; takes half
    /// a minute.
    ///
    /// # Errors
    /// When a part does not start, or there is no binary.
    pub fn start(size: Size, rustbalance: &std::path::Path) -> Result<Site> {
        let rustbalance = std::fs::canonicalize(rustbalance)
            .with_context(|| format!("there is no {}", rustbalance.display()))?;
        let lab = Lab::shared(size)?;
        let root = lab.dir().join("www");
        std::fs::create_dir_all(&root)?;
        let page = random_file(&root, "page", PAGE_BYTES)?;
        let nginx = lab.nginx(&root)?;
        let client = |name| lab.client(name).map(|client| client.with_timeout(PATIENCE));
        let clients = vec![client("one")?, client("two")?];
        Ok(Site { lab, clients, nginx, sink: start_sink()?, root, page, rustbalance })
    }

    /// Where a subject leads its ports.
    pub fn targets(&self) -> [(u16, String); 2] {
        [(WEB, self.nginx.address.to_string()), (SINK, self.sink.to_string())]
    }

    /// A file of random bytes for download, made on first use: its path and hash.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn body(&self, bytes: usize) -> Result<(String, String)> {
        let name = format!("body-{bytes}");
        let hash_file = self.root.join(format!("{name}.sha256"));
        if let Ok(hash) = std::fs::read_to_string(&hash_file) {
            return Ok((format!("/{name}"), hash));
        }
        let hash = random_file(&self.root, &name, bytes)?;
        std::fs::write(&hash_file, &hash)?;
        Ok((format!("/{name}"), hash))
    }

    /// The client of this number, in turn.
    pub fn client(&self, number: usize) -> &Client {
        &self.clients[number % self.clients.len()]
    }

    /// Fetch the small page as a new client; how long until its first byte.
    ///
    /// # Errors
    /// When it does not arrive intact.
    pub fn fetch_page(&self, number: usize, onion: &str, user: &str) -> Result<Duration> {
        let answer = self.client(number).fetch(onion, WEB, "/page", user)?;
        ensure!(answer.sha256() == self.page, "the page arrived damaged");
        Ok(answer.first_byte)
    }

    /// Fetch a body and check its hash.
    ///
    /// # Errors
    /// When it does not arrive intact.
    pub fn download(
        &self,
        number: usize,
        onion: &str,
        user: &str,
        body: &(String, String),
    ) -> Result<()> {
        let answer = self.client(number).fetch(onion, WEB, &body.0, user)?;
        ensure!(answer.sha256() == body.1, "{} arrived damaged", body.0);
        Ok(())
    }

    /// Send so many random bytes to the sink, which has to answer with their hash.
    ///
    /// # Errors
    /// When the hash is another.
    pub fn upload(&self, number: usize, onion: &str, user: &str, bytes: usize) -> Result<()> {
        let mut stream = self.client(number).stream(onion, SINK, user)?;
        let mut chunk = vec![0_u8; 64 * 1024];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut chunk);
        let mut hash = Sha256::new();
        stream.write_all(&u64::try_from(bytes)?.to_be_bytes())?;
        let mut left = bytes;
        while left > 0 {
            let part = &chunk[..left.min(chunk.len())];
            hash.update(part);
            stream.write_all(part)?;
            left -= part.len();
        }
        let mut answer = [0_u8; 32];
        stream.read_exact(&mut answer).context("the sink did not answer")?;
        ensure!(answer[..] == hash.finalize()[..], "an upload arrived damaged");
        Ok(())
    }

    /// Build circuits for so many users, and give their names: what follows uses circuits that are
    /// there already.
    ///
    /// # Errors
    /// When one of them cannot be served.
    pub fn warm_up(&self, onion: &str, users: usize) -> Result<Vec<String>> {
        let names: Vec<String> = (0..users).map(|_| fresh_user()).collect();
        all_at_once(users, 8, |at| self.fetch_page(at, onion, &names[at]).map(|_| ()))?;
        Ok(names)
    }

    /// Wait until a subject serves, as seen from both clients.
    ///
    /// # Errors
    /// When it does not within four minutes.
    pub fn wait_until_served(&self, onion: &str) -> Result<()> {
        let started = Instant::now();
        for number in 0..self.clients.len() {
            while let Err(error) = self.fetch_page(number, onion, &fresh_user()) {
                if started.elapsed() > Duration::from_secs(240) {
                    return Err(error.context("it is not reachable after four minutes"));
                }
            }
        }
        Ok(())
    }
}

/// Run `count` jobs on at most `at_once` threads; the first error ends it.
///
/// # Errors
/// The first that a job gave.
pub fn all_at_once(
    count: usize,
    at_once: usize,
    job: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::atomic::AtomicBool::new(false);
    use std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            loop {
                let at = next.fetch_add(1, Relaxed);
                if at >= count || failed.load(Relaxed) {
                    return Ok(());
                }
                job(at).inspect_err(|_| failed.store(true, Relaxed))?;
            }
        };
        let workers: Vec<_> = (0..at_once.min(count)).map(|_| scope.spawn(worker)).collect();
        let mut result = Ok(());
        for worker in workers {
            match worker.join() {
                Ok(Err(error)) if result.is_ok() => result = Err(error),
                Ok(_) => {}
                Err(_) => bail!("a client panicked"),
            }
        }
        result
    })
}

/// Start the sink: it reads a length of 8 bytes and as much content, and answers with its SHA-256.
fn start_sink() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port for the sink")?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("sink".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that breaks off is measured as a failure where it is.
            std::thread::spawn(move || drain(stream).ok());
        }
    })?;
    Ok(address)
}

/// Serve one upload.
fn drain(mut stream: TcpStream) -> std::io::Result<()> {
    let mut length = [0_u8; 8];
    stream.read_exact(&mut length)?;
    let mut left = u64::from_be_bytes(length);
    let (mut hash, mut chunk) = (Sha256::new(), vec![0_u8; 256 * 1024]);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let read = stream.read(&mut chunk[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&chunk[..read]);
        left -= read as u64;
    }
    stream.write_all(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use sha2::{Digest as _, Sha256};

    use super::{all_at_once, start_sink};

    #[test]
    fn the_sink_answers_with_the_hash_of_what_it_got() {
        let address = start_sink().expect("loopback has ports");
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let body = vec![7_u8; 1_000_000];
        stream.write_all(&1_000_000_u64.to_be_bytes()).expect("it reads");
        stream.write_all(&body).expect("it reads");
        let mut answer = [0_u8; 32];
        stream.read_exact(&mut answer).expect("it answers");
        assert_eq!(answer[..], Sha256::digest(&body)[..]);
    }

    #[test]
    fn every_job_runs_once_and_an_error_is_told() {
        let ran = AtomicUsize::new(0);
        let count = |_| {
            ran.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        all_at_once(100, 8, count).expect("none fails");
        assert_eq!(ran.load(Ordering::Relaxed), 100);
        let one_fails = |at| if at == 5 { anyhow::bail!("five") } else { Ok(()) };
        assert!(all_at_once(100, 8, one_fails).is_err());
    }
}
