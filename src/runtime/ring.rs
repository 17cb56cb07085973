//! The driver of a data core: operations are begun, and their completions come back. An io_uring
//! does them ([`uring`]), or, where there is none, this thread itself when epoll(7) says that they
//! will not wait ([`readiness`]).
//!
//! ```text
//!   sockets, on any thread --errand--> [office] --.
//!   sockets, on this thread --errand------------- ring: slots --operations--> engine
//!        ^                                          |  ^                        |
//!        '------------ wakers ----------------------'  '----- completions ------'
//! ```
//!
//! Used by the core's own thread only (`SINGLE_ISSUER`); the kernel does its part when that thread
//! enters it and asks for completions (`DEFER_TASKRUN`), so nothing interrupts a task. One
//! `io_uring_enter(2)` submits everything that a batch of tasks has left to do, waits if there is
//! nothing else to do, and brings all completions.
//!
//! **Ownership.** What the kernel uses belongs to an operation in a slot ([`slots`]). A future that
//! is dropped asks for the operation to be cancelled, and forgets it.
//!
//! **The end**, in this order: tasks are dropped, which cancels what they had begun; sends that are
//! under way get [`crate::limits::RING_END_SENDS_MS`]; everything else is cancelled;
//! completions are awaited until nothing is in flight, for at most
//! [`crate::limits::RING_END_MS`]; the ring is closed; its memory is freed. What is then still in
//! flight keeps its memory for good: a leak, said in the log, rather than a kernel that writes into
//! freed memory.

mod accept;
mod buffers;
mod bytes;
mod connect;
#[cfg(test)]
mod faults;
mod op;
mod probe;
mod readiness;
mod receive;
mod send;
mod slots;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod uring;
mod wake;
mod watch;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;
use socket2::{Domain, SockAddr, Type};

pub use self::accept::Listener;
pub use self::probe::{ProbeError, explain, probe, probe_rings};
pub use self::socket::Socket;
pub use self::watch::{Interest, Watched};

use self::accept::Accept;
use self::buffers::Pools;
use self::connect::Connect;
use self::op::{Completion, Next, Op, Tick};
use self::readiness::Readiness;
use self::receive::Receive;
use self::send::Send;
use self::slots::{Key, Slots};
use self::uring::Uring;
use self::wake::{Bell, Wake};
use self::watch::Watch;
use super::driver::Io;
use super::park::Parking;
use crate::limits;

/// Something that only the ring's own thread can do.
#[derive(Debug)]
enum Errand {
    /// Receive for a socket, unless it does.
    Receive(Arc<socket::Shared>),
    /// Send what waits in a socket.
    Send(Arc<socket::Shared>),
    /// The socket's handle is gone.
    Close(Arc<socket::Shared>),
    /// Connect.
    Connect(Connect),
    /// Accept for a listener, unless it does.
    Accept(Arc<accept::Shared>),
    /// Watch a socket, unless it is watched.
    Watch(Arc<watch::Shared>),
    /// Cancel an operation.
    Cancel(Key),
}

/// What other threads see of a ring.
#[derive(Debug)]
pub struct Office {
    /// Errands from other threads.
    errands: SegQueue<Errand>,
    /// Whether the ring's thread waits in the kernel.
    parking: Parking,
    /// Whether the ring has ended.
    ended: AtomicBool,
    /// Bytes in sockets that wait for their readers.
    received: AtomicU64,
    /// Wakes it.
    bell: Arc<Bell>,
}

impl Office {
    /// Do an errand at once if this is the ring's thread, else have it done there.
    fn run(self: &Arc<Self>, errand: Errand) {
        let mut errand = Some(errand);
        // The ring is busy only while it takes in completions, which runs nobody's code.
        let _ = RING.try_with(|ring| {
            let Ok(mut ring) = ring.try_borrow_mut() else { return };
            if let Some(ring) = &mut *ring
                && Arc::ptr_eq(&ring.office, self)
                && let Some(errand) = errand.take()
            {
                ring.do_errand(errand);
            }
        });
        let Some(errand) = errand else { return };
        self.errands.push(errand);
        if self.parking.must_be_woken() {
            self.bell.ring();
        }
        if self.has_ended() {
            while self.errands.pop().is_some() {}
        }
    }

