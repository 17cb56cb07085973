//! The timers of a core: a hierarchical timing wheel (Varghese and Lauck, 1987).
//!
//! ```text
//!   level 0: 64 slots of 1 ms | level 1: 64 of 64 ms | ... | level 5: 64 of 12 days
//!            '--- a slot whose time has come is spread over the level below ---'
//! ```
//!
//! Setting and cancelling a timer takes the same few steps however many there are; most are
//! cancelled. One timeout at a time is told to the kernel: the wait for completions ends with the
//! next slot that holds a timer.
//!
//! A [`Timer`] may be polled on another core than the one that set it, as links do when their
//! reactor moves: then it is set there anew, and the old place is told.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;
use slab::Slab;

use super::time;

/// Levels of the wheel.
const LEVELS: usize = 6;

/// No entry.
const NONE: usize = usize::MAX;

/// A timer that is set.
#[derive(Debug)]
struct Entry {
    /// Tells it from the last owner of its place.
    serial: u64,
    /// When it is due, in milliseconds of the wheel.
    due: u64,
    /// Who waits.
    waker: Waker,
    /// Which slot it is in: level and number.
    slot: (usize, usize),
    /// The one before it there.
    previous: usize,
    /// The one after it there.
    next: usize,
}

/// One level.
#[derive(Debug)]
struct Level {
    /// A bit for each slot that holds timers.
    used: u64,
    /// The first timer of each slot.
    first: [usize; 64],
}

/// See the module.
#[derive(Debug)]
struct Wheel {
    /// Millisecond 0.
    epoch: Instant,
    /// Everything due until here has been woken.
    now: u64,
    /// The levels, finest first.
    levels: [Level; LEVELS],
    /// The timers.
    entries: Slab<Entry>,
    /// Timers set so far.
    serial: u64,
}

impl Wheel {
    /// A wheel without timers.
    fn new(epoch: Instant) -> Wheel {
        let levels = std::array::from_fn(|_| Level { used: 0, first: [NONE; 64] });
        Wheel { epoch, now: 0, levels, entries: Slab::new(), serial: 0 }
    }

