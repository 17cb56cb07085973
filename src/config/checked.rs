//! The configuration that cannot be wrong: what the rest of the program is given.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::memory::MemoryMax;
use super::problem::{ConfigError, Problem};
use super::{address, place, raw, unsupported};
use crate::limits::{
    CONFIG_FILE_BYTES_MAX, DRAIN_SECONDS_DEFAULT, INSTANCES_MAX, INTRO_POINTS_DEFAULT,
    INTRO_POINTS_PER_INSTANCE_DEFAULT, STREAMS_PER_CIRCUIT_DEFAULT, THEFT_CHECK_SECONDS_DEFAULT,
};
use crate::onion::config::{IntroDos, RemoteConfig, RemoteInterval};
use crate::plane::config::{BackendAddress, CircuitLimits, ListenConfig, PortConfig, PortTarget};

mod check;
mod ctor;
mod listen;
mod port;
mod remote;
mod service;

/// The name of a service that has none.
pub const SERVICE_NAME_DEFAULT: &str = "main";

/// The admin socket, below the state directory.
pub const ADMIN_SOCKET_DEFAULT: &str = "admin.sock";

/// Our own lines from `info` up and arti's from `warn` up; `tor_netdir` warns every second on small
/// networks, and the last two at each try while there is no network, of which we tell ourselves.
pub const LOG_LEVEL_DEFAULT: &str =
    "warn,rustbalance=info,tor_netdir=error,tor_circmgr::mgr=error,tor_dirmgr::bootstrap=error";

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it comes from; `None` for the command line's.
    pub file: Option<PathBuf>,
    /// Where keys, sockets and arti's state lie. Absolute.
    pub state_dir: PathBuf,
    /// How long open streams are served after SIGTERM.
    pub drain: Duration,
    /// How much memory the process may hold.
    pub memory_max: MemoryMax,
    /// At least one.
    pub services: Vec<Service>,
    /// Fronts for C tor daemons and balancers; no two at one address.
    pub listens: Vec<ListenConfig>,
    /// In-process instances.
    pub turbo: Turbo,
    /// C tor daemons that this process runs.
    pub ctor: Ctor,
    /// What stands below `[arti]`, for the Tor stack to check.
    pub arti: toml::Table,
    /// How RustBalance is watched and steered.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// What is allowed but looks wrong, one sentence each.
    pub warnings: Vec<String>,
}

/// A service: one onion address.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name in configuration, log and status.
    pub name: String,
    /// The key file; `None`: one is made in the state directory, see [`Config::key_file`].
    pub key_path: Option<PathBuf>,
    /// Introduction points that each instance keeps.
    pub intro_points_per_instance: u8,
    /// Introduction points in the published descriptor at most.
    pub intro_points_max: u8,
    /// Whether HSDirs get different descriptors where there are more points than one holds.
    pub distinct_descriptors: bool,
    /// How often all HSDirs are asked what they hold; `None`: only when the operator asks.
    pub verify_interval: Option<Duration>,
    /// How often a single one is asked, for the theft alarm; `None`: never.
    pub theft_check_interval: Option<Duration>,
    /// The introduction points' DoS defence; `None`: the relays' default.
    pub intro_dos: Option<IntroDos>,
    /// Streams that one client circuit may have open.
    pub streams_per_circuit_max: u32,
    /// What else it may do.
    pub circuit_limits: CircuitLimits,
    /// At least one; their ranges do not overlap.
    pub ports: Vec<PortConfig>,
    /// Instances elsewhere whose descriptors are fetched; no two with one address or one name.
    pub remotes: Vec<RemoteConfig>,
    /// How often these are looked at.
    pub remote_interval: RemoteInterval,
}

/// In-process instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turbo {
    /// `false`: one instance, whatever else is written.
    pub enabled: bool,
    /// How many.
    pub instances: Instances,
    /// How many Tor stacks they share.
    pub stacks: Stacks,
    /// Local addresses that links to guards go out from: those of stack `n` from number `n` modulo
    /// their count. Empty: whichever the kernel chooses.
    pub source_addresses: Vec<Ipv4Addr>,
    /// The CPUs that data cores are pinned to, in order; `None`: all that the process may use.
    pub cores: Option<Vec<usize>>,
    /// How long a data core that has nothing to do looks around before it sleeps.
    pub spin: Duration,
}

