//! The services that run, as all threads see them, and how one comes, changes and goes while the
//! others are served.
//!
//! Each service is told what to do, as the whole process is ([`Order`]): it serves; once a form
//! that takes its place has published, it serves who still comes; it drains; it stops, and leaves
//! the roster. A service that changes is two forms of one address for a while.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;

use super::options::ServiceOptions;
use super::running::Order;
use super::visits::Visits;
use crate::base::overload::Overload;
use crate::base::stream::OpenOnion;
use crate::onion::config::RemoteConfig;
use crate::onion::revision::{RevisionError, Revisions};
use crate::onion::status::{Engine, PublisherStatus};
use crate::onion::{GuestConfig, Service, ServiceSettings};
use crate::plane::Plane;
use crate::plane::handler::Handlers;
use crate::plane::passed::PassedSockets;
use crate::plane::reach::Reach;
use crate::vault::MasterKey;

/// What every service is made with.
#[derive(Clone, Default)]
pub(super) struct Common {
    /// Where state lies.
    pub(super) state_dir: PathBuf,
    /// C tor daemons that this process runs.
    pub(super) daemons: u16,
    /// Data cores.
    pub(super) cores: usize,
    /// In-process instances: one on each data core, or none.
    pub(super) instances: usize,
    /// Whether memory is short.
    pub(super) overload: Arc<Overload>,
    /// Backends inside this process.
    pub(super) handlers: Handlers,
    /// Sockets that listeners find bound.
    pub(super) sockets: PassedSockets,
    /// Backends that are onion services.
    pub(super) visits: Arc<Visits>,
}

impl Common {
    /// What backends may be that are no sockets.
    fn reach(&self) -> Reach {
        let onions: Arc<dyn OpenOnion> = Arc::clone(&self.visits) as _;
        Reach { handlers: self.handlers.clone(), onions: Some(onions) }
    }
}

/// What the control core alone uses of a service.
pub(super) struct Own {
    /// The service's identity.
    pub(super) master: MasterKey,
    /// Its revision counters.
    pub(super) revisions: Revisions,
    /// Earlier forms of it, in whose place it comes.
    pub(super) replaces: Vec<Arc<ServiceShared>>,
}

/// One service, as all threads see it.
pub(super) struct ServiceShared {
    /// Points, queues, counters.
    pub(super) service: Arc<Service>,
    /// Ports and backends, the same for all forms of one address.
    pub(super) plane: Arc<Plane>,
    /// The address, `<56 characters>.onion`.
    pub(super) onion: String,
    /// What the publisher says.
    pub(super) publisher: watch::Sender<PublisherStatus>,
    /// What the service is told.
    order: watch::Sender<Order>,
    /// Until the control core takes it.
    own: Mutex<Option<Own>>,
}

impl ServiceShared {
    /// A service that nobody serves yet, in the place of `replaces`.
    pub(super) fn new(
        options: ServiceOptions,
        common: &Common,
        state_dir: &Path,
        replaces: Vec<Arc<ServiceShared>>,
    ) -> Result<Arc<ServiceShared>, RevisionError> {
        let ServiceOptions { settings, ports, circuit_limits, master } = options;
        let file = format!("revisions-{}.json", settings.name);
        let revisions = Revisions::load(&state_dir.join(file))?;
        let onion = master.onion_address().to_string();
        let plane = match replaces.last() {
            // What is known of backends and circuits, and what they hold, goes on. Whoever makes
            // this form gives the plane its ports, once nothing can fail any more.
            Some(older) => Arc::clone(&older.plane),
            None => {
                let plane = Plane::with_reach(ports, common.reach());
                plane.set_circuit_limits(circuit_limits);
                plane
            }
        };
        let guests = guests(&settings, common.daemons);
        let overload = Arc::clone(&common.overload);
        Ok(Arc::new(ServiceShared {
            service: Service::new(settings, common.instances, guests, overload),
            plane,
            onion,
            publisher: watch::channel(PublisherStatus::default()).0,
            order: watch::channel(Order::Serve).0,
            own: Mutex::new(Some(Own { master, revisions, replaces })),
        }))
    }

