//! From a checked configuration to a running service: what the binary and a program that embeds the
//! library share.
//!
//! Everything that can be refused is refused before anything is written, and before a thread runs:
//! arti's tables, the state directory, the admin socket's place, keys that exist, CPUs, io_uring.

use std::collections::HashMap;
use std::path::PathBuf;

use super::daemons::DaemonOptions;
use super::memory::MemoryBudget;
use super::options::{Options, ServiceOptions};
use super::preflight::{self, Lasts, Neighbour, Problem, Ready};
use super::running::Running;
use super::start::start_after;
use super::state_dir::StateDir;
use super::succession::Predecessor;
use crate::config::{Config, Instances, Service};
use crate::limits;
use crate::onion::ServiceSettings;
use crate::plane::config::{BackendAddress, PortConfig, PortTarget};
use crate::plane::handler::Handlers;
use crate::plane::passed::{PassedSocket, PassedSockets};
use crate::runtime::link_stream::check_source;
use crate::runtime::pinning::Plan;
use crate::runtime::{IoChoice, driver, memory, pinning};
use crate::tor::ArtiSettings;
use crate::vault::{Guard, KeyError, MasterKey};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The configuration, or what it leads to, is wrong: one sentence each.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// Something failed.
    #[error("{0}")]
    Failed(String),
}

/// What somebody may want to know of a start that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something looks wrong.
    Warning(String),
    /// A service had no key yet; it has one now, in this file.
    NewKey(PathBuf),
}

/// A start that is being prepared.
#[derive(Debug)]
pub struct Launch {
    /// What to serve.
    config: Config,
    /// What drives the data cores.
    io: IoChoice,
    /// Backends inside the program.
    handlers: Handlers,
    /// Sockets that somebody else has bound for the listeners.
    sockets: PassedSockets,
    /// The allocator's way to give memory back.
    trim: Option<fn()>,
    /// Whether the process that runs is to be replaced.
    take_over: bool,
}

impl Launch {
    /// Serve what a configuration says.
    pub fn new(config: Config) -> Launch {
        Launch {
            config,
            io: IoChoice::default(),
            handlers: Handlers::default(),
            sockets: PassedSockets::default(),
            trim: None,
            take_over: false,
        }
    }

    /// What drives the data cores' sockets.
    #[must_use]
    pub fn io(self, io: IoChoice) -> Launch {
        Launch { io, ..self }
    }

    /// Backends inside the program, which the configuration calls `handler:NAME`.
    #[must_use]
    pub fn handlers(self, handlers: Handlers) -> Launch {
        Launch { handlers, ..self }
    }

    /// Sockets that somebody else has bound: a listener with the address of one takes connections
    /// from it, and binds nothing.
    #[must_use]
    pub fn sockets(self, sockets: PassedSockets) -> Launch {
        Launch { sockets, ..self }
    }

    /// Have this called on one core after another while memory is short: it gives back to the
    /// kernel what the program's allocator keeps of the calling thread for later, as `mi_collect`
    /// of mimalloc does. It must take little time, as nothing else runs on that core meanwhile.
    /// Without, what clients have left behind counts as held until other clients use it.
    #[must_use]
    pub fn trim(self, trim: fn()) -> Launch {
        Launch { trim: Some(trim), ..self }
    }

    /// Take over from the process that serves this configuration's state directory, without a gap:
    /// this one publishes, and then that one ends. Where none runs, this is a start like any other.
    #[cfg(feature = "admin")]
    #[must_use]
    pub fn take_over(self, take_over: bool) -> Launch {
        Launch { take_over, ..self }
    }

