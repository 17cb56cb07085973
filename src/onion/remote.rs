//! Remote instances: onion services elsewhere that answer for our address too (C tor with
//! `HiddenServiceOnionBalanceInstance 1`). Their descriptors are fetched over Tor, and the points
//! in them go into ours.
//!
//! ```text
//!                       every `interval_min`: are its points still there?
//!              .-----------------------------------------------------------.
//!   descriptor |                                                           | a relay has lost one,
//!   known -----'   every `interval_min` to `interval_max`: anything new?   | or it is time
//!      ^                                                                   v
//!      '------------------------- fetch from its HSDirs <------------------'
//!                                     | nothing, again and again
//!                                     v
//!                             out of the descriptor
//! ```
//!
//! The descriptor of an instance that has died stays on its HSDirs for three hours, so it is the
//! points that tell: [`probe`] asks their relays. Points that are gone leave our descriptor at
//! once, and the instance's own is fetched again, since it may have new ones.
//!
//! Runs on the control core, one future for each remote instance, all in one task.

mod probe;
mod timing;
mod view;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures::future::join_all;
use tokio::sync::Semaphore;
use tor_linkspec::OwnedCircTarget;
use tor_netdir::{NetDir, Timeliness};

use self::timing::{Timing, jittered};
use self::view::View;
use super::config::RemoteConfig;
use super::foreign::{Foreign, ForeignError, ForeignKeys};
use super::guest::Guest;
use super::hsdir::{self, UploadError};
use super::service::Service;
use super::status::{Engine, GuestState};
use crate::limits;
use crate::runtime;
use crate::tor::stack::CircuitPool;

/// Why a descriptor was not fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// There is no directory to go by.
    #[error("no timely Tor directory")]
    NoDirectory,
    /// The HSDirs could not be chosen.
    #[error("the directory has no HSDirs for it")]
    NoHsDirs,
    /// No HSDir had it.
    #[error("none of its HSDirs has its descriptor")]
    NotFound,
    /// No HSDir answered; what befell the last one.
    #[error("none of its HSDirs answers: {0}")]
    Hsdir(#[source] Box<UploadError>),
    /// What was found is of no use.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// Every copy was older than the one that is known.
    #[error("its HSDirs hold older descriptors than the one that is known")]
    Stale,
}

/// One remote instance.
struct Remote {
    /// The service that it belongs to.
    service: Arc<Service>,
    /// What the service knows of it.
    guest: Arc<Guest>,
    /// What was configured.
    config: RemoteConfig,
    /// Circuits of the control core.
    pool: CircuitPool,
    /// Bounds what is fetched at the same time.
    slots: Arc<Semaphore>,
}

/// Bring the points of a service's remote instances, for as long as the future is polled. On the
/// control core.
pub async fn keep(service: &Arc<Service>, pool: &CircuitPool) {
    let slots = Arc::new(Semaphore::new(limits::REMOTE_FETCHES_AT_ONCE_MAX));
    let guests = service.guests().iter().filter(|guest| guest.config.engine == Engine::Remote);
    let remotes = guests.zip(&service.settings.remotes).map(|(guest, config)| Remote {
        service: Arc::clone(service),
        guest: Arc::clone(guest),
        config: config.clone(),
        pool: pool.clone(),
        slots: Arc::clone(&slots),
    });
    join_all(remotes.map(Remote::keep)).await;
}

impl Remote {
    /// Keep the guest's points true, for as long as the future is polled.
    async fn keep(self) {
        let bounds = self.service.settings.remote_interval;
        let mut timing = Timing::new(bounds.min, bounds.max);
        let mut view = View::default();
        let mut fetch_at = Instant::now();
        loop {
            let lost = self.config.probe && self.probe(&mut view).await;
            if lost {
                self.tell(&view, timing.failures());
            }
            if lost || fetch_at <= Instant::now() {
                let wait = match self.fetch(&view).await {
                    Ok((period, found)) => {
                        let news = view.note_descriptor(period, found, Instant::now());
                        timing.fetched(news || lost)
                    }
                    Err(FetchError::Stale) => timing.fetched(lost),
                    Err(error) => {
                        tracing::debug!(instance = self.config.name, "fetch: {error}");
                        view.note_failure(error.to_string());
                        timing.failed()
                    }
                };
                fetch_at = Instant::now() + jittered(wait);
            }
            self.tell(&view, timing.failures());
            let until_fetch = fetch_at.saturating_duration_since(Instant::now());
            let pause = match view.is_known() && self.config.probe {
                true => until_fetch.min(jittered(timing.look())),
                false => until_fetch,
            };
            runtime::sleep(pause).await;
        }
    }

