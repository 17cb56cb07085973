//! Whose turn it is to ask for a circuit, while they have to come slowly: a relay refuses them, or
//! another process has a link to the same guard.
//!
//! ```text
//!   points       --.
//!   uploads      ---+--> one at a time: the first that waits in the first row that has one,
//!   rendezvous   ---+    and a look after so many others (a full row: refused at once)
//!   looks        --'
//! ```
//!
//! Used by [`super::load`], which waits on behalf of who asks. Nothing here waits or reads a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::limits;

/// What a circuit is for, in the order in which they have their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An introduction point: without one nobody comes.
    Point,
    /// To an HSDir that shall have a descriptor.
    Upload,
    /// A client's.
    Rendezvous,
    /// To see what an HSDir holds, or whether a point of another instance is there.
    Look,
}

impl Purpose {
    /// How many wait at most.
    fn waiting_max(self) -> usize {
        match self {
            Purpose::Point => limits::POINT_TURNS_MAX,
            Purpose::Upload | Purpose::Look => limits::DESCRIPTOR_TURNS_MAX,
            Purpose::Rendezvous => limits::RENDEZVOUS_TURNS_MAX,
        }
    }

    /// How long one waits at most. Points, uploads and looks wait for as long as it takes: their
    /// own deadlines begin with their turns.
    pub(super) fn patience(self) -> Option<Duration> {
        let longest = Duration::from_millis(limits::REFUSED_WAIT_MS_MAX);
        (self == Purpose::Rendezvous).then_some(longest)
    }
}

/// What this process may take of what a guard allows the address that two have links from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardShare {
    /// Clients come to this one, which another takes over from: as many circuits as this at once.
    Old(u64),
    /// This one takes over: the same.
    New(u64),
    /// All new clients come to this one.
    Serving,
    /// No new client comes to this one, which ends soon.
    Leaving,
}

impl GuardShare {
    /// Between two circuits.
    fn pause(self) -> Duration {
        Duration::from_millis(match self {
            GuardShare::Old(_) => limits::SHARE_PAUSE_MS_OLD,
            GuardShare::New(_) => limits::SHARE_PAUSE_MS_NEW,
            GuardShare::Serving => limits::SHARE_PAUSE_MS_SERVING,
            GuardShare::Leaving => limits::SHARE_PAUSE_MS_LEAVING,
        })
    }
}

/// The answer to who asks for a circuit.
#[derive(Debug)]
pub(super) enum Turn {
    /// It may go ahead.
    Now,
    /// It is told.
    Later(oneshot::Receiver<()>),
    /// Too many wait.
    Full,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// What relays have refused.
    pub(super) brake: Brake,
    /// While another process has links to our guards.
    pace: Option<Pace>,
    /// Who waits, by [`Purpose`].
    waiting: [VecDeque<oneshot::Sender<()>>; 4],
    /// Turns that others have had since the last look.
    since_look: u32,
}

impl Turns {
    /// Ask for a turn.
    pub(super) fn ask(&mut self, purpose: Purpose, now: Instant) -> Turn {
        self.advance(now);
        if self.next(now) <= now {
            // Nobody waits any more.
            self.take(now);
            return Turn::Now;
        }
        let row = &mut self.waiting[purpose as usize];
        row.retain(|waiting| !waiting.is_closed());
        if row.len() >= purpose.waiting_max() {
            return Turn::Full;
        }
        let (tell, told) = oneshot::channel();
        row.push_back(tell);
        Turn::Later(told)
    }

    /// Give the turns that have come to who waits.
    pub(super) fn advance(&mut self, now: Instant) {
        while self.next(now) <= now {
            let Some(first) = self.first() else { return };
            // One that has given up leaves its turn to the next.
            if first.send(()).is_ok() {
                self.take(now);
            }
        }
    }

    /// Who has the next turn. Looks come last, and are not forgotten.
    fn first(&mut self) -> Option<oneshot::Sender<()>> {
        let look = &mut self.waiting[Purpose::Look as usize];
        let due = self.since_look >= limits::TURNS_FOR_A_LOOK;
        if let Some(look) = if due { look.pop_front() } else { None } {
            self.since_look = 0;
            return Some(look);
        }
        let first = self.waiting.iter_mut().find_map(VecDeque::pop_front)?;
        self.since_look = self.since_look.saturating_add(1);
        Some(first)
    }

    /// Whether anything waits that has its turn before clients.
    pub(super) fn is_behind(&self) -> bool {
        let [points, uploads, ..] = &self.waiting;
        points.iter().chain(uploads).any(|waiting| !waiting.is_closed())
    }

