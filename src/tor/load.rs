//! What the circuits that we ask for tell of each link: how many are open on it, and how often its
//! relay has refused to make one. A relay that refuses several is asked for fewer, for a while, and
//! so is one that another process has a link to: [`super::turns`] says whose turn it is.
//!
//! A guard refuses a circuit by DESTROY in the place of CREATED, which is what its defence against
//! denial of service does (dos-spec, `DoSCircuitCreation*`): asking on at full speed keeps that
//! defence up. Only the relay at the other end of a link can answer so: what is refused further on
//! looks different, and slows nothing down.
//!
//! Shared by the circuit pools of one stack, which share its links. Circuits that arti builds ahead
//! are not ours: they are counted once we use them, and refusals of them are not seen here. arti
//! builds one at a time, and rests for half a minute when several have failed.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tor_circmgr::Error as CircuitError;
use tor_proto::Error as ProtocolError;
use tor_proto::channel::Channel;
use tor_proto::circuit::UniqId;

use super::turns::{Allowance, GuardShare, Purpose, Turn, Turns};
use crate::runtime;

/// Why there is no circuit.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It was not asked for: a relay refuses circuits, or another process has a link to it, and
    /// many wait already.
    #[error("circuits are asked for slowly now, and too many wait for one")]
    Braked,
    /// It could not be built.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
}

/// What is counted of one link.
#[derive(Debug, Default)]
struct LinkLoad {
    /// Circuits of ours that are open on it.
    open: AtomicU64,
    /// Circuits that its relay refused to make.
    refused_total: AtomicU64,
}

/// Links, by arti's number of the channel.
#[derive(Debug, Default)]
struct Links {
    /// What is counted.
    by_channel: BTreeMap<u64, Arc<LinkLoad>>,
    /// Our number of a link, and arti's.
    channels: BTreeMap<u64, u64>,
}

/// That a circuit is open, until it is dropped.
#[derive(Debug)]
pub struct OpenCircuit(Option<Arc<LinkLoad>>);

impl Drop for OpenCircuit {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Load {
    /// What is counted.
    links: Mutex<Links>,
    /// Slows us down.
    turns: Mutex<Turns>,
    /// What guards still allow.
    allowance: Mutex<Allowance>,
}

impl Load {
    /// Nothing is open, with this share of what guards allow.
    pub(super) fn new(share: Option<GuardShare>) -> Load {
        let now = Instant::now();
        let mut turns = Turns::default();
        turns.share(share, now);
        let allowance = Mutex::new(Allowance::new(now));
        Load { links: Mutex::default(), turns: Mutex::new(turns), allowance }
    }

    /// The links.
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is.
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What guards still allow.
    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link's channel has been found.
    pub(super) fn name(&self, link: u64, channel: &Channel) {
        if let Some(channel) = number_after(&channel.unique_id().to_string(), "Chan ") {
            self.links().channels.insert(link, channel);
        }
    }

    /// Forget links that have closed.
    pub(super) fn keep_only(&self, open: &[u64]) {
        let mut links = self.links();
        links.channels.retain(|link, _| open.contains(link));
        let Links { by_channel, channels } = &mut *links;
        let in_use = |load: &LinkLoad| load.open.load(Ordering::Relaxed) > 0;
        by_channel.retain(|channel, load| {
            in_use(load) || channels.values().any(|known| known == channel)
        });
    }

    /// What is counted of the channel that a circuit is on.
    fn link_of(&self, circuit: &UniqId) -> Option<Arc<LinkLoad>> {
        let text = circuit.display_chan_circ().to_string();
        let channel = number_after(text.split_once('.')?.0, "")?;
        Some(Arc::clone(self.links().by_channel.entry(channel).or_default()))
    }

    /// Circuits that are open on a link, and those that its relay refused; `None` for a link that
    /// was opened for the directory alone, or a moment ago.
    pub(super) fn of_link(&self, link: u64) -> Option<(u64, u64)> {
        let links = self.links();
        let load = links.by_channel.get(links.channels.get(&link)?);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(load.map_or((0, 0), |load| (read(&load.open), read(&load.refused_total))))
    }

    /// A circuit is open until what comes back is dropped.
    pub(super) fn open(&self, circuit: &UniqId) -> OpenCircuit {
        let link = self.link_of(circuit);
        if let Some(link) = &link {
            link.open.fetch_add(1, Ordering::Relaxed);
        }
        OpenCircuit(link)
    }

    /// Whether points or descriptors wait for their turn.
    pub(super) fn is_behind(&self) -> bool {
        self.turns().is_behind()
    }

    /// Ask for a circuit when its turn has come: at once, unless they have to come slowly.
    pub(super) async fn launch<T>(
        &self,
        purpose: Purpose,
        circuit: impl Future<Output = Result<T, CircuitError>>,
    ) -> Result<T, LaunchError> {
        self.turn(purpose).await?;
        self.build(circuit).await
    }

