//! The socket of a link to a relay.
//!
//! Three things make it more than a TCP stream:
//! * **It moves.** A link is opened and its TLS handshake polled on the core that asked; its
//!   reactor then runs on a data core. At the first poll from another core a socket of tokio's is
//!   taken off the old core's driver and given to the new one, so that its readiness wakes no third
//!   party. One task owns the stream at any time, so a move cannot race with a poll. A socket of a
//!   ring stays with its ring, which serves it from wherever it is polled.
//! * **It reads ahead.** rustls asks for 4 KiB at a time; one `recv` here brings up to
//!   [`limits::LINK_READ_AHEAD_BYTES`], and a ring receives without being asked.
//! * **It counts** bytes for status.
//!
//! Made by [`super::CoreRuntime`]'s `connect`, owned by the TLS stream above it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use tokio::io::ReadBuf;
use tokio::net::{TcpSocket, TcpStream};
use tor_rtcompat::StreamOps;

use super::attempts::Attempt;
use super::core::{CoreId, LinkRecord, current_core, current_group};
use super::ring;
use crate::limits;

/// The socket, on the driver of a data core or of the control core.
enum Socket {
    /// On tokio, registered with the driver of this core.
    Tokio(TcpStream, Option<CoreId>),
    /// On a ring.
    Ring(ring::Socket),
}

/// A TCP connection to a relay, polled on one core at a time.
pub struct LinkStream {
    /// The socket; `None` only while it moves, or after a move failed.
    socket: Option<Socket>,
    /// Bytes that tokio has received and nobody has asked for yet: `ahead[start..end]`.
    ahead: Box<[u8]>,
    /// Start of the unread part.
    start: usize,
    /// End of the unread part.
    end: usize,
    /// What status shows of this link. `None` on a thread that is no core (tests).
    record: Option<Arc<LinkRecord>>,
}

/// Whether links can go out from an address.
///
/// # Errors
/// What `bind(2)` says: `EADDRNOTAVAIL` for an address that this machine does not have.
pub fn check_source(source: Ipv4Addr) -> io::Result<()> {
    std::net::UdpSocket::bind((source, 0)).map(drop)
}

/// A socket for a link to `peer`, which goes out from `source` if there is one.
fn unconnected(peer: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(peer);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if let Some(source) = source {
        if !peer.is_ipv4() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        // The port is chosen when the peer is known (ip(7)): one port can then serve many peers.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    Ok(socket)
}

impl LinkStream {
    /// Connect to a relay's OR port from the calling core, and from the address of its stack where
    /// one is set.
    ///
    /// # Errors
    /// What `bind(2)` and `connect(2)` say; `EADDRNOTAVAIL` for a relay's IPv6 address where links
    /// go out from IPv4 addresses.
    pub(super) async fn connect(peer: SocketAddr) -> io::Result<LinkStream> {
        let attempt = Attempt::begin(current_group());
        let link = LinkStream::open(peer).await;
        attempt.end(&link);
        link
    }

    /// See [`LinkStream::connect`].
    async fn open(peer: SocketAddr) -> io::Result<LinkStream> {
        let group = current_group();
        let socket = unconnected(peer, group.as_ref().and_then(|group| group.source()))?;
        let socket = match ring::current_office() {
            Some(office) => Socket::Ring(ring::connect_socket(office, socket, peer.into()).await?),
            None => {
                socket.set_nonblocking(true)?;
                let socket = TcpSocket::from_std_stream(socket.into());
                Socket::Tokio(socket.connect(peer).await?, current_core())
            }
        };
        // Cells are batched above us; what is flushed shall leave now.
        match &socket {
            Socket::Tokio(socket, _) => socket.set_nodelay(true)?,
            Socket::Ring(socket) => socket2::SockRef::from(socket).set_tcp_nodelay(true)?,
        }
        Ok(LinkStream {
            socket: Some(socket),
            ahead: Box::default(),
            start: 0,
            end: 0,
            record: group.map(|group| group.record_link(peer)),
        })
    }

    /// The socket, on the calling core's driver.
    fn socket(&mut self) -> io::Result<&mut Socket> {
        let here = current_core();
        if let Some(Socket::Tokio(_, registered)) = &self.socket
            && here.is_some()
            && *registered != here
        {
            self.move_here(here)?;
        }
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Take a socket of tokio's from the core that it is registered with.
    fn move_here(&mut self, here: Option<CoreId>) -> io::Result<()> {
        let Some(Socket::Tokio(socket, _)) = self.socket.take() else { return Ok(()) };
        let socket = socket.into_std()?;
        self.socket = Some(match ring::current_office() {
            Some(_) => Socket::Ring(ring::Socket::adopt(socket.into())?),
            None => Socket::Tokio(TcpStream::from_std(socket)?, here),
        });
        if let (Some(record), Some(core)) = (&self.record, here) {
            record.core.store(core.index(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Give what was read ahead.
    fn read_ahead(&mut self, wanted: &mut [u8]) -> usize {
        let given = wanted.len().min(self.end - self.start);
        wanted[..given].copy_from_slice(&self.ahead[self.start..self.start + given]);
        self.start += given;
        given
    }

    /// Count what was received.
    fn received(&self, length: usize) {
        if let Some(record) = &self.record {
            record.bytes_in.fetch_add(length as u64, Ordering::Relaxed);
        }
    }

    /// Count what was sent.
    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(sent)), Some(record)) = (&polled, &self.record) {
            record.bytes_out.fetch_add(*sent as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        wanted: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.start < this.end {
            return Poll::Ready(Ok(this.read_ahead(wanted)));
        }
        let mut ahead = std::mem::take(&mut this.ahead);
        let polled = match this.socket() {
            Ok(Socket::Ring(socket)) => {
                // What was read ahead before the socket moved is used up, and none is from now on.
                let polled = socket.poll_receive(cx, wanted);
                if let Poll::Ready(Ok(length)) = &polled {
                    this.received(*length);
                }
                return polled;
            }
            Ok(Socket::Tokio(socket, _)) => {
                if ahead.is_empty() {
                    ahead = vec![0; limits::LINK_READ_AHEAD_BYTES].into_boxed_slice();
                }
                let mut buffer = ReadBuf::new(&mut ahead);
                let polled = tokio::io::AsyncRead::poll_read(Pin::new(socket), cx, &mut buffer);
                polled.map_ok(|()| buffer.filled().len())
            }
            Err(error) => Poll::Ready(Err(error)),
        };
        this.ahead = ahead;
        let length = ready!(polled)?;
        (this.start, this.end) = (0, length);
        this.received(length);
        Poll::Ready(Ok(this.read_ahead(wanted)))
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match this.socket()? {
            Socket::Ring(socket) => socket.poll_send(cx, slices),
            Socket::Tokio(socket, _) => {
                tokio::io::AsyncWrite::poll_write_vectored(Pin::new(socket), cx, slices)
            }
        };
        this.sent(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().socket()? {
            // What was written is sent at the end of the batch: nobody has to wait for it.
            Socket::Ring(_) => Poll::Ready(Ok(())),
            Socket::Tokio(socket, _) => tokio::io::AsyncWrite::poll_flush(Pin::new(socket), cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().socket()? {
            Socket::Ring(socket) => socket.poll_shutdown(cx),
            Socket::Tokio(socket, _) => tokio::io::AsyncWrite::poll_shutdown(Pin::new(socket), cx),
        }
    }
}

// KIST is for relays; a service does not set TCP_NOTSENT_LOWAT.
impl StreamOps for LinkStream {}
