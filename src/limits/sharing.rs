//! Bounds of what is asked of guards: in which order while one refuses circuits, how many while two
//! processes have a link to it, and how often while none can be reached.

use super::{
    HANDOVER_POINTS_SECONDS_MAX, HANDOVER_PUBLISH_SECONDS_MAX, HANDOVER_SECONDS_MAX, INSTANCES_MAX,
    INTRO_POINTS_MAX, REFUSED_PAUSE_MS_MIN, REFUSED_WAIT_MS_MAX, SERVICES_MAX, UPLOADS_AT_ONCE_MAX,
};

/// Introduction points that wait for their turn to ask for a circuit.
pub const POINT_TURNS_MAX: usize = 8192;

/// Uploads and look-ups at HSDirs that wait for their turn: all that services start at once.
pub const DESCRIPTOR_TURNS_MAX: usize = 2 * UPLOADS_AT_ONCE_MAX * SERVICES_MAX;

/// HSDirs of a service: two periods of two replicas, each stored four times (`hsdir_n_replicas`,
/// `hsdir_spread_store`).
pub const HSDIRS_OF_A_SERVICE: u64 = 16;

/// Looks at HSDirs and points wait behind everything else, but for one after so many turns.
pub const TURNS_FOR_A_LOOK: u32 = 8;

/// Rendezvous that wait for their turn. More could not have it within [`REFUSED_WAIT_MS_MAX`].
pub const RENDEZVOUS_TURNS_MAX: usize = 40;

/// Circuits that a guard makes in a second for one address with two links or more
/// (`DoSCircuitCreationRate` of the public network; arti does not tell what the consensus says).
pub const GUARD_CREATES_PER_SECOND: u64 = 2;

/// Circuits that it makes at once (`DoSCircuitCreationBurst` of the public network).
pub const GUARD_CREATES_BURST: u64 = 60;

/// Of these, how many are left alone by both processes of an upgrade: for circuits that were under
/// way, and for those that arti makes unasked.
pub const GUARD_CREATES_RESERVE: u64 = 10;

/// Between two circuits of the old process while clients come to it.
pub const SHARE_PAUSE_MS_OLD: u64 = 850;

/// The same for the new process, which has so many to ask for and no more.
pub const SHARE_PAUSE_MS_NEW: u64 = 1_400;

/// The same for the one that all clients come to once the other drains.
pub const SHARE_PAUSE_MS_SERVING: u64 = 700;

/// The same for the one that ends.
pub const SHARE_PAUSE_MS_LEAVING: u64 = 3_000;

/// A guard may notice so late that the links of a process that has ended are gone.
pub const SHARE_AFTER_MS: u64 = 3_000;

/// Longest wait of a new process before it opens its first link, for a guard that has just made
/// many circuits.
pub const HANDOVER_REST_MS_MAX: u64 = 15_000;

/// A directory is asked for at least so often while there is none. Relays that have just failed are
/// left alone for longer, which is arti's business: 150 s and more.
pub const NETWORK_RETRY_SECONDS: u64 = 30;

/// Longest wait for points, and then for uploads, of a new process that has so many to make that
/// they cannot be there sooner while circuits have to come slowly.
pub const HANDOVER_SLOW_SECONDS_MAX: u64 = 600;

/// Longest wait of a new process that has published for uploads that are still to come, before the
/// old one drains.
pub const HANDOVER_UPLOADS_SECONDS_MAX: u64 = 60;

/// How often it is looked what became of connections to relays while there is no directory.
pub const NETWORK_LOOK_MS: u64 = 1_000;

/// Downloads of a directory after which arti would give up for good, and with it the process: a
/// network may be away for months.
pub const DIRECTORY_ATTEMPTS_MAX: u32 = u32::MAX;

const _: () = assert!(RENDEZVOUS_TURNS_MAX as u64 * REFUSED_PAUSE_MS_MIN <= REFUSED_WAIT_MS_MAX);
const _: () = assert!(POINT_TURNS_MAX > INSTANCES_MAX as usize * INTRO_POINTS_MAX as usize);
const _: () = assert!(
    2 * HANDOVER_SLOW_SECONDS_MAX + HANDOVER_UPLOADS_SECONDS_MAX < HANDOVER_SECONDS_MAX
        && HANDOVER_PUBLISH_SECONDS_MAX <= HANDOVER_SLOW_SECONDS_MAX
        && HANDOVER_POINTS_SECONDS_MAX <= HANDOVER_SLOW_SECONDS_MAX
);
const _: () = assert!(2 * GUARD_CREATES_RESERVE <= GUARD_CREATES_BURST);
// Together the two ask for less than the guard allows.
const _: () = assert!(
    1_000 * (SHARE_PAUSE_MS_OLD + SHARE_PAUSE_MS_NEW)
        < GUARD_CREATES_PER_SECOND * SHARE_PAUSE_MS_OLD * SHARE_PAUSE_MS_NEW
);
const _: () = assert!(
    1_000 * (SHARE_PAUSE_MS_SERVING + SHARE_PAUSE_MS_LEAVING)
        < GUARD_CREATES_PER_SECOND * SHARE_PAUSE_MS_SERVING * SHARE_PAUSE_MS_LEAVING
);
// The rest is long enough for the reserve to come back while one process asks.
const _: () = assert!(
    GUARD_CREATES_RESERVE * 1_000 * SHARE_PAUSE_MS_OLD
        <= HANDOVER_REST_MS_MAX * (GUARD_CREATES_PER_SECOND * SHARE_PAUSE_MS_OLD - 1_000)
);
