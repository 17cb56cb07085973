//! Which client circuits close when memory, or room for circuits on a core, is short, and which
//! rendezvous are given up when too many are being built.

use super::{
    MEMORY_ACCEPT_AGAIN_PERCENT, MEMORY_REFUSE_PERCENT, MEMORY_TRIM_PERCENT, RELAY_BUFFER_BYTES,
    RENDEZVOUS_ATTEMPT_MS_MAX, RENDEZVOUS_FIRST_STREAM_SECONDS, RENDEZVOUS_IDLE_SECONDS,
    SOCKET_RECEIVED_BYTES_MAX,
};

/// From this part of the memory budget on, or of [`super::RENDEZVOUS_OPEN_MAX`] on one core,
/// circuits that serve nobody close: what is above it is there for new clients.
pub const SHORT_PERCENT: u64 = 75;

/// Circuits that serve nobody close until this part is held.
pub const SHORT_GOAL_PERCENT: u64 = 72;

/// What a rendezvous circuit without a stream costs: 100 of them were measured at 107 kB each, with
/// full vanguards.
pub const CIRCUIT_BYTES: u64 = 107_000;

/// A circuit that never had a stream is one that serves nobody after this long, ...
pub const CIRCUIT_UNUSED_MS: u64 = 10_000;

/// ... or, where nothing else is left to close before new clients are refused, after this long.
pub const CIRCUIT_UNUSED_MS_MIN: u64 = RENDEZVOUS_FIRST_STREAM_SECONDS * 1000;

/// While memory is short a circuit without a stream closes after a time between these, drawn at
/// random for each.
pub const CIRCUIT_IDLE_MS_MIN: u64 = 60_000;
/// See [`CIRCUIT_IDLE_MS_MIN`].
pub const CIRCUIT_IDLE_MS_MAX: u64 = 120_000;

/// One of so many circuits closes at a look for being of no use, ...
pub const EVICT_ONE_OF: usize = 8;

/// ... but at least so many.
pub const EVICT_AT_ONCE_MIN: usize = 32;

/// A stream that could move bytes and has moved none for this long is stuck.
pub const STREAM_STUCK_MS: u64 = 10_000;

/// Bytes that a stream holds whose client takes nothing: 128 cells in tor-proto's queue, one buffer
/// of ours, and what its backend's socket has received ahead. One whose backend takes nothing
/// holds about as much: tor-proto stops a client after 500 cells.
pub const STREAM_STUCK_BYTES: u64 =
    128 * 498 + (RELAY_BUFFER_BYTES + SOCKET_RECEIVED_BYTES_MAX) as u64;

/// Where every place for rendezvous that are being built is taken and a newer one waits, one that
/// has been built for this long is given up; earlier if its first attempt has failed. Longer than
/// the last hop takes, which is all that is left to build of most: on the public network a second.
pub const RENDEZVOUS_SLOT_MS: u64 = 5_000;

const _: () = assert!(RENDEZVOUS_SLOT_MS < RENDEZVOUS_ATTEMPT_MS_MAX);
const _: () = assert!(SHORT_GOAL_PERCENT < SHORT_PERCENT);
const _: () = assert!(SHORT_PERCENT < MEMORY_TRIM_PERCENT);
const _: () = assert!(SHORT_PERCENT < MEMORY_ACCEPT_AGAIN_PERCENT);
const _: () = assert!(MEMORY_ACCEPT_AGAIN_PERCENT < MEMORY_REFUSE_PERCENT);
const _: () = assert!(CIRCUIT_UNUSED_MS_MIN < CIRCUIT_UNUSED_MS);
const _: () = assert!(CIRCUIT_UNUSED_MS < CIRCUIT_IDLE_MS_MIN);
const _: () = assert!(CIRCUIT_IDLE_MS_MIN < CIRCUIT_IDLE_MS_MAX);
const _: () = assert!(CIRCUIT_IDLE_MS_MAX < RENDEZVOUS_IDLE_SECONDS * 1000);
