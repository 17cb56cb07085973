//! The socket that tells status as OnionBalance does, where one is wanted.

use super::control_core::ControlCore;

/// Without the feature `admin` there is no socket.
#[cfg(not(feature = "admin"))]
impl ControlCore {
    /// Does not come back.
    pub(super) async fn serve_onionbalance(&self, _replace: bool) {
        std::future::pending().await
    }
}

#[cfg(feature = "admin")]
impl ControlCore {
    /// Tell status as OnionBalance does. Does not come back: where there can be no socket, clients
    /// are served all the same, as OnionBalance does it; and it is tried again, since OnionBalance
    /// itself may still be there.
    pub(super) async fn serve_onionbalance(&self, replace: bool) {
        use std::sync::Arc;
        use std::time::Duration;

        use super::succession::Desk;
        use crate::admin::{Place, StatusSource, onionbalance};
        use crate::limits;

        let Some(path) = &self.onionbalance_socket else { return std::future::pending().await };
        let mut place = if replace { Place::Predecessor } else { Place::Free };
        let mut owner = self.owner.subscribe();
        if owner.wait_for(|owner| *owner).await.is_err() {
            return std::future::pending().await;
        }
        let source: Arc<dyn StatusSource> = Desk::new(&self.shared, &self.order, &self.state_dir);
        let mut told = String::new();
        loop {
            let ended = onionbalance::serve(path, place, &source).await;
            let error = ended.err().map(|error| error.to_string()).unwrap_or_default();
            // The words are those for the other socket.
            let error = error.replace("the admin socket", "the socket");
            let error = error.replace("[admin] socket", "[admin] onionbalance_socket");
            if error != told {
                tracing::error!("nobody can ask for status in OnionBalance's form: {error}");
                told = error;
            }
            place = Place::Free;
            tokio::time::sleep(Duration::from_secs(limits::SOCKET_RETRY_SECONDS)).await;
        }
    }
}
