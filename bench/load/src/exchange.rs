//! One HTTP connection, and one request and response over it.
//!
//! HTTP is hyper's. A connection is driven by a task of its own, which ends with the [`Link`], and
//! is counted as open for as long as it lives. Bodies are hashed and counted as they come, and
//! never kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::failure::Failure;
use crate::plan::{Circuits, Plan};

/// What this program calls itself.
const USER_AGENT: &str = concat!("rb-load/", env!("CARGO_PKG_VERSION"));

/// An open HTTP connection.
pub(crate) struct Link {
    sender: SendRequest<Empty<Bytes>>,
    driver: AbortHandle,
}

/// Connections that are open: drivers write, the collector reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenCount(Arc<AtomicUsize>);

/// How a body ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// It was read to its end: the connection may carry another request.
    Whole,
    /// Enough was read.
    Enough,
}

impl OpenCount {
    /// How many are open now.
    pub(crate) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, until what is returned is dropped.
    fn enter(&self) -> impl Drop + Send + 'static + use<> {
        struct Entered(OpenCount);
        impl Drop for Entered {
            fn drop(&mut self) {
                self.0.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.clone())
    }
}

impl Link {
    /// Speak HTTP over a stream.
    pub(crate) async fn open(stream: TcpStream, open: &OpenCount) -> Result<Link, Failure> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::NoResponse)?;
        let entered = open.enter();
        let driver = tokio::spawn(async move {
            // Whatever goes wrong is told to whoever waits for a response.
            drop(connection.await);
            drop(entered);
        });
        Ok(Link { sender, driver: driver.abort_handle() })
    }

    /// Whether the service has closed it, as far as is known.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Send a request, and wait for the head of its response.
    pub(crate) async fn send(&mut self, plan: &Plan) -> Result<Response<Incoming>, Failure> {
        self.sender.ready().await.map_err(|_| Failure::NoResponse)?;
        self.sender.send_request(request(plan)).await.map_err(|_| Failure::NoResponse)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The request of a plan.
fn request(plan: &Plan) -> Request<Empty<Bytes>> {
    let mut request = Request::get(plan.target.uri())
        .header(header::HOST, plan.target.authority())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*");
    if plan.circuits == Circuits::Fresh {
        request = request.header(header::CONNECTION, "close");
    }
    request.body(Empty::new()).expect("a parsed URL and fixed fields make a request")
}

/// Read a body and check it; `bytes` counts what has come, also when it fails or is cancelled.
pub(crate) async fn receive(
    response: Response<Incoming>,
    plan: &Plan,
    bytes: &mut u64,
) -> Result<BodyEnd, Failure> {
    let mut hash = plan.expect_sha256.map(|_| Sha256::new());
    let bytes_max = plan.bytes_max.unwrap_or(u64::MAX);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::ShortBody)?;
        // Trailers are no data.
        let Ok(data) = frame.into_data() else { continue };
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        *bytes = bytes.saturating_add(length).min(bytes_max);
        if *bytes == bytes_max {
            return Ok(BodyEnd::Enough);
        }
        if let Some(hash) = &mut hash {
            hash.update(&data);
        }
    }
    let found = hash.map(|hash| <[u8; 32]>::from(hash.finalize()));
    match found == plan.expect_sha256 {
        true => Ok(BodyEnd::Whole),
        false => Err(Failure::WrongHash),
    }
}
