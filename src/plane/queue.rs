//! Streams that wait because every backend of their port has as many connections as it may.
//!
//! ```text
//!   enter --> [circuit 1: s s s s s]     --called in turn, one circuit after another--> looks
//!             [circuit 2: s]                                                           |    |
//!                 ^  '-- the queue is full: the newest of the longest line goes        |  served
//!                 '------------------------- found no place --------------------------'
//! ```
//!
//! Each circuit has a line of its own, and places that become free go round the circuits: one that
//! waits with a thousand streams holds up another's only stream by one place. When the queue is
//! full, whose line is two streams longer than a newcomer's loses its newest to it. Clients of a
//! listener that names no circuits are one [`Party`] together.
//!
//! A stream that is called looks for a place. Until it has one it keeps its turn, and streams that
//! have come later get in line behind, even if they find a place free: it is meant for others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::status::Verdict;
use crate::base::stream::Party;
use crate::limits;
use crate::runtime;

/// Verdicts whose streams have backends of their own.
const LANES: usize = 3;

/// The queue of one port.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Who waits.
    lanes: Mutex<[Lines; LANES]>,
    /// Streams that wait, in each lane.
    waiting: [AtomicU32; LANES],
    /// Streams that waited in vain, or found the queue full.
    refused_total: AtomicU64,
}

/// Those who wait for the same backends.
#[derive(Debug, Default)]
struct Lines {
    /// Each circuit's line.
    lines: HashMap<Party, Line>,
    /// The circuits, in the order in which they are called.
    turns: BTreeMap<i64, Party>,
    /// The same by the length of their lines.
    lengths: BTreeSet<(usize, Party)>,
    /// The number of the next stream that comes.
    next: u64,
    /// Streams that were called and have found no place yet.
    called: u32,
    /// When one was called last.
    called_at: Option<Instant>,
    /// Whether there may be a place that nobody was called for.
    missed: bool,
    /// The circuit that was served last: the next circuit that comes is called before it.
    just_served: Option<Party>,
}

/// Streams of one circuit that were not called, by their numbers; never empty.
#[derive(Debug, Default)]
struct Line {
    /// When it is called.
    turn: i64,
    /// Them.
    streams: BTreeMap<u64, Arc<Ticket>>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// In line.
    InLine,
    /// It may look for a place.
    Called,
    /// Another had more right to wait.
    Refused,
}

/// One stream's.
#[derive(Debug)]
struct Ticket {
    /// Its number.
    number: u64,
    /// Where it stands; written under the queue's lock.
    standing: Mutex<Standing>,
    /// Told when that changes.
    changed: Notify,
}

impl Ticket {
    /// Where it stands.
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It stands there from now on, and is told.
    fn set(&self, standing: Standing) {
        *self.standing() = standing;
        self.changed.notify_one();
    }
}

impl Lines {
    /// Put a stream into its circuit's line. The circuit is the next one that is called; or, unless
    /// it has a turn already, the last, but for the one that has just had its turn.
    fn put(&mut self, party: Party, ticket: Arc<Ticket>, next: bool) {
        *ticket.standing() = Standing::InLine;
        let first = self.turns.first_key_value().map_or(0, |(turn, _)| turn - 1);
        let last = self.turns.last_key_value().map_or(0, |(turn, _)| turn + 1);
        let line = self.lines.entry(party).or_default();
        let length = line.streams.len();
        line.streams.insert(ticket.number, ticket);
        self.lengths.remove(&(length, party));
        self.lengths.insert((length + 1, party));
        if length > 0 && !next {
            return;
        }
        if length > 0 {
            self.turns.remove(&line.turn);
        }
        line.turn = if next { first } else { last };
        self.turns.insert(line.turn, party);
        if !next && let Some(before) = self.just_served.take() {
            self.swap_last(before, party);
        }
    }

    /// Have these two called the other way round, if they are the last two.
    fn swap_last(&mut self, before: Party, last: Party) {
        let mut ends = self.turns.iter().rev().map(|(turn, party)| (*turn, *party));
        let (Some((second, one)), Some((first, other))) = (ends.next(), ends.next()) else {
            return;
        };
        if (other, one) == (before, last) {
            for (turn, party) in [(first, last), (second, before)] {
                self.turns.insert(turn, party);
                self.lines.entry(party).or_default().turn = turn;
            }
        }
    }

    /// Take a stream out of its circuit's line.
    fn take(&mut self, party: Party, which: Which) -> Option<Arc<Ticket>> {
        let line = self.lines.get_mut(&party)?;
        let before = line.streams.len();
        let ticket = match which {
            Which::First => line.streams.pop_first().map(|(_, ticket)| ticket),
            Which::Newest => line.streams.pop_last().map(|(_, ticket)| ticket),
            Which::Number(number) => line.streams.remove(&number),
        }?;
        self.lengths.remove(&(before, party));
        match before - 1 {
            0 => {
                self.turns.remove(&line.turn);
                self.lines.remove(&party);
            }
            length => drop(self.lengths.insert((length, party))),
        }
        Some(ticket)
    }

    /// There may be a place: call the first of the circuit whose turn it is, who is last of them
    /// then.
    fn call(&mut self) {
        let Some((turn, party)) = self.turns.pop_first() else {
            // Who looks now looks again before it gets in line.
            self.missed = self.called > 0;
            return;
        };
        let last = self.turns.last_key_value().map_or(turn, |(last, _)| last + 1);
        self.turns.insert(last, party);
        self.lines.entry(party).or_default().turn = last;
        if let Some(ticket) = self.take(party, Which::First) {
            (self.called, self.called_at) = (self.called + 1, Some(Instant::now()));
            ticket.set(Standing::Called);
        }
    }