    /// See [`Load::launch`]; once its turn has come.
    pub(super) async fn build<T>(
        &self,
        circuit: impl Future<Output = Result<T, CircuitError>>,
    ) -> Result<T, LaunchError> {
        let built = circuit.await;
        match &built {
            Ok(_) => self.turns().brake.note_built(Instant::now()),
            Err(error) => self.note_failed(error),
        }
        Ok(built?)
    }

    /// Wait for a turn. Whoever waits gives the turns that have come meanwhile to who is first.
    pub(super) async fn turn(&self, purpose: Purpose) -> Result<(), LaunchError> {
        let begun = Instant::now();
        let mut told = match self.turns().ask(purpose, begun) {
            Turn::Now => return Ok(()),
            Turn::Later(told) => told,
            Turn::Full => return Err(LaunchError::Braked),
        };
        let until = purpose.patience().map(|patience| begun + patience);
        loop {
            let next = self.turns().next(Instant::now());
            let wake = until.map_or(next, |until| until.min(next));
            tokio::select! {
                biased;
                told = &mut told => return told.map_err(|_| LaunchError::Braked),
                () = runtime::sleep_until(wake) => {}
            }
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                // A turn that has come all the same is used.
                return told.try_recv().map_err(|_| LaunchError::Braked);
            }
            self.turns().advance(now);
        }
    }

    /// From now on this is our share of what guards allow, or all of it.
    pub(super) fn share(&self, share: Option<GuardShare>) {
        self.turns().share(share, Instant::now());
        if share.is_none() {
            self.allowance().was_shared();
        }
    }

    /// So many circuits were started on our links so far: how many more guards would make at once.
    pub(super) fn note_started(&self, started: u64) -> u64 {
        let mut allowance = self.allowance();
        allowance.note(started, Instant::now());
        allowance.left()
    }

    /// See whether a circuit failed because the first relay refused it.
    fn note_failed(&self, error: &CircuitError) {
        let CircuitError::Protocol { error: ProtocolError::CircRefused(_), unique_id, .. } = error
        else {
            return;
        };
        if let Some(link) = unique_id.as_ref().and_then(|circuit| self.link_of(circuit)) {
            link.refused_total.fetch_add(1, Ordering::Relaxed);
        }
        if self.turns().brake.note_refused(Instant::now()) {
            tracing::warn!("a guard refuses circuits: asking for fewer for a while");
        }
    }

    /// Whether a relay refuses circuits now.
    pub(super) fn is_refused(&self) -> bool {
        self.turns().brake.is_on(Instant::now())
    }
}

/// The number that stands behind `prefix`, and nothing else.
fn number_after(text: &str, prefix: &str) -> Option<u64> {
    text.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tor_circmgr::Error as CircuitError;
    use tor_proto::Error as ProtocolError;

    use super::{LaunchError, Load, Purpose, Turn, number_after};
    use crate::limits;

    /// A circuit that ended so at the first hop.
    fn failed(error: ProtocolError) -> CircuitError {
        CircuitError::Protocol { action: "creating first hop", peer: None, error, unique_id: None }
    }

    #[test]
    fn the_numbers_of_channels_are_read_as_arti_writes_them() {
        assert_eq!(number_after("Chan 17", "Chan "), Some(17));
        assert_eq!(number_after("17", ""), Some(17));
        assert_eq!(number_after("Circ 17", "Chan "), None);
    }

    #[tokio::test]
    async fn a_guard_that_refuses_is_asked_no_more_once_enough_wait() {
        let load = Load::new(None);
        let fail = |error| async { Err::<(), _>(failed(error)) };
        let purpose = Purpose::Rendezvous;
        // What fails further on is no refusal.
        for _ in 0..10 {
            load.launch(purpose, fail(ProtocolError::CircuitClosed)).await.expect_err("it fails");
        }
        let refuse = || fail(ProtocolError::CircRefused("no"));
        for _ in 0..limits::REFUSED_MAX {
            assert!(!load.is_refused());
            let error = load.launch(purpose, refuse()).await.expect_err("it is refused");
            assert!(matches!(error, LaunchError::Circuit(_)));
        }
        assert!(load.is_refused());
        load.launch(purpose, async { Ok(()) }).await.expect("the first waits for nothing");
        let mut waiting = Vec::new();
        while let Turn::Later(told) = load.turns().ask(purpose, Instant::now()) {
            waiting.push(told);
        }
        assert_eq!(waiting.len(), limits::RENDEZVOUS_TURNS_MAX);
        let error = load.launch(purpose, async { Ok(()) }).await.expect_err("too many wait");
        assert!(matches!(error, LaunchError::Braked));
        // A point has its turn before all of them.
        load.launch(Purpose::Point, async { Ok(()) }).await.expect("it waits for one pause");
        assert!(waiting.iter_mut().all(|told| told.try_recv().is_err()), "one came first");
    }
}
