//! The control core: the Tor stack, the publishers, the admin socket, and the order in which
//! things end.
//!
//! Runs on the thread `control`. Nothing on it can stall a data core: they share queues and
//! atomics with it, and no lock that is held across an await.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use tokio::sync::{Notify, watch};

use super::cores_io::CoresIo;
use super::daemons::DaemonOptions;
use super::daemons::told::Told;
use super::fronts::Fronts;
use super::memory::MemoryBudget;
use super::options::Options;
use super::roster::{Common, Own, Roster, ServiceShared};
use super::running::{Order, Progress};
use super::state_dir::StateDir;
use super::succession::{Heir, Predecessor, begin, settle, take_over};
use crate::limits;
use crate::onion::Publisher;
use crate::onion::remote;
use crate::onion::status::{PublisherStatus, ServiceState};
use crate::plane::config::ListenConfig;
use crate::plane::health;
use crate::runtime::{self, CoreGroup, CoreId, Driver, Io, pinning};
use crate::tor::stack::{BootstrapProgress, CircuitPool};
use crate::tor::{ArtiSettings, GuardPlan, GuardShare, OnionClient, TorStack};

/// What all threads share.
pub(super) struct Shared {
    /// The cores.
    pub(super) group: Arc<CoreGroup>,
    /// The services.
    pub(super) roster: Roster,
    /// Listeners.
    pub(super) fronts: Fronts,
    /// What a service that comes is made with.
    pub(super) common: Common,
    /// What is known of the C tor daemons that this process runs, and the way to them.
    pub(super) daemons: Told,
    /// Held while services change.
    pub(super) changing: Mutex<()>,
    /// Whether a new process takes over.
    pub(super) succession: AtomicBool,
    /// Whether the process that this one takes over from still runs.
    #[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "nobody asks without it"))]
    pub(super) beside_predecessor: AtomicBool,
    /// What this process may take of what guards allow, while another has links to them.
    pub(super) guard_share: Mutex<Option<GuardShare>>,
    /// Which of them have which relays as guards.
    pub(super) guards: GuardPlan,
    /// The Tor stacks, as they come up: the first from the control core, each further one from the
    /// data core of its number.
    pub(super) stacks: Vec<watch::Sender<Option<Arc<TorStack>>>>,
    /// Data cores that are up for the first time.
    cores_up: AtomicUsize,
    /// Rings when one more is.
    core_up: Notify,
    /// What the process as a whole does.
    pub(super) order: watch::Receiver<Order>,
    /// What drives the data cores.
    pub(super) io: Io,
    /// Whether a core for which there is no ring runs on epoll.
    pub(super) falls_back: bool,
    /// What each of them runs on.
    pub(super) cores_io: CoresIo,
    /// How long a data core looks around before it sleeps.
    pub(super) spin: Duration,
    /// Memory that the process may hold.
    pub(super) memory: MemoryBudget,
    /// How far the directory is, while it is what everything waits for.
    pub(super) bootstrap: watch::Sender<Option<String>>,
    /// What is in the way of it, and when it is tried again; written with it.
    pub(super) trouble: Mutex<Option<(String, SystemTime)>>,
}

impl Shared {
    /// Nothing runs yet.
    pub(super) fn new(
        group: Arc<CoreGroup>,
        services: Vec<Arc<ServiceShared>>,
        common: Common,
        (io, falls_back, spin): (Io, bool, Duration),
        guards: GuardPlan,
        order: watch::Receiver<Order>,
        memory: MemoryBudget,
    ) -> Arc<Shared> {
        let cores = common.cores;
        Arc::new(Shared {
            group,
            roster: Roster::new(services),
            fronts: Fronts::new(common.cores),
            daemons: Told::new(common.daemons),
            common,
            changing: Mutex::new(()),
            succession: AtomicBool::new(false),
            beside_predecessor: AtomicBool::new(false),
            guard_share: Mutex::default(),
            guards,
            stacks: (0..guards.stacks()).map(|_| watch::channel(None).0).collect(),
            cores_up: AtomicUsize::new(0),
            core_up: Notify::new(),
            order,
            io,
            falls_back,
            cores_io: CoresIo::new(cores),
            spin,
            memory,
            bootstrap: watch::channel(Some("starting".to_owned())).0,
            trouble: Mutex::default(),
        })
    }

