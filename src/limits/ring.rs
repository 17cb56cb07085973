//! Bounds of what the kernel receives ahead of a reader.

use super::{RING_BUFFER_BYTES, SOCKET_RECEIVED_BYTES_MAX};

/// Buffers of a ring for receives that go on by themselves: a power of two, at most 2^15.
pub const RING_SHORT_BUFFERS: u16 = 256;

/// One of them: a request, or some cells.
pub const RING_SHORT_BUFFER_BYTES: usize = 4 * 1024;

/// Buffers that a receive which goes on fills in a row before the kernel looks at anything else
/// (`MULTISHOT_MAX_RETRY` of `io_uring/net.c`).
pub const RING_MULTISHOT_RETRIES: usize = 32;

/// Short buffers that are full, in a row: more is coming than they are for.
pub const RING_FULL_IN_A_ROW: u8 = 2;

/// Receives that are asked for one at a time and have to bring little before they go on by
/// themselves again.
pub const RING_RECEIVES_ONCE: u8 = 8;

/// Bytes that a socket on a ring receives ahead of its reader while memory is short.
pub const SOCKET_RECEIVED_BYTES_SHORT: usize = 32 * 1024;

const _: () = assert!(RING_SHORT_BUFFERS.is_power_of_two());
const _: () = assert!(SOCKET_RECEIVED_BYTES_SHORT >= RING_BUFFER_BYTES);
// A burst on top of what may wait is at most half as much again as what may be asked for.
const _: () = assert!(
    RING_BUFFER_BYTES + RING_MULTISHOT_RETRIES * RING_SHORT_BUFFER_BYTES
        <= SOCKET_RECEIVED_BYTES_MAX / 2 * 3
);