    /// When the next circuit may be asked for.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let paced = self.pace.as_ref().map_or(now, |pace| pace.next(now));
        self.brake.next(now).max(paced)
    }

    /// One is asked for.
    fn take(&mut self, now: Instant) {
        self.brake.take(now);
        if let Some(pace) = &mut self.pace {
            pace.take(now);
        }
    }

    /// From now on this is our share of what guards allow, or all of it.
    pub(super) fn share(&mut self, share: Option<GuardShare>, now: Instant) {
        self.pace = share.map(|share| match (self.pace.take(), share) {
            (Some(pace), GuardShare::Serving | GuardShare::Leaving) => pace.slowed(share, now),
            (_, GuardShare::Old(creates) | GuardShare::New(creates)) => {
                Pace::new(creates, share, now)
            }
            (None, _) => Pace::new(0, share, now),
        });
        self.advance(now);
    }
}

/// So many circuits at once, and then one after each pause.
#[derive(Debug)]
struct Pace {
    /// Circuits that may be asked for now.
    left: u64,
    /// They become no more than this.
    left_max: u64,
    /// When one was added.
    since: Instant,
    /// Between two that are added.
    pause: Duration,
}

impl Pace {
    /// With so many at once.
    fn new(creates: u64, share: GuardShare, now: Instant) -> Pace {
        Pace { left: creates, left_max: creates.max(1), since: now, pause: share.pause() }
    }

    /// The same with another share.
    fn slowed(mut self, share: GuardShare, now: Instant) -> Pace {
        self.fill(now);
        Pace { pause: share.pause(), ..self }
    }

    /// When the next may be asked for.
    fn next(&self, now: Instant) -> Instant {
        if self.left > 0 { now } else { self.since + self.pause }
    }

    /// Add what has come since.
    fn fill(&mut self, now: Instant) {
        while self.left < self.left_max && self.since + self.pause <= now {
            self.left += 1;
            self.since += self.pause;
        }
        if self.left >= self.left_max {
            self.since = now;
        }
    }

    /// One is asked for.
    fn take(&mut self, now: Instant) {
        self.fill(now);
        self.left = self.left.saturating_sub(1);
    }
}

/// What is left of what a guard allows this address, as far as it can be told from here: each
/// circuit that was started counts, whoever has asked for it and whichever guard it was asked of.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Thousandths of a circuit.
    left_milli: u64,
    /// When that was so.
    at: Instant,
    /// Circuits that were started by then.
    started: u64,
}

/// All that a guard allows at once.
const ALLOWANCE_MILLI: u64 = limits::GUARD_CREATES_BURST * 1_000;

impl Allowance {
    /// Nothing was asked of the guard yet.
    pub(super) fn new(now: Instant) -> Allowance {
        Allowance { left_milli: ALLOWANCE_MILLI, at: now, started: 0 }
    }

    /// So many circuits were started by now.
    pub(super) fn note(&mut self, started: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let more = elapsed.saturating_mul(limits::GUARD_CREATES_PER_SECOND);
        let spent = started.saturating_sub(self.started).saturating_mul(1_000);
        let left = self.left_milli.saturating_add(more).min(ALLOWANCE_MILLI);
        (self.left_milli, self.at, self.started) = (left.saturating_sub(spent), now, started);
    }

    /// Another process has had its part of it: no more than the reserve is certain.
    pub(super) fn was_shared(&mut self) {
        self.left_milli = self.left_milli.min(limits::GUARD_CREATES_RESERVE * 1_000);
    }

    /// Circuits that are left.
    pub(super) fn left(&self) -> u64 {
        self.left_milli / 1_000
    }
}

/// Slows us down: on once a relay has refused several circuits in a short time, off when none was
/// refused for a while. While it is on there is a pause between two circuits, twice as long after
/// each refusal and half as long after each that was built.
#[derive(Debug, Default)]
pub(super) struct Brake {
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
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When the next circuit may be asked for.
    fn next(&self, now: Instant) -> Instant {
        match self.next {
            Some(next) if self.is_on(now) => next.max(now),
            _ => now,
        }
    }

    /// One is asked for.
    fn take(&mut self, now: Instant) {
        if self.is_on(now) {
            self.next = Some(self.next(now) + self.pause);
        }
    }

    /// A circuit was refused; whether that has put the brake on.
    pub(super) fn note_refused(&mut self, now: Instant) -> bool {
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
    pub(super) fn note_built(&mut self, now: Instant) {
        if self.is_on(now) {
            let shortest = Duration::from_millis(limits::REFUSED_PAUSE_MS_MIN);
            self.pause = (self.pause / 2).max(shortest);
        }
    }
}

#[cfg(test)]
mod tests;
