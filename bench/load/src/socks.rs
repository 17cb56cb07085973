//! A stream to the onion service, through a SOCKS5 proxy, on circuits of one user name.
//!
//! The handshake is `tokio-socks`'s. It folds every reply code above 0x08 into one error, and tor's
//! extended codes are exactly those: so a witness beside the socket keeps the first bytes that the
//! proxy sends, and the reply code is read from there.
//!
//! ```text
//!   proxy sends   05 02   | 01 00        | 05 REPLY 00 ATYP ...      (RFC 1928, RFC 1929)
//!                 method    login, only    reply
//!                           for method 2
//! ```

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

use crate::failure::Failure;
use crate::target::Target;

/// The password of every user name: tor looks at both, so one of them may stay the same.
const PASSWORD: &str = "x";

/// Bytes of the proxy that are kept: method, login, and the first two of the reply.
const KEPT: usize = 6;

/// A user name that nobody had before: 128 random bits.
pub(crate) fn fresh_user() -> String {
    format!("rb-load-{:032x}", rand::random::<u128>())
}

/// Open a stream to `target`.
pub(crate) async fn connect(
    proxy: SocketAddr,
    target: &Target,
    user: &str,
) -> Result<TcpStream, Failure> {
    let tcp = TcpStream::connect(proxy).await.map_err(|_| Failure::Connect)?;
    // A request is one small write: it shall not wait for anything.
    tcp.set_nodelay(true).map_err(|_| Failure::Connect)?;
    let mut witness = Witness { tcp, kept: [0; KEPT], count: 0 };
    let to = (target.host(), target.port());
    let stream =
        Socks5Stream::connect_with_password_and_socket(&mut witness, to, user, PASSWORD).await;
    match stream {
        Ok(_) => Ok(witness.tcp),
        Err(_) => Err(refusal(&witness.kept[..witness.count])),
    }
}

/// What the bytes of a proxy say whose handshake failed.
fn refusal(bytes: &[u8]) -> Failure {
    let reply = match bytes {
        [5, 2, _, 0, reply @ ..] => reply,
        [5, 0, reply @ ..] => reply,
        _ => return Failure::SocksHandshake,
    };
    match reply {
        [5, code, ..] if *code != 0 => Failure::SocksReply(*code),
        _ => Failure::SocksHandshake,
    }
}

/// A socket whose first bytes are kept as they are read.
struct Witness {
    tcp: TcpStream,
    kept: [u8; KEPT],
    count: usize,
}

impl AsyncRead for Witness {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(context, buffer);
        let this = &mut *self;
        let free = &mut this.kept[this.count..];
        let fresh = &buffer.filled()[before..];
        let length = free.len().min(fresh.len());
        free[..length].copy_from_slice(&fresh[..length]);
        this.count += length;
        polled
    }
}

impl AsyncWrite for Witness {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::{fresh_user, refusal};
    use crate::failure::Failure;

    #[test]
    fn the_reply_code_is_found_with_and_without_a_login() {
        assert_eq!(refusal(&[5, 2, 1, 0, 5, 0xF2]), Failure::SocksReply(0xF2));
        assert_eq!(refusal(&[5, 0, 5, 4, 0, 1]), Failure::SocksReply(4));
    }

    #[test]
    fn whatever_broke_off_earlier_is_a_failed_handshake() {
        let broken: [&[u8]; 6] =
            [&[], &[5], &[5, 0xFF], &[5, 2, 1, 1, 5, 4], &[5, 2, 1, 0, 5, 0], b"HTTP/1"];
        for bytes in broken {
            assert_eq!(refusal(bytes), Failure::SocksHandshake, "{bytes:?}");
        }
    }

    /// Two names are never the same, and SOCKS allows 255 bytes.
    #[test]
    fn user_names_differ_and_are_short() {
        assert_ne!(fresh_user(), fresh_user());
        assert!(fresh_user().len() < 255);
    }
}
