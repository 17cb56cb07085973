//! A private Tor network on one machine: C tor authorities and relays, clients, onion services,
//! and the programs that RustBalance is measured against.
//!
//! ```text
//!   Lab::start --> keeper (a shell that holds nothing but a pipe)
//!        |            '-- the pipe closes (drop, panic, Ctrl-C, SIGKILL): every process ends,
//!        |                the directory goes
//!        |-- network: 3 authorities + relays, each with an address of its own (127.N.B.1)
//!        '-- client, onion_service, nginx, haproxy, onionbalance: started on demand
//! ```
//!
//! Used by tests (a lab is shared through `RUSTBALANCE_LAB_DIR`, see [`Lab::shared`]), by the demo
//! and by benchmarks; for people there is the binary `lab`. No arti in here: what is measured must
//! not come from the same code as what measures.

mod backend;
pub mod client;
pub mod control;
mod keeper;
mod log;
pub mod measure;
pub mod namespaces;
mod network;
mod node;
pub mod peers;
pub mod service;
mod socks;
mod wait;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

pub use self::backend::backend;
pub use self::client::{Client, Response};
use self::keeper::Keeper;
pub use self::log::Log;
use self::namespaces::Namespaces;
pub use self::network::Relay;
pub use self::peers::{Frontend, Haproxy, Nginx, OnionBalance};
pub use self::service::{OnionService, OnionServiceSpec};
pub use self::wait::{Progress, free_port, require, wait_until};

/// How many relays a lab has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Size {
    /// 3 authorities and 6 relays: quick, enough for 6 introduction points and vanguards `lite`.
    #[default]
    Small,
    /// 3 authorities and 13 relays, so that vanguards `full` really run.
    Full,
}

impl Size {
    /// Relays besides the authorities, which are relays as well.
    fn relays(self) -> usize {
        match self {
            Size::Small => 6,
            Size::Full => 13,
        }
    }
}

/// What a lab is made with.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// How many relays.
    pub size: Size,
    /// Relays and everybody else in two network namespaces joined by veth, with the public
    /// network's DoS parameters in the consensus. Needs root.
    pub netns: bool,
    /// Further parameters for the consensus.
    pub extra_params: Vec<(String, i64)>,
    /// Where everything lies; a temporary directory by default. Removed at the end.
    pub dir: Option<PathBuf>,
    /// No progress on standard error.
    pub quiet: bool,
}

/// What is written down about a running lab, so that others can attach to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// How many relays.
    pub(crate) size: Size,
    /// Its nodes.
    pub(crate) relays: Vec<Relay>,
    /// The `DirAuthority` lines.
    pub(crate) dir_authorities: String,
    /// The namespaces, if it has any.
    pub(crate) namespaces: Option<Namespaces>,
    /// The process that holds it.
    pub(crate) holder: u32,
}

/// A private Tor network. Dropping it ends everything that was started through it.
pub struct Lab {
    /// Where everything lies.
    dir: PathBuf,
    /// What it is made of.
    record: Record,
    /// Ends what was started; `None` once it has, or for a handle whose processes outlive it.
    keeper: Keeper,
    /// Makes names unique within this handle.
    counter: AtomicU32,
    /// Say less.
    quiet: bool,
}

/// The file that [`Record`] is in.
const RECORD: &str = "lab.json";

