//! Managed C tor daemons: here their processes (`ctor`), their points (`onion`) and their streams
//! (`plane`) meet.
//!
//! ```text
//!   roster --which services--> torrc --> tor 1..N --control port--> descriptors --> guests of each
//!                                         |                                         service
//!                                         '--unix socket, PROXY line--> listener --> data cores
//! ```
//!
//! Runs on the control core, for as long as the process holds its state directory. A daemon that is
//! gone has no points from that moment on; the publisher does the rest.

pub(super) mod told;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;

use super::control_core::{ControlCore, Shared};
use super::roster::ServiceShared;
use super::running::Order;
use crate::config::{Config, Ctor};
use crate::ctor::{Carried, DaemonSettings, Heard, HiddenPort, HiddenService, daemon};
use crate::limits;
use crate::onion::status::{Engine, GuestState};
use crate::onion::{Guest, GuestConfig, ManagedError, ManagedPoints, ManagedReader};
use crate::plane::config::{BackendAddress, ListenConfig, OverLimit};
use crate::plane::status::ListenStatus;
use crate::runtime::pinning::{self, Plan};
use crate::tor::TorStack;

/// How often it is looked whether the services are others.
const FOLLOW_LOOK: Duration = Duration::from_secs(1);

/// Where programs are, besides what the environment says.
const SYSTEM_PATHS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// What daemons are started with; none by default.
#[derive(Clone, Debug, Default)]
pub struct DaemonOptions {
    /// The CPU of each of them.
    pub cpus: Vec<usize>,
    /// tor.
    pub binary: PathBuf,
    /// Lines for every torrc.
    pub extra: String,
}

impl DaemonOptions {
    /// What a configuration says, beside the threads of `plan`.
    ///
    /// # Errors
    /// What is not there, one sentence each.
    pub fn of(config: &Config, plan: &Plan) -> Result<DaemonOptions, Vec<String>> {
        let (binary, extra) = files(config)?;
        let daemons = usize::from(config.ctor.instances);
        let cpus = cpus_beside(plan, &pinning::available_cores(), daemons);
        Ok(DaemonOptions { cpus, binary, extra })
    }

    /// How many.
    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.cpus.len()).unwrap_or(u16::MAX)
    }
}

/// What is wrong with the files that a configuration's daemons need; nothing without daemons.
pub fn check(config: &Config) -> Vec<String> {
    files(config).err().unwrap_or_default()
}

/// tor, and the operator's lines.
fn files(config: &Config) -> Result<(PathBuf, String), Vec<String>> {
    let Ctor { instances, binary, extra_torrc } = &config.ctor;
    if *instances == 0 {
        return Ok((PathBuf::new(), String::new()));
    }
    let mut errors = Vec::new();
    let found = find_program(binary);
    if found.is_none() {
        errors.push(format!(
            "ctor.binary: there is no program {}; install it (apt-get install tor) or write its \
             path",
            binary.display()
        ));
    }
    let extra = match extra_torrc {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).unwrap_or_else(|error| {
            let path = path.display();
            errors.push(format!("ctor.extra_torrc: cannot read {path}: {error}; name a text file"));
            String::new()
        }),
    };
    found.filter(|_| errors.is_empty()).map(|found| (found, extra)).ok_or(errors)
}

/// A program by its path, or by its name where programs are.
fn find_program(name: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        use nix::unistd::{AccessFlags, access};
        path.is_file() && access(path, AccessFlags::X_OK).is_ok()
    };
    if name.components().count() > 1 || name.is_absolute() {
        return Some(name.to_owned()).filter(is_program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).filter(|place| place.is_absolute());
    let all = places.chain(SYSTEM_PATHS.iter().map(PathBuf::from));
    all.map(|place| place.join(name)).find(is_program)
}

/// A CPU for each daemon: first those without a thread of ours, then the data cores' from the last
/// one on.
fn cpus_beside(plan: &Plan, cpus: &[usize], daemons: usize) -> Vec<usize> {
    let free = cpus.iter().filter(|cpu| !plan.data.contains(cpu) && plan.control != Some(**cpu));
    let order: Vec<usize> = free.chain(plan.data.iter().rev()).copied().collect();
    let order = if order.is_empty() { vec![0] } else { order };
    (0..daemons).map(|turn| order[turn % order.len()]).collect()
}

/// What daemon `number` is called.
pub(super) fn label(number: u16) -> String {
    format!("ctor-{number}")
}

/// The guests that so many daemons are to each service.
pub(super) fn guests(daemons: u16) -> impl Iterator<Item = GuestConfig> {
    (1..=daemons).map(|number| GuestConfig {
        engine: Engine::Ctor,
        label: label(number),
        address: None,
        weight: 1,
    })
}