    /// Whether the ring has ended.
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// From now on whoever leaves an errand wakes the thread. `false` when there is one already.
    pub(super) fn fall_asleep(&self) -> bool {
        self.parking.fall_asleep();
        self.errands.is_empty()
    }

    /// Nobody needs to wake the thread any more.
    pub(super) fn wake_up(&self) {
        self.parking.wake_up();
    }
}

/// Who does the operations.
enum Engine {
    /// The kernel.
    Uring(Uring),
    /// This thread.
    Readiness(Readiness),
}

/// See the module.
pub(super) struct Ring {
    /// Who does the operations. Ends before the buffers.
    engine: Engine,
    /// What is in flight.
    slots: Slots<Op>,
    /// Sockets that have something to send.
    dirty: Vec<Arc<socket::Shared>>,
    /// Where bytes are received.
    buffers: Pools,
    /// Sockets without a handle that may still send, and until when; oldest first.
    lingering: VecDeque<(Instant, Weak<socket::Shared>)>,
    /// Completions that were taken out of the queue; kept for its room.
    seen: Vec<(u64, Completion)>,
    /// What completions have asked for; kept for their room.
    cancel: Vec<Key>,
    /// See `cancel`; receives that found no buffer.
    starved: Vec<Errand>,
    /// See `cancel`.
    later: Vec<Errand>,
    /// What other threads see.
    office: Arc<Office>,
    /// What goes wrong on purpose.
    #[cfg(test)]
    faults: Option<faults::Faults>,
}

thread_local! {
    /// The ring of this thread, if it has one.
    static RING: RefCell<Option<Ring>> = const { RefCell::new(None) };
}

impl Ring {
    /// A ring for the calling thread.
    ///
    /// # Errors
    /// What `io_uring_setup(2)` and `io_uring_register(2)` say, or `epoll_create1(2)`.
    pub(super) fn new(io: Io) -> io::Result<Ring> {
        let long = (limits::RING_BUFFERS, limits::RING_BUFFER_BYTES);
        let short = (limits::RING_SHORT_BUFFERS, limits::RING_SHORT_BUFFER_BYTES);
        Ring::of_size(io, limits::RING_ENTRIES, long, short)
    }

    /// One with so many entries, and of each kind so many buffers of so many bytes.
    ///
    /// # Errors
    /// See [`Ring::new`].
    fn of_size(io: Io, entries: u32, long: (u16, usize), short: (u16, usize)) -> io::Result<Ring> {
        let mut buffers = Pools::new(long, short)?;
        let bell = Bell::new()?;
        let engine = match io {
            Io::Uring => {
                let uring = Uring::new(entries)?;
                uring.register(&mut buffers)?;
                Engine::Uring(uring)
            }
            Io::Epoll => Engine::Readiness(Readiness::new()?),
        };
        let office = Office {
            errands: SegQueue::new(),
            parking: Parking::default(),
            ended: AtomicBool::new(false),
            received: AtomicU64::new(0),
            bell: Arc::clone(&bell),
        };
        let mut ring = Ring {
            engine,
            slots: Slots::default(),
            dirty: Vec::new(),
            buffers,
            lingering: VecDeque::new(),
            seen: Vec::new(),
            cancel: Vec::new(),
            starved: Vec::new(),
            later: Vec::new(),
            office: Arc::new(office),
            #[cfg(test)]
            faults: None,
        };
        ring.start(|_| Some(Op::Wake(Wake::new(&bell))));
        Ok(ring)
    }

    /// What other threads see of it.
    pub(super) fn office(&self) -> Arc<Office> {
        Arc::clone(&self.office)
    }

