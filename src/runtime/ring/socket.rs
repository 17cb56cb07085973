//! A connected socket of a ring: what its handle and its operations share.
//!
//! ```text
//!                 poll_read               receive.rs
//!   handle <---- received <--------------- kernel      not above a cap
//!          ----> outgoing ---> in flight -> kernel     one send at a time, gathers what came since
//!                 poll_write      send.rs
//! ```
//!
//! A socket stays with the ring that it was made on. Its handle may be polled and dropped on any
//! thread: the state is behind a lock that nobody holds for long, and what only the ring's own
//! thread can do is put to it as an [`Errand`].

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};

use super::bytes::Bytes;
use super::slots::Key;
use super::{Errand, Office, receive, send};
use crate::limits;

/// How receiving ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The peer has sent all it will send.
    Done,
    /// An error of this number.
    Failed(i32),
}

/// What handle and operations share.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Received and not read yet.
    pub(super) received: Bytes,
    /// The operation that receives, while there is one.
    pub(super) receiving: Option<Key>,
    /// Whether it was told to stop.
    pub(super) stopping: bool,
    /// Receives that are asked for one at a time before they go on by themselves again.
    pub(super) receives_once: u8,
    /// Buffers that a receive which goes on has filled, in a row.
    pub(super) full_in_a_row: u8,
    /// Set when nothing more will be received.
    pub(super) end: Option<End>,
    /// Who waits for bytes.
    pub(super) reader: Option<Waker>,
    /// Written and not given to the kernel yet.
    pub(super) outgoing: Vec<u8>,
    /// The operation that sends, while there is one.
    pub(super) sending: Option<Key>,
    /// Whether the ring knows that there is something to send.
    pub(super) dirty: bool,
    /// Set when nothing more can be sent.
    pub(super) send_failed: Option<i32>,
    /// Who waits for room, or for everything to be sent.
    pub(super) writer: Option<Waker>,
    /// Whether the handle is gone.
    pub(super) closed: bool,
}

impl State {
    /// Whether everything that was written is with the kernel.
    fn is_sent(&self) -> bool {
        self.outgoing.is_empty() && self.sending.is_none()
    }
}

/// A socket, without its handle.
#[derive(Debug)]
pub(super) struct Shared {
    /// The descriptor; closed when the handle and the last operation are gone.
    fd: OwnedFd,
    /// Where errands for its ring go.
    office: Arc<Office>,
    /// The rest.
    state: Mutex<State>,
}

impl Shared {
    /// The state.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor, for an operation that keeps this alive.
    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Bytes have come for the reader.
    pub(super) fn note_received(&self, bytes: usize) {
        self.office.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The reader has taken some, or will take none of them.
    fn note_read(&self, bytes: usize) {
        if bytes > 0 {
            self.office.received.fetch_sub(bytes as u64, Ordering::Relaxed);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let left = self.state().received.len();
        self.note_read(left);
    }
}

/// A handle to a connected socket. Dropping it closes the connection: what was written goes out
/// before that, for at most [`limits::SOCKET_LINGER_MS`].
#[derive(Debug)]
pub struct Socket {
    /// See there.
    shared: Arc<Shared>,
}

/// The error of a number, as the kernel gave it.
pub(super) fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl Socket {
    /// Take over a connected socket. It must not be in non-blocking mode: then the kernel would
    /// answer with `EAGAIN` instead of waiting.
    pub(super) fn new(fd: OwnedFd, office: Arc<Office>) -> Socket {
        let shared = Shared { fd, office, state: Mutex::default() };
        Socket { shared: Arc::new(shared) }
    }

    /// Take over a connected socket, in whatever mode it is, on the calling thread's ring.
    ///
    /// # Errors
    /// `ENOTCONN` on a thread without a ring; what `fcntl(2)` says.
    pub fn adopt(fd: OwnedFd) -> io::Result<Socket> {
        let office = super::current_office().ok_or(io::ErrorKind::NotConnected)?;
        socket2::SockRef::from(&fd).set_nonblocking(false)?;
        Ok(Socket::new(fd, office))
    }

    /// Have the ring's own thread do something for this socket.
    fn run(&self, errand: fn(Arc<Shared>) -> Errand) {
        self.shared.office.run(errand(Arc::clone(&self.shared)));
    }

    /// What the operations share with this handle.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Whether there is something to read.
    pub(super) fn has_received(&self) -> bool {
        self.shared.state().received.len() > 0
    }

    /// Read what has come. 0 bytes when the peer is done.
    pub fn poll_receive(&self, cx: &mut Context<'_>, wanted: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.state();
        let given = state.received.read(wanted);
        self.shared.note_read(given);
        let low = state.received.len() <= receive::waiting_max() / 2;
        let rearm = low && state.receiving.is_none() && state.end.is_none();
        if given > 0 || wanted.is_empty() {
            drop(state);
            if rearm {
                self.run(Errand::Receive);
            }
            return Poll::Ready(Ok(given));
        }
        match state.end {
            Some(End::Done) => return Poll::Ready(Ok(0)),
            Some(End::Failed(number)) => return Poll::Ready(Err(error(number))),
            None if self.shared.office.has_ended() => {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
            None => set(&mut state.reader, cx),
        }
        drop(state);
        if rearm {
            self.run(Errand::Receive);
            // It may have ended since: then nobody would wake the reader.
            if self.shared.office.has_ended() {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
        }
        Poll::Pending
    }

    /// Write what there is room for; it is sent at the end of the core's batch.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.state();
        if let Some(number) = state.send_failed {
            return Poll::Ready(Err(error(number)));
        }
        if self.shared.office.has_ended() {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        let mut room = limits::SOCKET_OUTGOING_BYTES_MAX.saturating_sub(state.outgoing.len());
        if room == 0 {
            set(&mut state.writer, cx);
            return Poll::Pending;
        }
        if state.outgoing.capacity() == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            state.outgoing = send::spare_vector();
        }
        let before = state.outgoing.len();
        for slice in slices {
            let taken = slice.len().min(room);
            state.outgoing.extend_from_slice(&slice[..taken]);
            room -= taken;
        }
        let written = state.outgoing.len() - before;
        let news = !state.dirty && state.sending.is_none() && written > 0;
        state.dirty |= news;
        drop(state);
        if news {
            self.run(Errand::Send);
        }
        Poll::Ready(Ok(written))
    }

    /// Wait until everything that was written is with the kernel.
    pub fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.state();
        if let Some(number) = state.send_failed {
            return Poll::Ready(Err(error(number)));
        }
        if self.shared.office.has_ended() {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        if state.is_sent() {
            return Poll::Ready(Ok(()));
        }
        set(&mut state.writer, cx);
        Poll::Pending
    }

    /// Wait until everything is sent, and tell the peer that nothing more comes.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_sent(cx))?;
        // Not by the ring, which would put it to a thread of the kernel's.
        socket2::SockRef::from(&self.shared.fd).shutdown(Shutdown::Write)?;
        Poll::Ready(Ok(()))
    }
}

impl AsFd for Socket {
    /// For what needs no ring.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }
}

/// Keep the waker of whoever polls.
fn set(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let in_flight = {
            let mut state = self.shared.state();
            state.closed = true;
            (state.reader, state.writer) = (None, None);
            self.shared.note_read(std::mem::take(&mut state.received).len());
            state.receiving.is_some() || state.sending.is_some() || state.dirty
        };
        // Closing a descriptor ends no operation: the last one to end closes it.
        if in_flight {
            self.run(Errand::Close);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        wanted: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, wanted)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shutdown(cx)
    }
}