    /// How many Tor stacks there are.
    pub(super) fn stack_count(&self) -> u16 {
        u16::try_from(self.stacks.len()).unwrap_or(u16::MAX)
    }

    /// What this process may take of what guards allow, while another has links to them.
    pub(super) fn guard_share(&self) -> Option<GuardShare> {
        *self.guard_share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory is so far.
    fn note_bootstrap(&self, progress: BootstrapProgress) {
        let BootstrapProgress { fraction, text, trouble, next_try } = progress;
        let percent = (fraction * 100.0) as u32;
        let step = format!("{percent} %: {text}");
        let seconds = limits::NETWORK_RETRY_SECONDS;
        let text = match &trouble {
            Some(trouble) => format!("{trouble}; tried again every {seconds} s ({step})"),
            None => step,
        };
        let trouble = trouble.map(|trouble| (trouble, next_try));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        self.bootstrap.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&text);
            *before = Some(text);
            changed
        });
    }

    /// A Tor stack has come up.
    pub(super) fn enter_stack(&self, number: usize, stack: &Arc<TorStack>) {
        let Some(slot) = self.stacks.get(number) else { return };
        slot.send_replace(Some(Arc::clone(stack)));
        // It may have become another one meanwhile; held, so that it does not once more.
        let share = self.guard_share.lock().unwrap_or_else(PoisonError::into_inner);
        stack.share_guards(*share);
    }

    /// A data core has entered the group.
    pub(super) fn note_core_up(&self) {
        self.cores_up.fetch_add(1, Ordering::Release);
        self.core_up.notify_one();
    }

    /// Wait until every data core has entered the group.
    async fn cores_up(&self) {
        while self.cores_up.load(Ordering::Acquire) < self.common.cores {
            self.core_up.notified().await;
        }
    }
}

/// What the control core is made with.
pub(super) struct ControlCore {
    /// What all threads share.
    pub(super) shared: Arc<Shared>,
    /// The CPU it is pinned to, if any.
    pub(super) cpu: Option<usize>,
    /// arti's configuration.
    pub(super) arti: ArtiSettings,
    /// Where the admin socket is.
    #[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "no socket without it"))]
    pub(super) admin_socket: Option<std::path::PathBuf>,
    /// Where status is told as OnionBalance tells it.
    #[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "no socket without it"))]
    pub(super) onionbalance_socket: Option<std::path::PathBuf>,
    /// How long a drain may take.
    pub(super) drain: Duration,
    /// Listeners that wait until the process that has them lets go.
    pub(super) listens: Vec<ListenConfig>,
    /// C tor daemons that this process runs.
    pub(super) daemons: DaemonOptions,
    /// Where progress goes.
    pub(super) progress: watch::Sender<Progress>,
    /// The data threads.
    pub(super) data: Vec<JoinHandle<()>>,
    /// Tells the data threads to stop.
    pub(super) order: watch::Sender<Order>,
    /// Held until the end, or until another process takes over.
    pub(super) state_dir: Arc<StateDir>,
    /// The process to take over from.
    pub(super) predecessor: Option<Predecessor>,
    /// Whether the state directory is ours: not until the predecessor lets go of it.
    pub(super) owner: watch::Sender<bool>,
}

impl ControlCore {
    /// Take from the options what the control core needs.
    pub(super) fn settings(options: &Options) -> (Option<usize>, Duration) {
        (options.plan.control, options.drain)
    }

