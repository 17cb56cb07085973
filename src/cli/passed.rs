//! Sockets that systemd passes (`sd_listen_fds(3)`), and how they go on to the process that takes
//! over.
//!
//! systemd says `LISTEN_FDS`, `LISTEN_FDNAMES`, and in `LISTEN_PID` for which process. A process
//! that is started to take over cannot be named before it is there: what it gets has its parent's
//! number.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::process::Command;

use command_fds::{CommandFdExt as _, FdMapping};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::app::{PassedSocket, PassedSockets};

/// The first descriptor, as `SD_LISTEN_FDS_START` has it.
const FIRST: RawFd = 3;
/// For which process.
const PID: &str = "LISTEN_PID";
/// How many.
const COUNT: &str = "LISTEN_FDS";
/// What they are called.
const NAMES: &str = "LISTEN_FDNAMES";

/// Take what was passed to this process, and what is of no use for a warning each. Nothing of it is
/// in the environment afterwards, and no child gets a descriptor.
///
/// Called once, before anything else: before a thread is started or a file is opened.
///
/// # Errors
/// One sentence, when the environment says what is not true.
pub(super) fn take(takes_over: bool) -> Result<(PassedSockets, Vec<String>), String> {
    let wrong = |error: std::io::Error| format!("{PID} or {COUNT} is wrong: {error}");
    let mut given: Vec<(RawFd, String)> = named(sd_notify::listen_fds().map_err(wrong)?).collect();
    if takes_over {
        given.extend(inherited());
    }
    // SAFETY: no other thread runs yet, so nobody reads the environment meanwhile.
    let unset = unsafe { sd_notify::listen_fds_with_names_and_unset_env() };
    // For its side effect: names without descriptors, as another process's are, are an error to it.
    drop(unset);
    let (mut sockets, mut useless) = (Vec::new(), Vec::new());
    for (number, name) in given {
        // SAFETY: it is open: its flags were just set, or the same program has put it there just
        // before this one began (`give`). Nobody else in this process owns it, as it was there
        // before the process was, and nothing was opened since.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        let private = fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        private.map_err(|error| format!("the descriptor {name:?} was passed: {error}"))?;
        match PassedSocket::new(fd, name.clone()) {
            Ok(socket) => sockets.push(socket),
            Err(error) => useless.push(format!("the descriptor {name:?} was passed: {error}")),
        }
    }
    Ok((sockets.into(), useless))
}

/// Descriptors with what they are called.
fn named(numbers: impl Iterator<Item = RawFd>) -> impl Iterator<Item = (RawFd, String)> {
    let names = std::env::var(NAMES).unwrap_or_default();
    let unknown = || "unknown".to_owned();
    let names: Vec<String> = match names.as_str() {
        "" => Vec::new(),
        names => names.split(':').map(str::to_owned).collect(),
    };
    numbers.zip(names.into_iter().chain(std::iter::repeat_with(unknown)))
}

/// What the process that this one takes over from has passed.
fn inherited() -> Vec<(RawFd, String)> {
    let said = |key: &str| std::env::var(key).unwrap_or_default();
    if said(PID) != nix::unistd::getppid().to_string() {
        return Vec::new();
    }
    let count = said(COUNT).parse().unwrap_or(0);
    named(FIRST..).take(count).collect()
}

/// Pass the sockets on to a child that takes over.
///
/// # Errors
/// When no descriptor is left.
pub(super) fn give(command: &mut Command, sockets: &PassedSockets) -> std::io::Result<()> {
    let mut mappings = Vec::new();
    for (child_fd, socket) in (FIRST..).zip(sockets.iter()) {
        let parent_fd = socket.as_fd().try_clone_to_owned()?;
        mappings.push(FdMapping { parent_fd, child_fd });
    }
    if mappings.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = sockets.iter().map(PassedSocket::name).collect();
    let environment = HashMap::from([
        (PID, std::process::id().to_string()),
        (COUNT, mappings.len().to_string()),
        (NAMES, names.join(":")),
    ]);
    command.envs(environment);
    command.fd_mappings(mappings).map_err(std::io::Error::other)?;
    Ok(())
}
