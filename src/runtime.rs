//! What a core runs on: threads pinned to CPUs, an executor and a socket driver for each, and the
//! bounded queues between them.
//!
//! ```text
//!   control            data-0              data-1
//!  +--------------+   +--------------+    +--------------+
//!  | tokio        |   | driver       |    | driver       |   one current-thread driver a core,
//!  | current      |<->| (tokio now,  |<-->| (tokio now,  |   thread-local, found by the
//!  | thread       |   |  ring later) |    |  ring later) |   zero-sized `CoreRuntime`
//!  +--------------+   +--------------+    +--------------+
//!         '---------- runtime::mailbox ----------'
//! ```
//!
//! Called by `app` (starts the cores) and by every area that spawns, sleeps or connects. Nothing
//! outside of this folder knows which driver is below.

pub mod core;
pub mod link_stream;
pub mod mailbox;
pub mod pinning;
pub mod rtcompat;

pub use self::core::{CoreGroup, CoreHandle, CoreId, current_core};
pub use self::mailbox::{Full, Mailbox};
pub use self::rtcompat::CoreRuntime;
