//! What each data core runs on: an io_uring, or epoll where one could not be made.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::runtime::{Io, ring};

/// See the module. Written by each core when it begins, read by status.
#[derive(Debug)]
pub(super) struct CoresIo {
    /// For each core: 0 before it has begun, else its [`Io`] and one.
    cores: Box<[AtomicU8]>,
    /// Whether it was said that a core has no ring.
    said: AtomicBool,
}

impl CoresIo {
    /// None of so many has begun.
    pub(super) fn new(cores: usize) -> CoresIo {
        CoresIo { cores: (0..cores).map(|_| AtomicU8::new(0)).collect(), said: false.into() }
    }

    /// A core has begun.
    pub(super) fn note(&self, core: u16, io: Io) {
        if let Some(place) = self.cores.get(usize::from(core)) {
            let value = match io {
                Io::Uring => 1,
                Io::Epoll => 2,
            };
            place.store(value, Ordering::Relaxed);
        }
    }

    /// A core has no ring: say so, why, and what helps, for the first of them.
    pub(super) fn say_once(&self, core: u16, error: &io::Error) {
        if self.said.swap(true, Ordering::Relaxed) {
            tracing::debug!(core, "no io_uring: {error}; the core runs on epoll");
        } else {
            let why = ring::explain(error);
            tracing::warn!(
                core,
                "no io_uring: {why}. The core runs on epoll, and so do others for which there is \
                 no room"
            );
        }
    }

    /// What a core runs on, once it has begun.
    pub(super) fn of(&self, core: u16) -> Option<Io> {
        match self.cores.get(usize::from(core))?.load(Ordering::Relaxed) {
            1 => Some(Io::Uring),
            2 => Some(Io::Epoll),
            _ => None,
        }
    }

    /// What all run on, in a word; `planned` before one has begun.
    pub(super) fn summary(&self, planned: Io) -> String {
        let mut begun = (0..).take(self.cores.len()).filter_map(|core| self.of(core));
        let first = begun.next().unwrap_or(planned);
        match begun.all(|other| other == first) {
            true => first.to_string(),
            false => "mixed".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CoresIo;
    use crate::runtime::Io;

    #[test]
    fn a_summary_names_what_all_run_on() {
        let cores = CoresIo::new(3);
        assert_eq!(cores.summary(Io::Uring), "uring");
        cores.note(1, Io::Epoll);
        assert_eq!(cores.summary(Io::Uring), "epoll", "of those that have begun");
        cores.note(0, Io::Uring);
        assert_eq!(cores.summary(Io::Uring), "mixed");
        assert_eq!(
            [0, 1, 2, 3].map(|core| cores.of(core)),
            [Some(Io::Uring), Some(Io::Epoll), None, None]
        );
        cores.note(1, Io::Uring);
        assert_eq!(cores.summary(Io::Epoll), "uring");
    }
}
