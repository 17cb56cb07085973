//! Accept: one operation that goes on (multishot) for as long as the listener lives.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use io_uring::{opcode, squeue, types};
use nix::sys::socket::{self, SockFlag};
use socket2::SockRef;

use super::op::{Attempt, Completion, Next, Op, Tick};
use super::slots::Key;
use super::socket::{Socket, error};
use super::{Errand, Office};
use crate::limits;

/// What a listener and its operation share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The listening socket.
    fd: OwnedFd,
    /// The flags of its connections, as `accept4(2)` has them.
    flags: SockFlag,
    /// The rest.
    state: Mutex<State>,
}

/// See [`Shared`].
#[derive(Debug, Default)]
pub(super) struct State {
    /// Connections that nobody has asked for yet.
    waiting: VecDeque<io::Result<OwnedFd>>,
    /// Who waits for one.
    waker: Option<Waker>,
    /// The operation, while it is in flight.
    pub(super) key: Option<Key>,
    /// Whether it was told to stop.
    stopping: bool,
    /// Whether the listener is gone.
    pub(super) closed: bool,
}

impl Shared {
    /// The state.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operation.
#[derive(Debug)]
pub(super) struct Accept {
    /// For whom.
    pub(super) listener: Arc<Shared>,
}

impl Accept {
    /// For the submission queue.
    pub(super) fn entry(&self) -> squeue::Entry {
        opcode::AcceptMulti::new(types::Fd(self.listener.fd.as_raw_fd()))
            .flags(self.listener.flags.bits())
            .build()
    }

    /// The listener's descriptor.
    pub(super) fn fd(&self) -> RawFd {
        self.listener.fd.as_raw_fd()
    }

    /// Take one connection. `accept4(2)` has no flag that keeps it from waiting.
    pub(super) fn attempt(&self) -> Attempt {
        // Each time: another process that has the listener, as in an upgrade, may change its mode.
        if let Err(error) = SockRef::from(&self.listener.fd).set_nonblocking(true) {
            return Attempt::Ended(Err(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        match socket::accept4(self.fd(), self.listener.flags) {
            Ok(number) => Attempt::GoesOn { result: number as u32, all: false },
            Err(error) => Attempt::failed(error),
        }
    }

    /// Somebody has connected, or nobody will.
    pub(super) fn complete(self, completion: Completion, tick: &mut Tick<'_>) -> Next {
        let mut state = self.listener.state();
        match completion.result {
            Ok(number) => {
                // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
                let fd = unsafe { OwnedFd::from_raw_fd(number as i32) };
                // One that was accepted while it was being cancelled is closed here.
                if !state.closed {
                    state.waiting.push_back(Ok(fd));
                }
            }
            Err(libc::ECANCELED | libc::EINTR | libc::ECONNABORTED) => {}
            Err(number) => state.waiting.push_back(Err(error(number))),
        }
        tick.wake.extend(state.waker.take());
        let full = state.waiting.len() >= limits::LISTENER_WAITING_MAX;
        if completion.more {
            if (full || state.closed) && !state.stopping {
                state.stopping = true;
                tick.cancel.extend(state.key);
            }
            drop(state);
            return Next::Wait(Op::Accept(self));
        }
        (state.key, state.stopping) = (None, false);
        // After an error (no descriptor left, say) whoever asks next begins anew.
        let again = !state.closed && !full && completion.result.is_ok();
        drop(state);
        if again {
            tick.later.push(Errand::Accept(self.listener));
        }
        Next::Done
    }
}

/// A listening socket of a ring.
#[derive(Debug)]
pub struct Listener {
    /// Shared with the operation.
    shared: Arc<Shared>,
    /// The ring.
    office: Arc<Office>,
}

impl Listener {
    /// Take over a listening socket, on the calling thread's ring.
    ///
    /// # Errors
    /// `ENOTCONN` on a thread without a ring; what `fcntl(2)` says.
    pub fn new(fd: OwnedFd) -> io::Result<Listener> {
        Listener::with_flags(fd, SockFlag::SOCK_CLOEXEC)
    }

    /// As [`Listener::new`], for connections that will be watched ([`super::Watched`]) and not
    /// become sockets of this ring: they are in non-blocking mode.
    ///
    /// # Errors
    /// See there.
    pub fn of_watched(fd: OwnedFd) -> io::Result<Listener> {
        Listener::with_flags(fd, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
    }

    /// See [`Listener::new`].
    fn with_flags(fd: OwnedFd, flags: SockFlag) -> io::Result<Listener> {
        let office = super::current_office().ok_or(io::ErrorKind::NotConnected)?;
        // The mode is that of every core that shares the socket: whoever accepts by itself would
        // wait in the system call.
        if !super::is_readiness() {
            socket2::SockRef::from(&fd).set_nonblocking(false)?;
        }
        Ok(Listener { shared: Arc::new(Shared { fd, flags, state: Mutex::default() }), office })
    }

    /// The next connection, as a socket of this ring.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        self.poll_descriptor(cx).map_ok(|fd| Socket::new(fd, Arc::clone(&self.office)))
    }

    /// The next connection's descriptor.
    pub fn poll_descriptor(&self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let (taken, idle) = {
            let mut state = self.shared.state();
            let taken = state.waiting.pop_front();
            if taken.is_none() {
                state.waker = Some(cx.waker().clone());
            }
            (taken, state.key.is_none())
        };
        if idle {
            self.office.run(Errand::Accept(Arc::clone(&self.shared)));
        }
        match taken {
            None if self.office.has_ended() => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Some(fd) => Poll::Ready(fd),
            None => Poll::Pending,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let key = {
            let mut state = self.shared.state();
            state.closed = true;
            state.waiting.clear();
            state.key
        };
        if let Some(key) = key {
            self.office.run(Errand::Cancel(key));
        }
    }
}
