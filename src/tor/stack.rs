//! One Tor stack: link manager, guard manager, circuit manager and directory, without a TorClient.
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
use std::time::SystemTime;

use futures::StreamExt;
use tor_chanmgr::{ChanMgr, ChanMgrConfig, Dormancy};
use tor_circmgr::CircMgr;
use tor_circmgr::hspool::HsCircPool;
use tor_dirmgr::{DirMgr, DirMgrStore, DirProvider};
use tor_guardmgr::GuardMgr;
use tor_memquota::MemoryQuotaTracker;
use tor_netdir::NetDirProvider;
use tor_netdir::params::NetParameters;
use tor_persist::{FsStateMgr, StateMgr};
use tor_rtcompat::scheduler::TaskHandle;

use super::config::{ArtiSettings, report};
use crate::runtime::CoreRuntime;

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

/// A Tor stack shared by all cores of the process.
pub struct TorStack {
    /// Guards: asked for their persistent state and for clock skew.
    guardmgr: GuardMgr<CoreRuntime>,
    /// Circuits: every pool stands on it.
    circmgr: Arc<CircMgr<CoreRuntime>>,
    /// Links; kept so that they live as long as the stack.
    _chanmgr: Arc<ChanMgr<CoreRuntime>>,
    /// The directory. Manager tasks hold weak references only: this one keeps it alive.
    dirmgr: Arc<DirMgr<CoreRuntime>>,
    /// Schedules of the managers' tasks: dropping one stops it.
    _tasks: Vec<TaskHandle>,
}

/// How far the directory is, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapProgress {
    /// 0.0 to 1.0.
    pub fraction: f32,
    /// What is being done or what is in the way.
    pub text: String,
}

impl TorStack {
    /// Make the stack. Call on the control core, with the data cores already in the group.
    ///
    /// # Errors
    /// [`StackError`]; nothing is running afterwards.
    pub fn new(settings: &ArtiSettings) -> Result<Arc<TorStack>, StackError> {
        let runtime = CoreRuntime;
        let config = settings.config();
        let directory = config.dir_mgr_config().map_err(manager("read arti's configuration"))?;
        let state_dir = directory.cache_dir.with_file_name("state");
        let state_error = |error: tor_persist::Error| StackError::State {
            path: state_dir.clone(),
            problem: report(&error),
        };
        let state = FsStateMgr::from_path_and_mistrust(&state_dir, config.fs_mistrust())
            .map_err(state_error)?;
        if !state.try_lock().map_err(state_error)?.held() {
            return Err(StackError::Locked { path: state_dir });
        }
        let params = NetParameters::from_map(settings.override_net_params());
        let chanmgr = ChanMgr::new(
            runtime,
            ChanMgrConfig::new(Default::default()),
            Dormancy::Active,
            &params,
            MemoryQuotaTracker::new_noop(),
        )
        .map_err(manager("start the link manager"))?;
        let chanmgr = Arc::new(chanmgr);
        let guardmgr = GuardMgr::new(runtime, state.clone(), config)
            .map_err(manager("start the guard manager"))?;
        let circmgr =
            CircMgr::new(config, state.clone(), &runtime, Arc::clone(&chanmgr), &guardmgr)
                .map_err(manager("start the circuit manager"))?;
        let circmgr = Arc::new(circmgr);
        let store = DirMgrStore::new(&directory, runtime, false)
            .map_err(manager("open the directory cache"))?;
        let dirmgr = DirMgr::create_unbootstrapped(directory, runtime, store, Arc::clone(&circmgr))
            .map_err(manager("start the directory manager"))?;
        let provider: Arc<dyn NetDirProvider> = Arc::clone(&dirmgr) as _;
        let mut tasks = circmgr
            .launch_background_tasks(&runtime, &provider, state)
            .map_err(manager("start the circuit manager's tasks"))?;
        tasks.extend(
            chanmgr
                .launch_background_tasks(&runtime, provider)
                .map_err(manager("start the link manager's tasks"))?,
        );
        tasks.extend(DirProvider::download_task_handle(&dirmgr));
        Ok(Arc::new(TorStack { guardmgr, circmgr, _chanmgr: chanmgr, dirmgr, _tasks: tasks }))
    }

    /// Get a directory that circuits can be built with. Retries by itself; cancel by dropping.
    ///
    /// # Errors
    /// When arti gives up for good.
    pub async fn bootstrap(&self) -> Result<(), StackError> {
        self.dirmgr
            .bootstrap()
            .await
            .map_err(|error| StackError::Bootstrap { problem: report(&error) })
    }

    /// Call `tell` with each step of the bootstrap, for as long as the future is polled.
    pub async fn watch_bootstrap(&self, mut tell: impl FnMut(BootstrapProgress)) {
        let mut events = self.dirmgr.bootstrap_events();
        while let Some(status) = events.next().await {
            let now = SystemTime::now();
            let text = match status.blockage(now) {
                Some(blockage) => format!("{status} ({blockage})"),
                None => status.to_string(),
            };
            tell(BootstrapProgress { fraction: status.frac_at(now), text });
        }
    }

    /// The network's directory: current consensus, parameters, and events when they change.
    pub fn directory(&self) -> Arc<dyn NetDirProvider> {
        Arc::clone(&self.dirmgr) as _
    }

    /// A circuit pool for the calling core: circuits asked of it run there.
    ///
    /// # Errors
    /// When the core is shutting down.
    pub fn circuit_pool(&self) -> Result<CircuitPool, StackError> {
        let pool = Arc::new(HsCircPool::new(&self.circmgr));
        let provider = self.directory();
        let tasks = pool
            .launch_background_tasks(&CoreRuntime, &provider)
            .map_err(manager("start a circuit pool's tasks"))?;
        Ok(CircuitPool { pool, directory: provider, _tasks: Arc::new(tasks) })
    }

    /// How far our clock is off, as the guards tell: positive when our clock is behind theirs.
    /// `None` while nobody has told.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        let estimate = self.guardmgr.skew_events().get()?;
        let whole_ms = |skew: std::time::Duration| i64::try_from(skew.as_millis()).ok();
        match estimate.skew() {
            tor_proto::ClockSkew::Slow(skew) => whole_ms(skew),
            tor_proto::ClockSkew::Fast(skew) => whole_ms(skew).map(|skew| -skew),
            tor_proto::ClockSkew::None => Some(0),
        }
    }

    /// Write guards and vanguards to disk now.
    pub fn store_state(&self) {
        if let Err(error) = self.guardmgr.store_persistent_state() {
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
    /// Schedules of the pool's tasks.
    _tasks: Arc<Vec<TaskHandle>>,
}

impl CircuitPool {
    /// arti's pool, for `onion` to ask circuits of.
    pub fn circuits(&self) -> &Arc<HsCircPool<CoreRuntime>> {
        &self.pool
    }

    /// The directory that goes with it.
    pub fn directory(&self) -> &Arc<dyn NetDirProvider> {
        &self.directory
    }
}
