//! Bounds of looking back at what the HSDirs hold, and of what is known to be our own.

use super::{
    DESCRIPTOR_CERT_LIFETIME_SECONDS, PUBLISH_ROUND_INTERVAL_SECONDS, PUBLISH_ROUNDS_BURST,
    PUBLISH_ROUNDS_RESERVED, REPUBLISH_SECONDS_MIN,
};

/// The shortest and longest time between two checks of all HSDirs that can be configured. By
/// default there is none: no other service asks them all, so it would tell them what we are.
pub const VERIFY_SECONDS_MIN: u64 = 60;
/// See [`VERIFY_SECONDS_MIN`].
pub const VERIFY_SECONDS_MAX: u64 = 24 * 3600;

/// One HSDir is asked about this often whether somebody else publishes with our key, unless
/// configured: some hours, since an HSDir sees each fetch, and a thief of the key wants to stay.
pub const THEFT_CHECK_SECONDS_DEFAULT: u64 = 4 * 3600;

/// The shortest and longest time between two such looks that can be configured.
pub const THEFT_CHECK_SECONDS_MIN: u64 = 60;
/// See [`THEFT_CHECK_SECONDS_MIN`].
pub const THEFT_CHECK_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// The time to the next such look is drawn between these percents of what was configured.
pub const THEFT_CHECK_PERCENT_MIN: u32 = 50;
/// See [`THEFT_CHECK_PERCENT_MIN`].
pub const THEFT_CHECK_PERCENT_MAX: u32 = 150;

/// An HSDir that refused a descriptor for a higher counter is asked what it holds after so long:
/// the next round, whose counter is higher, has gone there by then.
pub const DOUBT_LOOK_SECONDS_MIN: u64 = 60;
/// See [`DOUBT_LOOK_SECONDS_MIN`].
pub const DOUBT_LOOK_SECONDS_MAX: u64 = 180;

/// HSDirs that are in doubt at the same time: those of two periods, with room for a change of
/// their positions. More are not noted.
pub const DOUBTS_MAX: usize = 64;

/// HSDirs that are asked at the same time: a few, so that clients' circuits do not wait.
pub const QUESTIONS_AT_ONCE_MAX: usize = 4;

/// A check that the operator asks for: four rounds of questions, and room.
pub const VERIFY_SECONDS_WAIT_MAX: u64 = 180;

/// While somebody else publishes with our key, the HSDirs are asked at least this often.
pub const ALARM_CHECK_SECONDS: u64 = 600;

/// Checks in a row without a foreign descriptor after which the alarm is over.
pub const ALARM_CLEAN_CHECKS: u32 = 2;

/// Time periods that are published for at the same time (rend-spec-v3, section 2.2.4).
pub const PERIODS_LIVE_MAX: usize = 2;

/// Different documents of one period: one for each of three positions that clients ask of two
/// replicas (`hsdir_spread_fetch`, `hsdir_n_replicas`).
pub const DOCUMENTS_PER_PERIOD_MAX: usize = 6;

/// Rounds of one period for as long as a descriptor's certificates hold: the burst, then one in
/// [`PUBLISH_ROUND_INTERVAL_SECONDS`].
const ROUNDS_WHILE_CERTIFIED: u64 = DESCRIPTOR_CERT_LIFETIME_SECONDS
    / PUBLISH_ROUND_INTERVAL_SECONDS
    + PUBLISH_ROUNDS_BURST as u64
    + PUBLISH_ROUNDS_RESERVED as u64;

/// Descriptors that are remembered as our own: all that may be published while an HSDir may show
/// them. About 39,000, of 24 bytes in memory and up to 50 in the file; a service whose points stay
/// has some hundreds.
pub const PUBLISHED_KEPT_MAX: usize =
    ROUNDS_WHILE_CERTIFIED as usize * PERIODS_LIVE_MAX * DOCUMENTS_PER_PERIOD_MAX;

/// The file of them is written anew once it has so many times what is kept, ...
pub const PUBLISHED_FILE_GROWTH: usize = 2;

/// ... but not for less than so many, which are 50 kB.
pub const PUBLISHED_REWRITTEN_MIN: usize = 1024;

const _: () = assert!(THEFT_CHECK_SECONDS_DEFAULT >= THEFT_CHECK_SECONDS_MIN);
const _: () = assert!(THEFT_CHECK_SECONDS_DEFAULT <= THEFT_CHECK_SECONDS_MAX);
const _: () = assert!(THEFT_CHECK_PERCENT_MIN < 100 && THEFT_CHECK_PERCENT_MAX > 100);
const _: () = assert!(DOUBT_LOOK_SECONDS_MIN < DOUBT_LOOK_SECONDS_MAX);
const _: () = assert!(DOUBT_LOOK_SECONDS_MAX < REPUBLISH_SECONDS_MIN);
const _: () = assert!(PUBLISHED_FILE_GROWTH >= 2 && PUBLISHED_REWRITTEN_MIN < PUBLISHED_KEPT_MAX);
// A round a minute for 54 hours, with twelve documents.
const _: () = assert!(PUBLISHED_KEPT_MAX >= 54 * 60 * 12 && PUBLISHED_KEPT_MAX < 40_000);
