//! A Tor stack: link manager, guard manager, circuit manager and directory, without a TorClient.
//! One for the whole process by default; further ones have guards of their
//! own, or those of another stack ([`TorStack::beside`]).
//!
//! ```text
//!      data core 0         data core 1          control core
//!     HsCircPool          HsCircPool           HsCircPool, DirMgr
//!          \                   |                   /
//!           '--------- CircMgr, GuardMgr, ChanMgr (one, shared) ---- one link to a guard
//! ```
//!
//! Made on the control core *after* the data cores have entered their group, because the first
//! thing a bootstrap opens is the guard's link, and its reactor has to go to a data core.
//! Manager tasks run on the control core; each pool's tasks on the core that made it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use tor_chanmgr::{ChanMgr, ChanMgrConfig, ChannelUsage, Dormancy};
use tor_circmgr::CircMgr;
use tor_circmgr::hspool::HsCircPool;
use tor_dirmgr::{DirMgr, DirMgrStore, DirProvider};
use tor_guardmgr::GuardMgr;
use tor_linkspec::{HasAddrs as _, HasRelayIds as _, OwnedChanTarget};
use tor_memquota::MemoryQuotaTracker;
use tor_netdir::params::NetParameters;
use tor_netdir::{NetDirProvider, Timeliness};
use tor_netdoc::types::policy::AddrPortPattern;
use tor_persist::{FsStateMgr, StateMgr};
use tor_proto::circuit::UniqId;
use tor_rtcompat::scheduler::TaskHandle;

use super::config::{ArtiSettings, report};
use super::load::{LaunchError, Load, OpenCircuit};
use super::network::{self, Told};
use super::partition::GuardPlan;
use super::sharing::Unasked;
use super::skew::{FastProof, Skews};
use super::state::StateFiles;
use super::turns::{GuardShare, Purpose};
use crate::limits;
use crate::runtime::{self, CoreRuntime, circuits_started, open_links};

/// Why a Tor stack could not be made or started.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// arti's state below the state directory cannot be used.
    #[error("cannot use the Tor state in {path}: {problem}")]
    State {
        /// The directory.
        path: PathBuf,
        /// arti's own words.
        problem: String,
    },
    /// Another process holds arti's state.
    #[error("another process uses the Tor state in {path}")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A manager could not be made.
    #[error("cannot {action}: {problem}")]
    Manager {
        /// What was done.
        action: &'static str,
        /// arti's own words.
        problem: String,
    },
    /// The directory cannot be had at all.
    #[error("cannot get a Tor directory: {problem}")]
    Bootstrap {
        /// arti's own words.
        problem: String,
    },
}

/// Turn an error of arti's into [`StackError::Manager`].
fn manager<E: std::error::Error>(action: &'static str) -> impl FnOnce(E) -> StackError {
    move |error| StackError::Manager { action, problem: report(&error) }
}

/// The managers of one stack.
struct Managers {
    /// Guards: asked for their persistent state and for clock skew.
    guardmgr: GuardMgr<CoreRuntime>,
    /// Circuits: every pool stands on it.
    circmgr: Arc<CircMgr<CoreRuntime>>,
    /// Links.
    chanmgr: Arc<ChanMgr<CoreRuntime>>,
    /// Where guards and vanguards are kept.
    state: StateFiles,
}

