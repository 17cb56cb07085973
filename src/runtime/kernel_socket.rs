//! A socket that is read and written by system calls of its core's own, as soon as its ring says
//! that they will not wait.
//!
//! For bytes that go from one socket of the kernel's to another: `splice(2)` moves them without a
//! copy to user space, which an io_uring would leave to a thread of the kernel's; and a socket that
//! is idle holds no buffer. Streams of Tor circuits, whose bytes are in user space anyway, use
//! [`super::ring::Socket`].

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncRead, AsyncWrite};
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::socket::{self, MsgFlags};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::net;
use super::ring::{Interest, Watched};

/// See the module. One task at a time polls it.
#[derive(Debug)]
pub struct KernelSocket {
    /// The descriptor, and whether it is ready.
    watched: Watched,
}

impl KernelSocket {
    /// Take over a connected socket in non-blocking mode, on the calling core.
    ///
    /// # Errors
    /// `ENOTCONN` on a thread that is no data core.
    pub fn adopt(fd: OwnedFd) -> io::Result<KernelSocket> {
        Ok(KernelSocket { watched: Watched::adopt(fd)? })
    }

    /// Connect over TCP or to a unix socket, on the calling core.
    ///
    /// # Errors
    /// What `socket(2)` and `connect(2)` say; for a unix socket `EAGAIN` when the listener's queue
    /// is full; `ECONNREFUSED` for a connection with itself ([`super::net::connect_tcp`]).
    pub async fn connect(peer: SockAddr) -> io::Result<KernelSocket> {
        let domain = Domain::from(i32::from(peer.family()));
        let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking(), None)?;
        if !peer.is_unix() {
            // Whoever writes here batches; what is written shall leave now.
            socket.set_tcp_nodelay(true)?;
        }
        let waits = match socket.connect(&peer) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => true,
            Err(error) => return Err(error),
        };
        let socket = KernelSocket::adopt(OwnedFd::from(socket))?;
        if waits {
            socket.watched.would_block(Interest::Write);
            std::future::poll_fn(|cx| socket.watched.poll_ready(cx, Interest::Write)).await?;
            if let Some(error) = SockRef::from(&socket).take_error()? {
                return Err(error);
            }
        }
        if net::may_answer_itself(&peer)
            && SockRef::from(&socket).local_addr()?.as_socket() == peer.as_socket()
        {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if !waits {
            // Nobody has said anything yet, most likely: the kernel tells. Once it watches, it has
            // told perhaps.
            socket.watched.drained(Interest::Read);
        }
        Ok(socket)
    }

    /// Do a system call until it would wait; then have the task woken when it would not.
    fn poll_call(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut call: impl FnMut(&Watched) -> nix::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.watched.poll_ready(cx, interest))?;
            match call(&self.watched) {
                Err(nix::Error::EAGAIN) => self.watched.would_block(interest),
                Err(nix::Error::EINTR) => {}
                done => return Poll::Ready(done.map_err(io::Error::from)),
            }
        }
    }

    /// Look at what has come without taking it: `recv(2)` with `MSG_PEEK`. The task that finds too
    /// little says so by [`KernelSocket::wait_for_more`].
    pub fn poll_peek(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_call(cx, Interest::Read, |fd| {
            socket::recv(fd.as_fd().as_raw_fd(), room, MsgFlags::MSG_PEEK)
        })
    }

    /// Whether the kernel has told that nothing more comes.
    pub fn has_end(&self) -> bool {
        self.watched.has_end()
    }

    /// The next [`KernelSocket::poll_peek`] waits until something comes.
    pub fn wait_for_more(&self) {
        self.watched.drained(Interest::Read);
    }

    /// Take bytes that are known to be there, of which more may follow at once.
    pub fn poll_take(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_call(cx, Interest::Read, |fd| {
            socket::recv(fd.as_fd().as_raw_fd(), room, MsgFlags::empty())
        })
    }

    /// Take what has come. 0 bytes when the peer is done.
    pub fn poll_receive(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let wanted = room.len();
        let received = ready!(self.poll_take(cx, room))?;
        if received < wanted {
            self.watched.drained(Interest::Read);
        }
        Poll::Ready(Ok(received))
    }

    /// Send what there is room for.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(self.poll_call(cx, Interest::Write, |fd| {
            socket::send(fd.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)
        }))?;
        if sent < bytes.len() {
            self.watched.drained(Interest::Write);
        }
        Poll::Ready(Ok(sent))
    }

    /// Move what has come into a pipe, which has to be empty: a full one would look like a socket
    /// without bytes. 0 bytes when the peer is done.
    pub fn poll_splice_in(&self, cx: &mut Context<'_>, pipe: &Pipe) -> Poll<io::Result<usize>> {
        self.poll_call(cx, Interest::Read, |fd| {
            splice(fd.as_fd(), None, &pipe.write, None, pipe.bytes, SPLICE)
        })
    }

    /// Send `length` bytes that are in a pipe, or as many as there is room for.
    pub fn poll_splice_out(
        &self,
        cx: &mut Context<'_>,
        pipe: &Pipe,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_call(cx, Interest::Write, |fd| {
            splice(&pipe.read, None, fd.as_fd(), None, length, SPLICE)
        })
    }

    /// Bytes that were sent and have not arrived, as [`Watched::unsent`] counts them.
    pub fn unsent(&self) -> usize {
        self.watched.unsent()
    }

    /// Tell the peer that nothing more comes.
    ///
    /// # Errors
    /// What `shutdown(2)` says: `ENOTCONN` when the peer is gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }
}