    /// What wakes its thread.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.office.bell))
    }

    /// Begin an operation, which may want to know its key. `None` begins nothing.
    fn start(&mut self, operation: impl FnOnce(Key) -> Option<Op>) {
        let key = self.slots.reserve();
        let Some(operation) = operation(key) else { return self.slots.free(key) };
        self.submit(key, &operation);
        self.slots.put_back(key, operation);
    }

    /// Have an operation done, with the next turn.
    fn submit(&mut self, key: Key, operation: &Op) {
        #[cfg(test)]
        if let Some(faults) = &mut self.faults
            && faults.instead_of(key, operation)
        {
            return;
        }
        match &mut self.engine {
            Engine::Uring(uring) => uring.push(operation.entry().user_data(key.user_data())),
            Engine::Readiness(readiness) => readiness.begin(key),
        }
    }

    /// Have an operation cancelled. It ends with a completion of its own.
    fn cancel(&mut self, key: Key) {
        match &mut self.engine {
            Engine::Uring(uring) => uring.cancel(key),
            Engine::Readiness(readiness) => readiness.cancel(key),
        }
    }

    /// Have all of them cancelled.
    fn cancel_all(&mut self) {
        match &mut self.engine {
            Engine::Uring(uring) => uring.cancel_all(),
            Engine::Readiness(readiness) => {
                self.slots.iter_with_keys().for_each(|(key, _)| readiness.cancel(key));
            }
        }
    }

    /// See [`Errand`].
    fn do_errand(&mut self, errand: Errand) {
        let ends = matches!(errand, Errand::Send(_) | Errand::Close(_) | Errand::Cancel(_));
        if !ends && self.office.has_ended() {
            return;
        }
        match errand {
            Errand::Receive(socket) => {
                let by_kernel = matches!(self.engine, Engine::Uring(_));
                self.start(|key| Receive::next(socket, key, by_kernel).map(Op::Receive));
            }
            Errand::Send(socket) => self.dirty.push(socket),
            Errand::Close(socket) => {
                let receiving = {
                    let state = socket.state();
                    state.receiving.filter(|_| !state.stopping)
                };
                if let Some(key) = receiving {
                    self.cancel(key);
                }
                // What was written still goes out, as it would from the kernel's own queue.
                let until = Instant::now() + Duration::from_millis(limits::SOCKET_LINGER_MS);
                self.lingering.push_back((until, Arc::downgrade(&socket)));
            }
            Errand::Connect(connect) => {
                self.start(|key| connect.starts(key).then_some(Op::Connect(connect)));
            }
            Errand::Accept(listener) => self.start(|key| {
                let mut state = listener.state();
                if state.key.is_some() || state.closed {
                    return None;
                }
                state.key = Some(key);
                drop(state);
                Some(Op::Accept(Accept { listener }))
            }),
            Errand::Watch(socket) => {
                self.start(|key| socket.starts(key).then_some(Op::Watch(Watch { socket })));
            }
            Errand::Cancel(key) => self.cancel(key),
        }
    }

    /// Submit what there is to submit, wait for a completion for at most `patience` (not at all if
    /// `None`), and take in what has come. Whoever is to be woken is put into `wake`.
    ///
    /// # Errors
    /// When the kernel does not take submissions any more.
    pub(super) fn turn(
        &mut self,
        patience: Option<Duration>,
        wake: &mut Vec<Waker>,
    ) -> io::Result<()> {
        while let Some(errand) = self.office.errands.pop() {
            self.do_errand(errand);
        }
        self.start_sends();
        let patience = self.end_lingering(patience);
        #[cfg(test)]
        let patience = patience.filter(|_| self.faults.as_ref().is_none_or(|one| !one.waits()));
        match &mut self.engine {
            Engine::Uring(_) => self.turn_uring(patience, wake)?,
            Engine::Readiness(readiness) => {
                let patience = patience.filter(|_| wake.is_empty());
                let buffers = &mut self.buffers.long;
                readiness.turn(patience, &self.slots, buffers, &mut self.seen)?;
            }
        }
        self.take_in(wake);
        Ok(())
    }

    /// The io_uring's part of a turn.
    fn turn_uring(&mut self, patience: Option<Duration>, wake: &mut Vec<Waker>) -> io::Result<()> {
        while let Engine::Uring(uring) = &mut self.engine
            && !uring.fill_queue()
        {
            let left = uring.waiting();
            uring.enter(None)?;
            // Room for what the kernel has to say, or it would take nothing more.
            self.take_in(wake);
            if self.waiting() >= left {
                break;
            }
        }
        // Whoever was found above shall not wait for what comes.
        let patience = patience.filter(|_| wake.is_empty() && self.waiting() == 0);
        match &mut self.engine {
            Engine::Uring(uring) => uring.enter(patience),
            Engine::Readiness(_) => Ok(()),
        }
    }

    /// Entries that wait for room in the submission queue.
    fn waiting(&self) -> usize {
        match &self.engine {
            Engine::Uring(uring) => uring.waiting(),
            Engine::Readiness(_) => 0,
        }
    }

    /// Begin to send for every socket that has something and does not send.
    fn start_sends(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for socket in dirty.drain(..) {
            self.start(|key| Send::next(&socket, key).map(Op::Send));
        }
        self.dirty = dirty;
    }

    /// Cancel the sends of sockets whose time is over; gives how long the wait may be.
    fn end_lingering(&mut self, patience: Option<Duration>) -> Option<Duration> {
        while let Some((until, socket)) = self.lingering.front() {
            let left = until.saturating_duration_since(Instant::now());
            let socket = socket.upgrade();
            if socket.is_some() && left > Duration::ZERO {
                return patience.map(|patience| patience.min(left));
            }
            self.lingering.pop_front();
            let Some(socket) = socket else { continue };
            let sending = {
                let mut state = socket.state();
                state.send_failed = Some(libc::ECANCELED);
                state.sending
            };
            if let Some(key) = sending {
                self.cancel(key);
            }
        }
        patience
    }

    /// Take in all completions.
    fn take_in(&mut self, wake: &mut Vec<Waker>) {
        let mut seen = std::mem::take(&mut self.seen);
        let ended = self.office.has_ended();
        if let Engine::Uring(uring) = &mut self.engine {
            uring.completions(&mut seen);
        }
        #[cfg(test)]
        if let Some(faults) = &mut self.faults {
            faults.add_to(&mut seen, &self.slots, &mut self.cancel);
        }
        for (user_data, completion) in seen.drain(..) {
            if user_data == Key::NONE {
                continue;
            }
            // One of an operation that has ended carries nothing that is ours.
            let Some((key, operation)) = self.slots.take(user_data) else { continue };
            let mut tick = Tick {
                buffers: &mut self.buffers,
                wake,
                cancel: &mut self.cancel,
                starved: &mut self.starved,
                later: &mut self.later,
                ended,
            };
            match operation.complete(key, completion, &mut tick) {
                Next::Done => self.slots.free(key),
                Next::Wait(operation) => self.slots.put_back(key, operation),
                Next::Again(operation) => {
                    self.submit(key, &operation);
                    self.slots.put_back(key, operation);
                }
            }
        }
        self.seen = seen;
        self.buffers.publish();
        while let Some(key) = self.cancel.pop() {
            self.cancel(key);
        }
        // Who found no buffer comes before who had one: where there are more sockets than buffers,
        // each has its turn.
        let mut starved = std::mem::take(&mut self.starved);
        let mut later = std::mem::take(&mut self.later);
        starved.drain(..).chain(later.drain(..)).for_each(|errand| self.do_errand(errand));
        (self.starved, self.later) = (starved, later);
    }

    /// Operations in flight, apart from the bell's.
    fn in_flight(&self) -> usize {
        self.slots.len().saturating_sub(1)
    }

    /// Turn until `done`, which is asked before each turn, or for at most so long.
    fn turn_until(&mut self, milliseconds: u64, done: impl Fn(&mut Ring) -> bool) {
        let deadline = Instant::now() + Duration::from_millis(milliseconds);
        let mut wake = Vec::new();
        while !done(self) && Instant::now() < deadline {
            if self.turn(Some(Duration::from_millis(10)), &mut wake).is_err() {
                return;
            }
            wake.drain(..).for_each(Waker::wake);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.turn_until(limits::RING_END_SENDS_MS, |ring| {
            ring.dirty.is_empty() && !ring.slots.iter().any(Op::is_worth_waiting_for)
        });
        self.office.ended.store(true, Ordering::Release);
        self.turn_until(limits::RING_END_MS, |ring| {
            // Each time, for what was submitted once more because it had just come to an end.
            ring.cancel_all();
            ring.slots.len() == 0
        });
        while self.office.errands.pop().is_some() {}
        if self.slots.len() > 0 {
            tracing::warn!("{} operations did not end: their memory is kept", self.slots.len());
            self.buffers.keep();
            let _ = ManuallyDrop::new(std::mem::take(&mut self.slots));
        }
        // The fields follow in their order: the kernel knows the buffers until the engine is gone.
    }
}