impl Managers {
    /// Make them, for stack `number` of those in the plan. Their state lies beside the directory
    /// cache.
    fn new(
        settings: &ArtiSettings,
        (plan, number): (GuardPlan, u16),
        memory: &Arc<MemoryQuotaTracker>,
    ) -> Result<Managers, StackError> {
        let (runtime, config) = (CoreRuntime, settings.config());
        let directory = config.dir_mgr_config().map_err(manager("read arti's configuration"))?;
        let state_dir = |stack: u16| match stack {
            0 => directory.cache_dir.with_file_name("state"),
            _ => directory.cache_dir.with_file_name(format!("state-{stack}")),
        };
        let state_error = |error: tor_persist::Error| StackError::State {
            path: state_dir(number),
            problem: report(&error),
        };
        let files = |stack| {
            let files = FsStateMgr::from_path_and_mistrust(state_dir(stack), config.fs_mistrust());
            files.map_err(state_error)
        };
        let leader = Some(plan.leader(number)).filter(|leader| *leader != number);
        let leader = leader.map(files).transpose()?;
        let state = StateFiles::new(files(number)?, leader);
        // arti's own task takes the lock once the other process has ended.
        let locked = state.try_lock().map_err(state_error)?.held() || state.has_own();
        if !locked && !settings.shares_state() {
            return Err(StackError::Locked { path: state_dir(number) });
        }
        let params = NetParameters::from_map(settings.override_net_params());
        let chanmgr = ChanMgr::new(
            runtime,
            ChanMgrConfig::new(Default::default()),
            Dormancy::Active,
            &params,
            Arc::clone(memory),
        )
        .map_err(manager("start the link manager"))?;
        let chanmgr = Arc::new(chanmgr);
        let guardmgr = GuardMgr::new(runtime, state.clone(), config)
            .map_err(manager("start the guard manager"))?;
        let circmgr =
            CircMgr::new(config, state.clone(), &runtime, Arc::clone(&chanmgr), &guardmgr)
                .map_err(manager("start the circuit manager"))?;
        Ok(Managers { guardmgr, circmgr: Arc::new(circmgr), chanmgr, state })
    }

    /// Start their tasks on the calling core; with `share` of what guards allow.
    fn launch(
        &self,
        directory: &Arc<dyn NetDirProvider>,
        share: Option<GuardShare>,
    ) -> Result<(Unasked, Vec<TaskHandle>), StackError> {
        let circuits = self
            .circmgr
            .launch_background_tasks(&CoreRuntime, directory, self.state.clone())
            .map_err(manager("start the circuit manager's tasks"))?;
        let links = self
            .chanmgr
            .launch_background_tasks(&CoreRuntime, Arc::clone(directory))
            .map_err(manager("start the link manager's tasks"))?;
        Ok((Unasked::new(circuits, share), links))
    }
}

/// A Tor stack: the one that all cores share, or one of several.
pub struct TorStack {
    /// What it is made of.
    managers: Managers,
    /// The directory's manager, in the first stack. Manager tasks hold weak references only: this
    /// one keeps it alive.
    dirmgr: Option<Arc<DirMgr<CoreRuntime>>>,
    /// The directory, the same for all stacks.
    directory: Arc<dyn NetDirProvider>,
    /// Which stack has which relays as guards.
    plan: GuardPlan,
    /// Which stack this is.
    number: u16,
    /// Addresses that guards may have, as the user restricted them.
    reachable: Vec<AddrPortPattern>,
    /// What relays say of our clock.
    skews: Skews,
    /// Circuits by link, and refusals.
    load: Arc<Load>,
    /// What arti builds unasked.
    unasked: Unasked,
    /// Bounds what circuits and streams of all stacks hold in their queues: over `[arti]
    /// system.memory.max` the circuit that has held on longest is closed. Without it a client
    /// could make one stream's queue grow to a gigabyte.
    memory: Arc<MemoryQuotaTracker>,
    /// Schedules of the managers' tasks: dropping one stops it.
    #[expect(dead_code, reason = "kept for its Drop")]
    tasks: Vec<TaskHandle>,
}

/// How far the directory is, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapProgress {
    /// 0.0 to 1.0.
    pub fraction: f32,
    /// What is being done.
    pub text: String,
    /// What is in the way.
    pub trouble: Option<String>,
    /// When it is tried again at the latest.
    pub next_try: SystemTime,
}

/// How often a directory is asked for while there is none.
const NETWORK_RETRY: Duration = Duration::from_secs(limits::NETWORK_RETRY_SECONDS);
/// How often it is looked what has become of connections meanwhile.
const NETWORK_LOOK: Duration = Duration::from_millis(limits::NETWORK_LOOK_MS);

