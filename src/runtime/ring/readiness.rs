//! Readiness in place of an io_uring: the same operations, done by this thread's own system calls
//! once `epoll(7)` says that they will not wait, and told as the same completions.
//!
//! For kernels before 6.1, and for containers that forbid io_uring. Slots, sockets, cancellation,
//! caps and the end are those of a ring: only who does the work differs. A descriptor is watched
//! level-triggered while an operation waits for it, and its watch ends before that operation does,
//! so a number that is given out anew never meets an old watch.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::buffers::Buffers;
use super::op::{Attempt, Completion, Op};
use super::slots::{Key, Slots};

/// Events that one `epoll_wait(2)` brings at most; the others come with the next.
const EVENTS_MAX: usize = 256;
/// How often an operation that goes on is done in one turn: others have theirs.
const TIMES_MAX: usize = 2;

/// See the module.
pub(super) struct Readiness {
    /// The kernel's list.
    epoll: Epoll,
    /// What is watched, by the descriptor's number.
    watches: Vec<Watch>,
    /// Operations that shall be tried.
    begun: Vec<Key>,
    /// Operations that were cancelled before they could be done.
    cancelled: Vec<Key>,
    /// What `epoll_wait(2)` writes.
    events: Vec<EpollEvent>,
    /// Receive buffers that are in use until the turn's completions are taken in.
    buffers_used: u16,
}

/// Who waits for a descriptor.
#[derive(Clone, Copy, Debug)]
struct Watch {
    /// The operation that waits until it can be read.
    reader: Option<Key>,
    /// The one that waits until it can be written.
    writer: Option<Key>,
    /// Whether it is told once each time that something comes, as a bell that nobody reads wants.
    edge: bool,
    /// What the kernel was told to look for; nothing while nobody waits.
    armed: EpollFlags,
}

impl Watch {
    /// Nobody.
    const NONE: Watch =
        Watch { reader: None, writer: None, edge: false, armed: EpollFlags::empty() };

    /// What is to be looked for.
    fn wanted(&self) -> EpollFlags {
        let mut wanted = EpollFlags::empty();
        wanted.set(EpollFlags::EPOLLIN, self.reader.is_some());
        wanted.set(EpollFlags::EPOLLOUT, self.writer.is_some());
        // Of no use but to who watches a socket, which is whoever reads and writes it.
        wanted.set(EpollFlags::EPOLLRDHUP, self.edge && self.writer.is_some());
        wanted.set(EpollFlags::EPOLLET, self.edge && !wanted.is_empty());
        wanted
    }
}

impl Readiness {
    /// Nothing is watched yet.
    ///
    /// # Errors
    /// What `epoll_create1(2)` says.
    pub(super) fn new() -> io::Result<Readiness> {
        Ok(Readiness {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            watches: Vec::new(),
            begun: Vec::new(),
            cancelled: Vec::new(),
            events: vec![EpollEvent::empty(); EVENTS_MAX],
            buffers_used: 0,
        })
    }

    /// Have an operation tried with the next turn.
    pub(super) fn begin(&mut self, key: Key) {
        self.begun.push(key);
    }

    /// Have an operation end without being done.
    pub(super) fn cancel(&mut self, key: Key) {
        self.cancelled.push(key);
    }

