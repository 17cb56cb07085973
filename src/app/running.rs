//! A handle to a running service: what the binary and an embedding program hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use tokio::sync::watch;

use super::control_core::Shared;
use crate::admin::status::ProcessStatus;
use crate::base::stream::CircuitId;
use crate::config::Config;
use crate::limits;
use crate::plane::config::{PortConfig, Verdict};
use crate::runtime;

/// How far a start is, or an ending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// One word for the state of the whole process: the worst of its services.
    pub state: crate::onion::status::ServiceState,
    /// What is being done, or what is in the way.
    pub text: String,
    /// Onion addresses of the services, in order.
    pub onions: Vec<String>,
    /// Whether every service's descriptor has been on its HSDirs.
    pub ready: bool,
    /// Whether another process has taken over: this one ends soon.
    pub handed_over: bool,
    /// Why it ended, once it has; an empty reason is an orderly end.
    pub ended: Option<String>,
}

/// What the threads are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Serve.
    #[default]
    Serve,
    /// Another process publishes: serve who still comes, and drain soon.
    HandedOver,
    /// Take no new client; end when the open streams have, or at the deadline.
    Drain,
    /// End now.
    Stop,
}

/// No service has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no service {0:?}")]
pub struct UnknownService(String);

/// A running service. Dropping it stops the service at once.
pub struct Running {
    /// How far things are.
    pub(super) progress: watch::Receiver<Progress>,
    /// What the threads are told.
    pub(super) order: watch::Sender<Order>,
    /// What status is made of.
    pub(super) shared: Arc<Shared>,
    /// Where state is kept.
    pub(super) state_path: PathBuf,
    /// What it was started with, if that was a configuration.
    pub(super) started_with: Option<Box<Config>>,
    /// The control thread; it waits for the data threads.
    pub(super) control: Option<JoinHandle<()>>,
}

impl Running {
    /// How far the service is; changes can be awaited.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The status of everything, as `rustbalance status --json` shows it.
    pub fn status(&self) -> ProcessStatus {
        self.shared.status()
    }

    /// Serve these ports from now on. Streams that are open go on with the backends that they have.
    ///
    /// # Errors
    /// When there is no service of this name.
    pub fn set_ports(&self, service: &str, ports: Vec<PortConfig>) -> Result<(), UnknownService> {
        let services = self.shared.roster.with_planes(|one| one.name() == service);
        if services.is_empty() {
            return Err(UnknownService(service.to_owned()));
        }
        services.iter().for_each(|one| one.plane.set_ports(ports.clone()));
        Ok(())
    }

    /// Say something of a client's circuit, until it closes and for so long at most: which backends
    /// its streams get from now on, or that they are refused. `false` when it is not open, or as
    /// many circuits as may be are banned already.
    pub fn set_verdict(&self, circuit: CircuitId, verdict: Verdict, lifetime: Duration) -> bool {
        self.shared.set_verdict(circuit, verdict, lifetime) > 0
    }

    /// Close a client's circuit, with the streams in it; `false` when it is not open. Its id is
    /// what backends are told, by [`crate::plane::handler::HandlerStream::circuit_id`] or a PROXY
    /// header. A circuit of a C tor daemon that this process runs is closed by the daemon, whose
    /// answer is waited for, 3 s at most.
    pub fn close_circuit(&self, circuit: CircuitId) -> impl Future<Output = bool> + Send + use<> {
        self.shared.close_circuit(circuit)
    }

    /// Names of the services, in order.
    pub fn services(&self) -> Vec<String> {
        self.shared.roster.served().iter().map(|one| one.name().to_owned()).collect()
    }

    /// Cores that are there and do not run a task within `patience`, by the names of their threads:
    /// they hang. A core that has died is not among them: it is started again.
    pub async fn stuck_cores(&self, patience: Duration) -> Vec<String> {
        let asked: Vec<_> = self
            .shared
            .group
            .cores()
            .into_iter()
            .map(|core| {
                let (tell, told) = oneshot::channel();
                // A core that ends meanwhile drops the task, which is told as well.
                core.spawn(async move {
                    let _ = tell.send(());
                });
                (core.id(), told)
            })
            .collect();
        let deadline = Instant::now() + patience;
        let mut stuck = Vec::new();
        for (core, mut told) in asked {
            let left = deadline.saturating_duration_since(Instant::now());
            if runtime::timeout(left, &mut told).await.is_err() && told.try_recv() == Ok(None) {
                stuck.push(core.to_string());
            }
        }
        stuck
    }

    /// Wait until a core hangs for good: it has run no task within `bound`, though it was given
    /// one [`limits::CORE_HUNG_LOOKS`] times. The names of all that do. Nothing can be done about
    /// such a thread but to end the process, which is for the program to decide: the binary does.
    pub async fn hung_cores(&self, bound: Duration) -> Vec<String> {
        let look = bound / limits::CORE_HUNG_LOOKS;
        let (mut hung, mut looks) = (Vec::new(), 0);
        loop {
            let stuck = self.stuck_cores(look).await;
            match looks {
                0 => hung = stuck,
                _ => hung.retain(|one| stuck.contains(one)),
            }
            looks = if hung.is_empty() { 0 } else { looks + 1 };
            if looks >= limits::CORE_HUNG_LOOKS {
                return hung;
            }
            if looks == 0 {
                runtime::sleep(look).await;
            }
        }
    }

    /// Take no new client, serve open streams until the deadline, then end.
    pub fn drain(&self) {
        self.order.send_if_modified(|order| {
            let before = *order;
            *order = before.max(Order::Drain);
            *order != before
        });
    }

    /// End now: open streams are cut.
    pub fn stop(&self) {
        self.order.send_replace(Order::Stop);
    }

    /// Wait until every thread has ended. Blocks.
    pub fn join(mut self) {
        if let Some(control) = self.control.take() {
            // A control core that panicked has said so in `progress`.
            let _ = control.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.order.send_replace(Order::Stop);
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
    }
}