impl TorStack {
    /// Make the first stack, with the directory, of a process; with `share` of what guards allow,
    /// where another process has links to them. Call on the control core, with the data cores
    /// already in the group.
    ///
    /// # Errors
    /// [`StackError`]; nothing is running afterwards.
    pub fn new(
        settings: &ArtiSettings,
        plan: GuardPlan,
        share: Option<GuardShare>,
    ) -> Result<Arc<TorStack>, StackError> {
        let config = settings.config();
        let directory = config.dir_mgr_config().map_err(manager("read arti's configuration"))?;
        let memory = MemoryQuotaTracker::new(&CoreRuntime, settings.memory().clone())
            .map_err(manager("account for memory"))?;
        let managers = Managers::new(settings, (plan, 0), &memory)?;
        let store = DirMgrStore::new(&directory, CoreRuntime, false)
            .map_err(manager("open the directory cache"))?;
        let circmgr = Arc::clone(&managers.circmgr);
        let dirmgr = DirMgr::create_unbootstrapped(directory, CoreRuntime, store, circmgr)
            .map_err(manager("start the directory manager"))?;
        let provider: Arc<dyn NetDirProvider> = Arc::clone(&dirmgr) as _;
        let (unasked, mut tasks) = managers.launch(&provider, share)?;
        tasks.extend(DirProvider::download_task_handle(&dirmgr));
        Ok(Arc::new(TorStack {
            managers,
            dirmgr: Some(dirmgr),
            directory: provider,
            plan,
            number: 0,
            reachable: settings.reachable().to_vec(),
            skews: Skews::default(),
            load: Arc::new(Load::new(share)),
            unasked,
            memory,
            tasks,
        }))
    }

    /// Make a further stack, whose guards are those of its leader in the plan, or, if it leads
    /// itself, no guards of any other. Call on the data core that it shall live on, when `first`
    /// has a directory and the leader has written its guards ([`TorStack::store_state`]).
    ///
    /// # Errors
    /// [`StackError`]; nothing is running afterwards.
    pub fn beside(
        first: &TorStack,
        settings: &ArtiSettings,
        number: u16,
        share: Option<GuardShare>,
    ) -> Result<Arc<TorStack>, StackError> {
        let memory = Arc::clone(&first.memory);
        let plan = first.plan;
        let managers = Managers::new(settings, (plan, number), &memory)?;
        let directory = first.directory();
        // Before the managers see the directory, and choose guards from it.
        let reachable = settings.reachable().to_vec();
        plan.share(number).apply(&reachable, &managers.guardmgr, &directory);
        let (unasked, tasks) = managers.launch(&directory, share)?;
        let (dirmgr, skews) = (None, Skews::default());
        Ok(Arc::new(TorStack {
            managers,
            dirmgr,
            directory,
            plan,
            number,
            reachable,
            skews,
            load: Arc::new(Load::new(share)),
            unasked,
            memory,
            tasks,
        }))
    }

    /// Keep this stack's guards apart from the others', for as long as the future is polled.
    pub async fn keep_guards_apart(&self) {
        let mut events = self.directory.events();
        self.bind_guards();
        while events.next().await.is_some() {
            self.bind_guards();
        }
    }

    /// Bind this stack's guards to its share of the relays, by the directory as it is now. Before
    /// circuits are asked of it.
    pub fn bind_guards(&self) {
        let share = self.plan.share(self.number);
        share.apply(&self.reachable, &self.managers.guardmgr, &self.directory);
    }

    /// Get a directory that circuits can be built with, however long it takes. Cancel by dropping.
    ///
    /// # Errors
    /// When something on this machine makes it impossible.
    pub async fn bootstrap(&self) -> Result<(), StackError> {
        let Some(dirmgr) = &self.dirmgr else { return Ok(()) };
        loop {
            match dirmgr.bootstrap().await {
                Ok(()) if self.directory.netdir(Timeliness::Unchecked).is_ok() => return Ok(()),
                // arti has given up, as it does when the network is away for long enough.
                Ok(()) | Err(tor_dirmgr::Error::CantAdvanceState) => {}
                Err(error) => return Err(StackError::Bootstrap { problem: report(&error) }),
            }
            runtime::sleep(NETWORK_RETRY).await;
        }
    }

