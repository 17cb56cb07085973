//! What a core runs on: threads pinned to CPUs, an executor and a socket driver for each, and the
//! bounded queues between them.
//!
//! ```text
//!   control            data-0              data-1
//!  +--------------+   +--------------+    +--------------+
//!  | executor     |<->| executor     |<-->| executor     |   ours, thread-local, found by the
//!  | driver       |   | driver       |    | driver       |   zero-sized `CoreRuntime`; drivers:
//!  | (tokio)      |   | (tokio)      |    | (tokio)      |   tokio current-thread, ring later
//!  +--------------+   +--------------+    +--------------+
//!         '---------- runtime::mailbox ----------'
//! ```
//!
//! Called by `app` (starts the cores) and by every area that spawns, sleeps or connects. Nothing
//! outside of this folder knows which driver is below.

pub mod core;
pub mod executor;
pub mod link_stream;
pub mod mailbox;
pub mod pinning;
pub mod rtcompat;

pub use self::core::{CoreGroup, CoreHandle, CoreId, Driver, current_core, open_links};
pub use self::executor::spawn;
pub use self::mailbox::{Full, Mailbox};
pub use self::rtcompat::CoreRuntime;
