//! Services that come, change and go while the others are served: what SIGHUP does, and what an
//! embedding program can do.
//!
//! A service is known by its address. One that is new comes; one that is no longer wanted closes
//! its introduction points and serves its clients on for as long as a drain may take; one whose
//! ports have changed serves the new ones from the next stream on; and one whose other settings, or
//! name, have changed comes again beside itself: the new form gets points and publishes, and only
//! then the old one closes its own. Its open streams go on until they end.

use std::sync::{Arc, PoisonError};

use super::control_core::Shared;
use super::launch::{LaunchError, Notice, check_handlers, existing_keys, services, unused_sockets};
use super::options::ServiceOptions;
use super::roster::ServiceShared;
use super::running::{Order, Running};
use crate::config::Config;
use crate::onion::revision::RevisionError;
use crate::plane::front::Occupied;
use crate::vault::MasterKey;

/// Why no service has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The process ends.
    #[error("the process is ending")]
    Ending,
    /// A new process takes over.
    #[error("a new process is taking over; it has its own configuration")]
    HandingOver,
    /// Nothing would be left.
    #[error("no service would be left")]
    NoService,
    /// The revision counters of a service that comes.
    #[error(transparent)]
    Revisions(#[from] RevisionError),
}

/// What a change of services has begun, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// These come.
    pub added: Vec<String>,
    /// These go on with other settings.
    pub changed: Vec<String>,
    /// These go.
    pub removed: Vec<String>,
    /// Whether listeners come or go.
    pub listeners: bool,
}

impl Running {
    /// Serve these services from now on, see [the module](crate::app). Returns at once: clients see
    /// a change when its descriptors are published.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub fn set_services(&self, wanted: Vec<ServiceOptions>) -> Result<Changes, ChangeError> {
        self.shared.set_services(wanted, &self.state_path)
    }

    /// Serve what a configuration says from now on. `tell` hears of what cannot change in a process
    /// that runs, which is everything but the services, and of keys that were made.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing has changed then.
    pub fn apply(
        &self,
        config: &Config,
        mut tell: impl FnMut(Notice),
    ) -> Result<Changes, LaunchError> {
        if std::path::absolute(&config.state_dir).ok() != std::path::absolute(&self.state_path).ok()
        {
            let error = "state_dir cannot change while the service runs: start anew for that";
            return Err(LaunchError::Config(vec![error.to_owned()]));
        }
        check_handlers(config, &self.shared.common.handlers).map_err(LaunchError::Config)?;
        let keys = existing_keys(config).map_err(LaunchError::Config)?;
        // Its key was taken away: one that is made now would be another address.
        let served = self.services();
        let lost = config.services.iter().zip(&keys);
        let lost: Vec<String> = lost
            .filter(|(service, key)| key.is_none() && served.contains(&service.name))
            .map(|(service, _)| {
                let file = config.key_file(service);
                format!(
                    "service {:?}: its key file {} is gone; put it back, or take the service out",
                    service.name,
                    file.display()
                )
            })
            .collect();
        if !lost.is_empty() {
            return Err(LaunchError::Config(lost));
        }
        let mut notices = Vec::new();
        let changed = self.change(config, keys, |notice| notices.push(notice));
        // Without the lock: who is told may ask for the next change.
        notices.into_iter().for_each(&mut tell);
        let changes = changed?;
        for warning in unused_sockets(&self.shared.common.sockets, config) {
            tell(Notice::Warning(warning));
        }
        if let Some(before) = &self.started_with {
            for key in fixed_parts_that_differ(before, config) {
                let text = format!("{key}: what has changed there holds from the next start on");
                tell(Notice::Warning(text));
            }
        }
        Ok(changes)
    }

    /// See [`Running::apply`]: everything that can be refused is, before anything changes.
    fn change(
        &self,
        config: &Config,
        keys: Vec<Option<MasterKey>>,
        mut tell: impl FnMut(Notice),
    ) -> Result<Changes, LaunchError> {
        let failed = |error: &dyn std::error::Error| LaunchError::Failed(error.to_string());
        let shared = &self.shared;
        let _one_at_a_time = shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        shared.check_changes_are_allowed().map_err(|error| failed(&error))?;
        let listens = shared
            .plan_listens(&config.listens, Occupied::Refuse)
            .map_err(|error| failed(&error))?;
        let wanted = services(config, keys, &mut tell).map_err(LaunchError::Config)?;
        let changes = shared.change_services(wanted, &self.state_path);
        let mut changes = changes.map_err(|error| failed(&error))?;
        // After the services, to which listeners lead.
        changes.listeners = shared.have_listens(listens).map_err(|error| failed(&error))?;
        Ok(changes)
    }
}

