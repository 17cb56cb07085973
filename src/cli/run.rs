//! `rustbalance run`: serve until told to stop.
//!
//! Everything that can be refused is refused before anything is written: configuration, key files,
//! state directory, arti's tables. Standard output carries two facts, a line each: `onion ADDRESS`
//! and `ready`. Everything else goes to standard error.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::{EXIT_CONFIG, RunArgs};
use crate::app::state_dir::StateDir;
use crate::app::{self, Options, Progress, Running, ServiceOptions};
use crate::config::{Config, Instances};
use crate::onion::config::ServiceSettings;
use crate::runtime::{driver, pinning};
use crate::tor::config::ArtiSettings;
use crate::vault::MasterKey;

/// Why a run did not come to its orderly end.
enum Failure {
    /// The configuration is wrong: one sentence each.
    Config(Vec<String>),
    /// Something failed.
    Failed(String),
}

/// Do it.
pub fn run(args: &RunArgs) -> ExitCode {
    super::logging::init();
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(errors)) => {
            for error in errors {
                say(&error);
            }
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Failure::Failed(error)) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// Tell the operator. Whoever reads may have gone, which is no reason to panic as `eprintln!` does.
fn say(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "rustbalance: {text}");
}

/// Check everything, start, and wait for the end.
fn serve(args: &RunArgs) -> Result<(), Failure> {
    let config = args.config().map_err(Failure::Config)?;
    for warning in &config.warnings {
        say(&format_args!("warning: {warning}"));
    }
    let arti = ArtiSettings::check(&config.arti, &config.state_dir).map_err(|errors| {
        let file = args.config.iter().map(|file| format!("{}: ", file.display()));
        let file: String = file.collect();
        Failure::Config(errors.iter().map(|error| format!("{file}{error}")).collect())
    })?;
    StateDir::check(&config.state_dir).map_err(|error| config_error(&error))?;
    let socket = config.admin_socket();
    crate::admin::check(&socket, socket.parent() == Some(&*config.state_dir))
        .map_err(|error| config_error(&error))?;
    super::process::prepare();
    // Keys that exist are read now: a start that is refused writes nothing.
    let keys = existing_keys(&config).map_err(Failure::Config)?;
    arti.check_state_dir(&config.state_dir).map_err(|error| Failure::Config(vec![error]))?;
    let cpus = pinning::available_cores().len();
    let instances = match config.turbo.instances {
        // The plan knows which CPUs are data cores, and the cgroup's quota.
        Instances::Auto if config.turbo.enabled => None,
        _ => Some(usize::from(config.turbo.instance_count(cpus))),
    };
    let plan = pinning::plan(instances, config.turbo.cores.as_deref());
    for warning in config.machine_warnings(cpus).iter().chain(&plan.warnings) {
        say(&format_args!("warning: {warning}"));
    }
    let io = driver::choose(args.io).map_err(|error| {
        Failure::Config(vec![format!("--io uring: {error}; write auto or epoll")])
    })?;
    let state_dir = StateDir::take(&config.state_dir).map_err(|error| config_error(&error))?;
    let services = services(&config, keys).map_err(Failure::Config)?;
    let options = Options {
        admin_socket: Some(config.admin_socket()),
        state_dir: config.state_dir.clone(),
        services,
        stacks: config.turbo.stack_count(u16::try_from(plan.data.len()).unwrap_or(u16::MAX)),
        io,
        spin: config.turbo.spin,
        plan,
        arti,
        drain: config.drain,
    };
    let running =
        app::start(state_dir, options).map_err(|error| Failure::Failed(error.to_string()))?;
    follow(&running).map_err(Failure::Failed)
}

/// An error of the state directory is one of the configuration.
fn config_error(error: &dyn std::error::Error) -> Failure {
    Failure::Config(vec![error.to_string()])
}

/// The keys that are there already; a key that is configured has to be.
fn existing_keys(config: &Config) -> Result<Vec<Option<MasterKey>>, Vec<String>> {
    let mut errors = Vec::new();
    let mut keys = Vec::new();
    let mut owners = HashMap::new();
    for service in &config.services {
        let path = config.key_file(service);
        if service.key_path.is_none() && !path.exists() {
            keys.push(None);
            continue;
        }
        match MasterKey::load(&path) {
            Ok(key) => {
                if let Some(other) = owners.insert(key.onion_address(), &service.name) {
                    errors.push(format!(
                        "service {:?}: its key is the one of service {other:?}; give each service \
                         a key of its own",
                        service.name
                    ));
                }
                keys.push(Some(key));
            }
            Err(error) => errors.push(format!("service {:?}: {error}", service.name)),
        }
    }
    if errors.is_empty() { Ok(keys) } else { Err(errors) }
}

