//! What the circuits that we ask for tell of each link: how many are open on it, and how often its
//! relay has refused to make one. A relay that refuses several is asked for fewer, for a while.
//!
//! A guard refuses a circuit by DESTROY in the place of CREATED, which is what its defence against
//! denial of service does (dos-spec, `DoSCircuitCreation*`): asking on at full speed keeps that
//! defence up. Only the relay at the other end of a link can answer so: what is refused further on
//! looks different, and slows nothing down.
//!
//! Shared by the circuit pools of one stack, which share its links. Circuits that arti builds ahead
//! are not ours: they are counted once we use them, and refusals of them are not seen here. arti
//! builds one at a time, and rests for half a minute when several have failed.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tor_circmgr::Error as CircuitError;
use tor_proto::Error as ProtocolError;
use tor_proto::channel::Channel;
use tor_proto::circuit::UniqId;

use crate::limits;
use crate::runtime;

/// Why there is no circuit.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It was not asked for: a relay refuses circuits, and many wait already.
    #[error("the guard refuses circuits, and too many wait for one")]
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
#[derive(Debug, Default)]
pub(super) struct Load {
    /// What is counted.
    links: Mutex<Links>,
    /// Slows us down.
    brake: Mutex<Brake>,
}

impl Load {
    /// The links.
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The brake.
    fn brake(&self) -> MutexGuard<'_, Brake> {
        self.brake.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Ask for a circuit when its turn has come: at once, unless a relay refuses.
    pub(super) async fn launch<T>(
        &self,
        circuit: impl Future<Output = Result<T, CircuitError>>,
    ) -> Result<T, LaunchError> {
        let turn = self.brake().turn(Instant::now()).ok_or(LaunchError::Braked)?;
        if !turn.is_zero() {
            runtime::sleep(turn).await;
        }
        let built = circuit.await;
        match &built {
            Ok(_) => self.brake().note_built(Instant::now()),
            Err(error) => self.note_failed(error),
        }
        Ok(built?)
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
        if self.brake().note_refused(Instant::now()) {
            tracing::warn!("a guard refuses circuits: asking for fewer for a while");
        }
    }

    /// Whether a relay refuses circuits now.
    pub(super) fn is_refused(&self) -> bool {
        self.brake().is_on(Instant::now())
    }
}

/// The number that stands behind `prefix`, and nothing else.
fn number_after(text: &str, prefix: &str) -> Option<u64> {
    text.strip_prefix(prefix)?.parse().ok()
}

/// Slows us down: on once a relay has refused several circuits in a short time, off when none was
/// refused for a while. While it is on there is a pause between two circuits, twice as long after
/// each refusal and half as long after each that was built.
#[derive(Debug, Default)]
struct Brake {
    /// When circuits were refused, the last few.
    refused: VecDeque<Instant>,
    /// On until then.
    until: Option<Instant>,
    /// Between two circuits.
    pause: Duration,
    /// When the next may be asked for.
    next: Option<Instant>,
}

impl Brake {
    /// Whether it is on.
    fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// How long to wait before a circuit is asked for; `None` when too many wait.
    fn turn(&mut self, now: Instant) -> Option<Duration> {
        if !self.is_on(now) {
            return Some(Duration::ZERO);
        }
        let turn = self.next.map_or(now, |next| next.max(now));
        let wait = turn - now;
        if wait > Duration::from_millis(limits::REFUSED_WAIT_MS_MAX) {
            return None;
        }
        self.next = Some(turn + self.pause);
        Some(wait)
    }

    /// A circuit was refused; whether that has put the brake on.
    fn note_refused(&mut self, now: Instant) -> bool {
        let window = Duration::from_millis(limits::REFUSED_WINDOW_MS);
        self.refused.retain(|at| now.saturating_duration_since(*at) < window);
        self.refused.push_back(now);
        if self.refused.len() > limits::REFUSED_MAX {
            self.refused.pop_front();
        }
        let was_on = self.is_on(now);
        if !was_on && self.refused.len() < limits::REFUSED_MAX {
            return false;
        }
        let shortest = Duration::from_millis(limits::REFUSED_PAUSE_MS_MIN);
        let longest = Duration::from_millis(limits::REFUSED_PAUSE_MS_MAX);
        self.pause = if was_on { (self.pause * 2).min(longest) } else { shortest };
        self.until = Some(now + Duration::from_secs(limits::REFUSED_SLOW_SECONDS));
        !was_on
    }

