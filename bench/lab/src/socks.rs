//! A connection through tor's SOCKS port, and a request over it.
//!
//! Blocking and small on purpose: what measures must be easy to trust. SOCKS5 with a user name
//! (RFC 1928, RFC 1929): tor gives each user name circuits of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Where a SOCKS port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocksAddress {
    /// On loopback.
    Tcp(SocketAddr),
    /// A unix socket, which can be reached from another network namespace.
    Unix(PathBuf),
}

/// A stream through tor.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP to the client.
    Tcp(TcpStream),
    /// Over a unix socket to the client.
    Unix(UnixStream),
}

impl Stream {
    /// A second handle to the same stream.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn try_clone(&self) -> std::io::Result<Stream> {
        match self {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        }
    }

    /// Bound every read and write.
    ///
    /// # Errors
    /// When the timeout is zero.
    pub fn set_timeout(&self, timeout: Duration) -> std::io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    /// Close the writing side.
    ///
    /// # Errors
    /// When it is closed already.
    pub fn shutdown_write(&self) -> std::io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Connect to `host:port` through tor, on circuits that `user` alone has.
pub(crate) fn connect(
    socks: &SocksAddress,
    host: &str,
    port: u16,
    user: &str,
    timeout: Duration,
) -> Result<Stream> {
    let mut stream = match socks {
        SocksAddress::Tcp(address) => Stream::Tcp(TcpStream::connect_timeout(address, timeout)?),
        SocksAddress::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
    };
    stream.set_timeout(timeout)?;
    // Version 5, one method: user name and password.
    stream.write_all(&[5, 1, 2])?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).context("no SOCKS greeting")?;
    let length = u8::try_from(user.len()).context("the user name is too long")?;
    let mut login = vec![1, length];
    login.extend_from_slice(user.as_bytes());
    login.extend_from_slice(&[1, b'x']);
    stream.write_all(&login)?;
    stream.read_exact(&mut answer).context("no SOCKS login")?;
    let length = u8::try_from(host.len()).context("the host name is too long")?;
    let mut request = vec![5, 1, 0, 3, length];
    request.extend_from_slice(host.as_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).context("no SOCKS answer in time")?;
    if head[1] != 0 {
        bail!("tor answers with SOCKS error {}", head[1]);
    }
    // The address that tor is bound to: of no use, but it has to be read.
    let rest = match head[3] {
        1 => 4 + 2,
        4 => 16 + 2,
        other => bail!("SOCKS address type {other}"),
    };
    let mut bound = [0; 18];
    stream.read_exact(&mut bound[..rest])?;
    Ok(stream)
}
