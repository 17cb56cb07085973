//! The executor of one core: a run queue on top of the core's driver.
//!
//! ```text
//!   wake on the core   -> local queue  --.
//!                                         >-- runner: a batch of tasks, then the driver's turn
//!   wake elsewhere     -> remote queue --'
//!                            '-- and rings a parked runner, at the end of the waker's batch
//! ```
//!
//! With one Tor stack every cell of half the circuits crosses cores, and arti's channels wake the
//! other side while they hold a lock. tokio answers each such wake with a write to an eventfd; here
//! a wake is a push, and a system call only when the core sleeps. A core rings the others at the
//! end of its batch, so that one ring stands for all the cells of the batch, which then leave in
//! one write.
//!
//! **Parking.** See [`super::park`].
//!
//! **Fairness.** A batch ends after [`limits::RUNNER_BATCH_TASKS`] tasks, or earlier when tokio's
//! cooperative budget is used up: then the driver looks for events, and the batch goes on.
//!
//! **The end.** Whatever ends a core drops its [`Executor`]: every task is dropped there and then,
//! on the core's own thread, so that circuits and links close.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use async_task::Runnable;
use crossbeam_queue::SegQueue;
use slab::Slab;

use super::park::Parking;
use crate::base::repeats::Repeats;
use crate::limits;

/// What other threads see of a core's executor.
#[derive(Default)]
pub(super) struct RunQueue {
    /// Tasks that were woken elsewhere. Holds each task at most once, so it is bounded by the
    /// number of tasks.
    remote: SegQueue<Runnable>,
    /// Whether the runner waits for a ring.
    parking: Parking,
    /// Whether the core has ended: nothing that is pushed will run.
    ended: AtomicBool,
    /// Wakes the runner; set when it first runs.
    runner: OnceLock<Waker>,
    /// A waker of every task that lives, to end it by; `None` once the core has ended.
    tasks: Mutex<Option<Slab<Waker>>>,
    /// Tasks that ended with a panic.
    panics: AtomicU64,
}

impl std::fmt::Debug for RunQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunQueue").field("panics", &self.panics).finish_non_exhaustive()
    }
}

/// The run queue of this thread.
struct Local {
    /// Whose tasks these are.
    queue: Arc<RunQueue>,
    /// Tasks that were woken here.
    ready: VecDeque<Runnable>,
    /// Whether a batch runs: other cores are rung at its end.
    in_batch: bool,
    /// Whom to ring then; each once.
    to_ring: Vec<Arc<RunQueue>>,
}

impl Local {
    /// Ring this core at the end of the batch. `false` when no batch runs.
    fn ring_later(&mut self, queue: &Arc<RunQueue>) -> bool {
        if self.in_batch && !self.to_ring.iter().any(|known| Arc::ptr_eq(known, queue)) {
            self.to_ring.push(Arc::clone(queue));
        }
        self.in_batch
    }
}

thread_local! {
    /// Set while this thread has an [`Executor`].
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

/// Takes a task off the list when it ends or is dropped.
struct Listed {
    /// The list is in here.
    queue: Arc<RunQueue>,
    /// Its number there.
    number: usize,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let waker = match &mut *self.queue.tasks() {
            Some(tasks) => tasks.try_remove(self.number),
            None => None,
        };
        // Outside of the lock: a waker can hold the last reference to a task.
        drop(waker);
    }
}

impl RunQueue {
    /// The list of tasks.
    fn tasks(&self) -> std::sync::MutexGuard<'_, Option<Slab<Waker>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tasks live.
    pub(super) fn len(&self) -> usize {
        self.tasks().as_ref().map_or(0, Slab::len)
    }

    /// Run `future` on this core, from any thread. `false` when the core has ended: then it is
    /// dropped unrun.
    pub(super) fn spawn(
        self: &Arc<Self>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let mut tasks = self.tasks();
        let Some(list) = &mut *tasks else { return false };
        let entry = list.vacant_entry();
        let listed = Listed { queue: Arc::clone(self), number: entry.key() };
        let queue = Arc::clone(self);
        let task = async move {
            let _listed = listed;
            future.await;
        };
        let (runnable, task) = async_task::spawn(task, move |runnable| queue.schedule(runnable));
        entry.insert(runnable.waker());
        drop(tasks);
        task.detach();
        runnable.schedule();
        true
    }

