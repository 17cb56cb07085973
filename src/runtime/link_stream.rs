//! The socket of a link to a relay.
//!
//! Three things make it more than a TCP stream:
//! * **It moves.** A link is opened and its TLS handshake polled on the core that asked; its
//!   reactor then runs on a data core. At the first poll from another core the socket is taken off
//!   the old core's driver and registered with the new one, so that its readiness wakes no third
//!   party. One task owns the stream at any time, so a move cannot race with a poll.
//! * **It reads ahead.** rustls asks for 4 KiB at a time; one `recv` here brings up to
//!   [`limits::LINK_READ_AHEAD_BYTES`].
//! * **It counts** bytes for status.
//!
//! Made by [`super::CoreRuntime`]'s `connect`, owned by the TLS stream above it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tor_rtcompat::StreamOps;

use super::core::{CoreId, LinkRecord, current_core, current_group};
use crate::limits;

/// A TCP connection to a relay, polled on one core at a time.
pub struct LinkStream {
    /// The socket; `None` only while it moves, or after a move failed.
    socket: Option<TcpStream>,
    /// The core with whose driver the socket is registered.
    registered: Option<CoreId>,
    /// Bytes that were received and not asked for yet: `ahead[start..end]`.
    ahead: Box<[u8]>,
    /// Start of the unread part.
    start: usize,
    /// End of the unread part.
    end: usize,
    /// What status shows of this link. `None` on a thread that is no core (tests).
    record: Option<Arc<LinkRecord>>,
}

impl LinkStream {
    /// Connect to a relay's OR port from the calling core.
    ///
    /// # Errors
    /// What `connect(2)` says.
    pub(super) async fn connect(peer: SocketAddr) -> io::Result<LinkStream> {
        let socket = TcpStream::connect(peer).await?;
        // Cells are batched above us; what is flushed shall leave now.
        socket.set_nodelay(true)?;
        Ok(LinkStream {
            socket: Some(socket),
            registered: current_core(),
            ahead: vec![0; limits::LINK_READ_AHEAD_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            record: current_group().map(|group| group.record_link(peer)),
        })
    }

    /// The socket, registered with the calling core's driver.
    fn socket(&mut self) -> io::Result<&mut TcpStream> {
        let here = current_core();
        if here != self.registered && here.is_some() {
            let socket = self.socket.take().ok_or(io::ErrorKind::NotConnected)?;
            self.socket = Some(TcpStream::from_std(socket.into_std()?)?);
            self.registered = here;
            if let (Some(record), Some(core)) = (&self.record, here) {
                record.core.store(core.index(), Ordering::Relaxed);
            }
        }
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        wanted: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.start == this.end {
            let mut ahead = std::mem::take(&mut this.ahead);
            let mut buffer = ReadBuf::new(&mut ahead);
            let polled = match this.socket() {
                Ok(socket) => tokio::io::AsyncRead::poll_read(Pin::new(socket), cx, &mut buffer),
                Err(error) => Poll::Ready(Err(error)),
            };
            let received = buffer.filled().len();
            this.ahead = ahead;
            ready!(polled)?;
            (this.start, this.end) = (0, received);
            if let Some(record) = &this.record {
                record.bytes_in.fetch_add(received as u64, Ordering::Relaxed);
            }
        }
        let given = wanted.len().min(this.end - this.start);
        wanted[..given].copy_from_slice(&this.ahead[this.start..this.start + given]);
        this.start += given;
        Poll::Ready(Ok(given))
    }
}

impl LinkStream {
    /// Count what was sent.
    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(sent)), Some(record)) = (&polled, &self.record) {
            record.bytes_out.fetch_add(*sent as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = tokio::io::AsyncWrite::poll_write(Pin::new(this.socket()?), cx, bytes);
        this.sent(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let socket = Pin::new(this.socket()?);
        let polled = tokio::io::AsyncWrite::poll_write_vectored(socket, cx, slices);
        this.sent(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(Pin::new(self.get_mut().socket()?), cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(self.get_mut().socket()?), cx)
    }
}

// KIST is for relays; a service does not set TCP_NOTSENT_LOWAT.
impl StreamOps for LinkStream {}
