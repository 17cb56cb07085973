//! A handle to a running service: what the binary and an embedding program hold.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::control_core::Shared;
use crate::admin::status::ProcessStatus;

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
    /// Why it ended, once it has; an empty reason is an orderly end.
    pub ended: Option<String>,
}

/// What the threads are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Serve.
    #[default]
    Serve,
    /// Take no new client; end when the open streams have, or at the deadline.
    Drain,
    /// End now.
    Stop,
}

/// A running service. Dropping it stops the service at once.
pub struct Running {
    /// How far things are.
    pub(super) progress: watch::Receiver<Progress>,
    /// What the threads are told.
    pub(super) order: watch::Sender<Order>,
    /// What status is made of.
    pub(super) shared: Arc<Shared>,
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