    /// A task is ready.
    fn schedule(self: &Arc<Self>, runnable: Runnable) {
        let mut runnable = Some(runnable);
        let mut pushed = false;
        // A thread that is ending has no locals any more: then it is no core either.
        let later = LOCAL.try_with(|local| {
            let Some(local) = &mut *local.borrow_mut() else { return false };
            if Arc::ptr_eq(&local.queue, self) {
                local.ready.extend(runnable.take());
                // The runner looks at this queue before it parks.
                return local.in_batch;
            }
            if let Some(runnable) = runnable.take() {
                self.remote.push(runnable);
                pushed = true;
            }
            local.ring_later(self)
        });
        if let Some(runnable) = runnable {
            self.remote.push(runnable);
            pushed = true;
        }
        if !matches!(later, Ok(true)) {
            self.ring();
        }
        if pushed {
            self.clear_if_ended();
        }
    }

    /// Drop what came after the core had looked for the last time. Whoever pushes does this after
    /// the push, and the core sets `ended` before its last look: one of the two sees the task.
    fn clear_if_ended(&self) {
        fence(Ordering::SeqCst);
        if self.ended.load(Ordering::Relaxed) {
            while self.remote.pop().is_some() {}
        }
    }

    /// Wake the runner if it is parked.
    pub(super) fn ring(&self) {
        if self.parking.must_be_woken()
            && let Some(runner) = self.runner.get()
        {
            runner.wake_by_ref();
        }
    }

    /// Tasks that ended with a panic so far.
    #[cfg(test)]
    fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// The next task of this thread: woken here, or elsewhere.
fn next_ready(queue: &RunQueue) -> Option<Runnable> {
    let local = LOCAL.with_borrow_mut(|local| local.as_mut()?.ready.pop_front());
    local.or_else(|| queue.remote.pop())
}

/// Move what was woken elsewhere behind what was woken here. Without this, tasks that wake each
/// other here would keep out what comes from elsewhere.
fn take_remote(queue: &RunQueue) {
    LOCAL.with_borrow_mut(|local| {
        let Some(local) = local else { return };
        for _ in 0..queue.remote.len() {
            let Some(runnable) = queue.remote.pop() else { return };
            local.ready.push_back(runnable);
        }
    });
}

/// Runs the tasks of a core; itself a task of the core's driver.
struct Runner(Arc<RunQueue>);

impl Future for Runner {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let queue = &self.0;
        // The driver's waker of a task stays the same for as long as the task lives.
        queue.runner.get_or_init(|| cx.waker().clone());
        if !tick(queue) {
            cx.waker().wake_by_ref();
        } else if !park(queue) {
            queue.ring();
        }
        Poll::Pending
    }
}

/// Run a batch of tasks. Says whether none is ready any more.
pub(super) fn tick(queue: &RunQueue) -> bool {
    queue.parking.wake_up();
    take_remote(queue);
    begin_batch();
    let idle = run_batch(queue);
    end_batch();
    idle
}

/// From now on whoever gives this core something to do rings it. `false` when somebody has already.
pub(super) fn park(queue: &RunQueue) -> bool {
    queue.parking.fall_asleep();
    queue.remote.is_empty()
}

/// Nobody has to ring any more.
pub(super) fn unpark(queue: &RunQueue) {
    queue.parking.wake_up();
}

/// Tasks that panicked, on any core: a client may know how to do that again and again.
static PANICS: Repeats = Repeats::new();

/// Run tasks until the batch is full or none is ready; says which.
fn run_batch(queue: &RunQueue) -> bool {
    for _ in 0..limits::RUNNER_BATCH_TASKS {
        let Some(runnable) = next_ready(queue) else { return true };
        if std::panic::catch_unwind(AssertUnwindSafe(|| runnable.run())).is_err() {
            queue.panics.fetch_add(1, Ordering::Relaxed);
            if let Some(more) = PANICS.say() {
                tracing::error!("a task of this core panicked; the others go on{more}");
            }
        }
        if !tokio::task::coop::has_budget_remaining() {
            return false;
        }
    }
    false
}

