//! The start: everything that can be refused is refused before a thread runs or a file is made.

use std::sync::Arc;

use tokio::sync::watch;

use super::control_core::{ControlCore, Shared};
use super::daemons;
use super::data_core::DataCore;
use super::options::Options;
use super::roster::{Common, ServiceShared};
use super::running::{Order, Progress, Running};
use super::state_dir::{StateDir, StateDirError};
use super::succession::Predecessor;
use crate::onion::revision::RevisionError;
use crate::plane::front::{FrontError, Occupied};
use crate::runtime::CoreGroup;
use crate::tor::GuardPlan;

/// Why a start was refused.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The revision counters.
    #[error(transparent)]
    Revisions(#[from] RevisionError),
    /// No service was configured.
    #[error("no service is configured; add a [[service]] or name a --backend")]
    NoService,
    /// A listener.
    #[error(transparent)]
    Listen(#[from] FrontError),
    /// The daemons' directories.
    #[error("{0}")]
    Daemons(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Start serving. Returns at once; what happens is in [`Running::progress`].
///
/// # Errors
/// [`StartError`]; nothing runs then.
pub fn start(state_dir: StateDir, options: Options) -> Result<Running, StartError> {
    start_after(None, state_dir, options)
}

/// What all services have in common.
fn common(state_dir: &StateDir, options: &Options) -> Common {
    let cores = options.plan.data.len();
    Common {
        state_dir: state_dir.path().to_owned(),
        daemons: options.daemons.count(),
        cores,
        instances: if options.in_process { cores } else { 0 },
        overload: Arc::default(),
        handlers: options.handlers.clone(),
        sockets: options.sockets.clone(),
        visits: Arc::default(),
    }
}

/// As [`start`], to take over from the process that runs.
pub(super) fn start_after(
    predecessor: Option<Predecessor>,
    state_dir: StateDir,
    options: Options,
) -> Result<Running, StartError> {
    if options.services.is_empty() {
        return Err(StartError::NoService);
    }
    let cores = options.plan.data.len();
    let stacks = options.stacks.clamp(1, u16::try_from(cores).unwrap_or(u16::MAX));
    let (cpu, drain) = ControlCore::settings(&options);
    let common = common(&state_dir, &options);
    daemons::make_directories(state_dir.path(), common.daemons).map_err(StartError::Daemons)?;
    let services: Vec<_> = options
        .services
        .into_iter()
        .map(|service| ServiceShared::new(service, &common, state_dir.path(), Vec::new()))
        .collect::<Result<_, _>>()?;
    let onions = services.iter().map(|service| service.onion.clone()).collect();
    let (progress_writer, progress) = watch::channel(Progress { onions, ..Progress::default() });
    let (order, order_reader) = watch::channel(Order::Serve);
    let group = CoreGroup::new();
    let sources = u16::try_from(options.source_addresses.len()).unwrap_or(u16::MAX);
    let guards = GuardPlan::new(stacks, sources);
    group.set_stacks(stacks);
    group.set_sources(options.source_addresses);
    let driver = (options.io, options.io_falls_back, options.spin);
    let order_of_all = order_reader.clone();
    let shared = Shared::new(group, services, common, driver, guards, order_of_all, options.memory);
    if predecessor.is_none() {
        shared.set_listens(&options.listens, Occupied::Refuse)?;
    }
    let mut data = Vec::new();
    for (number, cpu) in (0..).zip(options.plan.data) {
        let core = DataCore {
            number,
            cpu,
            shared: Arc::clone(&shared),
            arti: options.arti.clone(),
            order: order_reader.clone(),
        };
        data.push(core.spawn().map_err(StartError::Thread)?);
    }
    let state_path = state_dir.path().to_owned();
    let control = ControlCore {
        shared: Arc::clone(&shared),
        cpu,
        arti: options.arti,
        admin_socket: options.admin_socket,
        onionbalance_socket: options.onionbalance_socket,
        listens: options.listens,
        daemons: options.daemons,
        drain,
        progress: progress_writer,
        data,
        order: order.clone(),
        state_dir: Arc::new(state_dir),
        owner: watch::channel(predecessor.is_none()).0,
        predecessor,
    };
    let control = control.spawn().map_err(StartError::Thread)?;
    let control = Some(control);
    Ok(Running { progress, order, shared, control, state_path, started_with: None })
}