    /// Start. Returns at once; what happens is in [`Running::progress`]. Keys that are missing are
    /// made, unless the configuration names their files.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing runs then, and nothing was written unless it says so.
    pub fn start(self, mut tell: impl FnMut(Notice)) -> Result<Running, LaunchError> {
        let Launch { config, io, handlers, sockets, trim, take_over } = self;
        let neighbour = if take_over { Neighbour::Predecessor } else { Neighbour::Nobody };
        // Keys that exist are read now: a start that is refused writes nothing.
        let (arti, keys) = match preflight::look(&config, &handlers, &sockets, neighbour) {
            (problems, Some(Ready { arti, keys })) if problems.is_empty() => (arti, keys),
            (problems, _) => return Err(refused(problems)),
        };
        let cpus = pinning::available_cores().len();
        let in_process = config.turbo.instance_count(cpus) > 0;
        let plan = plan(&config);
        let unused = unused_sockets(&sockets, &config);
        for warning in config.machine_warnings(cpus).iter().chain(&plan.warnings).chain(&unused) {
            tell(Notice::Warning(warning.clone()));
        }
        let daemons = DaemonOptions::of(&config, &plan).map_err(LaunchError::Config)?;
        let io_falls_back = io != IoChoice::Uring;
        let io = driver::choose(io, plan.data.len()).map_err(|error| {
            LaunchError::Config(vec![format!("--io uring: {error}; or write auto or epoll")])
        })?;
        let memory_max = config.memory_max.bytes(memory::available_bytes());
        let arti = match memory_max {
            Some(max) => arti.bounded(max / 100 * limits::MEMORY_QUEUES_PERCENT),
            None => arti,
        };
        let predecessor = find_predecessor(&config, take_over, &mut tell)?;
        let (state_dir, arti) = match &predecessor {
            Some(_) => (StateDir::beside(&config.state_dir), arti.sharing_state()),
            None => (StateDir::take(&config.state_dir), arti),
        };
        let state_dir = state_dir.map_err(|error| wrong(&error))?;
        let services = services(&config, keys, &mut tell).map_err(LaunchError::Config)?;
        let options = Options {
            admin_socket: Some(config.admin_socket()),
            onionbalance_socket: config.onionbalance_socket(),
            state_dir: config.state_dir.clone(),
            services,
            handlers,
            listens: config.listens.clone(),
            sockets,
            stacks: match u16::try_from(plan.data.len()) {
                Ok(instances) if in_process => config.turbo.stack_count(instances),
                _ => 1,
            },
            source_addresses: config.turbo.source_addresses.clone(),
            io,
            io_falls_back,
            spin: config.turbo.spin,
            plan,
            in_process,
            daemons,
            arti,
            drain: config.drain,
            memory: MemoryBudget { max: memory_max, trim },
        };
        let mut running = start_after(predecessor, state_dir, options)
            .map_err(|error| LaunchError::Failed(error.to_string()))?;
        running.started_with = Some(Box::new(config));
        Ok(running)
    }
}

/// Which CPU runs what.
pub fn plan(config: &Config) -> Plan {
    let cpus = pinning::available_cores().len();
    let instances = config.turbo.instance_count(cpus);
    let cores = match config.turbo.instances {
        // The plan knows which CPUs are data cores, and the cgroup's quota.
        Instances::Auto if config.turbo.enabled => None,
        // Listeners are on every data core all the same.
        _ if instances == 0 => None,
        _ => Some(usize::from(instances)),
    };
    pinning::plan(cores, config.turbo.cores.as_deref())
}

/// The `[arti]` table; everything that is wrong with it, with its file.
pub(super) fn check_arti(config: &Config) -> Result<ArtiSettings, Vec<String>> {
    ArtiSettings::check(&config.arti, &config.state_dir).map_err(|errors| {
        let file: String = config.file.iter().map(|file| format!("{}: ", file.display())).collect();
        errors.iter().map(|error| format!("{file}{error}")).collect()
    })
}

/// Whether the addresses that links shall go out from are this machine's. They may come later, as
/// networks do at boot: whoever starts the process may try again.
///
/// # Errors
/// A sentence that names the first that is not.
pub fn check_sources(config: &Config) -> Result<(), String> {
    for source in &config.turbo.source_addresses {
        check_source(*source).map_err(|error| {
            format!("turbo.source_addresses: links cannot go out from {source}: {error}")
        })?;
    }
    Ok(())
}

/// One sentence for each socket that was passed and that no listener uses.
pub(super) fn unused_sockets(sockets: &PassedSockets, config: &Config) -> Vec<String> {
    let sentence = |socket: &PassedSocket| {
        format!(
            "nobody takes connections from the socket that was passed for {socket}: write a \
             [[listen]] with this address, or stop the socket unit"
        )
    };
    sockets.unused(&config.listens).map(sentence).collect()
}

/// Why a start is refused: what lasts, else the first that does not.
fn refused(problems: Vec<Problem>) -> LaunchError {
    let (lasting, now): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|one| one.lasts != Lasts::ForNow);
    match lasting.is_empty() {
        false => LaunchError::Config(lasting.into_iter().map(|one| one.text).collect()),
        true => {
            let texts: Vec<String> = now.into_iter().map(|one| one.text).collect();
            LaunchError::Failed(texts.join("\n"))
        }
    }
}

/// The process to take over from, if that was asked for and one runs; otherwise the admin socket's
/// place has to be free.
#[cfg(feature = "admin")]
fn find_predecessor(
    config: &Config,
    take_over: bool,
    tell: &mut impl FnMut(Notice),
) -> Result<Option<Predecessor>, LaunchError> {
    let socket = config.admin_socket();
    if take_over {
        let found = Predecessor::find(&socket).map_err(|error| wrong(&error))?;
        if let Some(predecessor) = found {
            let real = |path: &std::path::Path| std::fs::canonicalize(path).ok();
            if real(&predecessor.offer.state_dir) == real(&config.state_dir) {
                return Ok(Some(predecessor));
            }
            return Err(LaunchError::Config(vec![format!(
                "the process that runs has another state_dir: {}",
                predecessor.offer.state_dir.display()
            )]));
        }
        tell(Notice::Warning("nobody to take over from: this is a start like any other".into()));
    }
    crate::admin::check(&socket, socket.parent() == Some(&*config.state_dir))
        .map_err(|error| wrong(&error))?;
    Ok(None)
}