    /// Ask whether some of the points are still there; whether one has gone.
    async fn probe(&self, view: &mut View) -> bool {
        let points = view.take_probes();
        let answers = join_all(points.iter().map(|point| async {
            // Never closed.
            let _slot = self.slots.acquire().await;
            probe::probe(&self.pool, point).await
        }));
        let answers = answers.await;
        let mut lost = false;
        for (point, presence) in points.iter().zip(answers) {
            lost |= view.note_presence(point, presence);
        }
        lost
    }

    /// Fetch the descriptor of the current period from one HSDir after the other, until one has a
    /// copy that is not older than the known one.
    async fn fetch(&self, view: &View) -> Result<(u64, Foreign), FetchError> {
        let _slot = self.slots.acquire().await;
        let directory = self.pool.directory();
        let netdir = directory.netdir(Timeliness::Timely).map_err(|_| FetchError::NoDirectory)?;
        let keys = ForeignKeys::derive(self.config.address, netdir.hs_time_period())?;
        let hsdirs = hsdirs(&netdir, &keys)?;
        let known = view.revision_in(keys.period.interval_num());
        let mut failed = FetchError::NoHsDirs;
        for hsdir in hsdirs.into_iter().take(limits::REMOTE_HSDIRS_TRIED_MAX) {
            let text = match hsdir::download(&self.pool, hsdir, keys.blinded).await {
                Ok(Some(text)) => text,
                Ok(None) => {
                    failed = worse(failed, FetchError::NotFound);
                    continue;
                }
                Err(error) => {
                    failed = worse(failed, FetchError::Hsdir(Box::new(error)));
                    continue;
                }
            };
            match keys.read(&text, &netdir, SystemTime::now()) {
                Ok(found) if known.is_some_and(|known| known > found.revision) => {
                    failed = FetchError::Stale;
                }
                Ok(found) => return Ok((keys.period.interval_num(), found)),
                Err(error) => failed = worse(failed, error.into()),
            }
        }
        Err(failed)
    }

    /// Tell the service what may be published.
    fn tell(&self, view: &View, failures: u32) {
        let before = self.guest.now().state;
        let name = &self.config.name;
        match view.verdict(failures, Instant::now()) {
            Ok((points, congestion_control)) => {
                if before != GuestState::Serving {
                    tracing::info!(instance = name, points = points.len(), "it serves");
                }
                self.service.set_guest_points(&self.guest, points, congestion_control);
            }
            Err(reason) => {
                if before == GuestState::Serving {
                    tracing::warn!(instance = name, "it leaves the descriptor: {reason}");
                }
                let state = match view.is_known() || failures >= limits::REMOTE_FAILURES_MAX {
                    true => GuestState::Failed,
                    false => GuestState::Starting,
                };
                self.service.set_guest_state(&self.guest, state, Some(reason.to_owned()));
            }
        }
    }
}

/// The HSDirs that clients would fetch from, in random order.
fn hsdirs(netdir: &NetDir, keys: &ForeignKeys) -> Result<Vec<OwnedCircTarget>, FetchError> {
    let hsdirs = netdir
        .hs_dirs_download(keys.blinded, keys.period, &mut rand::rng())
        .map_err(|_| FetchError::NoHsDirs)?;
    Ok(hsdirs.iter().map(OwnedCircTarget::from_circ_target).collect())
}

/// Of two failures the one that says more: an HSDir that holds an older copy is no failure at all.
fn worse(before: FetchError, now: FetchError) -> FetchError {
    match before {
        FetchError::Stale => before,
        _ => now,
    }
}
