//! What all threads know of the daemons, and what they tell them: the guards that have links from
//! them, and circuits that shall close.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::ctor::Close;
use crate::limits;
use crate::plane::front::CloseCircuit;

/// What is known of the daemons, and the way to them.
pub(in crate::app) struct Told {
    /// Their guards.
    guards: Mutex<Guards>,
    /// To each daemon, in order.
    closes: Vec<mpsc::Sender<Close>>,
    /// The other ends, until the control core takes them.
    closings: Mutex<Vec<Option<mpsc::Receiver<Close>>>>,
}

/// Guards by daemon, from 1.
#[derive(Debug, Default)]
struct Guards {
    /// Numbers of the guards that each has links to.
    linked: BTreeMap<u16, Vec<u64>>,
    /// Every guard's number: they are numbered as they are met.
    numbers: BTreeMap<String, u64>,
}

impl Told {
    /// For so many daemons.
    pub(in crate::app) fn new(daemons: u16) -> Told {
        let channel = |_| mpsc::channel(limits::CTOR_CLOSES_MAX);
        let (closes, closings): (Vec<_>, Vec<_>) = (0..daemons).map(channel).unzip();
        let closings = closings.into_iter().map(Some).collect();
        Told { guards: Mutex::default(), closes, closings: Mutex::new(closings) }
    }

    /// The circuits that daemon `number` shall close; `None` from the second time on.
    pub(super) fn closings(&self, number: u16) -> Option<mpsc::Receiver<Close>> {
        let mut all = self.closings.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(usize::from(number).checked_sub(1)?)?.take()
    }

    /// Has circuits of daemon `number` closed, from any thread. One that the daemon has no time for
    /// stays open, and its stream ends all the same.
    pub(in crate::app) fn closer(&self, number: u16) -> Option<Arc<CloseCircuit>> {
        let daemon = self.closes.get(usize::from(number).checked_sub(1)?)?.clone();
        Some(Arc::new(move |circuit| {
            let (closed, told) = oneshot::channel();
            // Dropped, it says that nothing was closed.
            let _ = daemon.try_send(Close { circuit, closed });
            told
        }))
    }

    /// Daemon `number` has links to these guards. How many guards have links from more than one
    /// daemon, where these are more than before.
    pub(super) fn note_guards(&self, number: u16, guards: &[String]) -> Option<usize> {
        let mut all = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.shared();
        let mut numbers: Vec<u64> = guards.iter().map(|guard| all.number(guard)).collect();
        numbers.sort_unstable();
        all.linked.insert(number, numbers);
        let now = all.shared();
        (now > before).then_some(now)
    }

    /// The numbers of the guards that each daemon has links to.
    pub(in crate::app) fn guards(&self) -> Vec<Vec<u64>> {
        let all = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |number| all.linked.get(&number).cloned().unwrap_or_default();
        (1..).take(self.closes.len()).map(of).collect()
    }
}

impl Guards {
    /// The number of a guard.
    fn number(&mut self, guard: &str) -> u64 {
        let next = self.numbers.len() as u64;
        *self.numbers.entry(guard.to_owned()).or_insert(next)
    }

    /// Guards that more than one daemon has a link to.
    fn shared(&self) -> usize {
        let mut links: BTreeMap<u64, usize> = BTreeMap::new();
        for guard in self.linked.values().flatten() {
            *links.entry(*guard).or_default() += 1;
        }
        links.values().filter(|links| **links > 1).count()
    }
}

#[cfg(test)]
mod tests {
    use super::Told;

    /// Guards by name.
    fn guards(names: &[&str]) -> Vec<String> {
        names.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn guards_are_shared_by_daemons_that_have_links_to_them() {
        let told = Told::new(3);
        assert_eq!(told.note_guards(1, &guards(&["a", "b"])), None);
        assert_eq!(told.note_guards(2, &guards(&["c"])), None);
        assert_eq!(told.note_guards(3, &guards(&["d", "b", "a"])), Some(2));
        assert_eq!(told.guards(), [vec![0, 1], vec![2], vec![0, 1, 3]]);
        assert_eq!(told.note_guards(3, &[]), None);
        assert_eq!(told.guards(), [vec![0, 1], vec![2], vec![]]);
        // It is said again when it comes again.
        assert_eq!(told.note_guards(3, &guards(&["c"])), Some(1));
        assert_eq!(told.guards()[2], [2], "a guard keeps its number");
    }

    #[tokio::test]
    async fn a_circuit_that_nobody_can_close_was_not_closed() {
        let told = Told::new(1);
        assert!(told.closer(2).is_none() && told.closer(0).is_none());
        let close = told.closer(1).expect("there is one daemon");
        let mut closings = told.closings(1).expect("the first time");
        assert!(told.closings(1).is_none());
        let answer = close(7);
        let asked = closings.recv().await.expect("it was asked");
        assert_eq!(asked.circuit, 7);
        asked.closed.send(true).expect("somebody waits");
        assert_eq!(answer.await, Ok(true));
        drop(closings);
        close(8).await.expect_err("the daemon is gone");
    }
}