impl Lab {
    /// Bring a network up. Comes back when every node is in the consensus, after about 20 s.
    ///
    /// # Errors
    /// When a program is missing, a node does not start, or no consensus comes.
    pub fn start(options: LabOptions) -> Result<Lab> {
        require(&["tor", "tor-gencert"])?;
        let dir = match &options.dir {
            Some(dir) => dir.clone(),
            None => tempfile::Builder::new().prefix("rustbalance-lab-").tempdir()?.keep(),
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // Tor insists on directories that nobody else can read.
        set_private(&dir)?;
        let keeper = Keeper::start(&dir, true)?;
        let namespaces = match options.netns {
            true => Some(Namespaces::create(&keeper)?),
            false => None,
        };
        let record = network::bring_up(&dir, &keeper, &options, namespaces)?;
        let text = serde_json::to_vec_pretty(&record)?;
        std::fs::write(dir.join(RECORD), text).context("cannot write the lab's record")?;
        Ok(Lab { dir, record, keeper, counter: AtomicU32::new(0), quiet: options.quiet })
    }

    /// Use a lab that somebody else holds. What is started through this handle ends with it; the
    /// lab goes on.
    ///
    /// # Errors
    /// When there is no lab in `dir`.
    pub fn attach(dir: &Path) -> Result<Lab> {
        let (dir, record) = read_record(dir)?;
        let own = tempfile::Builder::new().prefix("user-").tempdir_in(&dir)?.keep();
        let keeper = Keeper::start(&own, true)?;
        Ok(Lab { dir: own, record, keeper, counter: AtomicU32::new(0), quiet: true })
    }

    /// Use a lab that somebody else holds; what is started through this handle ends with the lab.
    ///
    /// # Errors
    /// When there is no lab in `dir`.
    pub fn join(dir: &Path) -> Result<Lab> {
        let (dir, record) = read_record(dir)?;
        let keeper = Keeper::of_another(&dir);
        Ok(Lab { dir, record, keeper, counter: AtomicU32::new(0), quiet: true })
    }

    /// The lab that the caller's environment names in `RUSTBALANCE_LAB_DIR`, or a new one.
    ///
    /// # Errors
    /// As [`Lab::attach`] and [`Lab::start`].
    pub fn shared(size: Size) -> Result<Lab> {
        match std::env::var_os("RUSTBALANCE_LAB_DIR") {
            Some(dir) if !dir.is_empty() => Lab::attach(Path::new(&dir)),
            _ => Lab::start(LabOptions { size, ..LabOptions::default() }),
        }
    }

    /// Where this handle's files lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The relays, authorities first.
    pub fn relays(&self) -> &[Relay] {
        &self.record.relays
    }

    /// Stop a relay at once, as if its machine had lost power.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_relay(&self, relay: &Relay) -> Result<()> {
        relay.stop()
    }

    /// Start a relay that was stopped.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_relay(&self, relay: &Relay) -> Result<()> {
        relay.start(&self.keeper, self.record.namespaces.as_ref())
    }

    /// The `[arti]` tables with which arti, and so RustBalance, finds this network.
    pub fn arti_toml(&self) -> String {
        network::arti_toml(&self.record.relays)
    }

    /// The lines of a torrc with which any tor on this machine finds this network.
    pub fn torrc_lines(&self) -> String {
        format!("{}{}", node::COMMON, self.record.dir_authorities)
    }

    /// A command that runs where services run: in the service side's namespace, if there is one.
    pub fn command(&self, program: &str) -> Command {
        match &self.record.namespaces {
            Some(namespaces) => namespaces.service_command(program),
            None => Command::new(program),
        }
    }

    /// A further address of the machine that services run on.
    ///
    /// # Errors
    /// Without namespaces: there every address of 127.0.0.0/8 is the machine's own.
    pub fn add_address(&self) -> Result<String> {
        let namespaces = self.record.namespaces.as_ref();
        namespaces.context("the lab has no namespaces")?.add_service_address()
    }

    /// Have the keeper end a process of the caller's when this handle ends, if it still runs then.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub fn keep(&self, pid: u32) -> Result<()> {
        self.keeper.note(pid)
    }

    /// The text of the consensus as the first authority has it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn consensus(&self) -> Result<String> {
        let first = &self.record.relays[0];
        let path = first.dir.join("cached-microdesc-consensus");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A new directory for a process of this kind, also beside other handles of the same lab.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new_directory(&self, kind: &str) -> Result<PathBuf> {
        loop {
            let number = self.counter.fetch_add(1, Ordering::Relaxed);
            let dir = self.dir().join(format!("{kind}-{number}"));
            match std::fs::create_dir(&dir) {
                Ok(()) => {
                    node::make_directory(&dir)?;
                    return Ok(dir);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make {}", dir.display()));
                }
            }
        }
    }

    /// Ends what is started.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// What the lab is made of.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Progress for people, unless they want none.
    pub(crate) fn progress(&self, what: &str, expected_seconds: u64) -> Progress {
        Progress::new(what, expected_seconds, self.quiet)
    }
}

/// Read what is written down about the lab in `dir`, and check that it lives.
fn read_record(dir: &Path) -> Result<(PathBuf, Record)> {
    let dir = std::fs::canonicalize(dir)
        .with_context(|| format!("no lab in {}; `lab up` makes one", dir.display()))?;
    let text = std::fs::read(dir.join(RECORD))
        .with_context(|| format!("no lab is up in {}; `lab up` makes one", dir.display()))?;
    let record: Record = serde_json::from_slice(&text).context("the lab's record is damaged")?;
    if !Path::new("/proc").join(record.holder.to_string()).exists() {
        bail!("the lab in {} is dead; remove the directory", dir.display());
    }
    Ok((dir, record))
}

/// Make a directory readable for its owner alone.
pub(crate) fn set_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot protect {}", dir.display()))
}
