//! What systemd is told where it runs this: `sd_notify(3)`. Without `NOTIFY_SOCKET`, nothing.
//!
//! * `STATUS=` what is being done or is in the way, in words.
//! * `READY=1` once every service's descriptor has been on its HSDirs; with `MAINPID=` where this
//!   process took over from another, which says nothing more from then on.
//! * `RELOADING=1` at SIGHUP, and `READY=1` when the configuration was read again.
//! * `STOPPING=1` when a drain begins, with as much time as it may take.
//! * `WATCHDOG=1` three times in `WatchdogSec=`, if every core has run a task since the last time.
//!   A core that hangs starves it, and systemd starts the whole process anew. A core that died is
//!   no reason: it is started again by the process itself.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::app::{Progress, Running};
use crate::base::redact::scrub;
use crate::limits;

/// How much longer than a drain the end may take.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// Tells systemd each thing once.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    /// Whether it knows that we are ready.
    ready: bool,
    /// The status that it knows.
    status: String,
}

impl Notifier {
    /// Tell what is new.
    pub(super) fn tell(&mut self, progress: &Progress, took_over: bool) {
        let status = match (progress.text.as_str(), progress.ready) {
            ("", true) => "serving".to_owned(),
            ("", false) => "starting".to_owned(),
            (text, _) => text.to_owned(),
        };
        // It is in the journal as well.
        let status = scrub(&status).into_owned();
        if status != self.status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if progress.ready && !self.ready {
            self.ready = true;
            let main = took_over.then(|| NotifyState::MainPid(std::process::id()));
            send(&main.into_iter().chain([NotifyState::Ready]).collect::<Vec<_>>());
        }
    }

    /// The configuration is about to be read again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!("no monotonic clock: {error}"),
        }
    }

    /// It was read.
    pub(super) fn reloaded(&self) {
        send(&[NotifyState::Ready]);
    }

    /// A drain begins, which may take so long.
    pub(super) fn stopping(&mut self, drain: Duration) {
        let microseconds = u32::try_from((drain + STOP_MARGIN).as_micros()).unwrap_or(u32::MAX);
        self.status = "draining".to_owned();
        send(&[
            NotifyState::Stopping,
            NotifyState::Status(&self.status),
            NotifyState::ExtendTimeoutUsec(microseconds),
        ]);
    }
}

/// Feed the watchdog for as long as the future is polled; it never ends.
pub(super) async fn feed_watchdog(running: &Running) {
    let Some(period) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        let stuck = running.stuck_cores(period / 4).await;
        match stuck.as_slice() {
            [] => send(&[NotifyState::Watchdog]),
            // systemd says in its own log what follows.
            stuck => tracing::error!("not alive for {:?}: {}", period / 4, stuck.join(", ")),
        }
        tokio::time::sleep(period / 3).await;
    }
}

/// How long a core may hang before the process ends by itself: where systemd has a watchdog, that
/// comes first.
pub(super) fn hung_bound() -> Duration {
    let own = Duration::from_secs(limits::CORE_HUNG_SECONDS_MAX);
    sd_notify::watchdog_enabled().map_or(own, |period| own.max(period * 2))
}

/// Tell systemd something. It may have been restarted or be gone: no reason to stop serving.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd cannot be told: {error}");
    }
}
