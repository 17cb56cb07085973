//! Watch: says when a socket can be read or written, for whoever makes the system calls itself.
//!
//! One operation for the life of a socket (multishot poll, told at edges): what moves bytes between
//! two sockets of the kernel's with `splice(2)` and `recv(2)` needs no other, and an idle socket
//! costs this one and no buffer. Each bit of readiness holds until a system call has said `EAGAIN`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use io_uring::{opcode, squeue, types};

use super::op::{Completion, Next, Op, Tick};
use super::slots::Key;
use super::socket::error;
use super::{Errand, Office};

/// What a socket may be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// There are bytes, the peer is done, or something is wrong.
    Read,
    /// There is room, or something is wrong.
    Write,
}

impl Interest {
    /// The events of `poll(2)` that mean it.
    fn events(self) -> u32 {
        let own = match self {
            Interest::Read => libc::POLLIN | libc::POLLRDHUP,
            Interest::Write => libc::POLLOUT,
        };
        bits(own) | BROKEN
    }
}

/// Events as the ring has them.
const fn bits(events: libc::c_short) -> u32 {
    events.cast_unsigned() as u32
}

/// Something is wrong, or both sides are done.
const BROKEN: u32 = bits(libc::POLLERR | libc::POLLHUP);
/// Nothing more comes: what says so is not told again.
const LAST: u32 = bits(libc::POLLRDHUP) | BROKEN;
/// What is watched for.
const WATCHED: u32 = bits(libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP);

/// What a handle and its operation share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The socket.
    fd: OwnedFd,
    /// The rest.
    state: Mutex<State>,
}

/// See [`Shared`].
#[derive(Debug)]
struct State {
    /// What it is ready for, as far as is known.
    ready: u32,
    /// What the waker waits for.
    wanted: u32,
    /// Who waits.
    waker: Option<Waker>,
    /// The operation, while it is in flight.
    key: Option<Key>,
    /// Set when the kernel does not watch it.
    failed: Option<i32>,
    /// Whether the handle is gone.
    closed: bool,
}

impl Shared {
    /// The state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remember under which key it is watched. `false` when it is already, or needs not to be.
    pub(super) fn starts(&self, key: Key) -> bool {
        let mut state = self.state();
        if state.closed || state.key.is_some() || state.failed.is_some() {
            return false;
        }
        state.key = Some(key);
        true
    }
}

/// The operation.
#[derive(Debug)]
pub(super) struct Watch {
    /// For whom.
    pub(super) socket: Arc<Shared>,
}

impl Watch {
    /// For the submission queue.
    pub(super) fn entry(&self) -> squeue::Entry {
        opcode::PollAdd::new(types::Fd(self.fd()), WATCHED).multi(true).build()
    }

    /// The socket's descriptor.
    pub(super) fn fd(&self) -> RawFd {
        self.socket.fd.as_raw_fd()
    }

    /// Something has happened.
    pub(super) fn complete(self, completion: Completion, tick: &mut Tick<'_>) -> Next {
        let mut state = self.socket.state();
        match completion.result {
            Ok(events) => state.ready |= events & (WATCHED | BROKEN),
            Err(libc::ECANCELED | libc::EINTR) => {}
            // No memory, say: whoever waits hears of it.
            Err(number) => state.failed = Some(number),
        }
        if state.failed.is_some() || state.ready & state.wanted != 0 {
            state.wanted = 0;
            tick.wake.extend(state.waker.take());
        }
        if completion.more {
            drop(state);
            return Next::Wait(Op::Watch(self));
        }
        state.key = None;
        let again = !state.closed && state.failed.is_none() && !tick.ended;
        drop(state);
        if again {
            tick.later.push(Errand::Watch(self.socket));
        }
        Next::Done
    }
}

/// A socket in non-blocking mode of which a ring says when it is ready. Dropping it closes it.
#[derive(Debug)]
pub struct Watched {
    /// Shared with the operation.
    shared: Arc<Shared>,
    /// The ring.
    office: Arc<Office>,
}

impl Watched {
    /// Take over a socket in non-blocking mode, on the calling thread's ring. The kernel is asked
    /// to watch it when somebody first has to wait.
    ///
    /// # Errors
    /// `ENOTCONN` on a thread without a ring.
    pub fn adopt(fd: OwnedFd) -> io::Result<Watched> {
        let office = super::current_office().ok_or(io::ErrorKind::NotConnected)?;
        // What is not known yet is tried.
        let state = State {
            ready: bits(libc::POLLIN | libc::POLLOUT),
            wanted: 0,
            waker: None,
            key: None,
            failed: None,
            closed: false,
        };
        Ok(Watched { shared: Arc::new(Shared { fd, state: Mutex::new(state) }), office })
    }

    /// Whether it may be ready. Otherwise the task is woken when it is; one task waits at a time.
    ///
    /// # Errors
    /// When the kernel does not watch it: out of memory, or the ring has ended.
    pub fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        let mut state = self.shared.state();
        if state.ready & interest.events() != 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(number) = state.failed {
            return Poll::Ready(Err(error(number)));
        }
        if self.office.has_ended() {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        state.wanted |= interest.events();
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            place => *place = Some(cx.waker().clone()),
        }
        let idle = state.key.is_none();
        drop(state);
        if idle {
            self.office.run(Errand::Watch(Arc::clone(&self.shared)));
        }
        Poll::Pending
    }

    /// Whether the kernel has told that nothing more comes.
    pub fn has_end(&self) -> bool {
        self.shared.state().ready & LAST != 0
    }

    /// A system call has said `EAGAIN`, or less than it might have: not ready until the kernel
    /// says so again. Bytes that are followed by an end stay ready, for the end is told once.
    pub fn drained(&self, interest: Interest) {
        let mut state = self.shared.state();
        if interest == Interest::Write || state.ready & LAST == 0 {
            state.ready &= !(interest.events() & !LAST);
        }
    }

    /// Bytes that were written and have not arrived (`SIOCOUTQ`, tcp(7)): over TCP those that the
    /// peer's kernel has not acknowledged; of a unix socket the memory of those that the peer has
    /// not read, which is more than their number. 0 where the kernel does not say.
    pub fn unsent(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open for as long as `self` lives; this request writes one `int`
        // to the address that it is given, which is that of `bytes`, before the call is over.
        let result = unsafe {
            libc::ioctl(self.shared.fd.as_raw_fd(), libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes))
        };
        if result == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
    }

    /// A system call has said `EAGAIN` although the kernel had told of an end.
    pub fn would_block(&self, interest: Interest) {
        self.shared.state().ready &= !interest.events();
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let key = {
            let mut state = self.shared.state();
            state.closed = true;
            state.waker = None;
            state.key
        };
        // The operation holds the socket until it has ended.
        if let Some(key) = key {
            self.office.run(Errand::Cancel(key));
        }
    }
}
