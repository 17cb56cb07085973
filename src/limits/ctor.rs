//! Bounds of C tor daemons, and of the files that are written for them.

use super::INTRO_POINTS_MAX;

/// Daemons that `ctor generate` makes of its own accord; a machine with more CPUs is told of more.
pub const CTOR_DAEMONS_PROPOSED_MAX: u16 = 8;

/// Daemons that it makes at most: OnionBalance takes two introduction points of each and has no
/// bound of its own, and clients reject a descriptor with more than [`INTRO_POINTS_MAX`].
pub const CTOR_DAEMONS_MAX: u16 = 10;

/// Descriptors that a generated daemon may have open: a stream is one, and a link.
pub const CTOR_DESCRIPTORS: u32 = 262_144;

/// Longest path of a unix socket that HAProxy listens on: it makes one beside it first, with the
/// number of its process behind the name.
pub const HAPROXY_SOCKET_PATH_BYTES_MAX: usize = 97;

/// Introduction points that a daemon keeps at least: tor refuses a smaller number.
pub const CTOR_INTRO_POINTS_MIN: u8 = 3;

/// Behind the name of a unix socket while it is made: a dot and the number of a process.
pub const SOCKET_SUFFIX_BYTES_MAX: usize = 8;

/// Daemons that one process runs at most: each is a core's worth of work.
pub const CTOR_INSTANCES_MAX: u16 = 64;

/// A line of a daemon's log or control port. Those of events have a circuit's whole path.
pub const CTOR_LINE_BYTES_MAX: usize = 64 * 1024;

/// An answer of a daemon's control port: a descriptor has 50 kB at most.
pub const CTOR_REPLY_BYTES_MAX: usize = 256 * 1024;

/// Wait for an answer of a daemon's control port: tor answers from memory, between two turns of its
/// loop. One that does not is given up, soon enough for a descriptor without it within 10 s.
pub const CTOR_ANSWER_MS_MAX: u64 = 8_000;

/// From a daemon's start until its control port is there.
pub const CTOR_START_SECONDS_MAX: u64 = 60;

/// How often its control port is looked for meanwhile.
pub const CTOR_CONNECT_LOOK_MS: u64 = 200;

/// How often a daemon is asked for its descriptors.
pub const CTOR_LOOK_MS: u64 = 1_000;

/// How often a daemon is asked which guards it has links to.
pub const CTOR_GUARDS_LOOK_MS: u64 = 30_000;

/// Least time between two looks, when introduction circuits come and go.
pub const CTOR_LOOK_MS_MIN: u64 = 200;

/// Circuits that wait for a daemon to close them. More stay open, without the streams that they
/// would be closed for.
pub const CTOR_CLOSES_MAX: usize = 256;

/// Longest wait for a daemon to say that it has closed a circuit.
pub const CTOR_CLOSE_MS_MAX: u64 = 3_000;

/// First and longest wait before a daemon that ended is started again.
pub const CTOR_RESTART_MS_MIN: u64 = 1_000;
/// See [`CTOR_RESTART_MS_MIN`].
pub const CTOR_RESTART_MS_MAX: u64 = 60_000;

/// A daemon that ran for this long is started again after the first wait.
pub const CTOR_RAN_WELL_SECONDS: u64 = 300;

/// From SIGTERM until a daemon is killed: a tor that is no relay ends at once.
pub const CTOR_END_MS_MAX: u64 = 3_000;

/// Of a line of a daemon's log that is passed on, so much.
pub const CTOR_LOG_CHARS_MAX: usize = 500;

/// Of a refusal of its control port, so much.
pub const CTOR_REFUSAL_CHARS_MAX: usize = 200;

const _: () = assert!(CTOR_LOOK_MS_MIN < CTOR_LOOK_MS && CTOR_ANSWER_MS_MAX < 10_000);
const _: () = assert!(CTOR_DAEMONS_MAX * 2 <= INTRO_POINTS_MAX as u16);
const _: () = assert!(CTOR_DAEMONS_PROPOSED_MAX <= CTOR_DAEMONS_MAX);
