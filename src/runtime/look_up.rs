//! Look-ups of host names by the system's resolver, which blocks for as long as it likes.
//!
//! ```text
//!   ask --enter--> [asked, bounded] --thread "look-up"--> answer --leave-->
//!                    '-- older than the limit: it hangs; nobody waits for it, its place is taken
//! ```
//!
//! Each has a thread of its own, so that a nameserver that is silent holds up nothing but names:
//! neither files nor keys, which have the threads of [`super::blocking`]. A thread cannot be
//! stopped, only left alone; so there are at most [`limits::LOOK_UPS_MAX`] of them, a name whose
//! last look-up still hangs is not asked for again, and where all threads hang a look-up fails at
//! once.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use tokio::sync::Notify;

use super::{pinning, time};
use crate::limits;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookUpError {
    /// The resolver is silent.
    #[error("no answer within {0} s; is the nameserver in /etc/resolv.conf there?")]
    Silent(u64),
    /// As above, since the last time.
    #[error("the last look-up of this name still hangs")]
    StillHangs,
    /// All threads are held by look-ups that hang.
    #[error("all {0} look-ups that there may be at a time hang")]
    AllHang(usize),
    /// The system gives no thread.
    #[error("no thread to ask on: {0}")]
    Thread(#[source] io::Error),
    /// The resolver panicked.
    #[error("the look-up ended without an answer")]
    Died,
}

impl From<LookUpError> for io::Error {
    fn from(error: LookUpError) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, error)
    }
}

/// One look-up that has a thread.
#[derive(Debug)]
struct Asked {
    /// Its own number.
    number: u64,
    /// The name.
    host: String,
    /// Since when.
    since: Instant,
}

/// What is known of all of them.
#[derive(Debug)]
struct Book {
    /// Those that have a thread.
    asked: Vec<Asked>,
    /// The number of the next one.
    next: u64,
    /// Look-ups that got no answer in time.
    silent_total: u64,
    /// Look-ups that were refused because others hang.
    refused_total: u64,
}

/// What status shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookUpCounts {
    /// Those that hang now: nobody waits for their answer any more.
    pub hanging: u64,
    /// Those that got no answer in time so far.
    pub silent_total: u64,
    /// Those that were refused so far because others hang.
    pub refused_total: u64,
}

/// See the module. Entered by whoever asks, left by the threads.
#[derive(Debug)]
pub(super) struct LookUps {
    /// What is known.
    book: Mutex<Book>,
    /// Rings when a thread has ended.
    left: Notify,
    /// Threads at most.
    most: usize,
    /// How long an answer is waited for.
    patience: Duration,
}

/// The process's.
pub(super) static LOOK_UPS: LookUps =
    LookUps::new(limits::LOOK_UPS_MAX, Duration::from_secs(limits::LOOK_UP_SECONDS_MAX));

