//! A host name of a backend, and the addresses that it was last found to stand for.
//!
//! The system's resolver asks on a thread where it may block, when the plane gets the backend and
//! at every interval from then on, and never because a client has come: who watches the queries
//! sees when there are clients. Streams are given what was found last; a query that fails changes
//! nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::limits;
use crate::runtime::{self, net};

/// See the module. Written by whoever looks it up, read when a stream begins.
#[derive(Debug)]
pub(super) struct Name {
    /// The name.
    host: String,
    /// The port at each of its addresses.
    port: u16,
    /// Its addresses, in the resolver's order; none before it was looked up.
    found: RwLock<Arc<[SocketAddr]>>,
}

impl Name {
    /// A name that was not looked up yet.
    pub(super) fn new(host: String, port: u16) -> Name {
        Name { host, port, found: RwLock::default() }
    }

    /// What it was last found to stand for.
    pub(super) fn found(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.found.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Look it up now and after each interval, for as long as this is polled; sooner, after waits
    /// that double, while no address was found yet: at boot the resolver, or who the name is for,
    /// may be a moment late.
    pub(super) async fn look_up(&self, interval: Duration) {
        let mut failing = false;
        let mut retry = Duration::from_secs(limits::RESOLVE_RETRY_SECONDS_MIN);
        loop {
            let answer = net::look_up(self.host.clone(), self.port).await;
            self.note(answer, &mut failing);
            let wait = if self.found().is_empty() { retry.min(interval) } else { interval };
            retry = (2 * retry).min(interval);
            runtime::sleep(wait).await;
        }
    }

    /// Take what the resolver has said.
    fn note(&self, answer: io::Result<Vec<SocketAddr>>, failing: &mut bool) {
        let host = &self.host;
        match answer {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.truncate(limits::NAME_ADDRESSES_MAX);
                if *self.found() != *addresses {
                    tracing::info!(
                        name = host,
                        "the name stands for {} addresses",
                        addresses.len()
                    );
                    *self.found.write().unwrap_or_else(PoisonError::into_inner) = addresses.into();
                }
                *failing = false;
            }
            wrong if !std::mem::replace(failing, true) => {
                let wrong = wrong.err().map_or("no address".to_owned(), |error| error.to_string());
                let known = self.found().len();
                tracing::warn!(
                    name = host,
                    "cannot look the name up: {wrong}; {known} addresses are known"
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Name;

    #[test]
    fn a_query_that_fails_changes_nothing() {
        let name = Name::new("app.internal".to_owned(), 80);
        assert!(name.found().is_empty());
        let [one, two] = ["192.0.2.1:80", "192.0.2.2:80"].map(|text| text.parse().expect("one"));
        let mut failing = false;
        name.note(Err(io::ErrorKind::NotFound.into()), &mut failing);
        assert!(failing && name.found().is_empty());
        name.note(Ok(vec![one, two]), &mut failing);
        assert!(!failing && *name.found() == [one, two]);
        for wrong in [Ok(Vec::new()), Err(io::ErrorKind::TimedOut.into())] {
            name.note(wrong, &mut failing);
            assert!(failing && *name.found() == [one, two]);
        }
        name.note(Ok(vec![two]), &mut failing);
        assert!(!failing && *name.found() == [two]);
    }
}
