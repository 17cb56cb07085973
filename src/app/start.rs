//! The start: everything that can be refused is refused before a thread runs or a file is made.

use std::sync::Arc;

use tokio::sync::watch;

use super::control_core::{ControlCore, ServiceShared, Shared};
use super::data_core::DataCore;
use super::options::Options;
use super::running::{Order, Progress, Running};
use super::state_dir::{StateDir, StateDirError};
use super::succession::Predecessor;
use crate::base::overload::Overload;
use crate::onion::Service;
use crate::onion::revision::{RevisionError, Revisions};
use crate::onion::status::PublisherStatus;
use crate::plane::Plane;
use crate::runtime::CoreGroup;

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

/// As [`start`], to take over from the process that runs.
pub(super) fn start_after(
    predecessor: Option<Predecessor>,
    state_dir: StateDir,
    options: Options,
) -> Result<Running, StartError> {
    if options.services.is_empty() {
        return Err(StartError::NoService);
    }
    let instances = options.plan.data.len();
    let stacks = options.stacks.clamp(1, u16::try_from(instances).unwrap_or(u16::MAX));
    let (cpu, drain) = ControlCore::settings(&options);
    let mut shared_services = Vec::new();
    let mut own = Vec::new();
    let overload = Arc::new(Overload::default());
    for service in options.services {
        let file = format!("revisions-{}.json", service.settings.name);
        own.push((Arc::new(service.master), Revisions::load(&state_dir.path().join(file))?));
        let onion = own.last().map(|(master, _)| master.onion_address().to_string());
        let (publisher_writer, publisher) = watch::channel(PublisherStatus::default());
        shared_services.push(ServiceShared {
            service: Service::new(service.settings, instances, Arc::clone(&overload)),
            plane: Plane::with_handlers(service.ports, options.handlers.clone()),
            onion: onion.unwrap_or_default(),
            publisher,
            publisher_writer,
        });
    }
    let onions = shared_services.iter().map(|service| service.onion.clone()).collect();
    let (progress_writer, progress) = watch::channel(Progress { onions, ..Progress::default() });
    let (order, order_reader) = watch::channel(Order::Serve);
    let group = CoreGroup::new();
    group.set_stacks(stacks);
    let (driver, memory) = ((options.io, options.spin), (options.memory_max, overload));
    let shared = Shared::new(
        group,
        shared_services,
        instances,
        driver,
        stacks,
        order_reader.clone(),
        memory,
    );
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
    let control = ControlCore {
        shared: Arc::clone(&shared),
        services: own,
        cpu,
        arti: options.arti,
        admin_socket: options.admin_socket,
        drain,
        progress: progress_writer,
        data,
        order: order.clone(),
        state_dir: Arc::new(state_dir),
        owner: watch::channel(predecessor.is_none()).0,
        predecessor,
    };
    let control = control.spawn().map_err(StartError::Thread)?;
    Ok(Running { progress, order, shared, control: Some(control) })
}