/// The guest that daemon `number` is to a service.
pub(super) fn guest(service: &ServiceShared, number: u16) -> Option<&Arc<Guest>> {
    let daemons = service.service.guests().iter().filter(|one| one.config.engine == Engine::Ctor);
    daemons.into_iter().nth(usize::from(number).checked_sub(1)?)
}

/// Make the daemons' directories, in which listeners are.
///
/// # Errors
/// What the system says, of which directory.
pub(super) fn make_directories(state_dir: &Path, daemons: u16) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt as _;
    (1..=daemons).try_for_each(|number| {
        let path = Ctor::daemon_dir(state_dir, number);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| format!("cannot make {}: {error}", path.display()))
    })
}

impl Shared {
    /// The listeners for daemons: one for each of them and service.
    pub(super) fn daemon_listens(&self) -> Vec<ListenConfig> {
        let mut names: Vec<String> = Vec::new();
        for one in self.roster.all() {
            if !names.iter().any(|name| name == one.name()) {
                names.push(one.name().to_owned());
            }
        }
        let directory = |number| Ctor::daemon_dir(&self.common.state_dir, number);
        let listen = |number: u16, name: &String| ListenConfig {
            address: BackendAddress::Unix(Ctor::socket(&directory(number), name)),
            service: name.clone(),
            // tor's line says it.
            virtual_port: None,
            proxy_protocol: true,
            backlog: limits::LISTEN_BACKLOG_DEFAULT,
        };
        let daemons = 1..=self.common.daemons;
        daemons.flat_map(|number| names.iter().map(move |name| listen(number, name))).collect()
    }

    /// The daemon that leads to the listener at this address.
    pub(super) fn daemon_of(&self, address: &BackendAddress) -> Option<u16> {
        let BackendAddress::Unix(path) = address else { return None };
        let directory = |number| Ctor::daemon_dir(&self.common.state_dir, number);
        (1..=self.common.daemons).find(|number| path.parent() == Some(&*directory(*number)))
    }

    /// What is counted at the listener of the daemon that is this guest of a service.
    pub(super) fn daemon_listen(
        &self,
        service: &ServiceShared,
        guest: &Guest,
    ) -> Option<ListenStatus> {
        let is = |number: &u16| {
            self::guest(service, *number).is_some_and(|one| std::ptr::eq(&**one, guest))
        };
        let number = (1..=self.common.daemons).find(is)?;
        let directory = Ctor::daemon_dir(&self.common.state_dir, number);
        let address = BackendAddress::Unix(Ctor::socket(&directory, service.name()));
        let fronts = self.fronts.all();
        fronts.iter().find(|front| front.config().address == address).map(|front| front.status())
    }

    /// The services that a daemon shall carry now.
    fn carried(&self, settings: &DaemonSettings) -> Vec<Carried> {
        let mut services = self.roster.served();
        // Those that go are carried until they are gone.
        for one in self.roster.all() {
            if !services.iter().any(|other| other.name() == one.name()) {
                services.push(one);
            }
        }
        services.iter().map(|one| carried(settings, one)).collect()
    }

    /// A daemon has links to these guards. Says so once, when it meets another daemon at one.
    fn note_guards(&self, number: u16, guards: &[String]) {
        if let Some(shared) = self.daemons.note_guards(number, guards) {
            tracing::warn!(
                "{shared} guards have links from more than one C tor daemon: each sees several \
                 connections from this address, and may refuse their circuits"
            );
        }
    }

    /// Do what follows from what is heard of a daemon.
    fn hear(
        &self,
        number: u16,
        heard: &Heard<'_>,
        readers: &mut HashMap<String, ManagedReader>,
        stack: &TorStack,
    ) {
        let services = self.roster.all();
        let guests = services.iter().filter_map(|one| Some((one, guest(one, number)?)));
        match heard {
            Heard::Guards { guards } => self.note_guards(number, guards),
            Heard::Down { reason } => {
                self.note_guards(number, &[]);
                guests.for_each(|(one, guest)| {
                    let reason = Some((*reason).to_owned());
                    one.service.set_guest_state(guest, GuestState::Failed, reason);
                });
            }
            Heard::NoDescriptor { name } => {
                for (one, guest) in guests.filter(|(one, _)| one.name() == *name) {
                    one.service.set_guest_points(guest, Vec::new(), None);
                }
            }
            Heard::Descriptor { name, address, text } => {
                let reader = readers.entry((*name).to_owned()).or_default();
                let points = reader.read(address, text, stack);
                for (one, guest) in guests.filter(|(one, _)| one.name() == *name) {
                    match &points {
                        Ok(ManagedPoints { points, congestion_control: offered }) => {
                            one.service.set_guest_points(guest, points.clone(), *offered);
                        }
                        Err(ManagedError::NoDirectory) => {}
                        Err(error) => {
                            let reason = Some(error.to_string());
                            one.service.set_guest_state(guest, GuestState::Failed, reason);
                        }
                    }
                }
            }
        }
    }
}

