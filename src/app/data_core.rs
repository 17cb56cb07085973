//! One data core: a pinned thread with one instance of every service, and the plane behind them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::control_core::Shared;
use super::roster::ServiceShared;
use super::running::Order;
use crate::base::stream::CircuitId;
use crate::onion::{Instance, ServeStream, SessionStream};
use crate::plane::Plane;
use crate::plane::handoff::Handoff;
use crate::runtime::{CoreId, Driver, Io, pinning};
use crate::tor::stack::CircuitPool;
use crate::tor::{ArtiSettings, OnionClient, StackError, TorStack};

/// What a data core is made with.
pub(super) struct DataCore {
    /// Its number: the instance that it carries.
    pub(super) number: u16,
    /// The CPU it is pinned to.
    pub(super) cpu: usize,
    /// What all threads share.
    pub(super) shared: Arc<Shared>,
    /// arti's configuration, for a stack of its own.
    pub(super) arti: ArtiSettings,
    /// What the threads are told.
    pub(super) order: watch::Receiver<Order>,
}

/// First and longest wait before a data core that ended is started again.
const RESTART_WAIT: Duration = Duration::from_secs(1);
/// See [`RESTART_WAIT`].
const RESTART_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a core that waits looks whether the process ends.
const RESTART_LOOK: Duration = Duration::from_millis(100);
/// A core that ran for this long is started again after the first wait.
const RAN_WELL: Duration = Duration::from_secs(300);

/// Why a data core serves nobody and has to be started anew.
#[derive(Debug, thiserror::Error)]
enum CoreError {
    /// The driver could not be made.
    #[error("no driver: {0}")]
    Driver(#[from] std::io::Error),
    /// There is no stack for it.
    #[error("no Tor stack: {0}")]
    Stack(#[from] StackError),
    /// The process is ending.
    #[error("the control core has ended")]
    Ending(#[from] watch::error::RecvError),
    /// The core that carried the stack died, and the stack's tasks with it.
    #[error("the Tor stack's own core ended")]
    StackEnded,
}

/// Ends with a panic when a test has asked for it; otherwise never.
async fn fault(core: u16) {
    #[cfg(feature = "fault-injection")]
    super::fault::due(core).await;
    #[cfg(not(feature = "fault-injection"))]
    {
        let _ = core;
        std::future::pending().await
    }
}

/// Serves one service's streams on one core.
#[derive(Clone)]
struct ServeByPlane {
    /// The service's plane.
    plane: Arc<Plane>,
    /// What is counted.
    seat: Arc<crate::onion::service::Seat>,
    /// Where the core's streams are counted, for those that come to listeners.
    handoff: Arc<Handoff>,
}

impl ServeStream for ServeByPlane {
    fn serve(
        &self,
        instance: usize,
        stream: SessionStream,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (plane, seat) = (Arc::clone(&self.plane), Arc::clone(&self.seat));
        let live = self.handoff.count(instance);
        let instance = u16::try_from(instance).unwrap_or(u16::MAX);
        async move {
            let _live = live;
            // What became of the stream is in the counters.
            let _ = plane.serve(stream, &seat.counters, instance).await;
        }
    }

    fn closed(&self, circuit: CircuitId) {
        self.plane.circuit_closed(circuit);
    }
}

impl DataCore {
    /// Start the thread.
    pub(super) fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(format!("data-{}", self.number)).spawn(move || {
            if let Err(error) = pinning::pin_current_thread(self.cpu) {
                tracing::warn!(core = self.number, "{error}; the core runs unpinned");
            }
            let mut wait = RESTART_WAIT;
            loop {
                let started = std::time::Instant::now();
                let run = std::panic::catch_unwind(AssertUnwindSafe(|| self.run()));
                self.note_down();
                match run {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => {
                        tracing::error!(core = self.number, "the core serves nobody: {error}");
                    }
                    Err(_) => tracing::error!(core = self.number, "the core died; starting anew"),
                }
                if *self.order.borrow() >= Order::Drain {
                    return;
                }
                if started.elapsed() >= RAN_WELL {
                    wait = RESTART_WAIT;
                }
                let again = std::time::Instant::now() + wait;
                while std::time::Instant::now() < again && *self.order.borrow() < Order::Drain {
                    std::thread::sleep(RESTART_LOOK);
                }
                wait = (wait * 2).min(RESTART_WAIT_MAX);
            }
        })
    }

    /// Nothing of this core serves any more.
    fn note_down(&self) {
        self.shared.group.leave(CoreId::data(self.number));
        self.shared.fronts.handoff.set_up(usize::from(self.number), false);
        self.shared.common.visits.leave(CoreId::data(self.number));
        for service in self.shared.roster.all() {
            service.service.note_instance_down(usize::from(self.number));
        }
    }

    /// Serve until told to stop.
    fn run(&self) -> Result<(), CoreError> {
        self.driver()?.spinning(self.shared.spin).block_on(async {
            self.shared.group.enter(CoreId::data(self.number));
            self.shared.note_core_up();
            self.serve().await
        })
    }

    /// What drives this core: epoll where a ring cannot be made, unless rings were asked for. The
    /// other cores keep theirs.
    fn driver(&self) -> std::io::Result<Driver> {
        let wanted = self.shared.io;
        let (driver, io) = match Driver::for_data_core(wanted) {
            Ok(driver) => (driver, wanted),
            Err(error) if wanted == Io::Uring && self.shared.falls_back => {
                self.shared.cores_io.say_once(self.number, &error);
                (Driver::for_data_core(Io::Epoll)?, Io::Epoll)
            }
            Err(error) => return Err(error),
        };
        self.shared.cores_io.note(self.number, io);
        Ok(driver)
    }

    /// Run an instance of every service; from a drain on, only what is open.
    async fn serve(&self) -> Result<(), CoreError> {
        let mut order = self.order.clone();
        let ended = tokio::select! {
            ended = self.run_instances() => ended,
            () = self.shared.fronts.run(usize::from(self.number)) => Ok(()),
            () = fault(self.number) => Ok(()),
            _ = order.wait_for(|order| *order == Order::Stop) => Ok(()),
        };
        if *order.borrow() < Order::Drain {
            ended?;
        }
        // Open circuits are tasks, and go on until here.
        let _ = order.wait_for(|order| *order == Order::Stop).await;
        Ok(())
    }

    /// Run an instance of every service, for as long as the future is polled.
    async fn run_instances(&self) -> Result<(), CoreError> {
        let stack = self.stack().await?;
        let pool = stack.circuit_pool()?;
        let client = OnionClient::new(&pool, &self.arti)?;
        self.shared.common.visits.enter(CoreId::data(self.number), client);
        let instances =
            self.shared.roster.for_each(|service| self.run_instance(service, pool.clone()));
        let apart = async {
            if self.owns_stack() {
                let meet = stack.keep_meeting_links();
                futures::future::join(stack.keep_guards_apart(), meet).await;
            }
        };
        let slot = usize::from(self.number % self.shared.stack_count());
        let mut slot = self.shared.stacks[slot].subscribe();
        let replaced =
            slot.wait_for(|now| !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, &stack)));
        tokio::select! {
            _ = futures::future::join(instances, apart) => Ok(()),
            _ = replaced => Err(CoreError::StackEnded),
        }
    }

