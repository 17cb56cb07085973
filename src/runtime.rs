//! What a core runs on: threads pinned to CPUs, an executor and a socket driver for each, and the
//! bounded queues between them.
//!
//! ```text
//!   control            data-0              data-1
//!  +--------------+   +--------------+    +--------------+
//!  | executor     |<->| executor     |<-->| executor     |   ours, thread-local, found by the
//!  | driver       |   | driver       |    | driver       |   zero-sized `CoreRuntime`; a ring is
//!  | (tokio)      |   | (ring)       |    | (ring)       |   an io_uring, else runs on epoll
//!  +--------------+   +--------------+    +--------------+
//!         '---------- runtime::mailbox ----------'
//! ```
//!
//! Called by `app` (starts the cores) and by every area that spawns, sleeps or connects. Nothing
//! outside of this folder knows which driver is below.

mod attempts;
mod blocking;
mod cgroup;
pub mod core;
pub mod driver;
pub mod executor;
pub mod kernel_socket;
pub mod link_stream;
mod look_up;
pub mod mailbox;
pub mod memory;
pub mod net;
mod park;
pub mod pinning;
pub mod ring;
pub mod rtcompat;
pub(crate) mod spare;
pub mod time;
mod timers;

pub use self::attempts::{Attempts, Failures};
pub use self::core::{
    CoreGroup, CoreHandle, CoreId, circuits_started, connect_attempts, current_core, open_links,
};
pub use self::driver::{Driver, Io, IoChoice};
pub use self::executor::spawn;
pub use self::look_up::LookUpCounts;
pub use self::mailbox::{Full, Mailbox};
pub use self::rtcompat::CoreRuntime;
pub use self::time::{Sleep, sleep, sleep_until, timeout};
