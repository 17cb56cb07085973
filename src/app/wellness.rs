//! How well the instances on this machine can serve: without a backend, or without memory for new
//! clients, they leave their share of the introduction points to instances elsewhere.
//!
//! Looked at each second on the control core. What is wrong for a moment is no reason to publish:
//! it has to last, and so has the recovery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control_core::Shared;
use super::roster::ServiceShared;
use crate::limits;
use crate::plane::status::{BackendState, BackendStatus};
use crate::runtime;

/// What lasts.
struct Lasting {
    /// What is told.
    told: bool,
    /// Since when the opposite is the case.
    opposite_since: Option<Instant>,
}

impl Lasting {
    /// Take in what is the case; what is to be told.
    fn note(&mut self, well: bool, now: Instant) -> bool {
        if well == self.told {
            self.opposite_since = None;
            return self.told;
        }
        let since = *self.opposite_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= Duration::from_millis(limits::WELLNESS_MS) {
            self.told = well;
            self.opposite_since = None;
        }
        self.told
    }
}

/// Whether some backend is up, or none is needed.
fn has_backend(backends: &[BackendStatus]) -> bool {
    backends.is_empty() || backends.iter().any(|one| one.state == BackendState::Up)
}

/// Tell a service how well this machine can serve it, for as long as the future is polled. Where
/// there is nobody elsewhere, that changes nothing.
pub(super) async fn watch(service: &ServiceShared, shared: &Arc<Shared>) {
    if service.service.guests().is_empty() {
        return std::future::pending().await;
    }
    let mut lasting = Lasting { told: true, opposite_since: None };
    loop {
        let backends = has_backend(&service.plane.status());
        let memory = !shared.common.overload.is_short();
        let before = lasting.told;
        let well = lasting.note(backends && memory, Instant::now());
        if well != before {
            let name = service.name();
            match (well, backends) {
                (true, _) => tracing::info!(service = name, "served from this machine again"),
                (false, false) => tracing::warn!(
                    service = name,
                    "no backend is up: clients are left to instances elsewhere"
                ),
                (false, true) => tracing::warn!(
                    service = name,
                    "memory is short: clients are left to instances elsewhere"
                ),
            }
            service.service.set_local_percent(if well { 100 } else { 0 });
        }
        runtime::sleep(Duration::from_millis(limits::WELLNESS_LOOK_MS)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Lasting;
    use crate::limits;

    #[test]
    fn what_is_wrong_for_a_moment_is_not_told() {
        let mut lasting = Lasting { told: true, opposite_since: None };
        let start = Instant::now();
        let long = Duration::from_millis(limits::WELLNESS_MS);
        let short = long / 2;
        assert!(lasting.note(false, start));
        assert!(lasting.note(true, start + short), "it was short");
        assert!(lasting.note(false, start + short));
        assert!(lasting.note(false, start + long), "not long yet");
        assert!(!lasting.note(false, start + short + long));
        assert!(!lasting.note(true, start + 2 * long), "nor is the recovery told at once");
        assert!(lasting.note(true, start + 3 * long));
    }
}