/// What cannot change in a process that runs, and differs.
fn fixed_parts_that_differ(before: &Config, now: &Config) -> Vec<&'static str> {
    let parts = [
        ("drain_s", before.drain != now.drain),
        ("memory_max", before.memory_max != now.memory_max),
        ("[turbo]", before.turbo != now.turbo),
        ("[ctor]", before.ctor != now.ctor),
        ("[admin]", before.admin != now.admin),
        ("[log] format", before.log.format != now.log.format),
        ("[arti]", before.arti != now.arti),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

impl Shared {
    /// See [`Running::set_services`].
    fn set_services(
        &self,
        wanted: Vec<ServiceOptions>,
        state_dir: &std::path::Path,
    ) -> Result<Changes, ChangeError> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_changes_are_allowed()?;
        self.change_services(wanted, state_dir)
    }

    /// Whether this process goes on with what it serves.
    fn check_changes_are_allowed(&self) -> Result<(), ChangeError> {
        if *self.order.borrow() != Order::Serve {
            return Err(ChangeError::Ending);
        }
        if self.succession.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(ChangeError::HandingOver);
        }
        Ok(())
    }

    /// See [`Running::set_services`]; whoever calls has `changing`.
    fn change_services(
        &self,
        wanted: Vec<ServiceOptions>,
        state_dir: &std::path::Path,
    ) -> Result<Changes, ChangeError> {
        if wanted.is_empty() {
            return Err(ChangeError::NoService);
        }
        let mut changes = Changes::default();
        let mut all = self.roster.all();
        all.retain(|one| one.order() < Order::Drain);
        let (mut come, mut ports, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for options in wanted {
            let name = options.settings.name.clone();
            let onion = options.master.onion_address().to_string();
            let forms: Vec<Arc<ServiceShared>> =
                all.iter().filter(|one| one.onion == onion).cloned().collect();
            kept.push(onion);
            // All forms of an address have one plane: streams that circuits of an older one still
            // begin go where the new one's go.
            let served = (options.ports.clone(), options.circuit_limits.clone());
            ports.extend(forms.last().map(|form| (Arc::clone(&form.plane), served)));
            let same = |form: &&Arc<ServiceShared>| form.service.settings == options.settings;
            match forms.last() {
                Some(newest) if same(&newest) => {}
                Some(_) => {
                    changes.changed.push(name);
                    come.push(ServiceShared::new(options, &self.common, state_dir, forms)?);
                }
                None => {
                    changes.added.push(name);
                    come.push(ServiceShared::new(options, &self.common, state_dir, forms)?);
                }
            }
        }
        // From here on nothing fails.
        for (plane, (ports, circuit_limits)) in ports {
            plane.set_ports(ports);
            plane.set_circuit_limits(circuit_limits);
        }
        for gone in all.iter().filter(|one| !kept.contains(&one.onion)) {
            if gone.order() == Order::Serve {
                changes.removed.push(gone.name().to_owned());
            }
            gone.tell(Order::Drain);
        }
        self.roster.add(come);
        changes.removed.dedup();
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use tokio::sync::watch;

    use super::{ChangeError, Changes, Order, ServiceOptions, Shared};
    use crate::app::memory::MemoryBudget;
    use crate::app::roster::{Common, ServiceShared};
    use crate::onion::ServiceSettings;
    use crate::onion::config::RemoteInterval;
    use crate::plane::config::{
        BackendAddress, CircuitLimits, ListenConfig, PortConfig, PortTarget,
    };
    use crate::plane::front::Occupied;
    use crate::plane::status::{BackendOrder, BackendState};
    use crate::runtime::{CoreGroup, Io};
    use crate::tor::GuardPlan;
    use crate::vault::MasterKey;

    /// A service with the key in a file, of this name, and so many points.
    fn options(directory: &Path, key: &str, name: &str, points: u8) -> ServiceOptions {
        let (master, _) =
            MasterKey::load_or_create(&directory.join(key)).expect("the directory is private");
        let settings = ServiceSettings {
            name: name.to_owned(),
            intro_points_per_instance: points,
            intro_points_max: 20,
            intro_dos: None,
            streams_per_circuit_max: 8,
            rendezvous_building_max: 8,
            remotes: Vec::new(),
            verify_interval: None,
            theft_check_interval: None,
            distinct_descriptors: true,
            remote_interval: RemoteInterval::default(),
        };
        let circuit_limits = CircuitLimits::default();
        ServiceOptions { settings, ports: Vec::new(), circuit_limits, master }
    }

    /// A process that serves `a` and `b`.
    fn process(directory: &Path) -> (Arc<Shared>, watch::Sender<Order>) {
        let common = Common { cores: 1, instances: 1, ..Common::default() };
        let services = ["a", "b"].map(|key| {
            let options = options(directory, key, key, 3);
            ServiceShared::new(options, &common, directory, Vec::new()).expect("no counters yet")
        });
        let (order, reader) = watch::channel(Order::Serve);
        let io = (Io::Epoll, true, Duration::ZERO);
        let (group, guards) = (CoreGroup::new(), GuardPlan::new(1, 0));
        let memory = MemoryBudget::default();
        (Shared::new(group, services.to_vec(), common, io, guards, reader, memory), order)
    }

    /// The names of `services`.
    fn names(services: &[&str]) -> Vec<String> {
        services.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_service_is_known_by_its_address() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = directory.path();
        let (shared, _order) = process(at);
        let change = |wanted: Vec<ServiceOptions>| shared.set_services(wanted, at);
        let as_before = change(vec![options(at, "a", "a", 3), options(at, "b", "b", 3)]);
        assert_eq!(as_before.expect("it serves"), Changes::default());
        assert_eq!(shared.roster.all().len(), 2);

        // Another key under an old name, and an old key under another name.
        let changes = change(vec![options(at, "c", "a", 3), options(at, "b", "new", 3)]);
        let expected = Changes {
            added: names(&["a"]),
            changed: names(&["new"]),
            removed: names(&["a"]),
            ..Changes::default()
        };
        assert_eq!(changes.expect("it serves"), expected);
        let all = shared.roster.all();
        let told: Vec<_> = all.iter().map(|one| (one.name(), one.order())).collect();
        let serve = Order::Serve;
        let expected = [("a", Order::Drain), ("b", serve), ("a", serve), ("new", serve)];
        assert_eq!(told, expected);
        let replaced = all[3].take_own().expect("nobody took it").replaces;
        assert!(replaced.len() == 1 && Arc::ptr_eq(&replaced[0], &all[1]));
        // What is known of backends and circuits goes on, and is told once.
        assert!(Arc::ptr_eq(&all[3].plane, &all[1].plane));
        assert_eq!(shared.roster.with_planes(|_| true).len(), 3);
        assert_eq!(shared.roster.with_planes(|one| one.name() == "new").len(), 1);
        assert!(all[2].take_own().expect("nobody took it").replaces.is_empty());

        // Again before the first change has been published: both older forms are replaced.
        let changes = change(vec![options(at, "b", "new", 2)]);
        let expected =
            Changes { changed: names(&["new"]), removed: names(&["a"]), ..Changes::default() };
        assert_eq!(changes.expect("it serves"), expected);
        let newest = shared.roster.all().last().cloned().expect("there is one");
        assert_eq!(newest.take_own().expect("nobody took it").replaces.len(), 2);
    }

    #[test]
    fn backends_keep_their_orders_when_a_service_gets_other_settings() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = directory.path();
        let (shared, _order) = process(at);
        let address = BackendAddress::Unix(at.join("app.sock"));
        let with = |points| {
            let target = PortTarget::backends([address.clone()]);
            let ports = vec![PortConfig::new(80, target)];
            let [a, b] = ["a", "b"].map(|key| options(at, key, key, points));
            vec![ServiceOptions { ports, ..a }, b]
        };
        shared.set_services(with(3), at).expect("it serves");
        let plane = Arc::clone(&shared.roster.all()[0].plane);
        assert_eq!(plane.set_order(&address.to_string(), None, BackendOrder::Maintenance), 1);
        shared.set_services(with(4), at).expect("it serves");
        let forms = shared.roster.all();
        let forms: Vec<_> = forms.iter().filter(|one| one.name() == "a").collect();
        assert_eq!(forms.len(), 2);
        assert_eq!(forms[1].plane.status()[0].state, BackendState::Maintenance);
    }

    /// A listener of the service `a`.
    fn listen(address: BackendAddress, backlog: u32) -> ListenConfig {
        ListenConfig {
            address,
            service: "a".to_owned(),
            virtual_port: Some(80),
            proxy_protocol: false,
            backlog,
        }
    }

    #[test]
    fn a_listener_that_cannot_be_opened_costs_no_other_at_a_take_over() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (shared, _order) = process(directory.path());
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = taken.local_addr().expect("it is bound");
        let ours = listen(BackendAddress::Unix(directory.path().join("front.sock")), 10);
        let wanted = [listen(BackendAddress::Tcp(address), 10), ours.clone()];
        let failed = shared.take_listens(&wanted);
        assert_eq!(failed.len(), 1);
        assert!(failed[0].to_string().contains(&address.to_string()), "{}", failed[0]);
        let serving = shared.fronts.all();
        assert_eq!(serving.iter().map(|front| front.config()).collect::<Vec<_>>(), [&ours]);
        shared.fronts.end();
    }

    #[test]
    fn a_listener_that_cannot_be_opened_changes_no_other() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (shared, _order) = process(directory.path());
        let path = directory.path().join("front.sock");
        let ours = |backlog| listen(BackendAddress::Unix(path.clone()), backlog);
        let inode = || std::fs::metadata(&path).map(|file| file.ino()).expect("it is there");
        assert!(shared.set_listens(&[ours(10)], Occupied::Refuse).expect("the path is free"));
        let before = inode();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let taken = BackendAddress::Tcp(taken.local_addr().expect("it is bound"));
        // The first has other settings, and could come.
        let wanted = [ours(20), listen(taken, 10)];
        shared.set_listens(&wanted, Occupied::Refuse).expect_err("one is taken");
        assert_eq!(inode(), before);
        assert_eq!(shared.fronts.all()[0].config(), &ours(10));
        assert!(shared.set_listens(&wanted[..1], Occupied::Refuse).expect("it can be ours again"));
        assert_ne!(inode(), before);
        assert!(!shared.set_listens(&wanted[..1], Occupied::Refuse).expect("nothing changes"));
        shared.fronts.end();
        assert!(!path.exists());
    }

    #[test]
    fn a_process_that_ends_or_hands_over_changes_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = directory.path();
        let (shared, order) = process(at);
        let refused = |wanted| shared.set_services(wanted, at).expect_err("it is refused");
        assert!(matches!(refused(Vec::new()), ChangeError::NoService));
        shared.succession.store(true, Ordering::Relaxed);
        assert!(matches!(refused(vec![options(at, "a", "a", 4)]), ChangeError::HandingOver));
        shared.succession.store(false, Ordering::Relaxed);
        order.send_replace(Order::Drain);
        assert!(matches!(refused(vec![options(at, "a", "a", 4)]), ChangeError::Ending));
        let all = shared.roster.all();
        assert_eq!(all.iter().map(|one| one.order()).collect::<Vec<_>>(), [Order::Serve; 2]);
    }
}
