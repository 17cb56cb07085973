//! What drives a core: on a data core a ring of its own, over io_uring or epoll; on the control
//! core tokio's `current_thread` runtime.
//!
//! ```text
//!   data core:     read the clock -> wake due timers -> run a batch of tasks -> one turn of the
//!                  ring, which waits if nothing is ready -> wake who has got something -> ...
//!   control core:  the executor is a task of tokio's
//! ```
//!
//! On tokio the admin socket and arti's directory code are at home; nothing hot runs there. A batch
//! is bounded ([`crate::limits::RUNNER_BATCH_TASKS`]), so that sockets, timers and other cores have
//! their turn however busy the tasks are.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::executor::{self, Executor, RunQueue};
use super::ring::{self, Ring};
use super::time;
use super::timers::{self, Timers};
use crate::limits;

/// What drives the sockets of data cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// An io_uring for each core.
    Uring,
    /// An epoll for each core, and system calls of its own thread.
    Epoll,
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring if it can be used here, else epoll.
    #[default]
    Auto,
    /// io_uring, or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// Decide what drives so many data cores. Says so in the log when it is not what is best.
///
/// # Errors
/// When io_uring is asked for and cannot be used by all of them.
pub fn choose(choice: IoChoice, cores: usize) -> Result<Io, ring::ProbeError> {
    match choice {
        IoChoice::Epoll => Ok(Io::Epoll),
        IoChoice::Uring => {
            ring::probe()?;
            match ring::probe_rings(cores) {
                (_, None) => Ok(Io::Uring),
                (made, Some(source)) => {
                    Err(ring::ProbeError::TooFew { made, wanted: cores, source })
                }
            }
        }
        IoChoice::Auto => Ok(match ring::probe() {
            Ok(()) => Io::Uring,
            Err(error) => {
                tracing::info!("{error}: data cores run on epoll");
                Io::Epoll
            }
        }),
    }
}

impl std::fmt::Display for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Io::Uring => "uring",
            Io::Epoll => "epoll",
        })
    }
}

/// The driver of one core: sockets and timers, and the executor above them.
pub struct Driver {
    /// Which one.
    kind: Kind,
    /// How long a core that has nothing to do looks around before it sleeps.
    spin: Duration,
}

/// See [`Io`].
enum Kind {
    /// tokio's.
    Tokio(tokio::runtime::Runtime),
    /// Ours.
    Ring(Box<Ring>),
}

impl Driver {
    /// Make a driver for the control core, on the core's own thread.
    ///
    /// # Errors
    /// When the kernel refuses the descriptors that the driver needs.
    pub fn new() -> io::Result<Driver> {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits::BLOCKING_THREADS_MAX)
            // One "task" is a batch of the executor's.
            .event_interval(1)
            .build()?;
        Ok(Driver { kind: Kind::Tokio(tokio), spin: Duration::ZERO })
    }

    /// Make a driver for a data core, on the core's own thread. Where memory for a ring is short it
    /// is tried again for a moment: the kernel gives that of another one, a probe's or a dead
    /// core's, back some time after it was closed. Blocks meanwhile.
    ///
    /// # Errors
    /// When the kernel refuses the descriptors or the memory that the driver needs.
    pub fn for_data_core(io: Io) -> io::Result<Driver> {
        let mut tries = limits::RING_TRIES_MAX;
        let ring = loop {
            tries -= 1;
            match new_ring(io) {
                Err(error) if tries > 0 && error.raw_os_error() == Some(libc::ENOMEM) => {
                    std::thread::sleep(Duration::from_millis(limits::RING_TRY_MS));
                }
                made => break made?,
            }
        };
        Ok(Driver { kind: Kind::Ring(Box::new(ring)), spin: Duration::ZERO })
    }

    /// Look around for so long before sleeping: what comes within that time is served without a
    /// wake by the kernel, for the price of a core that is busy with nothing. Only on a data core.
    #[must_use]
    pub fn spinning(self, spin: Duration) -> Driver {
        Driver { spin, ..self }
    }

    /// Run `main` to its end, and whatever is spawned for as long as that takes. All tasks are
    /// dropped when this returns; blocking jobs are not waited for.
    ///
    /// # Panics
    /// When the kernel takes no submissions any more: the core cannot go on.
    pub fn block_on<F: Future>(self, main: F) -> F::Output {
        match self.kind {
            Kind::Tokio(tokio) => {
                let output = tokio.block_on(async {
                    let _executor = Executor::start();
                    main.await
                });
                tokio.shutdown_background();
                output
            }
            Kind::Ring(ring) => block_on_ring(*ring, self.spin, main),
        }
    }
}

