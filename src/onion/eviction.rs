//! Closes client circuits to make room, those of the least use first, over all cores and services.
//!
//! ```text
//!   held    75 %               90 %            100 %
//!   --------+------------------+---------------+-------------->
//!           never had a stream, for 10 s; the oldest first
//!           without a stream for 60 to 120 s ...
//!                              ... or for a moment; the longest first
//!                              never had a stream, for 5 s
//!                              bytes that do not move; the most first
//!                              streams that move nothing for 60 to 120 s ...
//!                                               ... or for 10 s; the longest first
//!                                               last of all the most bytes
//! ```
//!
//! Called by `app::memory` once a second. What a circuit holds is an estimate: see
//! [`super::open`]. A download is never closed for being busy: its bytes move.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::open::{Candidate, Turn, now_ms};
use super::service::{Seat, Service};
use crate::base::overload::Shortage;
use crate::limits;

/// Close circuits that serve nobody until about so many bytes are given back, and all those that
/// have been without a stream for longer than they may while memory is short; how many.
pub fn evict_idle(services: &[Arc<Service>], shortage: Shortage, bytes: u64) -> u64 {
    let turns = Turn::Unused..=Turn::Young;
    evict(&seats(services), (now_ms(), shortage), turns, (bytes, 0))
}

/// Close circuits whose streams hold the most until about so many bytes are given back, `excess` of
/// them by circuits whose bytes move; how many.
pub fn evict_holding(
    services: &[Arc<Service>],
    shortage: Shortage,
    (bytes, excess): (u64, u64),
) -> u64 {
    evict(&seats(services), (now_ms(), shortage), Turn::Stuck..=Turn::Moving, (bytes, excess))
}

/// Close circuits that serve nobody on each core that has nearly as many circuits as it may.
pub fn make_room(services: &[Arc<Service>]) -> u64 {
    make_room_at(services, now_ms())
}

/// See [`make_room`].
fn make_room_at(services: &[Arc<Service>], now_ms: u64) -> u64 {
    let mut closed = 0;
    for (service, seat) in seats(services) {
        let open = seat.circuits_now();
        let (most, scarce) = (limits::RENDEZVOUS_OPEN_MAX, limits::MEMORY_REFUSE_PERCENT);
        // In units of which a percent is a whole number.
        let Some(shortage) = Shortage::of(open * 10_000, most * 10_000, scarce) else { continue };
        let goal = most * limits::SHORT_GOAL_PERCENT / 100;
        let bytes = open.saturating_sub(goal) * limits::CIRCUIT_BYTES;
        // Room on a core is full of circuits before memory is: those that move nothing go as well.
        let last = if shortage >= Shortage::Scarce { Turn::Quiet } else { Turn::Young };
        let turns = Turn::Unused..=last;
        closed += evict(&[(service, seat)], (now_ms, shortage), turns, (bytes, 0));
    }
    closed
}

/// Every seat with its service.
fn seats(services: &[Arc<Service>]) -> Vec<(&Service, &Seat)> {
    services
        .iter()
        .flat_map(|service| service.seats().iter().map(move |seat| (&**service, &**seat)))
        .collect()
}

/// See [`evict_idle`] and [`evict_holding`]; of these seats, and of those whose turn is in this
/// range.
fn evict(
    seats: &[(&Service, &Seat)],
    (now_ms, shortage): (u64, Shortage),
    turns: RangeInclusive<Turn>,
    (bytes, excess): (u64, u64),
) -> u64 {
    let mut due: Vec<(&Service, Candidate)> = Vec::new();
    let mut open = 0;
    for (service, seat) in seats {
        open += seat.circuits.len();
        let candidates = seat.circuits.candidates(now_ms, shortage).into_iter();
        let of_range = candidates.filter(|one| turns.contains(&one.turn));
        due.extend(of_range.map(|one| (*service, one)));
    }
    due.sort_by_key(|(_, one)| (one.turn, one.order));
    let at_once = (open / limits::EVICT_ONE_OF).max(limits::EVICT_AT_ONCE_MIN);
    let (mut given_back, mut closed) = (0, 0);
    for (service, one) in due {
        if closed >= at_once as u64 {
            break;
        }
        let bytes = if one.turn == Turn::Moving { excess } else { bytes };
        let wanted = given_back < bytes;
        if (wanted || one.overdue) && one.circuit.tell_to_close() {
            given_back += one.bytes;
            closed += 1;
            service.overload.note_closed(one.turn.reason());
        }
    }
    closed
}

#[cfg(test)]
mod tests;
