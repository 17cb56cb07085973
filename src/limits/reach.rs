//! Bounds of the way to a backend: near ones, other onion services, and names that are looked up.

use super::{BACKEND_ASIDE_MS_MAX, BACKEND_ASIDE_MS_MIN, BACKEND_CONNECT_SECONDS_MAX};

/// Wait for a backend to accept, unless configured: backends are near.
pub const BACKEND_CONNECT_SECONDS_DEFAULT: u64 = 5;

/// Wait for an onion service to accept, unless configured: its descriptor is fetched, it is asked
/// at an introduction point, and two circuits of many hops meet.
pub const ONION_CONNECT_SECONDS_DEFAULT: u64 = 60;

/// Time from one health check of an onion service to the next, unless configured, and for its
/// answer: each is a stream through Tor.
pub const ONION_CHECK_SECONDS_DEFAULT: u64 = 60;

/// Time from one look-up of a backend's name to the next, unless configured.
pub const RESOLVE_SECONDS_DEFAULT: u64 = 60;

/// The same after the first that found nothing, while no address is known; each wait doubles, up
/// to what is configured.
pub const RESOLVE_RETRY_SECONDS_MIN: u64 = 1;

/// Longest that can be configured.
pub const RESOLVE_SECONDS_MAX: u64 = 24 * 3600;

/// Addresses of a name that are tried.
pub const NAME_ADDRESSES_MAX: usize = 16;

/// Names that a port may allow.
pub const ALLOWED_NAMES_MAX: usize = 256;

/// Characters in a host name (RFC 1035, section 2.3.4, without the final dot).
pub const HOST_NAME_CHARS_MAX: usize = 253;

/// Where no backend of a port is up, each is left alone for this long at most.
pub const BACKEND_ALL_OUT_MS_MAX: u64 = 1000;

/// An answer to a health check is read up to its status line, interim answers before it included,
/// and up to here: room for some early hints.
pub const CHECK_HEAD_BYTES_MAX: usize = 32 * 1024;

/// What is read of such an answer at once.
pub const CHECK_PIECE_BYTES: usize = 1024;

/// What is kept of a line of such an answer: a status line without its reason phrase.
pub const CHECK_LINE_BYTES_KEPT: usize = 32;

const _: () = assert!(ONION_CONNECT_SECONDS_DEFAULT <= BACKEND_CONNECT_SECONDS_MAX);
const _: () = assert!(ONION_CHECK_SECONDS_DEFAULT <= BACKEND_CONNECT_SECONDS_MAX);
const _: () = assert!(BACKEND_ASIDE_MS_MIN <= BACKEND_ALL_OUT_MS_MAX);
const _: () = assert!(BACKEND_ALL_OUT_MS_MAX <= BACKEND_ASIDE_MS_MAX);
const _: () = assert!(CHECK_LINE_BYTES_KEPT < CHECK_HEAD_BYTES_MAX);
