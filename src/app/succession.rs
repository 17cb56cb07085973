//! Taking over from a running process, and handing over to one.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::control_core::Shared;
use super::running::{Order, Progress};
use super::state_dir::StateDir;
use crate::admin::StatusSource;
use crate::admin::status::{ProcessStatus, PublishedStatus, VerifiedStatus};
use crate::admin::succession::Succession;
pub(super) use crate::admin::succession::{Heir, Predecessor};
use crate::admin::{BackendRequest, CircuitId, VerdictRequest};
use crate::limits;
use crate::plane::front::Occupied;

/// What the admin socket asks: status, and the hand-over to a new process.
pub(super) struct Desk {
    /// What status is made of.
    shared: Arc<Shared>,
    /// Tells the threads to leave.
    order: watch::Sender<Order>,
    /// What the new process takes.
    state_dir: Arc<StateDir>,
}

impl Desk {
    /// Nobody has asked yet.
    pub(super) fn new(
        shared: &Arc<Shared>,
        order: &watch::Sender<Order>,
        state_dir: &Arc<StateDir>,
    ) -> Arc<Desk> {
        Arc::new(Desk {
            shared: Arc::clone(shared),
            order: order.clone(),
            state_dir: Arc::clone(state_dir),
        })
    }

    /// Say whether another process publishes in our place.
    fn set_handed_over(&self, handed_over: bool) {
        let services = self.shared.roster.all();
        for one in services.iter().filter(|one| one.order() == Order::Serve) {
            one.service.set_handed_over(handed_over);
        }
    }
}

impl StatusSource for Desk {
    fn status(&self) -> ProcessStatus {
        self.shared.status()
    }

    fn descriptors(&self) -> Vec<PublishedStatus> {
        self.shared.descriptors()
    }

    fn verify(&self, service: Option<String>) -> BoxFuture<'static, Vec<VerifiedStatus>> {
        Arc::clone(&self.shared).verify(service).boxed()
    }

    fn order_backend(&self, request: &BackendRequest) -> usize {
        self.shared.order_backend(request)
    }

    fn set_verdict(&self, request: &VerdictRequest) -> usize {
        self.shared.set_verdict(request.circuit, request.verdict, request.lifetime)
    }

    fn close_circuit(&self, circuit: CircuitId) -> BoxFuture<'static, bool> {
        self.shared.close_circuit(circuit).boxed()
    }

    fn succession(&self) -> Option<&dyn Succession> {
        Some(self)
    }
}

impl Succession for Desk {
    fn offer(&self) -> Result<PathBuf, String> {
        if *self.order.borrow() != Order::Serve {
            return Err("it is ending already".to_owned());
        }
        // A change of services that is under way ends first.
        let _change = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.roster.is_changing() {
            return Err("a service is changing; try again in a minute".to_owned());
        }
        if self.shared.succession.swap(true, Ordering::Relaxed) {
            return Err("another process is taking over already".to_owned());
        }
        tracing::info!("a new process starts, to take over");
        Ok(self.state_dir.path().to_owned())
    }

    fn yield_state(&self) -> Result<(), String> {
        self.state_dir.give_up().map_err(|error| error.to_string())?;
        self.set_handed_over(true);
        Ok(())
    }

    fn leave(&self) {
        tracing::info!("the new process has published: this one ends soon");
        self.order.send_modify(|order| *order = (*order).max(Order::HandedOver));
    }

    fn go_on(&self) -> Result<(), String> {
        // Held by this process, unless it was given up.
        self.state_dir.lock().map_err(|error| error.to_string())?;
        self.set_handed_over(false);
        self.shared.succession.store(false, Ordering::Relaxed);
        // Socket files may be the other one's by now.
        let listens: Vec<_> =
            self.shared.fronts.all().iter().map(|front| front.config().clone()).collect();
        if let Err(error) = self.shared.set_listens(&listens, Occupied::Replace) {
            // Clients over Tor are worth more than listeners, which stay as they are.
            tracing::error!("{error}");
        }
        tracing::warn!("the new process did not take over: this one goes on");
        Ok(())
    }
}

/// Wait until every instance has an introduction point, or long enough; then have the old process
/// let go, and take the state directory.
///
/// # Errors
/// When the old process still holds it.
pub(super) async fn take_over(
    predecessor: Predecessor,
    shared: &Shared,
    state_dir: &StateDir,
) -> Result<Heir, String> {
    let everywhere = async {
        while !shared.roster.all().iter().all(|one| one.service.has_points_everywhere()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let longest = Duration::from_secs(limits::HANDOVER_POINTS_SECONDS_MAX);
    if tokio::time::timeout(longest, everywhere).await.is_err() {
        tracing::warn!(
            "not every instance has an introduction point yet; taking over all the same"
        );
    }
    let mut heir = predecessor.wake().map_err(|error| format!("cannot take over: {error}"))?;
    if let Err(error) = heir.take().await {
        // If it has died, the directory is free, and everything is ours.
        tracing::warn!("the process that runs lets go of nothing: {error}");
    }
    state_dir.lock_soon().await.map_err(|error| format!("cannot take over: {error}"))?;
    Ok(heir)
}

/// Tell the old process to go once our descriptors are published. Comes back only with an error.
pub(super) async fn settle(mut heir: Heir, mut progress: watch::Receiver<Progress>) -> String {
    let longest = Duration::from_secs(limits::HANDOVER_PUBLISH_SECONDS_MAX);
    let ready = progress.wait_for(|progress| progress.ready);
    if tokio::time::timeout(longest, ready).await.is_err() {
        let seconds = longest.as_secs();
        return format!("nothing was published within {seconds} s: the old process goes on");
    }
    match heir.published().await {
        Ok(()) => tracing::info!("took over: the old process ends soon"),
        // It has ended already.
        Err(error) => tracing::warn!("the old process is gone: {error}"),
    }
    std::future::pending().await
}
