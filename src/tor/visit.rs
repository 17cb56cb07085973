//! Streams to other onion services, for one core: what a Tor client does.
//!
//! ```text
//!   descriptor (from an HSDir) -> introduction -> rendezvous circuit -- stream, stream, ...
//! ```
//!
//! arti's connector looks for the service, keeps its descriptor, and keeps a circuit for ten
//! minutes after the last stream began on it. Circuits to services are built from the core's pool,
//! with the vanguards of everything else here; none is one that our own clients come over.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::StreamExt as _;
use tokio::io::AsyncWrite;
use tor_circmgr::CircuitTiming;
use tor_circmgr::isolation::{IsolationHelper, StreamIsolation};
use tor_hsclient::{HsClientConnector, HsClientConnectorConfig, HsClientSecretKeys};
use tor_hscrypto::pk::HsId;
use tor_netdir::{DirEvent, NetDirProvider, Timeliness};
use tor_proto::client::stream::{DataWriter, StreamParameters};

use super::config::{ArtiSettings, report};
use super::stack::{CircuitPool, StackError};
use crate::base::stream::{Apart, OnionStream};
use crate::runtime::CoreRuntime;

/// See the module. Used on the core of its pool.
pub struct OnionClient {
    /// arti's part.
    connector: HsClientConnector<CoreRuntime>,
    /// The directory.
    directory: Arc<dyn NetDirProvider>,
}

impl std::fmt::Debug for OnionClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnionClient([redacted])")
    }
}

/// How often arti tries what.
struct Timing(CircuitTiming);

impl AsRef<CircuitTiming> for Timing {
    fn as_ref(&self) -> &CircuitTiming {
        &self.0
    }
}

impl HsClientConnectorConfig for Timing {}

/// Streams share a circuit when this is the same.
#[derive(Clone, Copy, Debug)]
struct Isolation(Apart);

impl IsolationHelper for Isolation {
    fn compatible_same_type(&self, other: &Isolation) -> bool {
        self.0 == other.0
    }

    fn join_same_type(&self, other: &Isolation) -> Option<Isolation> {
        self.compatible_same_type(other).then_some(*self)
    }
}

impl OnionClient {
    /// A client on the calling core, whose circuits come from its `pool`.
    ///
    /// # Errors
    /// When the core is shutting down.
    pub fn new(pool: &CircuitPool, settings: &ArtiSettings) -> Result<OnionClient, StackError> {
        let directory = Arc::clone(pool.directory());
        // What is out of date is thrown away now and then.
        let events = directory
            .events()
            .filter_map(async |event| matches!(event, DirEvent::NewConsensus).then_some(()));
        let timing: &CircuitTiming = settings.config().as_ref();
        let connector = HsClientConnector::new(
            CoreRuntime,
            Arc::clone(pool.circuits()),
            &Timing(timing.clone()),
            events.boxed(),
        )
        .map_err(|error| StackError::Manager {
            action: "start a client of onion services",
            problem: report(&error),
        })?;
        Ok(OnionClient { connector, directory })
    }

    /// Open a stream to this port of `<56 characters>.onion`, however long it takes.
    ///
    /// # Errors
    /// When the service cannot be reached, or refuses.
    pub async fn open(&self, host: &str, port: u16, apart: Apart) -> io::Result<OnionStream> {
        let service: HsId = host.parse().map_err(io::Error::other)?;
        let netdir = self.directory.netdir(Timeliness::Timely).map_err(io::Error::other)?;
        let isolation = StreamIsolation::builder()
            .stream_isolation(Box::new(Isolation(apart)))
            .build()
            .map_err(io::Error::other)?;
        let keys = HsClientSecretKeys::none();
        let tunnel = self.connector.get_or_launch_tunnel(&netdir, service, keys, isolation).await;
        let tunnel = tunnel.map_err(|error| io::Error::other(report(&error)))?;
        let mut parameters = StreamParameters::new();
        // A service is told the port alone, as by every Tor client.
        parameters.suppress_hostname().suppress_begin_flags().optimistic(false);
        let stream = tunnel.begin_stream(host, port, Some(parameters)).await;
        let stream = stream.map_err(|error| io::Error::other(report(&error)))?;
        let (read, write) = stream.split();
        let write = Prompt { inner: write, taken: None };
        Ok(OnionStream { read: Box::new(read), write: Box::new(write) })
    }
}

/// A writer whose bytes have left when a write is done: arti's keeps those of a cell that is not
/// full until it is flushed.
#[derive(Debug)]
struct Prompt {
    /// arti's writer.
    inner: DataWriter,
    /// Bytes of the write that goes on which it has taken; they leave now. Whoever was told to wait
    /// comes back with the same bytes.
    taken: Option<usize>,
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = match self.taken {
            Some(taken) => taken,
            None => ready!(AsyncWrite::poll_write(Pin::new(&mut self.inner), cx, bytes))?,
        };
        self.taken = Some(taken);
        ready!(AsyncWrite::poll_flush(Pin::new(&mut self.inner), cx))?;
        self.taken = None;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.inner), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.inner), cx)
    }
}

#[cfg(test)]
mod tests {
    use tor_circmgr::isolation::IsolationHelper as _;

    use super::Isolation;
    use crate::base::stream::Apart;

    #[test]
    fn streams_of_two_services_share_no_circuit() {
        let [one, other] = [Apart::from_all_others(), Apart::from_all_others()];
        assert!(Isolation(one).compatible_same_type(&Isolation(one)));
        assert!(!Isolation(one).compatible_same_type(&Isolation(other)));
        assert!(Isolation(one).join_same_type(&Isolation(other)).is_none());
    }
}