/// A service as a daemon carries it.
fn carried(settings: &DaemonSettings, one: &ServiceShared) -> Carried {
    let (name, known) = (one.name(), &one.service.settings);
    let socket = Ctor::socket(&settings.directory, name);
    let port = |(first, last)| HiddenPort { first, last, socket: socket.clone() };
    let limits = one.plane.circuit_limits();
    let service = HiddenService {
        directory: settings.service_dir(name),
        ports: one.plane.virtual_ports().into_iter().map(port).collect(),
        intro_points: known.intro_points_per_instance,
        intro_dos: known.intro_dos.map(|dos| (dos.rate_per_second, dos.burst)),
        streams_max: limits.streams_max.map(|streams| (streams, limits.over == OverLimit::Close)),
    };
    Carried { name: name.to_owned(), master: one.onion.clone(), service }
}

impl ControlCore {
    /// Run the daemons until `stop` says so, and come back when all have ended; without daemons,
    /// then as well.
    pub(super) async fn run_daemons(&self, stack: &TorStack, stop: watch::Receiver<bool>) {
        let count = self.daemons.count();
        if !*self.owner.borrow() {
            let reason = "the process before this one still has the daemons";
            (1..=count).for_each(|number| {
                let heard = Heard::Down { reason };
                self.shared.hear(number, &heard, &mut HashMap::new(), stack);
            });
        }
        let mut owner = self.owner.subscribe();
        let mut stopped = stop.clone();
        tokio::select! {
            _ = owner.wait_for(|owner| *owner) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let all = (1..).zip(&self.daemons.cpus).map(|(number, cpu)| {
            let settings = DaemonSettings {
                number,
                binary: self.daemons.binary.clone(),
                directory: Ctor::daemon_dir(&self.shared.common.state_dir, number),
                cpu: Some(*cpu),
                extra: self.daemons.extra.clone(),
            };
            self.run_daemon(settings, stack, stop.clone())
        });
        join_all(all).await;
        let mut stop = stop;
        // The sender is ours.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Run one of them.
    async fn run_daemon(
        &self,
        settings: DaemonSettings,
        stack: &TorStack,
        mut stop: watch::Receiver<bool>,
    ) {
        let (carried, seen) = watch::channel(self.shared.carried(&settings));
        let follow = async {
            loop {
                tokio::time::sleep(FOLLOW_LOOK).await;
                // When the process ends, clients are served on with what there is.
                if *self.shared.order.borrow() == Order::Serve {
                    let now = self.shared.carried(&settings);
                    carried.send_if_modified(|before| {
                        let differs = *before != now;
                        if differs {
                            *before = now;
                        }
                        differs
                    });
                }
            }
        };
        // Nobody else has taken them: each daemon is run once.
        let Some(closings) = self.shared.daemons.closings(settings.number) else { return };
        let mut readers = HashMap::new();
        let hear =
            |heard: Heard<'_>| self.shared.hear(settings.number, &heard, &mut readers, stack);
        let stop = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = daemon::run(&settings, seen, closings, hear, stop) => {}
            () = follow => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{cpus_beside, find_program};
    use crate::runtime::pinning::Plan;

    #[test]
    fn daemons_are_put_where_no_thread_of_ours_is_first() {
        let plan = Plan { control: Some(0), data: vec![1, 2], warnings: Vec::new() };
        assert_eq!(cpus_beside(&plan, &[0, 1, 2, 3, 4], 4), [3, 4, 2, 1]);
        assert_eq!(cpus_beside(&plan, &[0, 1, 2], 3), [2, 1, 2]);
        assert!(cpus_beside(&plan, &[0, 1, 2], 0).is_empty());
    }

    #[test]
    fn a_program_is_found_by_name_or_path_and_a_text_is_none() {
        assert!(find_program(Path::new("sh")).is_some());
        assert_eq!(find_program(Path::new("/bin/sh")), Some("/bin/sh".into()));
        assert_eq!(find_program(Path::new("no-such-program")), None);
        assert_eq!(find_program(Path::new("/etc/passwd")), None);
        assert_eq!(find_program(Path::new("/")), None);
    }
}