/// What each service is started with; a key that is missing is made now.
fn services(
    config: &Config,
    keys: Vec<Option<MasterKey>>,
) -> Result<Vec<ServiceOptions>, Vec<String>> {
    let one = |(service, key): (&crate::config::Service, Option<MasterKey>)| {
        let master = match key {
            Some(key) => key,
            None => {
                let path = config.key_file(service);
                let (key, _) =
                    MasterKey::load_or_create(&path).map_err(|error| vec![error.to_string()])?;
                say(&format_args!("made a new key: {}", path.display()));
                key
            }
        };
        Ok(ServiceOptions { settings: settings(service), ports: service.ports.clone(), master })
    };
    config.services.iter().zip(keys).map(one).collect()
}

/// The onion area's view of a service.
fn settings(service: &crate::config::Service) -> ServiceSettings {
    ServiceSettings {
        name: service.name.clone(),
        intro_points_per_instance: service.intro_points_per_instance,
        intro_points_max: service.intro_points_max,
        intro_dos: service.intro_dos,
        streams_per_circuit_max: service.streams_per_circuit_max,
    }
}

/// The signals that mean something to us.
struct Signals {
    /// SIGTERM.
    terminate: Signal,
    /// SIGINT.
    interrupt: Signal,
    /// SIGHUP.
    hangup: Signal,
}

impl Signals {
    /// Listen for them.
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Wait for SIGTERM or SIGINT.
    async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP: the configuration is read at the start only");
                }
            }
        }
    }
}

/// Tell how far things are, and pass signals on, until the end.
fn follow(running: &Running) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot listen for signals: {error}");
    let driver =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    driver.block_on(async {
        let mut signals = Signals::new().map_err(failed)?;
        let mut progress = running.progress();
        let mut teller = Teller::new();
        let mut ends = 0;
        loop {
            let now = progress.borrow_and_update().clone();
            teller.tell(&now);
            if let Some(ended) = now.ended {
                return if ended.is_empty() { Ok(()) } else { Err(ended) };
            }
            tokio::select! {
                changed = progress.changed() => {
                    changed.map_err(|_| "the control core died".to_owned())?;
                }
                () = signals.end() => {
                    ends += 1;
                    if ends > 1 {
                        // As asked for: at once. The descriptors go with the process.
                        std::process::exit(0);
                    }
                    say(&"draining; once more ends at once");
                    running.drain();
                }
            }
        }
    })
}

/// Says each thing once.
struct Teller {
    /// When the start began.
    started: Instant,
    /// Whether the addresses were told.
    told_onions: bool,
    /// Whether `ready` was told.
    told_ready: bool,
    /// The last text that was told, and when.
    last: (String, Instant),
}

/// Progress is told at most this often.
const TELL_INTERVAL: Duration = Duration::from_secs(2);

impl Teller {
    /// Nothing was told.
    fn new() -> Teller {
        let now = Instant::now();
        Teller { started: now, told_onions: false, told_ready: false, last: (String::new(), now) }
    }

    /// Tell what is new.
    fn tell(&mut self, progress: &Progress) {
        let mut facts = std::io::stdout().lock();
        if !self.told_onions {
            self.told_onions = true;
            for onion in &progress.onions {
                let _ = writeln!(facts, "onion {onion}");
            }
        }
        if progress.ready && !self.told_ready {
            self.told_ready = true;
            let _ = writeln!(facts, "ready");
            let seconds = self.started.elapsed().as_secs_f32();
            say(&format_args!("ready after {seconds:.1} s"));
        }
        // Whoever reads may have gone; that is no reason to stop serving.
        let _ = facts.flush();
        let (last, at) = &self.last;
        if !progress.text.is_empty() && *last != progress.text && at.elapsed() >= TELL_INTERVAL {
            say(&format_args!("{:?}: {}", progress.state, progress.text));
            self.last = (progress.text.clone(), Instant::now());
        }
    }
}
