//! Jobs that block, on a few threads off the data cores: arti has next to none.
//!
//! A thread is started when a job finds none free, up to [`limits::BLOCKING_THREADS_MAX`], and
//! stays.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;

use super::pinning;
use crate::base::repeats::Repeats;
use crate::limits;

/// A job.
type Job = Box<dyn FnOnce() + Send>;

/// What the threads share.
struct Pool {
    /// Jobs that wait.
    jobs: VecDeque<Job>,
    /// Threads that wait.
    idle: usize,
    /// Threads that there are.
    threads: usize,
}

/// The process's only one.
static POOL: Mutex<Pool> = Mutex::new(Pool { jobs: VecDeque::new(), idle: 0, threads: 0 });

/// Rings when there is a job.
static NEWS: Condvar = Condvar::new();

/// Threads that could not be started.
static NO_THREAD: Repeats = Repeats::new();

/// The pool, locked.
fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Take jobs for ever.
fn work() {
    pinning::unpin_current_thread();
    let mut pool = pool();
    loop {
        pool = match pool.jobs.pop_front() {
            Some(job) => {
                drop(pool);
                job();
                self::pool()
            }
            None => {
                pool.idle += 1;
                let mut woken = NEWS.wait(pool).unwrap_or_else(PoisonError::into_inner);
                woken.idle -= 1;
                woken
            }
        };
    }
}

/// Run `job` on a thread of the pool. The receiver gets its answer, or the panic that it ended
/// with; it is cancelled when no thread could be started at all.
pub(super) fn spawn<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<std::thread::Result<T>> {
    let (answer, receiver) = oneshot::channel();
    let job = Box::new(move || {
        // Nobody may wait for it any more.
        let _ = answer.send(std::panic::catch_unwind(AssertUnwindSafe(job)));
    });
    let mut pool = pool();
    if pool.idle <= pool.jobs.len() && pool.threads < limits::BLOCKING_THREADS_MAX {
        match std::thread::Builder::new().name("blocking".to_owned()).spawn(work) {
            Ok(_) => pool.threads += 1,
            Err(error) => {
                if let Some(more) = NO_THREAD.say() {
                    tracing::error!("no thread for a blocking job: {error}{more}");
                }
            }
        }
    }
    if pool.threads > 0 {
        pool.jobs.push_back(job);
        NEWS.notify_one();
    }
    receiver
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    #[test]
    fn jobs_are_answered_and_their_panics_handed_on() {
        let answers: Vec<_> = (0..20).map(|number| super::spawn(move || number * 2)).collect();
        for (number, answer) in answers.into_iter().enumerate() {
            let answer = block_on(answer).expect("there is a thread").expect("it does not panic");
            assert_eq!(answer, number * 2);
        }
        let panics = block_on(super::spawn(|| panic!("this is a test"))).expect("it is answered");
        assert!(panics.is_err());
        assert_eq!(block_on(super::spawn(|| 7)).expect("a thread").expect("no panic"), 7);
    }
}
