//! Bounds of the look-up of host names.

/// Look-ups that have a thread at the same time. One thread hangs for as long as the resolver does,
/// which is what is bounded here; nothing else waits for it.
pub const LOOK_UPS_MAX: usize = 16;

/// Longest wait for an answer: time for two dead nameservers before one that answers (each 5 s, by
/// resolv.conf(5)), twice.
pub const LOOK_UP_SECONDS_MAX: u64 = 20;

const _: () = assert!(LOOK_UPS_MAX > super::BLOCKING_THREADS_MAX);