    /// A circuit was built.
    fn note_built(&mut self, now: Instant) {
        if self.is_on(now) {
            let shortest = Duration::from_millis(limits::REFUSED_PAUSE_MS_MIN);
            self.pause = (self.pause / 2).max(shortest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tor_circmgr::Error as CircuitError;
    use tor_proto::Error as ProtocolError;

    use super::{Brake, LaunchError, Load, number_after};
    use crate::limits;

    /// A circuit that ended so at the first hop.
    fn failed(error: ProtocolError) -> CircuitError {
        CircuitError::Protocol { action: "creating first hop", peer: None, error, unique_id: None }
    }

    #[test]
    fn several_refusals_in_a_short_time_slow_down_and_it_passes() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut brake = Brake::default();
        // Some, far apart: that happens.
        for turn in 0..5 {
            assert!(!brake.note_refused(at(turn * limits::REFUSED_WINDOW_MS)));
        }
        let begun = 6 * limits::REFUSED_WINDOW_MS;
        assert_eq!(brake.turn(at(begun)), Some(Duration::ZERO));
        let put_on: Vec<bool> =
            (0..limits::REFUSED_MAX).map(|_| brake.note_refused(at(begun))).collect();
        assert!(put_on.last() == Some(&true) && put_on.iter().filter(|on| **on).count() == 1);
        // One after another, and not without end.
        let pause = Duration::from_millis(limits::REFUSED_PAUSE_MS_MIN);
        let turns: Vec<_> = std::iter::from_fn(|| brake.turn(at(begun))).take(1000).collect();
        assert!(turns.iter().zip(0_u32..).all(|(turn, number)| *turn == pause * number));
        assert_eq!(
            turns.len() as u64,
            limits::REFUSED_WAIT_MS_MAX / limits::REFUSED_PAUSE_MS_MIN + 1
        );
        // Longer with each that is refused, up to a bound; shorter with each that is built.
        for _ in 0..20 {
            assert!(!brake.note_refused(at(begun)));
        }
        assert_eq!(brake.pause, Duration::from_millis(limits::REFUSED_PAUSE_MS_MAX));
        (0..20).for_each(|_| brake.note_built(at(begun)));
        assert_eq!(brake.pause, pause);
        assert!(brake.refused.len() <= limits::REFUSED_MAX);
        let passed = begun + limits::REFUSED_SLOW_SECONDS * 1000;
        assert!(brake.is_on(at(passed - 1)) && !brake.is_on(at(passed)));
        assert_eq!(brake.turn(at(passed)), Some(Duration::ZERO));
    }

    #[test]
    fn the_numbers_of_channels_are_read_as_arti_writes_them() {
        assert_eq!(number_after("Chan 17", "Chan "), Some(17));
        assert_eq!(number_after("17", ""), Some(17));
        assert_eq!(number_after("Circ 17", "Chan "), None);
    }

    #[tokio::test]
    async fn a_guard_that_refuses_is_asked_no_more_once_enough_wait() {
        let load = Load::default();
        let fail = |error| async { Err::<(), _>(failed(error)) };
        // What fails further on is no refusal.
        for _ in 0..10 {
            load.launch(fail(ProtocolError::CircuitClosed)).await.expect_err("it fails");
        }
        let refuse = || fail(ProtocolError::CircRefused("no"));
        for _ in 0..limits::REFUSED_MAX {
            assert!(!load.is_refused());
            let error = load.launch(refuse()).await.expect_err("it is refused");
            assert!(matches!(error, LaunchError::Circuit(_)));
        }
        assert!(load.is_refused());
        load.launch(async { Ok(()) }).await.expect("the first waits for nothing");
        while load.brake().turn(Instant::now()).is_some() {}
        let error = load.launch(async { Ok(()) }).await.expect_err("too many wait");
        assert!(matches!(error, LaunchError::Braked));
    }
}