    /// What the control core alone uses; `None` from the second time on.
    pub(super) fn take_own(&self) -> Option<Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Its name in configuration, log and status.
    pub(super) fn name(&self) -> &str {
        &self.service.settings.name
    }

    /// Tell it what to do: what it was told before holds if that goes further.
    pub(super) fn tell(&self, order: Order) {
        self.order.send_if_modified(|now| {
            let before = *now;
            *now = before.max(order);
            *now != before
        });
    }

    /// What it was told last.
    pub(super) fn order(&self) -> Order {
        *self.order.borrow()
    }

    /// Wait until it is told this or more.
    pub(super) async fn told(&self, at_least: Order) {
        // The sender is ours, so this ends for no other reason.
        let _ = self.order.subscribe().wait_for(|order| *order >= at_least).await;
    }
}

/// The instances of a service that are not in this process.
fn guests(settings: &ServiceSettings, daemons: u16) -> Vec<GuestConfig> {
    let remote = |remote: &RemoteConfig| GuestConfig {
        engine: Engine::Remote,
        label: remote.name.clone(),
        address: Some(remote.address.to_string()),
        weight: remote.weight,
    };
    super::daemons::guests(daemons).chain(settings.remotes.iter().map(remote)).collect()
}

/// The services that run, in the order in which they came.
pub(super) struct Roster {
    /// All of them.
    now: watch::Sender<Vec<Arc<ServiceShared>>>,
}

impl Roster {
    /// These services.
    pub(super) fn new(services: Vec<Arc<ServiceShared>>) -> Roster {
        Roster { now: watch::channel(services).0 }
    }

    /// All of them: also those that go.
    pub(super) fn all(&self) -> Vec<Arc<ServiceShared>> {
        self.now.borrow().clone()
    }

    /// One form of each address that is served: the one that publishes.
    pub(super) fn served(&self) -> Vec<Arc<ServiceShared>> {
        let mut served: Vec<Arc<ServiceShared>> = Vec::new();
        for one in self.all().into_iter().filter(|one| one.order() == Order::Serve) {
            match served.iter_mut().find(|other| other.onion == one.onion) {
                Some(older) if older.service.is_handed_over() => *older = one,
                Some(_) => {}
                None => served.push(one),
            }
        }
        served
    }

    /// All of them that `meant` holds for, and one alone of those with the same plane.
    pub(super) fn with_planes(
        &self,
        meant: impl Fn(&ServiceShared) -> bool,
    ) -> Vec<Arc<ServiceShared>> {
        let mut found: Vec<Arc<ServiceShared>> = Vec::new();
        for one in self.all().into_iter().filter(|one| meant(one)) {
            if !found.iter().any(|other| Arc::ptr_eq(&other.plane, &one.plane)) {
                found.push(one);
            }
        }
        found
    }

    /// Whether a service is about to be replaced by another form of itself.
    #[cfg(any(feature = "admin", test))]
    pub(super) fn is_changing(&self) -> bool {
        let all = self.all();
        let serving = all.iter().filter(|one| one.order() == Order::Serve).count();
        serving > self.served().len()
    }

    /// To see when services come and go.
    pub(super) fn subscribe(&self) -> watch::Receiver<Vec<Arc<ServiceShared>>> {
        self.now.subscribe()
    }

    /// These services come.
    pub(super) fn add(&self, services: Vec<Arc<ServiceShared>>) {
        if !services.is_empty() {
            self.now.send_modify(|now| now.extend(services));
        }
    }

    /// This one is gone.
    pub(super) fn remove(&self, gone: &Arc<ServiceShared>) {
        self.now.send_modify(|now| now.retain(|one| !Arc::ptr_eq(one, gone)));
    }