    /// The millisecond in which `at` has passed.
    fn due(&self, at: Instant) -> u64 {
        let nanoseconds = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanoseconds.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// Set a timer.
    fn set(&mut self, at: Instant, waker: Waker) -> (usize, u64) {
        let due = self.due(at).max(self.now + 1);
        self.serial += 1;
        let serial = self.serial;
        let index = self.entries.insert(Entry {
            serial,
            due,
            waker,
            slot: (0, 0),
            previous: NONE,
            next: NONE,
        });
        self.link(index);
        (index, serial)
    }

    /// Put an entry into the slot of its time.
    fn link(&mut self, index: usize) {
        let due = self.entries[index].due;
        // The level is that of the highest bit in which the two times differ.
        let differ = (self.now ^ due) | 63;
        let level = ((63 - differ.leading_zeros() as usize) / 6).min(LEVELS - 1);
        let slot = (due >> (6 * level) & 63) as usize;
        let next = std::mem::replace(&mut self.levels[level].first[slot], index);
        self.levels[level].used |= 1 << slot;
        if let Some(next) = self.entries.get_mut(next) {
            next.previous = index;
        }
        let entry = &mut self.entries[index];
        (entry.slot, entry.previous, entry.next) = ((level, slot), NONE, next);
    }

    /// The entry, if it is still the one of this serial number.
    fn entry(&mut self, (index, serial): (usize, u64)) -> Option<&mut Entry> {
        self.entries.get_mut(index).filter(|entry| entry.serial == serial)
    }

    /// Cancel a timer, unless it is over.
    fn cancel(&mut self, place: (usize, u64)) -> Option<Waker> {
        self.entry(place)?;
        let entry = self.entries.remove(place.0);
        if let Some(next) = self.entries.get_mut(entry.next) {
            next.previous = entry.previous;
        }
        match self.entries.get_mut(entry.previous) {
            Some(previous) => previous.next = entry.next,
            None => {
                let level = &mut self.levels[entry.slot.0];
                level.first[entry.slot.1] = entry.next;
                if entry.next == NONE {
                    level.used &= !(1 << entry.slot.1);
                }
            }
        }
        Some(entry.waker)
    }

    /// When the next slot is due that holds a timer, and which it is.
    fn next_slot(&self) -> Option<(u64, usize, usize)> {
        // A finer level's slots all come before those of a coarser one.
        self.levels.iter().enumerate().find(|(_, level)| level.used != 0).map(|(number, level)| {
            let width = 6 * number as u32;
            let here = (self.now >> width & 63) as u32;
            // On the coarsest level the slot that is now comes last: it is due in a round.
            let first = here + u32::from(number == LEVELS - 1);
            let slot = (first + level.used.rotate_right(first).trailing_zeros()) & 63;
            let round = 1_u64 << (width + 6);
            let mut due = (self.now & !(round - 1)) + (u64::from(slot) << width);
            if due <= self.now {
                // Only the coarsest level goes round.
                due += round;
            }
            (due, number, slot as usize)
        })
    }

    /// Wake what is due at `at`.
    fn advance(&mut self, at: Instant, wake: &mut Vec<Waker>) {
        let elapsed = at.saturating_duration_since(self.epoch).as_millis();
        let until = u64::try_from(elapsed).unwrap_or(u64::MAX);
        while let Some((due, level, slot)) = self.next_slot().filter(|(due, ..)| *due <= until) {
            self.now = due;
            self.levels[level].used &= !(1 << slot);
            let mut index = std::mem::replace(&mut self.levels[level].first[slot], NONE);
            while let Some(entry) = self.entries.get(index) {
                let next = entry.next;
                if entry.due <= due {
                    wake.push(self.entries.remove(index).waker);
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.now = self.now.max(until);
    }

    /// How long from `at` until the next slot that holds a timer.
    fn wait(&self, at: Instant) -> Option<Duration> {
        let (due, ..) = self.next_slot()?;
        Some((self.epoch + Duration::from_millis(due)).saturating_duration_since(at))
    }
}

/// Places of timers that were dropped or set anew elsewhere.
type Dropped = SegQueue<(usize, u64)>;

/// The timers of a thread.
struct Local {
    /// The wheel.
    wheel: Wheel,
    /// What other threads have to say.
    dropped: Arc<Dropped>,
}

thread_local! {
    /// Set while this thread has timers.
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

/// The timers of the calling thread, for as long as this lives.
pub(super) struct Timers(());

impl Timers {
    /// Give the calling thread timers.
    pub(super) fn start() -> Timers {
        let local = Local { wheel: Wheel::new(Instant::now()), dropped: Arc::default() };
        LOCAL.with_borrow_mut(|place| *place = Some(local));
        Timers(())
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        let local = LOCAL.with_borrow_mut(Option::take);
        drop(local);
    }
}

/// Whether the calling thread has timers.
pub(super) fn are_here() -> bool {
    LOCAL.try_with(|local| local.try_borrow().is_ok_and(|local| local.is_some())).unwrap_or(false)
}

/// Wake what is due at `now`, and say how long the next one takes.
pub(super) fn advance(now: Instant, wake: &mut Vec<Waker>) -> Option<Duration> {
    let mut gone = Vec::new();
    let wait = LOCAL.with_borrow_mut(|local| {
        let Local { wheel, dropped } = local.as_mut()?;
        while let Some(place) = dropped.pop() {
            gone.extend(wheel.cancel(place));
        }
        wheel.advance(now, wake);
        wheel.wait(now)
    });
    // Outside of the borrow: a waker can hold the last reference to a task.
    drop(gone);
    wait
}

/// Where a timer is set.
#[derive(Debug)]
struct Place {
    /// Its thread's queue.
    home: Arc<Dropped>,
    /// Its place in that thread's wheel.
    entry: (usize, u64),
}

/// A future that is ready at a time. Set at the first poll; dropping it cancels it.
#[derive(Debug)]
pub(super) struct Timer {
    /// When.
    at: Instant,
    /// Where it is set.
    place: Option<Place>,
}

impl Timer {
    /// Not set yet.
    pub(super) fn new(at: Instant) -> Timer {
        Timer { at, place: None }
    }

    /// When it is ready.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Be ready at another time.
    pub(super) fn reset(&mut self, at: Instant) {
        self.cancel();
        self.at = at;
    }

    /// Not set any more.
    fn cancel(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut gone = None;
        let mut here = false;
        let _ = LOCAL.try_with(|local| {
            let Ok(mut local) = local.try_borrow_mut() else { return };
            if let Some(local) = &mut *local
                && Arc::ptr_eq(&local.dropped, &place.home)
            {
                here = true;
                gone = local.wheel.cancel(place.entry);
            }
        });
        drop(gone);
        if !here {
            place.home.push(place.entry);
        }
    }

    /// Wake `waker` at the time, if it is set here.
    fn rewake(&mut self, waker: &Waker) -> bool {
        let Some(place) = &self.place else { return false };
        LOCAL.with_borrow_mut(|local| {
            let Some(local) = local else { return false };
            if !Arc::ptr_eq(&local.dropped, &place.home) {
                return false;
            }
            match local.wheel.entry(place.entry) {
                Some(entry) => {
                    entry.waker.clone_from(waker);
                    true
                }
                None => false,
            }
        })
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The batch's clock: whoever waits in a loop for that clock to reach `at` would otherwise
        // find the timer ready, and the clock not there, again and again in one batch.
        if time::now() >= self.at {
            self.cancel();
            return Poll::Ready(());
        }
        if self.rewake(cx.waker()) {
            return Poll::Pending;
        }
        self.cancel();
        let at = self.at;
        self.place = LOCAL.with_borrow_mut(|local| {
            let local = local.as_mut()?;
            let entry = local.wheel.set(at, cx.waker().clone());
            Some(Place { home: Arc::clone(&local.dropped), entry })
        });
        assert!(self.place.is_some(), "a timer is polled on a thread that has timers");
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests;
