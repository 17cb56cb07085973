//! What the binary does to its own process, and a library must not: no core dumps, room for
//! descriptors, a TLS provider, a successor.

use std::process::Command;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

use super::passed;
use crate::app::PassedSockets;

/// Switch core dumps off: one would hold the master key. Before any command reads a key.
///
/// # Errors
/// When the kernel refuses: then no key may be read.
pub fn no_core_dumps() -> std::io::Result<()> {
    // The limit stops the kernel's own file; the flag also stops a handler named in core_pattern,
    // and ptrace by others.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    set_dumpable(false)?;
    Ok(())
}

/// Make the process fit to serve: files for nobody else, room for descriptors, and a TLS provider.
pub fn prepare() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
    }
    // An embedding program may have installed its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Start the program that lies at our path now, with the same arguments, to take over from this
/// process, and with the sockets that were passed to this one.
pub fn start_successor(sockets: &PassedSockets) {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_else(|| "rustbalance".into());
    let mut command = Command::new(&program);
    command
        .args(arguments.filter(|argument| argument != TAKE_OVER))
        .arg(TAKE_OVER)
        // systemd's watchdog is fed by whoever serves.
        .env_remove("WATCHDOG_PID");
    let started = passed::give(&mut command, sockets).and_then(|()| command.spawn());
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            return tracing::error!("cannot start {}: {error}; going on", program.display());
        }
    };
    // It outlives this process, unless it fails.
    let waiting = std::thread::Builder::new().name("successor".to_owned()).spawn(move || {
        if let Ok(status) = child.wait() {
            tracing::warn!("the process that was started to take over has ended: {status}");
        }
    });
    if let Err(error) = waiting {
        tracing::warn!("nobody waits for the new process: {error}");
    }
}

/// The argument that has a process take over.
const TAKE_OVER: &str = "--take-over";