    /// Poll what `make` makes of each service, from when it comes on. Does not end.
    pub(super) async fn for_each<F: Future<Output = ()>>(
        &self,
        mut make: impl FnMut(Arc<ServiceShared>) -> F,
    ) {
        let mut roster = self.subscribe();
        let mut known: Vec<Arc<ServiceShared>> = Vec::new();
        let mut running = FuturesUnordered::new();
        loop {
            let now = roster.borrow_and_update().clone();
            let is_in = |one: &Arc<ServiceShared>, list: &[Arc<ServiceShared>]| {
                list.iter().any(|other| Arc::ptr_eq(one, other))
            };
            known.retain(|one| is_in(one, &now));
            for service in now {
                if !is_in(&service, &known) {
                    known.push(Arc::clone(&service));
                    running.push(make(service));
                }
            }
            while tokio::select! {
                // The sender is ours.
                _ = roster.changed() => false,
                Some(()) = running.next() => true,
            } {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
    use std::sync::{Arc, Mutex};

    use futures::FutureExt as _;

    use super::{Common, Order, Roster, ServiceOptions, ServiceShared};
    use crate::onion::ServiceSettings;
    use crate::onion::config::RemoteInterval;
    use crate::plane::config::CircuitLimits;
    use crate::vault::MasterKey;

    /// A service with the key in this directory, of this name.
    fn service(directory: &std::path::Path, key: &str, name: &str) -> Arc<ServiceShared> {
        let (master, _) =
            MasterKey::load_or_create(&directory.join(key)).expect("the directory is private");
        let settings = ServiceSettings {
            name: name.to_owned(),
            intro_points_per_instance: 3,
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
        let options = ServiceOptions {
            settings,
            ports: Vec::new(),
            circuit_limits: CircuitLimits::default(),
            master,
        };
        let common = Common { cores: 1, instances: 1, ..Common::default() };
        ServiceShared::new(options, &common, directory, Vec::new()).expect("no counters yet")
    }

    /// Names of those that are served.
    fn served(roster: &Roster) -> Vec<String> {
        roster.served().iter().map(|one| one.name().to_owned()).collect()
    }

    #[test]
    fn of_an_address_the_form_that_publishes_is_served() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [old, other, new] = [("a", "old"), ("b", "other"), ("a", "new")]
            .map(|(key, name)| service(directory.path(), key, name));
        let roster = Roster::new(vec![Arc::clone(&old), other]);
        assert!(!roster.is_changing());
        roster.add(vec![new]);
        assert_eq!(served(&roster), ["old", "other"]);
        assert!(roster.is_changing());
        old.service.set_handed_over(true);
        assert_eq!(served(&roster), ["new", "other"]);
        old.tell(Order::HandedOver);
        assert!(!roster.is_changing());
        assert_eq!((served(&roster).len(), roster.all().len()), (2, 3));
        roster.remove(&old);
        assert_eq!(roster.all().len(), 2);
    }

    #[test]
    fn what_a_service_was_told_is_not_taken_back() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let one = service(directory.path(), "a", "one");
        assert!(one.told(Order::Drain).now_or_never().is_none());
        one.tell(Order::Drain);
        one.tell(Order::HandedOver);
        assert_eq!(one.order(), Order::Drain);
        assert!(one.told(Order::HandedOver).now_or_never().is_some());
        assert!(one.take_own().is_some() && one.take_own().is_none());
    }

    #[test]
    fn each_service_is_begun_once_and_one_that_has_ended_is_not_begun_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [first, second] = ["a", "b"].map(|key| service(directory.path(), key, key));
        let roster = Roster::new(vec![Arc::clone(&first)]);
        let (begun, ended) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        let mut all = Box::pin(roster.for_each(|one| {
            begun.lock().expect("no panic").push(one.name().to_owned());
            async {
                let one = one;
                one.told(Order::Stop).await;
                ended.fetch_add(1, Atomic::Relaxed);
            }
        }));
        let mut turn = |expected: &[&str], done: usize| {
            assert!((&mut all).now_or_never().is_none(), "it does not end");
            assert_eq!(*begun.lock().expect("no panic"), expected);
            assert_eq!(ended.load(Atomic::Relaxed), done);
        };
        turn(&["a"], 0);
        roster.add(vec![second]);
        turn(&["a", "b"], 0);
        first.tell(Order::Stop);
        turn(&["a", "b"], 1);
        roster.remove(&first);
        turn(&["a", "b"], 1);
    }
}
