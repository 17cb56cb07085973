//! From what was typed to what it means: `[ctor]`.

use std::path::{Path, PathBuf};

use super::check::Checker;
use super::{Ctor, Service};
use crate::config::address::{self, AddressError};
use crate::config::raw::RawCtor;
use crate::limits::{CTOR_INSTANCES_MAX, SOCKET_SUFFIX_BYTES_MAX};

/// tor, wherever it is installed.
pub(super) const BINARY_DEFAULT: &str = "tor";

/// Check the table. Where daemons have their sockets depends on `state_dir`.
pub(super) fn check_ctor(
    raw: &RawCtor,
    state_dir: &Path,
    services: &[Service],
    checker: &mut Checker<'_>,
) -> Ctor {
    let instances = checker.number(raw.instances.as_ref(), 0..=CTOR_INSTANCES_MAX, 0);
    let binary = match &raw.binary {
        None => PathBuf::from(BINARY_DEFAULT),
        // A name alone is looked for where programs are.
        Some(typed) if !typed.value.is_empty() && !typed.value.contains('/') => {
            PathBuf::from(&typed.value)
        }
        Some(typed) => checker.path(typed),
    };
    let extra = raw.extra_torrc.as_ref().filter(|typed| !typed.value.is_empty());
    let extra_torrc = extra.map(|typed| checker.path(typed));
    let ctor = Ctor { instances, binary, extra_torrc };
    if let (Some(typed), Err(error)) = (&raw.instances, check_sockets(&ctor, state_dir, services)) {
        let fix = "use a shorter state_dir or a shorter name for the service";
        checker.problems.push(typed.problem(error.reason(), fix));
    }
    ctor
}

/// Whether the system can name the daemons' sockets in this state directory.
pub(super) fn check_sockets(
    ctor: &Ctor,
    state_dir: &Path,
    services: &[Service],
) -> Result<(), AddressError> {
    if ctor.instances == 0 {
        return Ok(());
    }
    let directory = Ctor::daemon_dir(state_dir, ctor.instances);
    services.iter().try_for_each(|service| {
        let mut longest = Ctor::socket(&directory, &service.name).into_os_string();
        // It is made under another name first.
        longest.push("x".repeat(SOCKET_SUFFIX_BYTES_MAX));
        address::check_unix_path(Path::new(&longest))
    })
}
