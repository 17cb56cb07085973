//! Taking over from a running process, and handing over to one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::control_core::Shared;
use super::roster::ServiceShared;
use super::running::{Order, Progress};
use super::state_dir::StateDir;
use crate::admin::StatusSource;
use crate::admin::status::{ProcessStatus, PublishedStatus, VerifiedStatus};
pub(super) use crate::admin::succession::{Heir, Predecessor};
use crate::admin::succession::{Offer, Succession};
use crate::admin::{BackendRequest, CircuitId, VerdictRequest};
use crate::limits;
use crate::plane::front::Occupied;
use crate::runtime;
use crate::tor::GuardShare;

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
    fn offer(&self) -> Result<Offer, String> {
        if *self.order.borrow() != Order::Serve {
            return Err("it is ending already".to_owned());
        }
        // A change of services that is under way ends first.
        let _change = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.roster.is_changing() {
            return Err("a service is changing; try again in a minute".to_owned());
        }
        if self.shared.beside_predecessor.load(Ordering::Relaxed) {
            // Three processes would have links to the same guards.
            return Err("the process before this one has not ended yet; try again then".to_owned());
        }
        if self.shared.succession.swap(true, Ordering::Relaxed) {
            return Err("another process is taking over already".to_owned());
        }
        tracing::info!("a new process starts, to take over");
        let (own, creates, rest_ms) = shares(self.shared.creates_left());
        self.shared.share_guards(Some(GuardShare::Old(own)));
        Ok(Offer { state_dir: self.state_dir.path().to_owned(), creates, rest_ms })
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

    fn drains(&self) -> BoxFuture<'static, ()> {
        let (shared, mut order) = (Arc::clone(&self.shared), self.order.subscribe());
        async move {
            let _ = order.wait_for(|order| *order >= Order::Drain).await;
            shared.share_guards(Some(GuardShare::Leaving));
        }
        .boxed()
    }

    fn go_on(&self) -> Result<(), String> {
        // Held by this process, unless it was given up.
        self.state_dir.lock().map_err(|error| error.to_string())?;
        self.set_handed_over(false);
        self.shared.succession.store(false, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        // The other one's links may still be open.
        runtime::spawn(async move { shared.share_no_more().await });
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

/// What the old process and the new one may take of what is left of a guard's allowance, with the
/// reserve left alone, and how long it takes until that is there, in milliseconds.
fn shares(left: u64) -> (u64, u64, u64) {
    let per_pause = limits::GUARD_CREATES_PER_SECOND * limits::SHARE_PAUSE_MS_OLD - 1_000;
    let lacks = limits::GUARD_CREATES_RESERVE.saturating_sub(left);
    let rest_ms = lacks * 1_000 * limits::SHARE_PAUSE_MS_OLD / per_pause;
    let free = left.saturating_sub(limits::GUARD_CREATES_RESERVE);
    // The new one has points and uploads to build for; the old one has clients.
    (free / 3, free - free / 3, rest_ms)
}

impl Shared {
    /// Take no more than this share of what guards allow from now on; or, with `None`, whatever is
    /// needed.
    fn share_guards(&self, share: Option<GuardShare>) {
        // Held until all stacks know: one that comes up meanwhile gets the newest.
        let mut in_force = self.guard_share.lock().unwrap_or_else(PoisonError::into_inner);
        *in_force = share;
        for stack in self.stacks.iter().filter_map(|stack| stack.borrow().clone()) {
            stack.share_guards(share);
        }
    }

    /// The other process has ended: take whatever is needed once its links are gone, unless yet
    /// another has come.
    async fn share_no_more(&self) {
        tokio::time::sleep(Duration::from_millis(limits::SHARE_AFTER_MS)).await;
        if !self.succession.load(Ordering::Relaxed) {
            self.share_guards(None);
        }
    }

    /// Within so many seconds, or as long as it takes to ask for the circuits of all points and
    /// uploads slowly.
    fn slowly(&self, seconds: u64) -> Duration {
        let asks = |one: &Arc<ServiceShared>| {
            let points = one.service.settings.intro_points_per_instance;
            one.service.seats().len() as u64 * u64::from(points) + limits::HSDIRS_OF_A_SERVICE
        };
        let asks: u64 = self.roster.all().iter().map(asks).sum();
        let seconds = seconds + asks * limits::SHARE_PAUSE_MS_NEW / 1_000;
        Duration::from_secs(seconds.min(limits::HANDOVER_SLOW_SECONDS_MAX))
    }

    /// Whether points or uploads wait for their turn to ask for a circuit.
    fn is_behind(&self) -> bool {
        let mut stacks = self.stacks.iter().filter_map(|stack| stack.borrow().clone());
        stacks.any(|stack| stack.is_behind())
    }

    /// Circuits that the guards of each stack would still make at once.
    fn creates_left(&self) -> u64 {
        let stacks = self.stacks.iter().filter_map(|stack| stack.borrow().clone());
        stacks.map(|stack| stack.creates_left()).min().unwrap_or(limits::GUARD_CREATES_BURST)
    }
}

/// Before the first link opens: guards see two links from one address as soon as it does.
pub(super) async fn begin(predecessor: &Predecessor, shared: &Shared) {
    let Offer { creates, rest_ms, .. } = predecessor.offer;
    shared.beside_predecessor.store(true, Ordering::Relaxed);
    shared.share_guards(Some(GuardShare::New(creates.min(limits::GUARD_CREATES_BURST))));
    if rest_ms > 0 {
        tracing::info!("the guards have made many circuits: waiting before more are asked for");
        let rest_ms = rest_ms.min(limits::HANDOVER_REST_MS_MAX);
        tokio::time::sleep(Duration::from_millis(rest_ms)).await;
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
    let longest = shared.slowly(limits::HANDOVER_POINTS_SECONDS_MAX);
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

/// Tell the old process to go once our descriptors are published, and see its end. Comes back only
/// with an error.
pub(super) async fn settle(
    mut heir: Heir,
    mut progress: watch::Receiver<Progress>,
    shared: &Shared,
) -> String {
    let longest = shared.slowly(limits::HANDOVER_PUBLISH_SECONDS_MAX);
    let ready = progress.wait_for(|progress| progress.ready);
    if tokio::time::timeout(longest, ready).await.is_err() {
        let seconds = longest.as_secs();
        return format!("nothing was published within {seconds} s: the old process goes on");
    }
    // Uploads that wait have their turn before clients: those go to the old process meanwhile.
    let behind = async {
        while shared.is_behind() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let longest = Duration::from_secs(limits::HANDOVER_UPLOADS_SECONDS_MAX);
    let _ = tokio::time::timeout(longest, behind).await;
    match heir.published().await {
        Ok(()) => {
            tracing::info!("took over: the old process ends soon");
            // Until then clients that hold its descriptor come to it.
            heir.drains().await;
            shared.share_guards(Some(GuardShare::Serving));
            heir.ended().await;
        }
        // It has ended already.
        Err(error) => tracing::warn!("the old process is gone: {error}"),
    }
    shared.beside_predecessor.store(false, Ordering::Relaxed);
    shared.share_no_more().await;
    tracing::info!("the old process has ended");
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::shares;
    use crate::limits;

    #[test]
    fn the_reserve_is_left_alone_and_waited_for_where_it_is_gone() {
        let most = limits::GUARD_CREATES_BURST;
        for left in 0..=most {
            let (old, new, rest_ms) = shares(left);
            assert!(old <= new && rest_ms <= limits::HANDOVER_REST_MS_MAX, "{left}");
            assert_eq!(old + new, left.saturating_sub(limits::GUARD_CREATES_RESERVE));
            assert_eq!(rest_ms == 0, left >= limits::GUARD_CREATES_RESERVE, "{left}");
        }
        assert!(shares(most).1 >= 28, "an instance or four, two periods: at once");
    }
}
