//! What a program that embeds the library asks of a service beside what the binary does.

use super::running::Running;

impl Running {
    /// The onion addresses of the services, in order.
    pub fn onions(&self) -> Vec<String> {
        self.progress.borrow().onions.clone()
    }

    /// Wait until clients can come, or until the service has ended; whether they can.
    pub async fn ready(&self) -> bool {
        let mut progress = self.progress.clone();
        let until = progress.wait_for(|now| now.ready || now.ended.is_some()).await;
        until.is_ok_and(|now| now.ended.is_none())
    }

    /// Wait until the service has ended, for whatever reason; [`super::Progress::ended`] has it.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut progress = self.progress.clone();
        async move {
            // A control core that is gone has ended, too.
            let _ = progress.wait_for(|now| now.ended.is_some()).await;
        }
    }
}

/// Install the cryptography that links to relays use as the process's own, which a program does
/// once and before anything else does; whether it was first. A program that has `rustls` among its
/// own crates can install its provider itself.
pub fn install_crypto() -> bool {
    rustls::crypto::ring::default_provider().install_default().is_ok()
}
