//! Health checks, and the look-up of backends' names: on the control core, so that no data core
//! waits for a backend that is ill.

mod answer;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{Either, join_all, select};
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::answer::Answer;
use super::backend::Backend;
use super::config::{CheckConfig, CheckRequest, ProxyProtocol};
use super::status::BackendOrder;
use super::{Plane, proxy_protocol};
use crate::limits::CHECK_PIECE_BYTES;
use crate::runtime::{self, net};

/// Check the backends of this plane, as it is configured at any time, until it is gone. Of several
/// that are told to, one does.
pub async fn watch(plane: Weak<Plane>) {
    if plane.upgrade().is_none_or(|plane| plane.watched.swap(true, Ordering::Relaxed)) {
        return;
    }
    loop {
        let (mut changed, watched, named) = match plane.upgrade() {
            Some(plane) => (plane.changed.subscribe(), watched(&plane), named(&plane)),
            None => return,
        };
        let all = std::pin::pin!(async {
            let checks = join_all(watched.into_iter().map(Watched::watch));
            futures::future::join(checks, join_all(named.into_iter().map(look_up))).await;
            std::future::pending::<()>().await;
        });
        let changed = std::pin::pin!(changed.changed());
        if let Either::Right((Err(_), _)) = select(all, changed).await {
            return;
        }
    }
}

/// A backend that is checked.
struct Watched {
    /// The backend.
    backend: Arc<Backend>,
    /// How.
    check: CheckConfig,
    /// The header that it expects.
    proxy_protocol: Option<ProxyProtocol>,
}

/// Every backend of the plane that is to be checked.
fn watched(plane: &Plane) -> Vec<Watched> {
    let mut all = Vec::new();
    for port in plane.ports().iter() {
        let Some(check) = &port.config.check else { continue };
        all.extend(port.members.iter().map(|member| Watched {
            backend: Arc::clone(&member.backend),
            check: check.clone(),
            proxy_protocol: port.config.proxy_protocol,
        }));
    }
    all
}

/// Every backend of the plane that has a name, and from one look-up to the next.
fn named(plane: &Plane) -> Vec<(Arc<Backend>, Duration)> {
    let mut all = Vec::new();
    for port in plane.ports().iter() {
        let backends = port.members.iter().map(|member| &member.backend);
        let named = backends.filter(|backend| backend.path().name().is_some());
        all.extend(named.map(|backend| (Arc::clone(backend), port.config.resolve_interval)));
    }
    all
}

/// Look a backend's name up, for as long as this is polled.
async fn look_up((backend, interval): (Arc<Backend>, Duration)) {
    if let Some(name) = backend.path().name() {
        name.look_up(interval).await;
    }
}

impl Watched {
    /// Check it for as long as this is polled.
    async fn watch(self) {
        let (mut good, mut bad) = (0_u32, 0_u32);
        loop {
            self.backend.path().ready().await;
            if self.backend.order() == BackendOrder::Maintenance {
                (good, bad) = (0, 0);
            } else {
                let found = self.ask().await;
                match &found {
                    Ok(()) => (good, bad) = (good.saturating_add(1), 0),
                    Err(_) => (good, bad) = (0, bad.saturating_add(1)),
                }
                self.conclude(good, bad, found.as_ref().err());
                self.backend.note_check(found);
            }
            let tenth = self.check.interval.as_millis() as u64 / 10;
            let jitter = rand::rng().random_range(0..=2 * tenth);
            let pause = self.check.interval.as_millis() as u64 - tenth + jitter;
            runtime::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Change the backend's state where enough checks agree.
    fn conclude(&self, good: u32, bad: u32, wrong: Option<&String>) {
        let down = self.backend.is_checked_down();
        if down && good >= self.check.rise {
            self.backend.set_checked(true);
            tracing::info!(backend = self.backend.address().in_log(), "the backend is up");
        } else if !down && bad >= self.check.fall {
            self.backend.set_checked(false);
            let wrong = wrong.map_or("", String::as_str);
            let backend = self.backend.address().in_log();
            tracing::warn!(backend, "the backend is down: {wrong}");
        }
    }

    /// One check: what is wrong, in words.
    async fn ask(&self) -> Result<(), String> {
        let asked = runtime::timeout(self.check.timeout, async {
            match self.backend.path().connect_to_check().await {
                Ok(Some(connection)) => self.talk(connection).await,
                Ok(None) => Ok(()),
                Err(error) => Err(format!("refused: {error}")),
            }
        });
        asked.await.unwrap_or_else(|_| {
            Err(format!("no answer within {} ms", self.check.timeout.as_millis()))
        })
    }

    /// Say what is to be said over a new connection, and read the answer.
    async fn talk(&self, connection: net::Stream) -> Result<(), String> {
        let (mut read, mut write) = connection.into_split();
        let header = self.proxy_protocol.map(proxy_protocol::header_of_our_own);
        let mut request = header.unwrap_or_default();
        let CheckRequest::Http { path, host } = &self.check.request else {
            // A backend that waits for the header would log a connection that broke off.
            return write.write_all(&request).await.map_err(|error| format!("broke off: {error}"));
        };
        let text = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: rustbalance-check\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        );
        request.extend_from_slice(text.as_bytes());
        write.write_all(&request).await.map_err(|error| format!("broke off: {error}"))?;
        let (mut answer, mut piece) = (Answer::default(), [0; CHECK_PIECE_BYTES]);
        loop {
            let length = read.read(&mut piece).await;
            let length = length.map_err(|error| format!("broke off: {error}"))?;
            match answer.take(&piece[..length]).map_err(|error| error.to_string())? {
                Some(200..=399) => return Ok(()),
                Some(status) => return Err(format!("status {status}")),
                None if length == 0 => return Err("it closed without an answer".to_owned()),
                None => {}
            }
        }
    }
}
