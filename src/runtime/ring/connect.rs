//! Connect, over TCP or to a unix socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use io_uring::{opcode, squeue, types};
use socket2::{SockAddr, SockRef};

use super::op::{Attempt, Completion, Next, Op, Tick};
use super::slots::Key;
use super::socket::{Socket, error};
use super::{Errand, Office};

/// What a future and its operation share.
#[derive(Debug, Default)]
struct Answer {
    /// What came of it.
    result: Option<io::Result<OwnedFd>>,
    /// Who waits.
    waker: Option<Waker>,
    /// Its operation, while it is in flight.
    key: Option<Key>,
    /// Whether nobody waits any more.
    given_up: bool,
}

/// The operation.
#[derive(Debug)]
pub(super) struct Connect {
    /// The socket; closed if nobody wants it in the end.
    fd: OwnedFd,
    /// Where to: on the heap, for the kernel reads it when it comes to that.
    peer: Box<SockAddr>,
    /// Who wants to know.
    answer: Arc<Mutex<Answer>>,
}

impl Connect {
    /// For the submission queue.
    pub(super) fn entry(&self) -> squeue::Entry {
        let peer = self.peer.as_ptr().cast();
        opcode::Connect::new(types::Fd(self.fd.as_raw_fd()), peer, self.peer.len()).build()
    }

    /// The socket's descriptor.
    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Begin, or see what came of it. The socket stays in non-blocking mode, which nothing that is
    /// done with it later minds.
    pub(super) fn attempt(&self, first: bool) -> Attempt {
        let socket = SockRef::from(&self.fd);
        let result = match first {
            true => socket.set_nonblocking(true).and_then(|()| socket.connect(&self.peer)),
            false => socket.take_error().and_then(|error| error.map_or(Ok(()), Err)),
        };
        match result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)) {
            Ok(()) => Attempt::Ended(Ok(0)),
            Err(libc::EINPROGRESS) => Attempt::WouldWait,
            Err(number) => Attempt::Ended(Err(number)),
        }
    }

    /// Remember under which key it is in flight. `false` when nobody waits any more.
    pub(super) fn starts(&self, key: Key) -> bool {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.key = Some(key);
        !answer.given_up
    }

    /// It is connected, or not.
    pub(super) fn complete(self, completion: Completion, tick: &mut Tick<'_>) -> Next {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        // What is cancelled in mid-connect ends with this as well.
        if completion.result == Err(libc::EINTR) && !answer.given_up && !tick.ended {
            drop(answer);
            return Next::Again(Op::Connect(self));
        }
        answer.key = None;
        tick.wake.extend(answer.waker.take());
        answer.result = Some(match completion.result {
            Ok(_) => Ok(self.fd),
            Err(number) => Err(error(number)),
        });
        Next::Done
    }
}

/// A connection that is being made. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Connecting {
    /// The ring.
    office: Arc<Office>,
    /// Shared with the operation.
    answer: Arc<Mutex<Answer>>,
}

/// Begin to connect a new socket to `peer`.
///
/// # Errors
/// When there is no descriptor left.
pub(super) fn connect(office: &Arc<Office>, fd: OwnedFd, peer: SockAddr) -> Connecting {
    let answer: Arc<Mutex<Answer>> = Arc::default();
    let operation = Connect { fd, peer: Box::new(peer), answer: Arc::clone(&answer) };
    office.run(Errand::Connect(operation));
    Connecting { office: Arc::clone(office), answer }
}

impl Future for Connecting {
    type Output = io::Result<Socket>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.result.take() {
            Some(result) => Poll::Ready(result.map(|fd| Socket::new(fd, Arc::clone(&self.office)))),
            None if self.office.has_ended() => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            None => {
                answer.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let key = {
            let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
            answer.given_up = true;
            answer.waker = None;
            answer.key
        };
        if let Some(key) = key {
            self.office.run(Errand::Cancel(key));
        }
    }
}