/// From now on other cores are rung later.
fn begin_batch() {
    LOCAL.with_borrow_mut(|local| {
        if let Some(local) = local {
            local.in_batch = true;
        }
    });
}

/// Ring whom the batch has given something to do.
fn end_batch() {
    let to_ring = LOCAL.with_borrow_mut(|local| {
        let local = local.as_mut()?;
        local.in_batch = false;
        Some(std::mem::take(&mut local.to_ring))
    });
    let Some(mut to_ring) = to_ring else { return };
    if to_ring.is_empty() {
        return;
    }
    for queue in to_ring.drain(..) {
        queue.ring();
    }
    LOCAL.with_borrow_mut(|local| {
        // Its room is used again; nothing was added since, for no batch runs.
        if let Some(local) = local {
            local.to_ring = to_ring;
        }
    });
}

/// The executor of the calling thread, for as long as this lives.
pub(super) struct Executor {
    /// What other threads see of it.
    queue: Arc<RunQueue>,
}

impl Executor {
    /// Make this thread run tasks, whenever its driver runs. Call inside of tokio.
    pub(super) fn start() -> Executor {
        let executor = Executor::start_idle();
        drop(tokio::spawn(Runner(Arc::clone(&executor.queue))));
        executor
    }

    /// Make this thread run tasks, whenever it calls [`tick`]; `waker` wakes it when it is parked.
    pub(super) fn start_with(waker: Waker) -> Executor {
        let executor = Executor::start_idle();
        executor.queue.runner.get_or_init(|| waker);
        executor
    }

    /// Nothing runs yet.
    fn start_idle() -> Executor {
        let queue = Arc::new(RunQueue::default());
        *queue.tasks() = Some(Slab::new());
        let local = Local {
            queue: Arc::clone(&queue),
            ready: VecDeque::new(),
            in_batch: false,
            to_ring: Vec::new(),
        };
        LOCAL.with_borrow_mut(|place| *place = Some(local));
        Executor { queue }
    }

    /// What other threads see of it.
    pub(super) fn queue(&self) -> &Arc<RunQueue> {
        &self.queue
    }
}

/// Whether the calling thread has a task to run.
pub(super) fn has_ready() -> bool {
    LOCAL.with_borrow(|local| local.as_ref().is_some_and(|local| !local.ready.is_empty()))
}

/// Whether another thread has given this core something to do.
pub(super) fn has_remote(queue: &RunQueue) -> bool {
    !queue.remote.is_empty()
}

impl Drop for Executor {
    fn drop(&mut self) {
        // What is scheduled from here on goes to the remote queue, where nothing runs it.
        let local = LOCAL.with_borrow_mut(Option::take);
        let tasks = self.queue.tasks().take();
        // Each task that waits is woken, which puts it into the queue, and dropped from there. A
        // dropped task may wake others, which are then in the queue as well.
        for (_, waker) in tasks.into_iter().flatten() {
            waker.wake();
        }
        drop(local);
        self.queue.ended.store(true, Ordering::Relaxed);
        self.queue.clear_if_ended();
    }
}

/// The run queue of this thread, if it has one.
pub(super) fn current_queue() -> Option<Arc<RunQueue>> {
    LOCAL.with_borrow(|local| local.as_ref().map(|local| Arc::clone(&local.queue)))
}

/// Run `future` on the calling thread: on its core's executor, or, on a thread that is no core, on
/// the tokio runtime that the caller is in.
///
/// # Panics
/// On a thread that is neither.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    match current_queue() {
        // A core that is ending drops it, as it drops all others.
        Some(queue) => {
            queue.spawn(future);
        }
        // As above, once its executor is gone: there may be no tokio below.
        None if super::core::current_core().is_some() => {}
        None => drop(tokio::spawn(future)),
    }
}

#[cfg(test)]
mod tests;
