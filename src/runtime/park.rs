//! Whether a core sleeps: how whoever gives it something to do knows that it has to be woken.
//!
//! ```text
//!   the core:        says that it sleeps | fence | looks for work once more -> sleeps if none
//!   whoever gives:   leaves the work     | fence | looks whether it sleeps  -> wakes it if so
//! ```
//!
//! Of the two looks at least one sees what the other side did first, because both fences are
//! sequentially consistent: a core never sleeps beside work that nobody wakes it for. The one that
//! sees it asleep first takes the flag back, so many givers wake it once.
//!
//! `bench/model` runs this very file under [loom](https://docs.rs/loom), in every order of steps
//! that the memory model allows.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    /// Whether the core sleeps, or is about to.
    asleep: AtomicBool,
}

impl Parking {
    /// The core is about to sleep. It looks for work after this, and sleeps only if there is none.
    pub(crate) fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The core is awake: nobody has to wake it.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whoever has left work asks this: whether it has to wake the core. `true` for one of them.
    pub(crate) fn must_be_woken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}
