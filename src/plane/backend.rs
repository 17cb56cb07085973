//! One backend: how to connect to it, and what is counted.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::config::BackendAddress;
use super::handler::{Handler, Handlers};
use super::status::{BackendState, BackendStatus};
use crate::base::stream::CircuitId;
use crate::limits;
use crate::runtime::{self, net};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The backend was silent.
    #[error("no answer in time")]
    Timeout,
    /// This process has no descriptor left.
    #[error("no descriptor left: {0}")]
    Exhausted(#[source] io::Error),
    /// The backend, or the system, said no.
    #[error("refused: {0}")]
    Refused(#[source] io::Error),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Backend {
    /// Where it listens.
    address: BackendAddress,
    /// The handler, where it is one.
    handler: Option<Handler>,
    /// Streams that are open.
    open: AtomicU64,
    /// Connections that failed.
    failed_total: AtomicU64,
    /// Whether the last connection was accepted.
    up: AtomicBool,
}

/// A stream that counts as open until this is dropped.
pub(super) struct Busy<'a>(&'a Backend);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Backend {
    /// A backend that nothing is known of yet.
    pub(super) fn new(address: BackendAddress, handlers: &Handlers) -> Backend {
        let handler = match &address {
            BackendAddress::Handler(name) => handlers.get(name),
            _ => None,
        };
        let (open, failed_total) = (AtomicU64::new(0), AtomicU64::new(0));
        Backend { address, handler, open, failed_total, up: AtomicBool::new(true) }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &BackendAddress {
        &self.address
    }

    /// Connect, within `timeout`, for a stream of this circuit to this port.
    pub(super) async fn connect(
        &self,
        timeout: Duration,
        circuit: CircuitId,
        port: u16,
    ) -> Result<net::Stream, ConnectError> {
        let connected = match runtime::timeout(timeout, self.open(circuit, port)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if is_exhaustion(&error) => Err(ConnectError::Exhausted(error)),
            Ok(Err(error)) => Err(ConnectError::Refused(error)),
            Err(_) => Err(ConnectError::Timeout),
        };
        // Our own lack of descriptors says nothing about the backend.
        if !matches!(connected, Err(ConnectError::Exhausted(_))) {
            self.up.store(connected.is_ok(), Ordering::Relaxed);
        }
        if connected.is_err() {
            self.failed_total.fetch_add(1, Ordering::Relaxed);
        }
        connected
    }

    /// Connect, however long it takes.
    async fn open(&self, circuit: CircuitId, port: u16) -> io::Result<net::Stream> {
        match &self.address {
            BackendAddress::Handler(_) => match &self.handler {
                Some(handler) => handler.connect(circuit, port).map(net::Stream::Pipe),
                None => Err(io::ErrorKind::NotFound.into()),
            },
            BackendAddress::Tcp(address) => net::connect_tcp(*address).await,
            BackendAddress::Unix(path) => loop {
                match net::connect_unix(path).await {
                    // Its queue is full (connect(2), EAGAIN): TCP would wait by itself.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let wait = Duration::from_millis(limits::BACKEND_QUEUE_FULL_WAIT_MS);
                        runtime::sleep(wait).await;
                    }
                    connected => return connected,
                }
            },
        }
    }

    /// Count a stream as open until the guard is dropped.
    pub(super) fn count_open(&self) -> Busy<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Busy(self)
    }

    /// What status shows.
    pub(super) fn status(&self, virtual_port: u16) -> BackendStatus {
        let up = self.up.load(Ordering::Relaxed);
        BackendStatus {
            virtual_port,
            address: self.address.to_string(),
            state: if up { BackendState::Up } else { BackendState::Down },
            open: self.open.load(Ordering::Relaxed),
            failed_total: self.failed_total.load(Ordering::Relaxed),
        }
    }
}

/// Whether the error is about this process or machine: no descriptor, no port, no memory.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOMEM | libc::ENOBUFS)
    )
}