    /// Run an instance of one service until that is told to stop.
    async fn run_instance(&self, service: Arc<ServiceShared>, pool: CircuitPool) {
        let number = usize::from(self.number);
        let Some(seat) = service.service.seats().get(number).cloned() else {
            // There are no in-process instances.
            return service.told(Order::Stop).await;
        };
        let serve = ServeByPlane {
            plane: Arc::clone(&service.plane),
            seat,
            handoff: Arc::clone(&self.shared.fronts.handoff),
        };
        let mut order = self.order.clone();
        // On a core that starts anew, nothing that nobody publishes gets points again.
        let leave_at = match service.order() {
            Order::Serve => Order::Drain,
            _ => Order::Serve,
        };
        let leaving = async {
            tokio::select! {
                _ = order.wait_for(|order| *order >= Order::Drain) => {}
                () = service.told(leave_at) => {}
            }
        };
        let instance = Instance::new(Arc::clone(&service.service), number, pool);
        tokio::select! {
            () = instance.run(serve, leaving) => {}
            () = service.told(Order::Stop) => {}
        }
    }

    /// Whether this core makes the stack that it uses.
    fn owns_stack(&self) -> bool {
        (1..self.shared.stack_count()).contains(&self.number)
    }

    /// The Tor stack of this core: the one of all, or one of several, made here if it is this
    /// core's to make.
    async fn stack(&self) -> Result<Arc<TorStack>, CoreError> {
        if self.owns_stack() {
            let own = &self.shared.stacks[usize::from(self.number)];
            // A core that starts anew: the state of the old stack is free once nobody has it, and
            // whoever has it lets go when it sees this.
            own.send_replace(None);
            let first = self.stack_number(0).await?;
            let leader = self.shared.guards.leader(self.number);
            if leader != self.number {
                // Whose guards are this one's as well has to have written them.
                self.stack_number(usize::from(leader)).await?.store_state();
            }
            let share = self.shared.guard_share();
            let stack = TorStack::beside(&first, &self.arti, self.number, share)?;
            self.shared.enter_stack(usize::from(self.number), &stack);
            return Ok(stack);
        }
        Ok(self.stack_number(usize::from(self.number % self.shared.stack_count())).await?)
    }

    /// A stack that another core makes, once there is one.
    async fn stack_number(&self, number: usize) -> Result<Arc<TorStack>, watch::error::RecvError> {
        let mut slot = self.shared.stacks[number].subscribe();
        loop {
            if let Some(stack) = slot.borrow_and_update().as_ref() {
                return Ok(Arc::clone(stack));
            }
            slot.changed().await?;
        }
    }
}
