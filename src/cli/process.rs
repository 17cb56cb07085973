//! What the binary does to its own process, and a library must not: no core dumps, room for
//! descriptors, a TLS provider.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Make the process fit to hold a key.
///
/// # Errors
/// When the kernel refuses to switch core dumps off: then no key may be read.
pub fn harden() -> std::io::Result<()> {
    // A core dump would hold the master key. The soft limit stops the kernel's own file, the flag
    // also stops a handler named in core_pattern, and ptrace by others.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    set_dumpable(false)?;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
    }
    // An embedding program may have installed its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(())
}