    /// Start the thread.
    pub(super) fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("control".to_owned()).spawn(move || self.run())
    }

    /// Run to the end.
    fn run(mut self) {
        if let Some(cpu) = self.cpu
            && let Err(error) = pinning::pin_current_thread(cpu)
        {
            tracing::warn!("{error}; the control core runs unpinned");
        }
        let ended = match Driver::new() {
            Ok(driver) => driver.block_on(self.serve()),
            Err(error) => Err(format!("cannot start the control core: {error}")),
        };
        self.order.send_replace(Order::Stop);
        for thread in std::mem::take(&mut self.data) {
            // A data core's panic was caught and reported by itself.
            let _ = thread.join();
        }
        tracing::debug!("released {}", self.state_dir.path().display());
        self.progress.send_modify(|progress| {
            progress.ended = Some(ended.err().unwrap_or_default());
        });
    }

    /// Serve until told to stop, or until something ends it for good.
    async fn serve(&mut self) -> Result<(), String> {
        self.shared.group.enter(CoreId::CONTROL);
        self.watch_backends();
        let mut order = self.shared.order.clone();
        tokio::select! {
            () = self.shared.cores_up() => {}
            _ = order.wait_for(|order| *order != Order::Serve) => return Ok(()),
        }
        let predecessor = self.predecessor.take();
        if let Some(predecessor) = &predecessor {
            tokio::select! {
                () = begin(predecessor, &self.shared) => {}
                _ = order.wait_for(|order| *order != Order::Serve) => return Ok(()),
            }
        }
        let share = self.shared.guard_share();
        let stack = TorStack::new(&self.arti, self.shared.guards, share)
            .map_err(|error| error.to_string())?;
        let admin = self.serve_admin(predecessor.is_some());
        let mut admin = std::pin::pin!(admin);
        let onionbalance = self.serve_onionbalance(predecessor.is_some());
        let publish = self.publish(Arc::clone(&stack), predecessor);
        let watch = self.watch_progress();
        let drained = async {
            let _ = order.wait_for(|order| *order != Order::Serve).await;
            self.shared.fronts.end();
            self.serve_latecomers(order.clone()).await;
            self.drain_streams(order.clone()).await;
            self.drain_daemons(order.clone()).await;
        };
        let (end_daemons, daemons_end) = watch::channel(false);
        let mut daemons = std::pin::pin!(self.run_daemons(&stack, daemons_end));
        let ended = tokio::select! {
            ended = publish => ended,
            () = watch => Ok(()),
            () = self.shared.watch_memory() => Ok(()),
            error = &mut admin => Err(error),
            () = onionbalance => Ok(()),
            () = drained => Ok(()),
            () = daemons.as_mut() => Ok(()),
        };
        end_daemons.send_replace(true);
        daemons.await;
        stack.store_state();
        ended
    }

    /// Check the backends of every service and look their names up, from when it comes on: that
    /// needs no Tor, and is done before anybody can come.
    fn watch_backends(&self) {
        let shared = Arc::clone(&self.shared);
        runtime::spawn(async move {
            let watch = |service: Arc<ServiceShared>| {
                runtime::spawn(health::watch(Arc::downgrade(&service.plane)));
                futures::future::ready(())
            };
            shared.roster.for_each(watch).await;
        });
    }

    /// Without the feature `admin` there is no socket.
    #[cfg(not(feature = "admin"))]
    async fn serve_admin(&self, _replace: bool) -> String {
        std::future::pending().await
    }

    /// Answer on the admin socket, once the state directory is ours. Comes back only with an error.
    #[cfg(feature = "admin")]
    async fn serve_admin(&self, replace: bool) -> String {
        let Some(path) = &self.admin_socket else { return std::future::pending().await };
        let place = match replace {
            true => crate::admin::Place::Predecessor,
            false => crate::admin::Place::Free,
        };
        let mut owner = self.owner.subscribe();
        if owner.wait_for(|owner| *owner).await.is_err() {
            return std::future::pending().await;
        }
        let desk = super::succession::Desk::new(&self.shared, &self.order, &self.state_dir);
        match crate::admin::serve(path, place, desk).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error.to_string(),
        }
    }

    /// Get a directory, give the stack to the data cores, take over from the process that runs, if
    /// one does, and publish.
    async fn publish(
        &self,
        stack: Arc<TorStack>,
        predecessor: Option<Predecessor>,
    ) -> Result<(), String> {
        let tell = |progress| self.shared.note_bootstrap(progress);
        // From the first directory on: circuits are asked for only when the share is known.
        let apart = async {
            if self.shared.stack_count() > 1 {
                stack.keep_guards_apart().await;
            }
            std::future::pending::<()>().await;
        };
        let apart = async {
            futures::future::join(apart, stack.keep_directory()).await;
        };
        let mut apart = std::pin::pin!(apart);
        tokio::select! {
            () = stack.watch_bootstrap(tell) => {}
            () = &mut apart => {}
            done = stack.bootstrap() => done.map_err(|error| error.to_string())?,
        }
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        stack.bind_guards();
        // arti writes them once a minute: a process that is killed before has the same ones again.
        stack.store_state();
        self.shared.enter_stack(0, &stack);
        let pool = stack.circuit_pool().map_err(|error| error.to_string())?;
        // From now on: a process that takes over has to have their points as well.
        let guests = self.shared.roster.for_each(|service| bring_guests(service, pool.clone()));
        let mut guests = std::pin::pin!(guests);
        let heir = tokio::select! {
            heir = self.take_over(predecessor) => heir?,
            () = &mut guests => None,
            () = &mut apart => None,
        };
        self.shared.bootstrap.send_replace(None);
        let client = OnionClient::new(&pool, &self.arti).map_err(|error| error.to_string())?;
        self.shared.common.visits.enter(CoreId::CONTROL, client);
        let attended = self
            .shared
            .roster
            .for_each(|service| self.attend(service, stack.clone(), pool.clone()));
        let settled = async {
            match heir {
                Some(heir) => settle(heir, self.progress.subscribe(), &self.shared).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = futures::future::join3(attended, guests, apart) => Ok(()),
            error = settled => Err(error),
        }
    }

    /// Publish a service until it is told to leave; then see its clients off.
    async fn attend(&self, service: Arc<ServiceShared>, stack: Arc<TorStack>, pool: CircuitPool) {
        let Some(own) = service.take_own() else { return };
        let latecomers = async {
            service.told(Order::HandedOver).await;
            // Clients that hold an older descriptor still come to the points in it.
            let _ = tokio::time::timeout(self.drain, service.told(Order::Drain)).await;
        };
        tokio::select! {
            () = publish_one(&service, own, stack, pool) => {}
            () = super::wellness::watch(&service, &self.shared) => {}
            () = latecomers => {}
        }
        let replaced = service.order() == Order::HandedOver;
        service.tell(Order::Drain);
        let all_left = async {
            while service.service.is_busy() || service.service.open_circuits() > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        match replaced {
            // The address is served on, so nobody's stream is cut.
            true => all_left.await,
            false => drop(tokio::time::timeout(self.drain, all_left).await),
        }
        service.service.close_circuits();
        service.tell(Order::Stop);
        self.shared.roster.remove(&service);
        match replaced {
            true => tracing::debug!(service = service.name(), "its older form has ended"),
            false => tracing::info!(service = service.name(), "the service has ended"),
        }
    }

    /// Take over from the process that runs, if one does. The state directory is ours afterwards,
    /// and the counters of the services are those that were published last.
    async fn take_over(&self, predecessor: Option<Predecessor>) -> Result<Option<Heir>, String> {
        let Some(predecessor) = predecessor else { return Ok(None) };
        self.shared.bootstrap.send_replace(Some("about to take over".to_owned()));
        let heir = take_over(predecessor, &self.shared, &self.state_dir).await?;
        self.owner.send_replace(true);
        for error in self.shared.take_listens(&self.listens) {
            // Clients over Tor, and of all other listeners, are served all the same.
            tracing::error!("{error}; free the address, and SIGHUP tries again");
        }
        Ok(Some(heir))
    }

    /// Keep `progress` true, for as long as the future is polled.
    async fn watch_progress(&self) {
        let mut bootstrap = self.shared.bootstrap.subscribe();
        let mut roster = self.shared.roster.subscribe();
        loop {
            roster.mark_unchanged();
            let served = self.shared.roster.served();
            let mut publishers: Vec<_> =
                served.iter().map(|service| service.publisher.subscribe()).collect();
            let onions: Vec<_> = served.iter().map(|service| service.onion.clone()).collect();
            let waiting_for = bootstrap.borrow_and_update().clone();
            let states: Vec<PublisherStatus> =
                publishers.iter_mut().map(|one| one.borrow_and_update().clone()).collect();
            self.progress.send_if_modified(|progress| {
                let before = progress.clone();
                progress.onions.clone_from(&onions);
                progress.ready |= states.iter().all(|one| one.state == ServiceState::Ready);
                let worst = states.iter().find(|one| one.state != ServiceState::Ready);
                progress.state = worst.map_or(ServiceState::Ready, |one| one.state);
                progress.text = waiting_for
                    .clone()
                    .or_else(|| worst.and_then(|one| one.reason.clone()))
                    .unwrap_or_default();
                *progress != before
            });
            let changed = publishers.iter_mut().map(|one| one.changed().boxed());
            tokio::select! {
                _ = bootstrap.changed() => {}
                _ = roster.changed() => {}
                _ = futures::future::select_all(changed) => {}
            }
        }
    }

    /// After a hand-over, go on for as long as a drain may take: clients that hold an older
    /// descriptor still come to the points in it.
    async fn serve_latecomers(&self, mut order: watch::Receiver<Order>) {
        if *order.borrow() != Order::HandedOver {
            return;
        }
        self.progress.send_modify(|progress| progress.handed_over = true);
        let told_more = order.wait_for(|order| *order >= Order::Drain);
        if tokio::time::timeout(self.drain, told_more).await.is_err() {
            self.order.send_modify(|order| *order = (*order).max(Order::Drain));
        }
    }

    /// Wait until no client is served any more and the links have been quiet for a moment, or the
    /// deadline, or the order to stop. Quiet, because a stream that has closed may still have cells
    /// in its circuit's queue, which go out as the client acknowledges others.
    async fn drain_streams(&self, mut order: watch::Receiver<Order>) {
        let deadline = Instant::now() + self.drain;
        tokio::select! {
            () = self.clients_leave(deadline) => {}
            _ = order.wait_for(|order| *order == Order::Stop) => {}
        }
    }

    /// After the last stream, a daemon still has cells in its circuits' queues, as our links have.
    async fn drain_daemons(&self, mut order: watch::Receiver<Order>) {
        if self.daemons.count() > 0 {
            let quiet = Duration::from_millis(limits::DRAIN_QUIET_MS);
            let stop = order.wait_for(|order| *order == Order::Stop);
            let _ = tokio::time::timeout(quiet, stop).await;
        }
    }

    /// See [`Self::drain_streams`].
    async fn clients_leave(&self, deadline: Instant) {
        let busy = || {
            let services = self.shared.roster.all();
            services.iter().any(|one| one.service.is_busy()) || self.shared.fronts.handoff.is_busy()
        };
        let sent = || -> u64 {
            let links = self.shared.group.links();
            links.iter().map(|link| link.bytes_out.load(Ordering::Relaxed)).sum()
        };
        let quiet = Duration::from_millis(limits::DRAIN_QUIET_MS);
        let (mut before, mut since) = (sent(), Instant::now());
        while Instant::now() < deadline {
            let now = sent();
            if busy() || now.abs_diff(before) > limits::DRAIN_QUIET_BYTES {
                (before, since) = (now, Instant::now());
            } else if since.elapsed() >= quiet || self.shared.group.links().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Publish one service, for as long as the future is polled: once it has points, if it comes in the
/// place of another form, which serves on until this one has published.
async fn publish_one(service: &ServiceShared, own: Own, stack: Arc<TorStack>, pool: CircuitPool) {
    let Own { master, mut revisions, mut replaces } = own;
    if !replaces.is_empty() {
        has_points(service).await;
        for old in &replaces {
            old.service.set_handed_over(true);
        }
    }
    // Another process, or another form, may have published since they were read.
    if let Err(error) = revisions.reload() {
        tracing::warn!("{error}");
    }
    let onion = Arc::clone(&service.service);
    let (publisher, mut status) = Publisher::new(onion, stack, pool, Arc::new(master), revisions);
    let forward = async {
        while status.changed().await.is_ok() {
            let now = status.borrow_and_update().clone();
            if now.state == ServiceState::Ready {
                replaces.drain(..).for_each(|old| old.tell(Order::HandedOver));
            }
            service.publisher.send_replace(now);
        }
    };
    futures::future::join(publisher.run(), forward).await;
}

/// Bring the points of a service's instances elsewhere, until it is told to leave.
async fn bring_guests(service: Arc<ServiceShared>, pool: CircuitPool) {
    tokio::select! {
        // Ends at once where there are none.
        () = remote::keep(&service.service, &pool) => {}
        () = service.told(Order::HandedOver) => {}
    }
}

/// Wait until every instance has an introduction point, or some have and it has been long enough.
async fn has_points(service: &ServiceShared) {
    let longest = Instant::now() + Duration::from_secs(limits::HANDOVER_POINTS_SECONDS_MAX);
    let enough = || match Instant::now() < longest {
        true => service.service.has_points_everywhere(),
        false => service.service.has_points(),
    };
    while !enough() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
