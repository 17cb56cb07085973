//! Bounds of instances elsewhere, and of how the points are divided among instances.

/// Remote instances of one service: with the in-process instances they fill every descriptor many
/// times over.
pub const REMOTES_MAX: usize = 64;

/// Largest weight of a remote instance.
pub const REMOTE_WEIGHT_MAX: u16 = 100;

/// Time between two looks at a remote instance's points, and between two fetches of its descriptor
/// after a change, unless configured.
pub const REMOTE_INTERVAL_SECONDS_MIN_DEFAULT: u64 = 60;

/// Time between two fetches while nothing changes, unless configured (OnionBalance: 600 s).
pub const REMOTE_INTERVAL_SECONDS_MAX_DEFAULT: u64 = 600;

/// Shortest that is not warned of: each look builds some circuits.
pub const REMOTE_INTERVAL_SECONDS_CALM_MIN: u64 = 15;

/// Longest that either can be configured: the HSDirs forget a descriptor after three hours.
pub const REMOTE_INTERVAL_SECONDS_MAX: u64 = 3600;

/// Instances of a service that are not in this process: remote ones and C tor daemons.
pub const GUESTS_MAX: usize = REMOTES_MAX + 256;

/// How often it is looked at whether this machine can serve.
pub const WELLNESS_LOOK_MS: u64 = 1_000;

/// For this long it has to be otherwise than before until the points are divided anew: longer than
/// a backend's restart.
pub const WELLNESS_MS: u64 = 10_000;

/// For this long an instance has to be without overload until it has its share again: clients come
/// back within seconds of a publication, and a descriptor more each time it tips over is the price.
pub const OVERLOAD_RECOVERY_MS: u64 = 60_000;

/// For this long after an introduction was dropped its instance counts as overloaded: less than
/// [`WELLNESS_MS`], so that one burst alone is no reason to publish.
pub const OVERLOAD_DROPPED_MS: u64 = 5_000;

/// Link specifiers of another's introduction point: IPv4, IPv6 and two identities.
pub const LINK_SPECIFIERS_MAX: usize = 4;

/// Their bytes: what these four have.
pub const LINK_SPECIFIERS_BYTES_MAX: usize = 8 + 20 + 22 + 34;

/// Fetches and probes of remote instances of one service that run at the same time.
pub const REMOTE_FETCHES_AT_ONCE_MAX: usize = 16;

/// HSDirs that are asked for one descriptor, of six.
pub const REMOTE_HSDIRS_TRIED_MAX: usize = 4;

/// Fetches in a row that may fail until a remote instance leaves the descriptor, unless a relay
/// says that it has a point of its.
pub const REMOTE_FAILURES_MAX: u32 = 5;

/// First wait after a fetch that has failed; it doubles up to the time between two looks.
pub const REMOTE_RETRY_SECONDS_MIN: u64 = 5;

/// Points of one remote instance that are asked for at one look: a C tor service has three.
pub const PROBES_AT_ONCE_MAX: usize = 4;

/// From the wish to ask a relay for a point until its answer.
pub const PROBE_MS_MAX: u64 = 30_000;

/// The body of the INTRODUCE1 that asks: a client's key, 246 bytes of payload as C tor pads them,
/// and a MAC.
pub const PROBE_BODY_BYTES: usize = 32 + 246 + 32;

const _: () = assert!(WELLNESS_LOOK_MS < OVERLOAD_DROPPED_MS && OVERLOAD_DROPPED_MS < WELLNESS_MS);
const _: () = assert!(WELLNESS_MS < OVERLOAD_RECOVERY_MS);
const _: () = assert!(REMOTE_INTERVAL_SECONDS_MIN_DEFAULT <= REMOTE_INTERVAL_SECONDS_MAX_DEFAULT);
const _: () = assert!(REMOTE_INTERVAL_SECONDS_MAX_DEFAULT <= REMOTE_INTERVAL_SECONDS_MAX);
const _: () = assert!(REMOTE_INTERVAL_SECONDS_CALM_MIN <= REMOTE_INTERVAL_SECONDS_MIN_DEFAULT);
