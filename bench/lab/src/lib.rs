//! A private Tor network on one machine: C tor authorities and relays, clients, onion services,
//! and the programs that RustBalance is measured against.
//!
//! ```text
//!   Lab::start --> keeper (a shell that holds nothing but a pipe)
//!        |            '-- the pipe closes (drop, panic, Ctrl-C, SIGKILL): every process ends,
//!        |                the directory goes
//!        |-- network: 3 authorities + relays, each with an address of its own (127.N.B.C)
//!        '-- client, onion_service, nginx, haproxy, onionbalance: started on demand
//! ```
//!
//! Used by tests (a lab is shared through `RUSTBALANCE_LAB_DIR`, see [`Lab::shared`]), by the demo
//! and by benchmarks; for people there is the binary `lab`. No arti in here: what is measured must
//! not come from the same code as what measures.

pub mod client;
pub mod control;
mod keeper;
pub mod measure;
pub mod namespaces;
mod network;
mod node;
pub mod peers;
pub mod service;
mod shared;
mod socks;
mod time;
mod wait;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

pub use self::client::{Client, Response};
use self::keeper::{Keeper, Process};
use self::namespaces::Namespaces;
pub use self::network::Relay;
pub use self::peers::{Haproxy, Nginx, OnionBalance};
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
    /// How often the authorities vote, in seconds; 20 by default. A time period is 24 times that,
    /// and arti wants whole minutes of it, at least 5: a multiple of 5 that divides half an hour.
    pub voting_interval_seconds: Option<u16>,
    /// Where everything lies; a temporary directory by default. It must be empty or not be there,
    /// and is removed at the end.
    pub dir: Option<PathBuf>,
    /// No progress on standard error.
    pub quiet: bool,
}

impl LabOptions {
    /// How often the authorities vote, in seconds.
    pub(crate) fn voting_interval(&self) -> u16 {
        self.voting_interval_seconds.unwrap_or(20)
    }
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
    /// The process that holds it; `None` for one that several share.
    pub(crate) holder: Option<u32>,
    /// What ends it.
    pub(crate) keeper: Process,
    /// How often the authorities vote, in seconds.
    pub(crate) voting_interval_seconds: u16,
}

/// A private Tor network. Dropping it ends everything that was started through it.
pub struct Lab {
    /// Where everything lies.
    dir: PathBuf,
    /// What it is made of.
    record: Record,
    /// Running clients by name.
    clients: Mutex<HashMap<String, Client>>,
    /// Ends what was started through this handle.
    keeper: Keeper,
    /// Keeps a shared lab up. After `keeper`: our own things end while the network is there.
    _share: Option<shared::Share>,
    /// What is started through this handle outlives it.
    lasting: bool,
    /// Say less.
    quiet: bool,
}

/// The file that [`Record`] is in.
const RECORD: &str = "lab.json";

impl Lab {
    /// Bring a network up. Comes back when every node is in the consensus, after 10 to 30 s.
    ///
    /// # Errors
    /// When a program is missing, the directory is in use, a node does not start, or no consensus
    /// comes.
    pub fn start(options: LabOptions) -> Result<Lab> {
        Lab::start_with(options, Keeper::start)
    }

    /// [`Lab::start`] with a keeper of the caller's choice.
    pub(crate) fn start_with(
        options: LabOptions,
        start_keeper: impl FnOnce(&Path) -> Result<(Keeper, Process)>,
    ) -> Result<Lab> {
        require(&["tor", "tor-gencert", "flock"])?;
        let dir = match &options.dir {
            Some(dir) => empty_directory(dir)?,
            None => tempfile::Builder::new().prefix("rustbalance-lab-").tempdir()?.keep(),
        };
        // Tor insists on directories that nobody else can read.
        set_private(&dir)?;
        let (keeper, process) = start_keeper(&dir)?;
        let namespaces = match options.netns {
            true => Some(Namespaces::create(&keeper)?),
            false => None,
        };
        let network = network::bring_up(&dir, &keeper, &options, namespaces.as_ref())?;
        let record = Record {
            size: options.size,
            relays: network.relays,
            dir_authorities: network.dir_authorities,
            namespaces,
            holder: keeper.is_ours().then(std::process::id),
            keeper: process,
            voting_interval_seconds: options.voting_interval(),
        };
        // Whoever sees the record sees all of it.
        let text = serde_json::to_vec_pretty(&record)?;
        let new = dir.join("lab.json.new");
        std::fs::write(&new, text).context("cannot write the lab's record")?;
        std::fs::rename(&new, dir.join(RECORD)).context("cannot write the lab's record")?;
        Ok(Lab::with(dir, record, keeper, options.quiet))
    }

    /// Use a lab that somebody else holds. What is started through this handle ends with it; the
    /// lab goes on.
    ///
    /// # Errors
    /// When there is no lab in `dir`.
    pub fn attach(dir: &Path) -> Result<Lab> {
        let (dir, record) = read_record(dir)?;
        let own = tempfile::Builder::new().prefix("user-").tempdir_in(&dir)?.keep();
        let (keeper, _) = Keeper::start(&own)?;
        Ok(Lab::with(own, record, keeper, true))
    }

    /// Use a lab that somebody else holds; what is started through this handle ends with the lab.
    ///
    /// # Errors
    /// When there is no lab in `dir`.
    pub fn join(dir: &Path) -> Result<Lab> {
        let (dir, record) = read_record(dir)?;
        let keeper = Keeper::of_another(&dir);
        Ok(Lab { lasting: true, ..Lab::with(dir, record, keeper, true) })
    }