/// A thread's place among them, until this is dropped.
struct Turn(&'static LookUps, u64);

impl Drop for Turn {
    fn drop(&mut self) {
        let Turn(all, number) = *self;
        all.book().asked.retain(|one| one.number != number);
        all.left.notify_waiters();
    }
}

impl LookUps {
    /// None is under way.
    const fn new(most: usize, patience: Duration) -> LookUps {
        let book = Book { asked: Vec::new(), next: 0, silent_total: 0, refused_total: 0 };
        LookUps { book: Mutex::new(book), left: Notify::const_new(), most, patience }
    }

    /// What is known, locked.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What status shows.
    pub(super) fn counts(&self) -> LookUpCounts {
        let book = self.book();
        let hanging = book.asked.iter().filter(|one| self.hangs(one)).count();
        LookUpCounts {
            hanging: hanging as u64,
            silent_total: book.silent_total,
            refused_total: book.refused_total,
        }
    }

    /// Have `job`, which may block for ever, answer for `host` on a thread of its own.
    ///
    /// # Errors
    /// [`LookUpError`].
    pub(super) async fn ask<T: Send + 'static>(
        &'static self,
        host: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LookUpError> {
        let until = time::now() + self.patience;
        let silent = || {
            self.book().silent_total += 1;
            LookUpError::Silent(self.patience.as_secs())
        };
        let turn = match super::timeout(self.patience, self.enter(host)).await {
            Ok(turn) => turn?,
            Err(_) => return Err(silent()),
        };
        let (tell, told) = oneshot::channel();
        let work = move || {
            let _turn = turn;
            pinning::unpin_current_thread();
            // Nobody may wait for it any more.
            let _ = tell.send(job());
        };
        let thread = std::thread::Builder::new().name("look-up".to_owned());
        thread.spawn(work).map_err(LookUpError::Thread)?;
        let left = until.saturating_duration_since(time::now());
        match super::timeout(left, told).await {
            Ok(answer) => answer.map_err(|_| LookUpError::Died),
            Err(_) => Err(silent()),
        }
    }

    /// Wait for a place, unless that makes no sense.
    async fn enter(&'static self, host: &str) -> Result<Turn, LookUpError> {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if let Some(turn) = self.try_enter(host)? {
                return Ok(turn);
            }
            left.await;
        }
    }

    /// Take a place; `None` while it makes sense to wait for one.
    fn try_enter(&'static self, host: &str) -> Result<Option<Turn>, LookUpError> {
        let mut book = self.book();
        let refused = if book.asked.iter().any(|one| one.host == host && self.hangs(one)) {
            LookUpError::StillHangs
        } else if book.asked.len() < self.most {
            let number = book.next;
            book.next += 1;
            let since = time::now();
            book.asked.push(Asked { number, host: host.to_owned(), since });
            return Ok(Some(Turn(self, number)));
        } else if book.asked.iter().all(|one| self.hangs(one)) {
            LookUpError::AllHang(self.most)
        } else {
            return Ok(None);
        };
        book.refused_total += 1;
        Err(refused)
    }

    /// Whether nobody waits for this one any more.
    fn hangs(&self, one: &Asked) -> bool {
        time::now().saturating_duration_since(one.since) >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::time::Duration;

    use futures::future::join_all;

    use super::{LookUpCounts, LookUpError, LookUps};
    use crate::limits;
    use crate::runtime::{Driver, blocking};

    /// A resolver that is silent until the other end is dropped.
    fn silent() -> (SyncSender<()>, impl FnOnce() -> u8 + Send + 'static) {
        let (release, released) = sync_channel::<()>(1);
        let job = move || {
            let _ = released.recv();
            0
        };
        (release, job)
    }

    #[test]
    fn those_that_hang_are_left_alone_and_hold_up_neither_files_nor_other_names() {
        const MOST: usize = limits::BLOCKING_THREADS_MAX + 1;
        static ALL: LookUps = LookUps::new(MOST, Duration::from_millis(300));
        Driver::new().expect("descriptors are left").block_on(async {
            let (releases, jobs): (Vec<_>, Vec<_>) = (0..MOST - 1).map(|_| silent()).unzip();
            let hosts: Vec<String> = (0..MOST).map(|number| format!("{number}.test")).collect();
            let asking = hosts.iter().zip(jobs).map(|(host, job)| ALL.ask(host, job));
            for answer in join_all(asking).await {
                assert!(matches!(answer, Err(LookUpError::Silent(_))), "{answer:?}");
            }
            // As many hang as there are threads for files.
            let file = blocking::spawn(|| 7).await.expect("there is a thread");
            assert_eq!(file.expect("it does not panic"), 7);
            // Another name has the place that is left, and a name that hangs is not asked again.
            assert_eq!(ALL.ask("other.test", || 5).await.expect("there is a place"), 5);
            let again = ALL.ask(&hosts[0], || 5).await;
            assert!(matches!(again, Err(LookUpError::StillHangs)), "{again:?}");
            let (last, job) = silent();
            assert!(ALL.ask(&hosts[MOST - 1], job).await.is_err());
            let full = ALL.ask("other.test", || 5).await;
            assert!(matches!(full, Err(LookUpError::AllHang(MOST))), "{full:?}");
            let counts =
                LookUpCounts { hanging: MOST as u64, silent_total: MOST as u64, refused_total: 2 };
            assert_eq!(ALL.counts(), counts);
            drop((releases, last));
            // Those that have ended make room, some time after they were released.
            while ALL.counts().hanging > 0 {
                std::thread::yield_now();
            }
            assert_eq!(ALL.ask(&hosts[0], || 5).await.expect("all have ended"), 5);
        });
    }

    #[test]
    fn more_than_may_run_at_a_time_take_turns() {
        static ALL: LookUps = LookUps::new(2, Duration::from_secs(60));
        Driver::new().expect("descriptors are left").block_on(async {
            let asking = (0..20_u8).map(|number| ALL.ask("one.test", move || number));
            let answers: Result<Vec<u8>, _> = join_all(asking).await.into_iter().collect();
            assert_eq!(answers.expect("each has its turn"), (0..20).collect::<Vec<_>>());
            let died = ALL.ask("one.test", || -> u8 { panic!("this is a test") }).await;
            assert!(matches!(died, Err(LookUpError::Died)), "{died:?}");
            assert_eq!(ALL.counts(), LookUpCounts::default());
        });
    }
}