impl Default for Turbo {
    fn default() -> Turbo {
        let stacks = Stacks::Number(1);
        let (instances, spin) = (Instances::Auto, Duration::ZERO);
        let source_addresses = Vec::new();
        Turbo { enabled: true, instances, stacks, source_addresses, cores: None, spin }
    }
}

impl Turbo {
    /// The number of instances where the process may use `cpus` CPUs.
    pub fn instance_count(&self, cpus: usize) -> u16 {
        if !self.enabled {
            return 1;
        }
        match self.instances {
            Instances::Fixed(instances) => instances,
            Instances::Auto => {
                let cores = self.cores.as_ref().map_or(cpus, Vec::len);
                u16::try_from(cores).unwrap_or(INSTANCES_MAX).clamp(1, INSTANCES_MAX)
            }
        }
    }

    /// The number of Tor stacks for `instances` instances.
    pub fn stack_count(&self, instances: u16) -> u16 {
        match self.stacks {
            Stacks::Number(stacks) => stacks.min(instances),
            Stacks::PerInstance => instances,
        }
        .max(1)
    }

    /// What `stacks` Tor stacks expose: how many sets of guards know this machine.
    pub fn guard_sets(&self, stacks: u16) -> u16 {
        let sources = u16::try_from(self.source_addresses.len()).unwrap_or(u16::MAX).max(1);
        stacks.div_ceil(sources)
    }
}

/// How many in-process instances there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// One for each core.
    Auto,
    /// So many; none only beside instances that are not in this process.
    Fixed(u16),
}

/// How many Tor stacks (guards, links, directory) the instances share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stacks {
    /// So many, at least one.
    Number(u16),
    /// One for each instance.
    PerInstance,
}

/// C tor daemons that this process runs: each carries an instance of every service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ctor {
    /// How many.
    pub instances: u16,
    /// tor: a path, or a name that is looked for where programs are.
    pub binary: PathBuf,
    /// A file whose lines end every torrc.
    pub extra_torrc: Option<PathBuf>,
}

impl Default for Ctor {
    fn default() -> Ctor {
        let binary = PathBuf::from(ctor::BINARY_DEFAULT);
        Ctor { instances: 0, binary, extra_torrc: None }
    }
}

impl Ctor {
    /// The directory of a daemon, from 1, below the state directory.
    pub fn daemon_dir(state_dir: &Path, number: u16) -> PathBuf {
        state_dir.join("ctor").join(number.to_string())
    }

    /// The socket at which a service's streams come from the daemon in `directory`.
    pub fn socket(directory: &Path, service: &str) -> PathBuf {
        directory.join(format!("{service}.sock"))
    }
}

/// How RustBalance is watched and steered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The unix socket; below the state directory where it is relative.
    pub socket: PathBuf,
    /// A unix socket that tells status as OnionBalance does; below the state directory where it is
    /// relative.
    pub onionbalance_socket: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { socket: PathBuf::from(ADMIN_SOCKET_DEFAULT), onionbalance_socket: None }
    }
}

/// The log of the binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// tracing's directives, for the binary to check.
    pub level: String,
    /// In which form.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: LOG_LEVEL_DEFAULT.to_owned(), format: LogFormat::Auto }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, for the journal where standard error leads to it, else JSON.
    #[default]
    Auto,
    /// Lines for people.
    Human,
    /// A JSON object a line.
    Json,
    /// Fields of the journal.
    Journald,
}

impl LogFormat {
    /// All of them, with their names.
    pub const ALL: [(&'static str, LogFormat); 4] = [
        ("auto", LogFormat::Auto),
        ("human", LogFormat::Human),
        ("json", LogFormat::Json),
        ("journald", LogFormat::Journald),
    ];
}

/// What the command line says over a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--instances`
    pub instances: Option<u16>,
}

