//! Bounds of looking back at what the HSDirs hold.

/// HSDirs are asked what they hold about this often, unless configured. A check is a circuit and 14
/// to 30 kB for each of 16 HSDirs: less than the uploads of an hour or two, and an hour is how long
/// a thief of the key may go unseen.
pub const VERIFY_SECONDS_DEFAULT: u64 = 3600;

/// The shortest and longest time between two checks that can be configured.
pub const VERIFY_SECONDS_MIN: u64 = 60;
/// See [`VERIFY_SECONDS_MIN`].
pub const VERIFY_SECONDS_MAX: u64 = 24 * 3600;

/// HSDirs that are asked at the same time: a few, so that clients' circuits do not wait.
pub const QUESTIONS_AT_ONCE_MAX: usize = 4;

/// A check that the operator asks for: four rounds of questions, and room.
pub const VERIFY_SECONDS_WAIT_MAX: u64 = 180;

/// While somebody else publishes with our key, the HSDirs are asked at least this often.
pub const ALARM_CHECK_SECONDS: u64 = 600;

/// Checks in a row without a foreign descriptor after which the alarm is over.
pub const ALARM_CLEAN_CHECKS: u32 = 2;

/// Descriptors that are remembered as our own, 50 bytes of a file each: two days of a round each
/// hour with twelve documents are 600, and a service whose points change all the time has more.
pub const PUBLISHED_KEPT_MAX: usize = 8192;