    /// Try what was begun, wait for at most `patience` if that brought nothing, and try what became
    /// ready.
    ///
    /// # Errors
    /// What `epoll_wait(2)` says.
    pub(super) fn turn(
        &mut self,
        patience: Option<Duration>,
        slots: &Slots<Op>,
        buffers: &mut Buffers,
        seen: &mut Vec<(u64, Completion)>,
    ) -> io::Result<()> {
        self.buffers_used = 0;
        let mut cancelled = std::mem::take(&mut self.cancelled);
        for key in cancelled.drain(..) {
            let Some(operation) = slots.get(key) else { continue };
            self.begun.retain(|begun| *begun != key);
            self.forget(operation.fd(), key);
            seen.push((key.user_data(), Completion::last(Err(libc::ECANCELED))));
        }
        self.cancelled = cancelled;
        let mut begun = std::mem::take(&mut self.begun);
        for key in begun.drain(..) {
            if let Some(operation) = slots.get(key) {
                self.attempt(key, operation, true, buffers, seen);
            }
        }
        self.begun = begun;
        let patience = patience.filter(|_| seen.is_empty()).unwrap_or_default();
        // Rounded up: a timer that is due in half a millisecond must not make the core spin.
        let patience = i32::try_from(patience.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX);
        let patience = EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::MAX);
        let mut events = std::mem::take(&mut self.events);
        let count = match self.epoll.wait(&mut events, patience) {
            Err(nix::Error::EINTR) => Ok(0),
            other => other,
        };
        for event in &events[..count.unwrap_or(0)] {
            self.ready(event, slots, buffers, seen);
        }
        self.events = events;
        count.map(drop).map_err(io::Error::from)
    }

    /// A descriptor is ready.
    fn ready(
        &mut self,
        event: &EpollEvent,
        slots: &Slots<Op>,
        buffers: &mut Buffers,
        seen: &mut Vec<(u64, Completion)>,
    ) {
        let Ok(fd) = RawFd::try_from(event.data()) else { return };
        let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        let is = |what: EpollFlags| event.events().intersects(what | broken);
        let watch = *self.watch(fd);
        if let Some(key) = watch.reader.filter(|key| matches!(slots.get(*key), Some(Op::Watch(_))))
        {
            // The bits of epoll(7) are those of poll(2).
            let events = event.events().bits().cast_unsigned();
            seen.push((
                key.user_data(),
                Completion { result: Ok(events), more: true, buffer: None },
            ));
            return;
        }
        let reader = watch.reader.filter(|_| is(EpollFlags::EPOLLIN));
        let writer = watch.writer.filter(|_| is(EpollFlags::EPOLLOUT));
        for key in [reader, writer].into_iter().flatten() {
            match slots.get(key) {
                Some(operation) => self.attempt(key, operation, false, buffers, seen),
                None => self.forget(fd, key),
            }
        }
        if reader.is_none() && writer.is_none() {
            // What was not looked for any more: it would be told again and again.
            let watch = *self.watch(fd);
            let _ = self.arm(fd, watch.wanted());
        }
    }

    /// Do an operation as far as it goes without waiting.
    fn attempt(
        &mut self,
        key: Key,
        operation: &Op,
        first: bool,
        buffers: &mut Buffers,
        seen: &mut Vec<(u64, Completion)>,
    ) {
        for _ in 0..TIMES_MAX {
            let buffer = (self.buffers_used < buffers.count()).then_some(self.buffers_used);
            let attempt = match operation {
                // Nothing is lost: the kernel tells it again.
                Op::Receive(_) if buffer.is_none() => break,
                Op::Receive(receive) => receive.attempt(buffer.unwrap_or_default(), buffers),
                Op::Send(send) => send.attempt(),
                Op::Accept(accept) => accept.attempt(),
                Op::Connect(connect) => connect.attempt(first),
                Op::Wake(wake) => wake.attempt(first),
                Op::Watch(_) => break,
            };
            match attempt {
                Attempt::WouldWait => break,
                Attempt::Ended(result) => {
                    self.forget(operation.fd(), key);
                    seen.push((key.user_data(), Completion::last(result)));
                    return;
                }
                Attempt::GoesOn { result, all } => {
                    let buffer = buffer.filter(|_| matches!(operation, Op::Receive(_)));
                    self.buffers_used += u16::from(buffer.is_some());
                    let completion = Completion { result: Ok(result), more: true, buffer };
                    seen.push((key.user_data(), completion));
                    if all {
                        break;
                    }
                }
            }
        }
        if let Err(number) = self.wait_for(key, operation) {
            self.forget(operation.fd(), key);
            seen.push((key.user_data(), Completion::last(Err(number))));
        }
    }

    /// Watch an operation's descriptor for it; else the error's number.
    fn wait_for(&mut self, key: Key, operation: &Op) -> Result<(), i32> {
        let fd = operation.fd();
        let watch = self.watch(fd);
        match operation {
            Op::Send(_) | Op::Connect(_) => watch.writer = Some(key),
            Op::Receive(_) | Op::Accept(_) => watch.reader = Some(key),
            Op::Wake(_) => (watch.reader, watch.edge) = (Some(key), true),
            Op::Watch(_) => {
                (watch.reader, watch.writer, watch.edge) = (Some(key), Some(key), true);
            }
        }
        let (wanted, armed) = (watch.wanted(), watch.armed);
        // What was looked for before costs less to be left than to be taken back and put again.
        match armed.contains(wanted) {
            true => Ok(()),
            false => self.arm(fd, wanted | armed),
        }
    }

    /// An operation waits no more.
    fn forget(&mut self, fd: RawFd, key: Key) {
        let watch = self.watch(fd);
        watch.reader = watch.reader.filter(|reader| *reader != key);
        watch.writer = watch.writer.filter(|writer| *writer != key);
        // With the last one its descriptor may be closed, and its number given out anew.
        if watch.wanted().is_empty() {
            watch.edge = false;
            let _ = self.arm(fd, EpollFlags::empty());
        }
    }

    /// Tell the kernel what to look for; else the error's number: out of memory, or of
    /// `fs.epoll.max_user_watches`.
    fn arm(&mut self, fd: RawFd, wanted: EpollFlags) -> Result<(), i32> {
        let watch = self.watch(fd);
        let before = std::mem::replace(&mut watch.armed, wanted);
        if before == wanted {
            return Ok(());
        }
        // SAFETY: whoever waits owns the descriptor, and this is called before it ends.
        let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
        let mut event = EpollEvent::new(wanted, u64::try_from(fd).unwrap_or(u64::MAX));
        let told = match (before.is_empty(), wanted.is_empty()) {
            (true, _) => self.epoll.add(descriptor, event),
            (_, true) => self.epoll.delete(descriptor),
            _ => self.epoll.modify(descriptor, &mut event),
        };
        told.map_err(|error| {
            self.watch(fd).armed = EpollFlags::empty();
            error as i32
        })
    }

    /// The watch of a descriptor.
    fn watch(&mut self, fd: RawFd) -> &mut Watch {
        let index = usize::try_from(fd).unwrap_or_default();
        if index >= self.watches.len() {
            self.watches.resize(index + 1, Watch::NONE);
        }
        &mut self.watches[index]
    }
}
