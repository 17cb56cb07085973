//! Whether this kernel, and whatever confines this process, allow what a [`super::Ring`] needs.
//!
//! The floor is Linux 6.1 (`DEFER_TASKRUN`). Containers often forbid io_uring altogether (`EPERM`),
//! and so does `kernel.io_uring_disabled`. Nothing is believed that was not tried: the probe makes
//! a ring, receives over a socket pair with it, and drops it.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::op::Op;
use super::socket::Socket;
use super::{Errand, Ring};
use crate::runtime::Io;

/// Why io_uring is not used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It is forbidden.
    #[error(
        "io_uring is forbidden here (a container's seccomp profile, or kernel.io_uring_disabled)"
    )]
    Forbidden,
    /// It is not there, or not all of it.
    #[error("this kernel's io_uring is too old: Linux 6.1 is needed")]
    TooOld,
    /// Memory or descriptors are short.
    #[error("io_uring does not start: {0}")]
    Refused(#[source] io::Error),
    /// It is there and does not do what it should.
    #[error("io_uring does not receive over a socket pair")]
    Broken,
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> ProbeError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => ProbeError::Forbidden,
            Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP) => ProbeError::TooOld,
            _ => ProbeError::Refused(error),
        }
    }
}

/// Try it.
///
/// # Errors
/// Why io_uring cannot be used.
pub fn probe() -> Result<(), ProbeError> {
    let mut ring = Ring::new(Io::Uring)?;
    let (ours, theirs) = UnixStream::pair()?;
    io::Write::write_all(&mut &theirs, b"?")?;
    let socket = Socket::new(ours.into(), ring.office());
    ring.do_errand(Errand::Receive(socket.shared()));
    let mut wake = Vec::new();
    for _ in 0..10 {
        ring.turn(Some(Duration::from_millis(100)), &mut wake)?;
        if socket.has_received() {
            return Ok(());
        }
    }
    // A kernel without multishot receive says so in the operation's result.
    let receiving = ring.slots.iter().any(|operation| matches!(operation, Op::Receive(_)));
    Err(if receiving { ProbeError::Broken } else { ProbeError::TooOld })
}