impl Config {
    /// Read and check a file.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong in it.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        Config::from_text(&read_file(file)?, file)
    }

    /// Check a configuration that a program has made: whatever serde writes as the tables of a
    /// file. Relative paths in it are below `base`.
    ///
    /// # Errors
    /// Everything that is wrong in it; lines are those of the file that it would be.
    pub fn from_value(value: &impl serde::Serialize, base: &Path) -> Result<Config, ConfigError> {
        let file = base.join("configuration of the program");
        match toml::to_string(value) {
            Ok(text) => Config::from_text(&text, &file),
            Err(error) => {
                let reason = format!("this cannot be written as TOML ({error})");
                let problem = Problem::nowhere("", reason, "give tables, lists, texts and numbers");
                Err(ConfigError::wrong(&file, vec![problem]))
            }
        }
    }

    /// Check the text of a file. Relative paths in it are below the directory of `file`.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn from_text(text: &str, file: &Path) -> Result<Config, ConfigError> {
        let (raw, problems) = raw::read(text);
        let syntax_failed = problems.iter().any(|problem| problem.key.is_empty());
        if syntax_failed {
            return Err(ConfigError::wrong(file, problems));
        }
        from_raw(raw, file, problems)
    }

    /// The configuration of `run --backend ADDR ...` and of `run --hello`, which need no file:
    /// virtual port 80, a key in the default state directory.
    pub fn from_backends(backends: &[BackendAddress], hello: bool) -> Config {
        let target =
            if hello { PortTarget::Hello } else { PortTarget::backends(backends.to_vec()) };
        let port = PortConfig::new(80, target);
        let service = Service {
            name: SERVICE_NAME_DEFAULT.to_owned(),
            key_path: None,
            intro_points_per_instance: INTRO_POINTS_PER_INSTANCE_DEFAULT,
            intro_points_max: INTRO_POINTS_DEFAULT,
            distinct_descriptors: true,
            verify_interval: None,
            theft_check_interval: Some(Duration::from_secs(THEFT_CHECK_SECONDS_DEFAULT)),
            intro_dos: None,
            streams_per_circuit_max: STREAMS_PER_CIRCUIT_DEFAULT,
            circuit_limits: CircuitLimits::default(),
            ports: vec![port],
            remotes: Vec::new(),
            remote_interval: RemoteInterval::default(),
        };
        Config {
            file: None,
            state_dir: place::default_state_dir(),
            drain: Duration::from_secs(DRAIN_SECONDS_DEFAULT),
            memory_max: MemoryMax::default(),
            services: vec![service],
            listens: Vec::new(),
            turbo: Turbo::default(),
            ctor: Ctor::default(),
            arti: toml::Table::new(),
            admin: Admin::default(),
            log: Log::default(),
            warnings: Vec::new(),
        }
    }

    /// The configuration with what the command line says over it.
    ///
    /// # Errors
    /// A number of instances out of range, a state directory in which the admin socket's path
    /// would be too long.
    pub fn with_overrides(mut self, overrides: &Overrides) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        if let Some(state_dir) = &overrides.state_dir {
            self.state_dir = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.clone());
        }
        if let Some(instances) = overrides.instances {
            let least = u16::from(!self.services.iter().all(|one| !one.remotes.is_empty()));
            if instances < least || instances > INSTANCES_MAX {
                let reason = format!("{instances} is out of range");
                let fix = format!("give a number from {least} to {INSTANCES_MAX}");
                problems.push(Problem::nowhere("--instances", reason, fix));
            }
            self.turbo.enabled = true;
            self.turbo.instances = Instances::Fixed(instances);
            if let Stacks::Number(stacks) = self.turbo.stacks {
                self.turbo.stacks = Stacks::Number(stacks.min(instances).max(1));
            }
        }
        if let Err(error) = address::check_unix_path(&self.admin_socket()) {
            let fix = "give a shorter --state-dir";
            problems.push(Problem::nowhere("--state-dir", error.reason(), fix));
        }
        if let Err(error) = ctor::check_sockets(&self.ctor, &self.state_dir, &self.services) {
            let fix = "give a shorter --state-dir";
            problems.push(Problem::nowhere("--state-dir", error.reason(), fix));
        }
        match problems.is_empty() {
            true => Ok(self),
            false => Err(ConfigError::wrong(Path::new("command line"), problems)),
        }
    }

    /// The key file of a service: the configured one, or `<name>.key` in the state directory.
    pub fn key_file(&self, service: &Service) -> PathBuf {
        match &service.key_path {
            Some(path) => path.clone(),
            None => self.state_dir.join(format!("{}.key", service.name)),
        }
    }

    /// The admin socket's path.
    pub fn admin_socket(&self) -> PathBuf {
        self.state_dir.join(&self.admin.socket)
    }

    /// The path of the socket that tells status as OnionBalance does.
    pub fn onionbalance_socket(&self) -> Option<PathBuf> {
        self.admin.onionbalance_socket.as_ref().map(|path| self.state_dir.join(path))
    }

    /// What is allowed but looks wrong on a machine where the process may use `cpus` CPUs.
    pub fn machine_warnings(&self, cpus: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        let instances = self.turbo.instance_count(cpus);
        let cores = self.turbo.cores.as_ref().map_or(cpus, Vec::len);
        if usize::from(instances) > cores {
            warnings.push(format!(
                "turbo.instances: {instances} instances on {cores} cores share them and serve no \
                 more than {cores} would; write \"auto\""
            ));
        }
        let stacks = self.turbo.stack_count(instances);
        let sets = self.turbo.guard_sets(stacks);
        if sets > 1 {
            warnings.push(format!(
                "turbo.stacks: {stacks} stacks have {sets} sets of guards, so that {sets} times as \
                 many relays as with one know this machine; fewer stacks, or more \
                 source_addresses, have fewer"
            ));
        }
        let daemons = self.ctor.instances;
        let busy = usize::from(daemons) + usize::from(instances);
        if daemons > 0 && busy > cpus {
            warnings.push(format!(
                "ctor.instances: {instances} instances and {daemons} C tor daemons share {cpus} \
                 CPUs; lower turbo.instances or ctor.instances"
            ));
        }
        if daemons > 0 {
            let sets = u32::from(daemons) + u32::from(sets);
            warnings.push(format!(
                "ctor.instances: {daemons} C tor daemons choose guards of their own, so that \
                 {daemons} more sets of guards, {sets} in all, know this machine; daemons that \
                 meet at a guard are several connections to it from one address, and it may refuse \
                 their circuits"
            ));
        }
        if self.turbo.source_addresses.len() > usize::from(stacks) {
            warnings.push(format!(
                "turbo.source_addresses: {stacks} stacks use the first {stacks} of {} addresses",
                self.turbo.source_addresses.len()
            ));
        }
        for service in &self.services {
            let points = u16::from(service.intro_points_max);
            let instances = instances.saturating_add(daemons);
            if instances > points {
                warnings.push(format!(
                    "service \"{}\": {instances} instances share {points} introduction points, so \
                     that some have none and serve only what others hand to them; raise \
                     intro_points_max or lower turbo.instances",
                    service.name
                ));
            }
        }
        warnings
    }
}

/// Read a file that is small enough to be a configuration.
pub(super) fn read_file(file: &Path) -> Result<String, ConfigError> {
    use std::io::Read as _;

    let failed = |source| ConfigError::Read { path: file.to_owned(), source };
    let limit = u64::try_from(CONFIG_FILE_BYTES_MAX).expect("a megabyte fits 64 bits");
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > CONFIG_FILE_BYTES_MAX {
        let path = file.to_owned();
        return Err(ConfigError::TooLarge { path, bytes_max: CONFIG_FILE_BYTES_MAX });
    }
    Ok(text)
}

/// Check what was typed in `file`, where `problems` are already.
pub(super) fn from_raw(
    raw: raw::RawConfig,
    file: &Path,
    mut problems: Vec<Problem>,
) -> Result<Config, ConfigError> {
    problems.extend(unsupported::problems(&raw));
    match check::check(raw, file, &mut problems) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError::wrong(file, problems)),
    }
}