/// Without the feature `admin` nobody can be asked.
#[cfg(not(feature = "admin"))]
fn find_predecessor(
    _: &Config,
    _: bool,
    _: &mut impl FnMut(Notice),
) -> Result<Option<Predecessor>, LaunchError> {
    Ok(None)
}

/// An error of the state directory or of the socket's place is one of the configuration.
fn wrong(error: &dyn std::error::Error) -> LaunchError {
    LaunchError::Config(vec![error.to_string()])
}

/// Whether every handler that the configuration names is there.
///
/// # Errors
/// One sentence for each that is not.
pub fn check_handlers(config: &Config, handlers: &Handlers) -> Result<(), Vec<String>> {
    let backends = |port: &PortConfig| match &port.target {
        PortTarget::Backends(backends) => backends.iter().map(|one| one.address.clone()).collect(),
        PortTarget::Hello => Vec::new(),
    };
    let missing: Vec<String> = config
        .services
        .iter()
        .flat_map(|service| service.ports.iter().flat_map(backends).map(move |one| (service, one)))
        .filter_map(|(service, backend)| match backend {
            BackendAddress::Handler(name) if !handlers.has(&name) => Some(format!(
                "service {:?}: there is no handler {name:?}; only a program that embeds \
                 RustBalance has handlers, so write an address",
                service.name
            )),
            _ => None,
        })
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

/// The keys of the services that are there already: one that is configured has to be, another is
/// made at the first start. Nothing is written.
///
/// # Errors
/// One sentence for each key that cannot be used, or that two services share.
pub fn existing_keys(config: &Config) -> Result<Vec<Option<MasterKey>>, Vec<String>> {
    let mut errors = Vec::new();
    let mut keys = Vec::new();
    let mut owners = HashMap::new();
    for service in &config.services {
        match MasterKey::load(&config.key_file(service)) {
            Ok(key) => {
                if let Some(other) = owners.insert(key.onion_address(), &service.name) {
                    errors.push(format!(
                        "service {:?}: its key is the one of service {other:?}; give each service \
                         a key of its own",
                        service.name
                    ));
                }
                let own = key.onion_address();
                if service.remotes.iter().any(|remote| remote.address == own) {
                    errors.push(format!(
                        "service {:?}: a [[service.remote]] has the address of the service itself; \
                         name the instance's own, from the file `hostname` of its HiddenServiceDir",
                        service.name
                    ));
                }
                keys.push(Some(key));
            }
            Err(KeyError::Missing { .. }) if service.key_path.is_none() => keys.push(None),
            Err(error) => errors.push(format!("service {:?}: {error}", service.name)),
        }
    }
    if errors.is_empty() { Ok(keys) } else { Err(errors) }
}

/// What each service is started with; a key that is missing is made now.
pub(super) fn services(
    config: &Config,
    keys: Vec<Option<MasterKey>>,
    tell: &mut impl FnMut(Notice),
) -> Result<Vec<ServiceOptions>, Vec<String>> {
    let mut one = |(service, key): (&Service, Option<MasterKey>)| {
        let master = match key {
            Some(key) => {
                tell_guard(&service.name, key.guard());
                key
            }
            None => {
                let path = config.key_file(service);
                let (key, _) =
                    MasterKey::load_or_create(&path).map_err(|error| vec![error.to_string()])?;
                tell(Notice::NewKey(path));
                key
            }
        };
        Ok(ServiceOptions {
            settings: settings(service),
            ports: service.ports.clone(),
            circuit_limits: service.circuit_limits.clone(),
            master,
        })
    };
    config.services.iter().zip(keys).map(&mut one).collect()
}

/// Say in the log what keeps others from a key: by default only to who looks closely.
fn tell_guard(service: &str, guard: Option<Guard>) {
    match guard {
        None => {}
        Some(guard @ Guard::Permissions) => {
            tracing::debug!("service {service:?}: what guards its key: {guard}");
        }
        Some(guard) => tracing::info!("service {service:?}: what guards its key: {guard}"),
    }
}

/// The onion area's view of a service.
fn settings(service: &Service) -> ServiceSettings {
    ServiceSettings {
        name: service.name.clone(),
        intro_points_per_instance: service.intro_points_per_instance,
        intro_points_max: service.intro_points_max,
        intro_dos: service.intro_dos,
        streams_per_circuit_max: service.streams_per_circuit_max,
        #[cfg(feature = "fault-injection")]
        rendezvous_building_max: super::fault::slots().unwrap_or(limits::RENDEZVOUS_BUILDING_MAX),
        #[cfg(not(feature = "fault-injection"))]
        rendezvous_building_max: limits::RENDEZVOUS_BUILDING_MAX,
        remotes: service.remotes.clone(),
        verify_interval: service.verify_interval,
        theft_check_interval: service.theft_check_interval,
        distinct_descriptors: service.distinct_descriptors,
        remote_interval: service.remote_interval,
    }
}
