//! Connections to backends, on whichever driver the calling core has: a ring on data cores, tokio
//! on the control core and in tests.

use std::ffi::OsStr;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockAddr, SockRef};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{tcp, unix};

use super::kernel_socket::KernelSocket;
use super::look_up::{LOOK_UPS, LookUpCounts};
use super::ring;
use crate::base::stream::{OnionRead, OnionStream, OnionWrite};

/// A connection. Polled on the core that made it.
#[derive(Debug)]
pub enum Stream {
    /// On a ring, over whatever.
    Ring(ring::Socket),
    /// On the control core, over TCP.
    Tcp(tokio::net::TcpStream),
    /// On the control core, to a unix socket.
    Unix(tokio::net::UnixStream),
    /// To somebody in this process.
    Pipe(DuplexStream),
    /// On a data core, for bytes of another socket of the kernel's.
    Kernel(KernelSocket),
    /// Through Tor, to another onion service.
    Onion(OnionStream),
}

/// Ports that the kernel gives out by itself (`ip_local_port_range`, ip(7)); all where it does not
/// say.
static OWN_PORTS: LazyLock<RangeInclusive<u16>> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let text = text.unwrap_or_default();
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 0..=u16::MAX,
    }
});

/// Whether a connection to this address may be one with itself: where nobody listens, a port among
/// those that the kernel gives out by itself may answer itself (TCP's simultaneous open).
pub(super) fn may_answer_itself(peer: &SockAddr) -> bool {
    peer.as_socket().is_some_and(|peer| OWN_PORTS.contains(&peer.port()))
}

/// Connect over TCP.
///
/// # Errors
/// What `connect(2)` says, and `ECONNREFUSED` for a connection with itself
/// ([`may_answer_itself`]).
pub async fn connect_tcp(peer: SocketAddr) -> io::Result<Stream> {
    // Whoever writes here batches; what is written shall leave now.
    let check = |socket: socket2::SockRef<'_>| {
        if may_answer_itself(&peer.into()) && socket.local_addr()?.as_socket() == Some(peer) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        socket.set_tcp_nodelay(true)
    };
    match ring::current_office() {
        Some(office) => {
            let socket = ring::connect(office, SockAddr::from(peer)).await?;
            check((&socket).into())?;
            Ok(Stream::Ring(socket))
        }
        None => {
            let socket = tokio::net::TcpStream::connect(peer).await?;
            check((&socket).into())?;
            Ok(Stream::Tcp(socket))
        }
    }
}

/// Connect to a unix socket; a path that begins with a zero byte is an abstract name.
///
/// # Errors
/// What `connect(2)` says: `EAGAIN` when the listener's queue is full.
pub async fn connect_unix(path: &Path) -> io::Result<Stream> {
    match ring::current_office() {
        Some(office) => Ok(Stream::Ring(ring::connect(office, SockAddr::unix(path)?).await?)),
        None => Ok(Stream::Unix(tokio::net::UnixStream::connect(path).await?)),
    }
}

/// Connect to a socket of either kind.
///
/// # Errors
/// See [`connect_tcp`] and [`connect_unix`].
pub async fn connect(peer: &SockAddr) -> io::Result<Stream> {
    match (peer.as_socket(), peer.as_pathname(), peer.as_abstract_namespace()) {
        (Some(peer), ..) => connect_tcp(peer).await,
        (None, Some(path), _) => connect_unix(path).await,
        (None, None, Some(name)) => {
            let path = [b"\0", name].concat();
            connect_unix(Path::new(OsStr::from_bytes(&path))).await
        }
        (None, None, None) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Ask the system's resolver, on a thread where it may block, what a name stands for.
///
/// # Errors
/// What it says; that it says nothing within [`crate::limits::LOOK_UP_SECONDS_MAX`]; or that other
/// look-ups hang, and there is no thread to ask on.
pub async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let name = host.clone();
    let ask =
        move || (host.as_str(), port).to_socket_addrs().map(|found| found.collect::<Vec<_>>());
    LOOK_UPS.ask(&name, ask).await?
}

/// What has become of look-ups so far.
pub fn look_ups() -> LookUpCounts {
    LOOK_UPS.counts()
}

impl Stream {
    /// Both directions apart. The connection closes with the second.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Ring(socket) => {
                let socket = Arc::new(socket);
                (ReadHalf::Ring(Arc::clone(&socket)), WriteHalf::Ring(socket))
            }
            Stream::Tcp(socket) => {
                let (read, write) = socket.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Stream::Unix(socket) => {
                let (read, write) = socket.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
            Stream::Pipe(pipe) => {
                let (read, write) = tokio::io::split(pipe);
                (ReadHalf::Pipe(read), WriteHalf::Pipe(write))
            }
            Stream::Kernel(socket) => {
                let socket = Arc::new(socket);
                (ReadHalf::Kernel(Arc::clone(&socket)), WriteHalf::Kernel(socket))
            }
            Stream::Onion(OnionStream { read, write }) => {
                (ReadHalf::Onion(read), WriteHalf::Onion(write))
            }
        }
    }
}

