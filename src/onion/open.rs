//! The client circuits that are open on one core, so that the largest can be found when memory is
//! short. Touched when a client comes and goes, never for a byte.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

/// One circuit.
#[derive(Debug)]
pub(super) struct OpenCircuit {
    /// Streams that may still be served.
    free: Arc<Semaphore>,
    /// Streams that may be served in all.
    streams_max: usize,
    /// Rings when the circuit shall close.
    close: Notify,
}

impl OpenCircuit {
    /// Streams that are being served.
    fn streams(&self) -> usize {
        self.streams_max.saturating_sub(self.free.available_permits())
    }

    /// Wait until the circuit shall close.
    pub(super) async fn close_wanted(&self) {
        self.close.notified().await;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OpenCircuits {
    /// By serial, so the oldest first.
    by_serial: Mutex<BTreeMap<u32, Arc<OpenCircuit>>>,
}

/// A circuit's place in the list, which it leaves when this is dropped.
pub(super) struct Place<'a> {
    /// The list.
    list: &'a OpenCircuits,
    /// Its key.
    serial: u32,
    /// The circuit.
    pub(super) circuit: Arc<OpenCircuit>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.list.lock().remove(&self.serial);
    }
}

impl OpenCircuits {
    /// The list.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<OpenCircuit>>> {
        self.by_serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A circuit has opened; `free` of its `streams_max` streams may still be served.
    pub(super) fn enter(&self, serial: u32, free: Arc<Semaphore>, streams_max: usize) -> Place<'_> {
        let circuit = Arc::new(OpenCircuit { free, streams_max, close: Notify::new() });
        self.lock().insert(serial, Arc::clone(&circuit));
        Place { list: self, serial, circuit }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Have the one of this serial close; `false` when there is none.
    pub(super) fn close(&self, serial: u32) -> bool {
        let list = self.lock();
        let circuit = list.get(&serial);
        circuit.map(|circuit| circuit.close.notify_one()).is_some()
    }

    /// Have the `count` largest close: those with the most streams, the older one of two alike.
    pub(super) fn close_largest(&self, count: usize) {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        // Each is asked once: streams come and go meanwhile, and a sort whose order changes panics.
        all.sort_by_cached_key(|circuit| std::cmp::Reverse(circuit.streams()));
        for circuit in all.iter().take(count) {
            circuit.close.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::OpenCircuits;

    #[test]
    fn the_largest_and_of_these_the_oldest_close_first() {
        let list = OpenCircuits::default();
        let streams = [1, 4, 4, 0].map(|open| {
            let free = Arc::new(Semaphore::new(5));
            let held: Vec<_> = (0..open).filter_map(|_| free.try_acquire().ok()).collect();
            held.into_iter().for_each(|permit| permit.forget());
            free
        });
        let places: Vec<_> =
            (0..).zip(streams).map(|(serial, free)| list.enter(serial, free, 5)).collect();
        let closing = |place: &super::Place<'_>| place.circuit.close_wanted().now_or_never();
        list.close_largest(1);
        let closed: Vec<bool> = places.iter().map(|place| closing(place).is_some()).collect();
        assert_eq!(closed, [false, true, false, false]);
        list.close_largest(3);
        let closed: Vec<bool> = places.iter().map(|place| closing(place).is_some()).collect();
        assert_eq!(closed, [true, true, true, false]);
        assert!(list.close(3) && !list.close(4));
        assert!(closing(&places[3]).is_some());
        assert_eq!(list.len(), 4);
        drop(places);
        assert_eq!(list.len(), 0);
    }
}
