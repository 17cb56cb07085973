//! The listeners of the process: which there are, and how they come and go while others are served.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::control_core::Shared;
use crate::plane::config::{BackendAddress, ListenConfig};
use crate::plane::front::{FindPlane, Front, FrontError, Occupied, Prepared};
use crate::plane::handoff::Handoff;

/// All listeners, as all threads see them.
pub(super) struct Fronts {
    /// Those that take connections.
    now: watch::Sender<Vec<Arc<Front>>>,
    /// Which core serves what comes.
    pub(super) handoff: Arc<Handoff>,
}

impl Fronts {
    /// None yet, for so many data cores.
    pub(super) fn new(cores: usize) -> Fronts {
        Fronts { now: watch::channel(Vec::new()).0, handoff: Handoff::new(cores) }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Front>> {
        self.now.borrow().clone()
    }

    /// Take no more connections.
    pub(super) fn end(&self) {
        self.now.send_replace(Vec::new()).iter().for_each(|front| front.end());
    }

    /// Take connections on the calling data core, for as long as the future is polled.
    pub(super) async fn run(&self, core: usize) {
        crate::runtime::spawn(Arc::clone(&self.handoff).run(core));
        self.handoff.set_up(core, true);
        let mut fronts = self.now.subscribe();
        let mut begun: Vec<Weak<Front>> = Vec::new();
        loop {
            begun.retain(|front| front.strong_count() > 0);
            for front in fronts.borrow_and_update().iter() {
                if !begun.iter().any(|known| known.as_ptr() == Arc::as_ptr(front)) {
                    begun.push(Arc::downgrade(front));
                    let run = Arc::clone(front).run(Arc::clone(&self.handoff), core);
                    crate::runtime::spawn(run);
                }
            }
            // The sender is ours.
            let _ = fronts.changed().await;
        }
    }
}

/// Listeners as they are to be, with their addresses, while those of before still serve. Dropped,
/// it changes nothing.
pub(super) struct Planned(Vec<Place>);

/// One of them.
enum Place {
    /// It is there already.
    Kept(Arc<Front>),
    /// It comes.
    New(Box<Prepared>),
}

impl Shared {
    /// Get ready to listen there. Nothing changes before [`Shared::have_listens`].
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(super) fn plan_listens(
        self: &Arc<Shared>,
        wanted: &[ListenConfig],
        occupied: Occupied,
    ) -> Result<Planned, FrontError> {
        self.plan_each(wanted, occupied).into_iter().collect::<Result<_, _>>().map(Planned)
    }

    /// Each listener by itself, see [`Shared::plan_listens`].
    fn plan_each(
        self: &Arc<Shared>,
        wanted: &[ListenConfig],
        occupied: Occupied,
    ) -> Vec<Result<Place, FrontError>> {
        let before = self.fronts.all();
        let weak = Arc::downgrade(self);
        let find: Arc<FindPlane> = Arc::new(move |service: &str| {
            let shared = weak.upgrade()?;
            // Memory is short: whoever comes is refused, as at introduction points.
            if shared.common.overload.refuses() {
                return None;
            }
            let served = shared.roster.served();
            let one = served.iter().find(|one| one.name() == service)?;
            Some(Arc::clone(&one.plane))
        });
        let mut wanted = wanted.to_vec();
        for own in self.daemon_listens() {
            // They are among those that come back after a hand-over that failed.
            if !wanted.iter().any(|one| one.address == own.address) {
                wanted.push(own);
            }
        }
        // Two that are there at the same time never have the same number.
        let mut next = before.iter().map(|front| front.number() + 1).max().unwrap_or(0);
        let one = |config: &ListenConfig| -> Result<Place, FrontError> {
            // One whose socket file another process has replaced has to come again.
            let kept = before.iter().find(|front| front.config() == config);
            if let Some(front) = kept.filter(|_| occupied == Occupied::Refuse) {
                return Ok(Place::Kept(Arc::clone(front)));
            }
            // Our own, with other settings, makes room; so does one at every address of this port.
            let port = |address: &BackendAddress| match address {
                BackendAddress::Tcp(address) => Some(address.port()),
                _ => None,
            };
            let ours = before.iter().any(|front| {
                let own = &front.config().address;
                *own == config.address || port(own).is_some() && port(own) == port(&config.address)
            });
            let occupied = if ours { Occupied::Replace } else { occupied };
            let number = next;
            next = next.wrapping_add(1);
            let passed = &self.common.sockets;
            let place = (occupied, passed);
            let prepared = Front::prepare(config.clone(), number, place, Arc::clone(&find))?;
            let daemon = self.daemon_of(&config.address);
            let closer = daemon.and_then(|daemon| self.daemons.closer(daemon));
            Ok(Place::New(Box::new(prepared.closing_by(closer))))
        };
        wanted.iter().map(one).collect()
    }

    /// Listen as planned from now on: listeners that are there already stay, those that are not
    /// wanted take no more connections. Open streams go on. Says whether anything has changed.
    ///
    /// # Errors
    /// When the file of a unix socket could not be put in its place; all others are as planned.
    pub(super) fn have_listens(&self, planned: Planned) -> Result<bool, FrontError> {
        let (changed, failed) = self.have_each(planned);
        failed.into_iter().next().map_or(Ok(changed), Err)
    }

    /// See [`Shared::have_listens`]; with all that could not be put in their places.
    fn have_each(&self, planned: Planned) -> (bool, Vec<FrontError>) {
        let before = self.fronts.all();
        let (mut now, mut failed) = (Vec::new(), Vec::new());
        for place in planned.0 {
            match place {
                Place::Kept(front) => now.push(front),
                Place::New(prepared) => match prepared.take_place() {
                    Ok(front) => now.push(front),
                    Err(error) => failed.push(error),
                },
            }
        }
        let gone = |front: &&Arc<Front>| !now.iter().any(|other| Arc::ptr_eq(other, front));
        let changed = before.len() != now.len() || before.iter().any(|front| gone(&front));
        before.iter().filter(gone).for_each(|front| front.end());
        self.fronts.now.send_replace(now);
        (changed, failed)
    }

    /// Listen in the place of the process that this one takes over from, which has let go: each
    /// listener by itself, so that one that cannot be opened costs no other. Says which those are.
    pub(super) fn take_listens(self: &Arc<Shared>, wanted: &[ListenConfig]) -> Vec<FrontError> {
        let (mut planned, mut failed) = (Vec::new(), Vec::new());
        for place in self.plan_each(wanted, Occupied::Replace) {
            match place {
                Ok(place) => planned.push(place),
                Err(error) => failed.push(error),
            }
        }
        failed.extend(self.have_each(Planned(planned)).1);
        failed
    }

    /// Listen there from now on, see [`Shared::have_listens`].
    ///
    /// # Errors
    /// When one cannot be opened; nothing has changed then, unless it is the last step that failed.
    pub(super) fn set_listens(
        self: &Arc<Shared>,
        wanted: &[ListenConfig],
        occupied: Occupied,
    ) -> Result<bool, FrontError> {
        self.plan_listens(wanted, occupied).and_then(|planned| self.have_listens(planned))
    }
}