/// What the other side sends.
#[derive(Debug)]
pub enum ReadHalf {
    /// On a ring.
    Ring(Arc<ring::Socket>),
    /// On the control core, over TCP.
    Tcp(tcp::OwnedReadHalf),
    /// On the control core, from a unix socket.
    Unix(unix::OwnedReadHalf),
    /// From somebody in this process.
    Pipe(tokio::io::ReadHalf<DuplexStream>),
    /// See [`Stream::Kernel`].
    Kernel(Arc<KernelSocket>),
    /// From another onion service.
    Onion(Box<dyn OnionRead>),
}

/// What the other side gets.
#[derive(Debug)]
pub enum WriteHalf {
    /// On a ring.
    Ring(Arc<ring::Socket>),
    /// On the control core, over TCP.
    Tcp(tcp::OwnedWriteHalf),
    /// On the control core, to a unix socket.
    Unix(unix::OwnedWriteHalf),
    /// To somebody in this process.
    Pipe(tokio::io::WriteHalf<DuplexStream>),
    /// See [`Stream::Kernel`].
    Kernel(Arc<KernelSocket>),
    /// To another onion service.
    Onion(Box<dyn OnionWrite>),
}

impl WriteHalf {
    /// Have the connection end with a reset when it closes: what it has carried is not all of it. A
    /// pipe, a unix socket and a stream to an onion service have none.
    pub fn reset_on_close(&self) {
        let socket = match self {
            WriteHalf::Ring(socket) => SockRef::from(&**socket),
            WriteHalf::Tcp(socket) => SockRef::from(socket.as_ref()),
            WriteHalf::Kernel(socket) => SockRef::from(&**socket),
            WriteHalf::Unix(_) | WriteHalf::Pipe(_) | WriteHalf::Onion(_) => return,
        };
        let _ = socket.set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadHalf::Ring(socket) => {
                let received = ready!(socket.poll_receive(cx, room.initialize_unfilled()))?;
                room.advance(received);
                Poll::Ready(Ok(()))
            }
            ReadHalf::Tcp(socket) => Pin::new(socket).poll_read(cx, room),
            ReadHalf::Unix(socket) => Pin::new(socket).poll_read(cx, room),
            ReadHalf::Pipe(pipe) => Pin::new(pipe).poll_read(cx, room),
            ReadHalf::Kernel(socket) => {
                let received = ready!(socket.poll_receive(cx, room.initialize_unfilled()))?;
                room.advance(received);
                Poll::Ready(Ok(()))
            }
            ReadHalf::Onion(stream) => Pin::new(stream).poll_read(cx, room),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WriteHalf::Ring(socket) => socket.poll_send(cx, &[io::IoSlice::new(bytes)]),
            WriteHalf::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            WriteHalf::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            WriteHalf::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            WriteHalf::Kernel(socket) => socket.poll_send(cx, bytes),
            WriteHalf::Onion(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Ring(socket) => socket.poll_sent(cx),
            WriteHalf::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            WriteHalf::Unix(socket) => Pin::new(socket).poll_flush(cx),
            WriteHalf::Pipe(pipe) => Pin::new(pipe).poll_flush(cx),
            WriteHalf::Kernel(_) => Poll::Ready(Ok(())),
            WriteHalf::Onion(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Ring(socket) => socket.poll_shutdown(cx),
            WriteHalf::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            WriteHalf::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            WriteHalf::Pipe(pipe) => Pin::new(pipe).poll_shutdown(cx),
            WriteHalf::Kernel(socket) => Poll::Ready(socket.shutdown_write()),
            WriteHalf::Onion(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
