//! What the binary does to its own process, and a library must not: no core dumps, room for
//! descriptors, a TLS provider.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

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

/// Make the process fit to serve: room for descriptors, and a TLS provider.
pub fn prepare() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
    }
    // An embedding program may have installed its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