/// The ring of the calling thread, for as long as this lives.
pub(super) struct Installed(());

/// Make `ring` the calling thread's.
pub(super) fn install(ring: Ring) -> Installed {
    RING.with_borrow_mut(|place| *place = Some(ring));
    Installed(())
}

impl Drop for Installed {
    fn drop(&mut self) {
        // Taken out first: what its end wakes may look for the thread's ring.
        let ring = RING.with_borrow_mut(Option::take);
        drop(ring);
    }
}

/// [`Ring::turn`] on the thread's ring. Whom it says to wake is woken by the caller, once others
/// know that the core is awake: it would ring its own bell otherwise.
///
/// # Errors
/// See there.
pub(super) fn turn(patience: Option<Duration>, wake: &mut Vec<Waker>) -> io::Result<()> {
    RING.with_borrow_mut(|ring| match ring {
        Some(ring) => ring.turn(patience, wake),
        None => Err(io::ErrorKind::NotConnected.into()),
    })
}

/// Drop what the calling thread's sockets keep for later.
pub(super) fn drop_spare() {
    bytes::drop_spare();
    send::drop_spare();
}

/// The office of the thread's ring, if it has one.
pub(super) fn current_office() -> Option<Arc<Office>> {
    RING.try_with(|ring| ring.try_borrow().ok()?.as_ref().map(Ring::office)).ok().flatten()
}

