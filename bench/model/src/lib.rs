//! The protocols between threads of `rustbalance::runtime`, in every order of steps that the memory
//! model allows. The files under test are the library's own; loom takes the place of the standard
//! library's atomics. Only tests are here.

#![cfg(test)]

#[path = "../../../src/runtime/park.rs"]
mod park;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

use self::park::Parking;

/// A core, as far as its sleep goes.
#[derive(Default)]
struct Core {
    /// Under test.
    parking: Parking,
    /// What others have left for it. Relaxed on purpose: nothing but the fences orders it.
    work: AtomicUsize,
    /// How often it was woken: what stands in its eventfd.
    rings: AtomicUsize,
}

impl Core {
    /// Leave work, and wake the core if it has to be.
    fn give(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
        if self.parking.must_be_woken() {
            self.rings.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One attempt to sleep; whether it sleeps.
    fn sleeps(&self) -> bool {
        self.parking.fall_asleep();
        if self.work.load(Ordering::Relaxed) == 0 {
            return true;
        }
        self.parking.wake_up();
        false
    }
}

/// Run so many givers against a core that goes to sleep.
fn model(givers: usize) {
    loom::model(move || {
        let core = Arc::new(Core::default());
        let threads: Vec<_> = (0..givers)
            .map(|_| {
                let core = Arc::clone(&core);
                loom::thread::spawn(move || core.give())
            })
            .collect();
        let slept = core.sleeps();
        for thread in threads {
            thread.join().expect("it does not panic");
        }
        let rings = core.rings.load(Ordering::Relaxed);
        assert!(!slept || rings > 0, "it sleeps beside work, and nobody wakes it");
        assert!(rings <= 1, "woken {rings} times for one sleep");
    });
}

#[test]
fn a_core_never_sleeps_beside_work() {
    model(1);
}

#[test]
fn several_givers_wake_it_once() {
    model(2);
}

#[test]
fn work_left_at_any_time_is_done_or_wakes_the_core() {
    loom::model(|| {
        let core = Arc::new(Core::default());
        let giver = {
            let core = Arc::clone(&core);
            loom::thread::spawn(move || core.give())
        };
        // It sleeps, its timer wakes it, it takes what is there, and sleeps again.
        core.sleeps();
        core.parking.wake_up();
        let taken = core.work.swap(0, Ordering::Relaxed);
        let slept = core.sleeps();
        giver.join().expect("it does not panic");
        let left = core.work.load(Ordering::Relaxed);
        assert_eq!(taken + left, 1);
        let rings = core.rings.load(Ordering::Relaxed);
        assert!(!slept || left == 0 || rings > 0, "{left} left and nobody rings");
    });
}
