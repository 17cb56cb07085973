//! Other onion services as backends: `plane` asks, and the calling core's own Tor client answers.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::base::stream::{Apart, OnionStream, OpenOnion};
use crate::runtime::{CoreId, current_core};
use crate::tor::OnionClient;

/// The client of each core that has one. Written when a core comes and goes, read when a stream to
/// an onion service begins.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// See above.
    clients: RwLock<HashMap<CoreId, Arc<OnionClient>>>,
    /// Rings when a core gets one.
    entered: Notify,
}

impl Visits {
    /// The client of this core from now on.
    pub(super) fn enter(&self, core: CoreId, client: OnionClient) {
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        clients.insert(core, Arc::new(client));
        drop(clients);
        self.entered.notify_waiters();
    }

    /// This core has none any more.
    pub(super) fn leave(&self, core: CoreId) {
        self.clients.write().unwrap_or_else(PoisonError::into_inner).remove(&core);
    }

    /// The calling core's.
    fn here(&self) -> Option<Arc<OnionClient>> {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        current_core().and_then(|core| clients.get(&core).cloned())
    }
}

#[async_trait]
impl OpenOnion for Visits {
    async fn open_onion(&self, host: &str, port: u16, apart: Apart) -> io::Result<OnionStream> {
        match self.here() {
            Some(client) => client.open(host, port, apart).await,
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "there is no Tor here yet")),
        }
    }

    async fn ready(&self) {
        loop {
            let mut entered = std::pin::pin!(self.entered.notified());
            entered.as_mut().enable();
            if self.here().is_some() {
                return;
            }
            entered.await;
        }
    }
}