/// `splice(2)` does not wait, and moves pages rather than copying them.
const SPLICE: SpliceFFlags = SpliceFFlags::SPLICE_F_NONBLOCK.union(SpliceFFlags::SPLICE_F_MOVE);

impl AsFd for KernelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}

impl AsyncRead for KernelSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, room)
    }
}

impl AsyncWrite for KernelSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_send(cx, first.map_or(&[], |slice| slice))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

/// A pipe that bytes pass through on their way from one socket to another.
#[derive(Debug)]
pub struct Pipe {
    /// Where they come out.
    read: OwnedFd,
    /// Where they go in.
    write: OwnedFd,
    /// How many fit.
    bytes: usize,
}

impl Pipe {
    /// An empty one, for `bytes` where the kernel allows (`fs.pipe-user-pages-soft`), else for what
    /// it has by default.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn new(bytes: usize) -> io::Result<Pipe> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let wanted = i32::try_from(bytes).unwrap_or(i32::MAX);
        let size = match fcntl(&write, FcntlArg::F_SETPIPE_SZ(wanted)) {
            Ok(size) => size,
            Err(_) => fcntl(&write, FcntlArg::F_GETPIPE_SZ)?,
        };
        Ok(Pipe { read, write, bytes: usize::try_from(size).unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use socket2::SockAddr;

    use super::{KernelSocket, Pipe};
    use crate::runtime::{Driver, ring};

    /// Run on a data core of each engine that can be used here.
    fn on_cores<F: Future<Output = ()>>(main: impl Fn() -> F) {
        for io in ring::tests::engines() {
            Driver::for_data_core(io).expect("descriptors are left").block_on(main());
        }
    }

    /// One of ours and the other end.
    fn pair() -> (KernelSocket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("there are descriptors");
        ours.set_nonblocking(true).expect("it is open");
        (KernelSocket::adopt(ours.into()).expect("this is a core"), theirs)
    }

    #[test]
    fn a_reader_is_woken_by_bytes_and_by_an_end_that_come_later() {
        on_cores(|| async {
            let (mut ours, mut theirs) = pair();
            let other = std::thread::spawn(move || {
                for word in ["bytes ", "that come ", "in pieces"] {
                    theirs.write_all(word.as_bytes()).expect("it is connected");
                }
            });
            let mut text = String::new();
            ours.read_to_string(&mut text).await.expect("it ends in good order");
            assert_eq!(text, "bytes that come in pieces");
            other.join().expect("the other end does not panic");
        });
    }

    #[test]
    fn a_writer_waits_for_room() {
        on_cores(|| async {
            let (mut ours, mut theirs) = pair();
            let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
            let expected = sent.clone();
            let other = std::thread::spawn(move || {
                let mut received = Vec::new();
                theirs.read_to_end(&mut received).expect("it is connected");
                received == expected
            });
            ours.write_all(&sent).await.expect("it is connected");
            ours.close().await.expect("it is connected");
            assert!(other.join().expect("the other end does not panic"));
        });
    }

    #[test]
    fn what_was_sent_is_counted_until_it_has_arrived() {
        on_cores(|| async {
            let (mut ours, mut theirs) = pair();
            assert_eq!(ours.unsent(), 0);
            ours.write_all(b"some bytes").await.expect("it is connected");
            assert!(ours.unsent() >= 10);
            theirs.read_exact(&mut [0; 10]).expect("it is connected");
            assert_eq!(ours.unsent(), 0);
        });
    }

    #[test]
    fn bytes_pass_through_a_pipe_and_what_was_looked_at_is_still_there() {
        on_cores(|| async {
            let (ours, mut theirs) = pair();
            theirs.write_all(b"header and body").expect("it is connected");
            let mut room = [0; 100];
            let seen = std::future::poll_fn(|cx| ours.poll_peek(cx, &mut room)).await;
            assert_eq!(seen.ok(), Some(15));
            let taken = std::future::poll_fn(|cx| ours.poll_receive(cx, &mut room[..7])).await;
            assert_eq!((taken.ok(), &room[..7]), (Some(7), b"header ".as_slice()));
            let pipe = Pipe::new(64 * 1024).expect("there are descriptors");
            let moved = std::future::poll_fn(|cx| ours.poll_splice_in(cx, &pipe)).await;
            assert_eq!(moved.ok(), Some(8));
            let moved = std::future::poll_fn(|cx| ours.poll_splice_out(cx, &pipe, 8)).await;
            assert_eq!(moved.ok(), Some(8));
            let mut back = [0; 8];
            theirs.read_exact(&mut back).expect("it is connected");
            assert_eq!(&back, b"and body");
        });
    }

    #[test]
    fn what_is_dropped_is_closed_and_nothing_stays_in_flight() {
        on_cores(|| async {
            let (ours, mut theirs) = pair();
            let mut room = [0; 10];
            let waiting = std::future::poll_fn(|cx| ours.poll_receive(cx, &mut room));
            let waited = crate::runtime::timeout(Duration::from_millis(20), waiting).await;
            assert!(waited.is_err());
            drop(ours);
            while ring::in_flight() > 0 {
                crate::runtime::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(theirs.read(&mut [0; 1]).expect("it is closed in good order"), 0);
        });
    }

    #[test]
    fn nobody_listens() {
        on_cores(|| async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
            let peer = listener.local_addr().expect("it is bound");
            let connected = KernelSocket::connect(SockAddr::from(peer)).await;
            connected.expect("somebody listens");
            drop(listener);
            let refused = KernelSocket::connect(SockAddr::from(peer)).await;
            let kind = refused.map(drop).expect_err("nobody listens").kind();
            assert_eq!(kind, std::io::ErrorKind::ConnectionRefused);
        });
    }
}
