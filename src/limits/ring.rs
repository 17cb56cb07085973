//! Bounds of a data core's ring, and of what the kernel receives ahead of a reader.

/// Entries of a ring's submission queue; the completion queue has four times as many. What does not
/// fit waits in user space.
pub const RING_ENTRIES: u32 = 512;

/// Buffers that a ring receives into, one receive at a time: a power of two, at most 2^15.
pub const RING_BUFFERS: u16 = 32;

/// One of them. A socket's receive queue is often larger: it then fills several.
pub const RING_BUFFER_BYTES: usize = 32 * 1024;

/// How often a ring is tried for whose memory is not there, and ...
pub const RING_TRIES_MAX: u32 = 5;

/// ... how long each time is waited for it.
pub const RING_TRY_MS: u64 = 50;

/// Vectors for sending that a core keeps for sockets to come.
pub const RING_SPARE_VECTORS_MAX: usize = 32;

/// Pieces of a buffer's size that a core keeps for bytes that sockets will receive.
pub const RING_SPARE_PIECES_MAX: usize = 32;

/// When a ring ends, how long sends that are under way may take.
pub const RING_END_SENDS_MS: u64 = 500;

/// When a ring ends, how long cancelled operations may take.
pub const RING_END_MS: u64 = 2_000;

/// Bytes that a socket on a ring receives ahead of its reader. What the kernel has on the way when
/// this is reached comes on top of it: at most half as much ([`RING_MULTISHOT_RETRIES`]).
pub const SOCKET_RECEIVED_BYTES_MAX: usize = 128 * 1024;

/// Bytes that wait to be sent on a socket of a ring, beside those that are being sent.
pub const SOCKET_OUTGOING_BYTES_MAX: usize = 64 * 1024;

/// How long a socket of a ring whose handle is gone may take to send what was written.
pub const SOCKET_LINGER_MS: u64 = 2_000;

/// Room that a socket keeps once everything was read.
pub const SOCKET_BYTES_KEPT: usize = 4 * 1024;

/// Connections that a listener on a ring accepts ahead.
pub const LISTENER_WAITING_MAX: usize = 64;

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

const _: () = assert!(RING_BUFFERS.is_power_of_two());
const _: () = assert!(RING_SHORT_BUFFERS.is_power_of_two());
const _: () = assert!(SOCKET_RECEIVED_BYTES_SHORT >= RING_BUFFER_BYTES);
// A burst on top of what may wait is at most half as much again as what may be asked for.
const _: () = assert!(
    RING_BUFFER_BYTES + RING_MULTISHOT_RETRIES * RING_SHORT_BUFFER_BYTES
        <= SOCKET_RECEIVED_BYTES_MAX / 2 * 3
);