    /// The length of a circuit's line.
    fn length(&self, party: Party) -> usize {
        self.lines.get(&party).map_or(0, |line| line.streams.len())
    }
}

/// Which stream of a line.
#[derive(Clone, Copy, Debug)]
enum Which {
    /// The one that has waited longest.
    First,
    /// The one that came last.
    Newest,
    /// The one with this number.
    Number(u64),
}

impl Queue {
    /// Who waits.
    fn lanes(&self) -> MutexGuard<'_, [Lines; LANES]> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tell the next who waits that a place is free.
    pub(super) fn note_free(&self) {
        // Who is not seen here looks after it has got in line.
        fence(Ordering::SeqCst);
        for (lane, waiting) in self.waiting.iter().enumerate() {
            if waiting.load(Ordering::Relaxed) > 0 {
                self.lanes()[lane].call();
            }
        }
    }

    /// Streams that wait now.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.iter().map(|waiting| waiting.load(Ordering::Relaxed)).sum()
    }

    /// Whether others wait for the same backends: then a place that is free is theirs.
    pub(super) fn is_for_others(&self, lane: Verdict) -> bool {
        self.waiting[lane as usize].load(Ordering::Relaxed) > 0
    }

    /// Streams that waited in vain, or found the queue full.
    pub(super) fn refused_total(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    /// Get in line, for `timeout` at most. Where `length_max` are in the queue, the newest of
    /// another circuit goes, if it has at least two more in line than this one; else `None`.
    pub(super) fn enter(
        self: &Arc<Queue>,
        (party, lane): (Party, Verdict),
        length_max: u32,
        timeout: Duration,
    ) -> Option<Waiting> {
        let mut lanes = self.lanes();
        let at = lane as usize;
        if self.waiting() >= length_max {
            let longest = (0..LANES).filter_map(|lane| Some((*lanes[lane].lengths.last()?, lane)));
            let longest = longest
                .max()
                .filter(|((length, _), _)| length_max > 0 && *length > lanes[at].length(party) + 1);
            self.refused_total.fetch_add(1, Ordering::Relaxed);
            let ((_, other), lane) = longest?;
            let ticket = lanes[lane].take(other, Which::Newest)?;
            self.waiting[lane].fetch_sub(1, Ordering::Relaxed);
            ticket.set(Standing::Refused);
        }
        let alone = self.waiting[at].fetch_add(1, Ordering::Relaxed) == 0;
        let number = lanes[at].next;
        lanes[at].next += 1;
        let ticket =
            Ticket { number, standing: Mutex::new(Standing::Called), changed: Notify::new() };
        let ticket = Arc::new(ticket);
        match alone {
            // It looks once more: what has become free meanwhile was told to nobody.
            true => lanes[at].called += 1,
            false => lanes[at].put(party, Arc::clone(&ticket), false),
        }
        drop(lanes);
        fence(Ordering::SeqCst);
        let until = Instant::now() + timeout;
        Some(Waiting { queue: Arc::clone(self), party, lane: at, ticket, until, told: false })
    }
}

/// A stream that waits, until this is dropped.
pub(super) struct Waiting {
    /// Where it waits.
    queue: Arc<Queue>,
    /// In whose line.
    party: Party,
    /// For which backends.
    lane: usize,
    /// Where it stands.
    ticket: Arc<Ticket>,
    /// Until when.
    until: Instant,
    /// Whether it knows that it was called.
    told: bool,
}

impl Waiting {
    /// Whether it waits for the backends of this lane.
    pub(super) fn is_in(&self, lane: Verdict) -> bool {
        self.lane == lane as usize
    }

    /// Wait until there may be a place; false when the time is over, or another has more right to
    /// wait. It has found no place since it was called; a circuit that has `tried` some of the
    /// backends leaves the next one to others.
    pub(super) async fn wait(&mut self, tried: bool) -> bool {
        if std::mem::take(&mut self.told) {
            self.go_back(tried);
        }
        loop {
            match *self.ticket.standing() {
                Standing::Called => {
                    self.told = true;
                    return true;
                }
                Standing::Refused => return false,
                Standing::InLine => {}
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.queue.refused_total.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            let look = Duration::from_millis(limits::BACKEND_QUEUE_LOOK_MS);
            let told = runtime::timeout(left.min(look), self.ticket.changed.notified()).await;
            if told.is_err() {
                // A backend may have come back, which nobody is told of; and who was called may be
                // on a core that hangs.
                let lane = &mut self.queue.lanes()[self.lane];
                if lane.called == 0 || lane.called_at.is_none_or(|at| at.elapsed() >= look) {
                    lane.call();
                }
            }
        }
    }

    /// Get in line again, unless there may be a place after all.
    fn go_back(&self, tried: bool) {
        let lane = &mut self.queue.lanes()[self.lane];
        if !std::mem::take(&mut lane.missed) {
            lane.called -= 1;
            lane.put(self.party, Arc::clone(&self.ticket), !tried);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut lanes = self.queue.lanes();
        let lane = &mut lanes[self.lane];
        let standing = *self.ticket.standing();
        match standing {
            // Whom it has made room for is counted in its place.
            Standing::Refused => return,
            Standing::InLine => drop(lane.take(self.party, Which::Number(self.ticket.number))),
            Standing::Called => {
                (lane.called, lane.just_served) = (lane.called - 1, Some(self.party));
                // If there is one more place, or this one was not taken.
                lane.call();
            }
        }
        self.queue.waiting[self.lane].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