    /// The lab that the caller's environment names in `RUSTBALANCE_LAB_DIR`; else the one that
    /// this user's processes share, which the first of them brings up and the last one ends.
    ///
    /// # Errors
    /// As [`Lab::attach`] and [`Lab::start`].
    pub fn shared(size: Size) -> Result<Lab> {
        match std::env::var_os("RUSTBALANCE_LAB_DIR") {
            Some(dir) if !dir.is_empty() => Lab::attach(Path::new(&dir)),
            _ => {
                let (dir, share) = shared::find_or_start(size)?;
                let mut lab = Lab::attach(&dir)?;
                lab._share = Some(share);
                Ok(lab)
            }
        }
    }

    /// A handle.
    fn with(dir: PathBuf, record: Record, keeper: Keeper, quiet: bool) -> Lab {
        let clients = Mutex::default();
        Lab { dir, record, clients, keeper, _share: None, lasting: false, quiet }
    }

    /// End the lab in `dir`, whoever holds it, and clear away what a crash has left of one.
    ///
    /// # Errors
    /// When there is none, or it is shared: then it ends with its last user.
    pub fn take_down(dir: &Path) -> Result<()> {
        let (dir, record) = match read_record(dir) {
            Ok(found) => found,
            Err(error) => return if clear_dead(dir)? { Ok(()) } else { Err(error) },
        };
        let Some(holder) = record.holder else {
            bail!("the lab in {} is shared; it ends with its last user", dir.display());
        };
        let holder = nix::unistd::Pid::from_raw(i32::try_from(holder)?);
        nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGTERM)
            .context("cannot reach the lab's holder")?;
        wait_until("the lab ends", 60, || (!dir.exists()).then_some(()))
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

    /// A command that runs where services run: in the service side's namespace, if there is one.
    /// What it starts ends with this handle at the latest.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.record.namespaces {
            Some(namespaces) => namespaces.service_command(program),
            None => Command::new(program),
        };
        self.keeper.mark(&mut command);
        command
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

    /// From when the consensus is valid that the first authority has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn consensus_valid_after(&self) -> Result<SystemTime> {
        let consensus = self.consensus()?;
        let line = consensus.lines().find_map(|line| line.strip_prefix("valid-after "));
        time::parse(line.context("the consensus has no valid-after")?)
    }

    /// Wait until both shared random values are in the consensus, for up to two of the
    /// authorities' runs (16 minutes with an interval of 20 s). Until then everybody uses the
    /// disaster values of rend-spec-v3.
    ///
    /// # Errors
    /// When they do not come.
    pub fn wait_for_shared_random(&self) -> Result<()> {
        let values = ["shared-rand-previous-value ", "shared-rand-current-value "];
        let seconds = 2 * 24 * u64::from(self.record.voting_interval_seconds);
        let mut progress = self.progress("shared random values", seconds);
        wait_until("both shared random values", seconds + 120, || {
            let text = self.consensus().unwrap_or_default();
            let has = |value: &&&str| text.lines().any(|line| line.starts_with(**value));
            let found = values.iter().filter(has).count();
            progress.tell(&format!("{found} of 2 in the consensus"));
            (found == 2).then_some(())
        })?;
        progress.done("both in the consensus");
        Ok(())
    }

    /// Established connections of a process to each relay's OR port, by nickname; relays without
    /// one are left out.
    pub fn hs_connections(&self, pid: u32) -> Vec<(String, usize)> {
        let mut found: Vec<_> =
            measure::connections_to_relays(pid, self.relays()).into_iter().collect();
        found.sort();
        found
    }

    /// How many relays it has.
    pub fn size(&self) -> Size {
        self.record.size
    }

    /// Is it in network namespaces?
    pub fn has_namespaces(&self) -> bool {
        self.record.namespaces.is_some()
    }

    /// A new directory for one process; other processes may use the same lab.
    pub(crate) fn new_directory(&self, kind: &str) -> Result<PathBuf> {
        for number in 0..10_000 {
            let dir = self.dir.join(format!("{kind}-{number}"));
            match std::fs::create_dir(&dir) {
                Ok(()) => {
                    set_private(&dir)?;
                    return Ok(dir);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make {}", dir.display()));
                }
            }
        }
        bail!("too many of {kind} in {}", self.dir.display())
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
pub(crate) fn read_record(dir: &Path) -> Result<(PathBuf, Record)> {
    let none = || format!("no lab is up in {}; `lab up` makes one", dir.display());
    let dir = std::fs::canonicalize(dir).with_context(none)?;
    let text = std::fs::read(dir.join(RECORD)).with_context(none)?;
    let record: Record = serde_json::from_slice(&text).context("the lab's record is damaged")?;
    if !record.keeper.runs() {
        bail!("the lab in {} is dead; `lab down` clears it away", dir.display());
    }
    Ok((dir, record))
}

/// Make `dir` if it is not there, and check that nothing of anybody's is in it: it is removed at
/// the end, with all that it holds.
fn empty_directory(dir: &Path) -> Result<PathBuf> {
    clear_dead(dir)?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let dir = std::fs::canonicalize(dir)?;
    if std::fs::read_dir(&dir)?.next().is_some() {
        bail!(
            "{} is not empty, and a lab's directory is removed at the end: give a new one",
            dir.display()
        );
    }
    Ok(dir)
}

/// Clear away what is left of a lab whose keeper was killed; `false` if there is nothing of one.
fn clear_dead(dir: &Path) -> Result<bool> {
    let Some(keeper) = Keeper::process_of(dir) else { return Ok(false) };
    if keeper.runs() {
        bail!("a lab is up, or coming up, in {}", dir.display());
    }
    // A new keeper does at once what the old one could not.
    drop(Keeper::start(&std::fs::canonicalize(dir)?)?);
    Ok(true)
}

/// Make a directory readable for its owner alone.
pub(crate) fn set_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot protect {}", dir.display()))
}