    /// Call `tell` with each step of the bootstrap and what is in its way, for as long as the
    /// future is polled.
    pub async fn watch_bootstrap(&self, mut tell: impl FnMut(BootstrapProgress)) {
        let Some(dirmgr) = &self.dirmgr else { return std::future::pending().await };
        let mut directories = dirmgr.bootstrap_events();
        let mut links = self.managers.chanmgr.bootstrap_events();
        let mut skews = self.managers.circmgr.skew_events();
        let (mut directory, mut told) = (None, Told::default());
        let mut next_try = SystemTime::now() + NETWORK_RETRY;
        loop {
            tokio::select! {
                Some(now) = directories.next() => directory = Some(now),
                Some(now) = links.next() => told.links = now.blockage(),
                Some(now) = skews.next() => told.skew = now,
                // Connections are counted, and not told of.
                () = runtime::sleep(NETWORK_LOOK) => {}
            }
            let now = SystemTime::now();
            if next_try <= now {
                self.retry_directory();
                next_try = now + NETWORK_RETRY;
            }
            let Some(directory) = &directory else { continue };
            told.directory = directory.blockage(now);
            let failures = runtime::connect_attempts().failures;
            let trouble = network::trouble(failures, &told);
            let (fraction, text) = (directory.frac_at(now), directory.to_string());
            tell(BootstrapProgress { fraction, text, trouble, next_try });
        }
    }

    /// Ask for a directory at once wherever arti waits before it does so again: its waits double
    /// and have no end, so that it would sleep for hours after a network that comes back.
    fn retry_directory(&self) {
        if let Some(task) = self.dirmgr.as_ref().and_then(DirProvider::download_task_handle) {
            task.fire();
        }
    }

    /// See that arti asks for a directory while the one that there was is out of date, for as long
    /// as the future is polled.
    pub async fn keep_directory(&self) {
        loop {
            runtime::sleep(NETWORK_RETRY).await;
            let have = |timeliness| self.directory.netdir(timeliness).is_ok();
            if have(Timeliness::Unchecked) && !have(Timeliness::Timely) {
                self.retry_directory();
            }
        }
    }

    /// Why there is no link to any relay, in words; `None` where one is open, or none has failed.
    pub fn why_unreachable(&self) -> Option<String> {
        match open_links().is_empty() {
            true => network::unreachable(runtime::connect_attempts().failures),
            false => None,
        }
    }

    /// The network's directory: current consensus, parameters, and events when they change.
    pub fn directory(&self) -> Arc<dyn NetDirProvider> {
        Arc::clone(&self.directory)
    }

    /// A circuit pool for the calling core: circuits asked of it run there.
    ///
    /// # Errors
    /// When the core is shutting down.
    pub fn circuit_pool(&self) -> Result<CircuitPool, StackError> {
        let pool = Arc::new(HsCircPool::new(&self.managers.circmgr));
        let provider = self.directory();
        let tasks = pool
            .launch_background_tasks(&CoreRuntime, &provider)
            .map_err(manager("start a circuit pool's tasks"))?;
        let (load, tasks) = (Arc::clone(&self.load), Arc::new(tasks));
        self.unasked.add(&tasks);
        Ok(CircuitPool { pool, directory: provider, load, _tasks: tasks })
    }

    /// Take no more than this share of what guards allow from now on, and have arti build nothing
    /// unasked; or, with `None`, whatever is needed. For a stack with guards that another process
    /// has links to.
    pub fn share_guards(&self, share: Option<GuardShare>) {
        if self.unasked.set(share) {
            self.load.share(share);
        }
    }

    /// Whether points or descriptors wait for their turn to ask for a circuit.
    pub fn is_behind(&self) -> bool {
        self.load.is_behind()
    }

    /// Circuits that a guard would still make at once if another link to it opened now.
    pub fn creates_left(&self) -> u64 {
        self.load.note_started(circuits_started(self.number))
    }

    /// [`Self::meet_links`] again and again, for as long as the future is polled: for a stack that
    /// nobody publishes with.
    pub async fn keep_meeting_links(&self) {
        loop {
            self.meet_links().await;
            runtime::sleep(Duration::from_secs(limits::LINKS_LOOK_SECONDS)).await;
        }
    }

