//! Whether this kernel, and whatever confines this process, allow what a [`super::Ring`] needs.
//!
//! The floor is Linux 6.1 (`DEFER_TASKRUN`). Containers often forbid io_uring altogether (`EPERM`),
//! and so does `kernel.io_uring_disabled`. Nothing is believed that was not tried: the probe makes
//! a ring, receives over a socket pair with it, and drops it.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::op::Op;
use super::socket::Socket;
use super::{Errand, Ring};
use crate::limits;
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
    #[error("io_uring does not start: {}", explain(.0))]
    Refused(#[source] io::Error),
    /// There is memory for some of the rings that are needed.
    #[error("{made} of {wanted} rings can be made: {}", explain(.source))]
    TooFew {
        /// Those that could be made at the same time.
        made: usize,
        /// Those that are needed: one for each data core.
        wanted: usize,
        /// Why not the next one.
        #[source]
        source: io::Error,
    },
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

/// How many rings can be made at the same time, beside what this user's processes hold already; and
/// why not `wanted`, where they cannot. All are gone afterwards.
pub fn probe_rings(wanted: usize) -> (usize, Option<io::Error>) {
    let (mut rings, mut tries) = (Vec::new(), limits::RING_TRIES_MAX);
    while rings.len() < wanted {
        match Ring::new(Io::Uring) {
            Ok(ring) => rings.push(ring),
            // The kernel gives back what another one held some time after it was closed.
            Err(error) if tries > 1 && error.raw_os_error() == Some(libc::ENOMEM) => {
                tries -= 1;
                std::thread::sleep(Duration::from_millis(limits::RING_TRY_MS));
            }
            Err(error) => return (rings.len(), Some(error)),
        }
    }
    (rings.len(), None)
}

/// Why a ring cannot be made, and what helps: where the kernel counts rings as locked memory, the
/// limit is one of all processes of the user, so also of both in an upgrade.
pub fn explain(error: &io::Error) -> String {
    if error.raw_os_error() != Some(libc::ENOMEM) {
        return error.to_string();
    }
    let limit = match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft != RLIM_INFINITY => format!("{} kB", soft / 1024),
        _ => "not set".to_owned(),
    };
    format!(
        "{error}: the limit of locked memory is {limit} for all processes of this user; raise it \
         (systemd: LimitMEMLOCK=64M, a shell: ulimit -l, a container: --ulimit memlock)"
    )
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