/// A ring; none where a test has asked for that.
fn new_ring(io: Io) -> io::Result<Ring> {
    #[cfg(feature = "fault-injection")]
    if io == Io::Uring
        && let (Ok(fault), Some(thread)) =
            (std::env::var("RUSTBALANCE_FAULT"), std::thread::current().name())
        && fault.strip_prefix("no-ring:") == Some(thread)
    {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    }
    Ring::new(io)
}

/// Wakes the future that a core was made for.
struct Main {
    /// Whether it shall be polled.
    woken: AtomicBool,
    /// Rung when it is woken from elsewhere.
    queue: Arc<RunQueue>,
}

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.queue.ring();
    }
}

/// See [`Driver::block_on`].
pub(super) fn block_on_ring<F: Future>(ring: Ring, spin: Duration, main: F) -> F::Output {
    let (office, waker) = (ring.office(), ring.waker());
    // Dropped in the opposite order: tasks first, then timers, then the ring.
    let _ring = ring::install(ring);
    let _timers = Timers::start();
    let executor = Executor::start_with(waker);
    let queue = Arc::clone(executor.queue());
    let woken = Arc::new(Main { woken: AtomicBool::new(true), queue: Arc::clone(&queue) });
    let waker = Waker::from(Arc::clone(&woken));
    let mut main = std::pin::pin!(main);
    let mut wake = Vec::new();
    let clock = time::Clock::start();
    loop {
        let now = clock.read();
        timers::advance(now, &mut wake);
        wake.drain(..).for_each(Waker::wake);
        if woken.woken.swap(false, Ordering::SeqCst)
            && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return output;
        }
        let idle = executor::tick(&queue);
        let busy = || executor::has_ready() || woken.woken.load(Ordering::SeqCst);
        let mut idle = idle && !busy();
        let mut next = None;
        if idle {
            // With the timers that the batch has set.
            next = timers::advance(Instant::now(), &mut wake);
            wake.drain(..).for_each(Waker::wake);
            idle = !busy();
        }
        if idle && spin > Duration::ZERO {
            look_around(spin, next, || busy() || executor::has_remote(&queue), &mut wake);
            next = timers::advance(Instant::now(), &mut wake);
            wake.drain(..).for_each(Waker::wake);
            idle = !busy();
        }
        let patience = (idle
            && executor::park(&queue)
            && office.fall_asleep()
            && !woken.woken.load(Ordering::SeqCst))
        .then(|| next.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
        let turned = ring::turn(patience, &mut wake);
        executor::unpark(&queue);
        office.wake_up();
        wake.drain(..).for_each(Waker::wake);
        if let Err(error) = turned {
            // The core is restarted with a new ring.
            panic!("the core's driver failed: {error}");
        }
    }
}

/// Take in completions without sleeping until somebody is `busy`, or the next timer is due, or for
/// at most `spin`. An error is found again by the turn that follows.
fn look_around(
    spin: Duration,
    next: Option<Duration>,
    busy: impl Fn() -> bool,
    wake: &mut Vec<Waker>,
) {
    let until = Instant::now() + next.map_or(spin, |next| next.min(spin));
    while ring::turn(None, wake).is_ok() {
        wake.drain(..).for_each(Waker::wake);
        if busy() || Instant::now() >= until {
            return;
        }
        std::hint::spin_loop();
    }
}

/// A core that has nothing to do looks around all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