    /// Find the channels of new links, and hear what their relays say of our clock.
    pub async fn meet_links(&self) {
        self.creates_left();
        let links = open_links();
        let links: Vec<_> = links.iter().filter(|link| link.stack == self.number).collect();
        let numbers: Vec<u64> = links.iter().map(|link| link.number).collect();
        self.skews.keep_only(&numbers);
        self.load.keep_only(&numbers);
        for link in links.into_iter().filter(|link| !self.skews.knows(link.number)) {
            let Ok(netdir) = self.directory.netdir(Timeliness::Unchecked) else { return };
            let relay = netdir.relays().find(|relay| relay.addrs().any(|addr| addr == link.peer));
            // A directory cache from before there was a directory.
            let Some(relay) = relay.map(|relay| OwnedChanTarget::from_chan_target(&relay)) else {
                self.skews.note_silent(link.number);
                continue;
            };
            // The link is open: this finds it.
            let open = self.managers.chanmgr.get_or_launch(&relay, ChannelUsage::UserTraffic);
            let wait = Duration::from_millis(limits::CLOCK_SKEW_ASK_MS_MAX);
            match (runtime::timeout(wait, open).await, relay.rsa_identity()) {
                (Ok(Ok((channel, _))), Some(identity)) => {
                    self.load.name(link.number, &channel);
                    self.skews.note(link.number, *identity, channel.clock_skew());
                }
                _ => self.skews.note_silent(link.number),
            }
        }
    }

    /// How far our clock is off, as relays tell: positive when it is behind theirs. `None` while
    /// nobody has told.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        self.skews.median_ms()
    }

    /// What shows that our clock is too fast to publish with, if anything does.
    pub fn proof_of_fast_clock(&self) -> Option<FastProof> {
        let netdir = self.directory.netdir(Timeliness::Unchecked).ok();
        self.skews.proof_of_fast(netdir.as_ref().map(|netdir| netdir.lifetime()))
    }

    /// Circuits of ours that are open on a link, and those that its relay refused to make; `None`
    /// for a link that was opened for the directory alone, or a moment ago.
    pub fn circuits_on(&self, link: u64) -> Option<(u64, u64)> {
        self.load.of_link(link)
    }

    /// Whether a guard has refused several circuits of late, so that fewer are asked for.
    pub fn is_refused_circuits(&self) -> bool {
        self.load.is_refused()
    }

    /// Write guards and vanguards to disk now.
    pub fn store_state(&self) {
        if let Err(error) = self.managers.guardmgr.store_persistent_state() {
            tracing::warn!("cannot write the guard state: {}", report(&error));
        }
    }
}

/// Circuits for one core.
#[derive(Clone)]
pub struct CircuitPool {
    /// arti's pool.
    pool: Arc<HsCircPool<CoreRuntime>>,
    /// The directory the pool builds by.
    directory: Arc<dyn NetDirProvider>,
    /// Circuits by link, and refusals.
    load: Arc<Load>,
    /// Schedules of the pool's tasks.
    _tasks: Arc<Vec<TaskHandle>>,
}

impl CircuitPool {
    /// arti's pool, for `onion` to ask circuits of.
    pub fn circuits(&self) -> &Arc<HsCircPool<CoreRuntime>> {
        &self.pool
    }

    /// Ask for a circuit: when its turn has come, where a guard refuses them or another process has
    /// a link to it.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn launch<T>(
        &self,
        purpose: Purpose,
        circuit: impl Future<Output = tor_circmgr::Result<T>>,
    ) -> Result<T, LaunchError> {
        self.load.launch(purpose, circuit).await
    }

    /// Wait until a circuit may be asked for, which [`Self::build`] then does: for what has a
    /// deadline that begins with its turn.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn turn(&self, purpose: Purpose) -> Result<(), LaunchError> {
        self.load.turn(purpose).await
    }

    /// Ask for a circuit whose turn has come.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn build<T>(
        &self,
        circuit: impl Future<Output = tor_circmgr::Result<T>>,
    ) -> Result<T, LaunchError> {
        self.load.build(circuit).await
    }

    /// As [`Self::launch`], with so much time for the circuit, which begins with its turn; `None`
    /// when that is over.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn launch_within<T>(
        &self,
        purpose: Purpose,
        patience: Duration,
        circuit: impl Future<Output = tor_circmgr::Result<T>>,
    ) -> Result<Option<T>, LaunchError> {
        self.load.turn(purpose).await?;
        runtime::timeout(patience, self.load.build(circuit)).await.ok().transpose()
    }

    /// Count a circuit as open, until what comes back is dropped.
    pub fn count_open(&self, circuit: &UniqId) -> OpenCircuit {
        self.load.open(circuit)
    }

    /// The directory that goes with it.
    pub fn directory(&self) -> &Arc<dyn NetDirProvider> {
        &self.directory
    }
}