/// Whether the calling thread's ring does its operations by itself.
fn is_readiness() -> bool {
    RING.with_borrow(|ring| {
        ring.as_ref().is_some_and(|ring| matches!(ring.engine, Engine::Readiness(_)))
    })
}

/// Operations in flight on the calling thread's ring, apart from the one that waits for other
/// threads; 0 without a ring.
pub fn in_flight() -> usize {
    RING.with_borrow(|ring| ring.as_ref().map_or(0, Ring::in_flight))
}

/// Bytes that sockets of the calling thread's ring have received and that wait for their readers.
pub fn received_bytes() -> u64 {
    current_office().map_or(0, |office| office.received.load(Ordering::Relaxed))
}

/// Connect over TCP or to a unix socket, on the calling thread's ring.
///
/// # Errors
/// What `socket(2)` and `connect(2)` say; for a unix socket `EAGAIN` when the listener's queue is
/// full.
pub(super) async fn connect(office: Arc<Office>, peer: SockAddr) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::from(i32::from(peer.family())), Type::STREAM, None)?;
    if peer.is_unix() {
        // It is done at once or not at all. A ring would have a kernel thread wait for room in the
        // listener's queue, for as long as that takes.
        socket.set_nonblocking(true)?;
        socket.connect(&peer)?;
        socket.set_nonblocking(false)?;
        return Ok(Socket::new(OwnedFd::from(socket), office));
    }
    connect_socket(office, socket, peer).await
}

/// Connect a socket that is there already over TCP, on the calling thread's ring.
///
/// # Errors
/// What `connect(2)` says.
pub(super) async fn connect_socket(
    office: Arc<Office>,
    socket: socket2::Socket,
    peer: SockAddr,
) -> io::Result<Socket> {
    connect::connect(&office, OwnedFd::from(socket), peer).await
}
