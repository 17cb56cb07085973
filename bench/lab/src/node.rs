//! One C tor process: its torrc, its start, its log.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::keeper::Keeper;
use crate::namespaces::Namespaces;
use crate::wait::{last_lines, wait_until};

/// What every node has in its torrc.
pub(crate) const COMMON: &str = "TestingTorNetwork 1
PathsNeededToBuildCircuits 0.67
TestingDirAuthVoteExit *
TestingDirAuthVoteHSDir *
TestingDirAuthVoteGuard *
TestingMinExitFlagThreshold 0
V3AuthNIntervalsValid 2
ShutdownWaitLength 0
CookieAuthentication 1
SafeLogging 0
Sandbox 0
";

/// A directory that tor accepts.
pub(crate) fn make_directory(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    crate::set_private(dir)
}

/// The log of the node in `dir`.
pub(crate) fn log(dir: &Path) -> PathBuf {
    dir.join("notice.log")
}

/// Write a torrc: what every node has, where its files are, and `own`.
pub(crate) fn write_torrc(dir: &Path, own: &str) -> Result<PathBuf> {
    let path = dir.join("torrc");
    let text = format!(
        "{COMMON}DataDirectory {}\nPidFile {}\nLog notice file {}\n{own}",
        dir.display(),
        dir.join("pid").display(),
        log(dir).display(),
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// On which side of the lab a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// With the relays.
    Relays,
    /// With clients and services.
    Services,
}

/// A command for `program` on one side.
pub(crate) fn command(namespaces: Option<&Namespaces>, side: Side, program: &str) -> Command {
    match (namespaces, side) {
        (None, _) => Command::new(program),
        (Some(namespaces), Side::Relays) => namespaces.relay_command(program),
        (Some(namespaces), Side::Services) => namespaces.service_command(program),
    }
}

/// Start the tor whose torrc is in `dir`.
pub(crate) fn start(
    keeper: &Keeper,
    namespaces: Option<&Namespaces>,
    side: Side,
    dir: &Path,
) -> Result<Child> {
    let _ = std::fs::remove_file(log(dir));
    keeper.spawn(
        command(namespaces, side, "tor")
            .arg("-f")
            .arg(dir.join("torrc"))
            .arg("--quiet")
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
}

/// Wait until the node's log has `text`.
pub(crate) fn wait_for_log(dir: &Path, child: &mut Child, text: &str, seconds: u64) -> Result<()> {
    let path = log(dir);
    let found = wait_until(text, seconds, || {
        if std::fs::read_to_string(&path).is_ok_and(|log| log.contains(text)) {
            return Some(true);
        }
        child.try_wait().ok().flatten().map(|_| false)
    });
    match found {
        Ok(true) => Ok(()),
        Ok(false) => bail!("tor in {} ended:\n{}", dir.display(), last_lines(&path, 8)),
        Err(error) => {
            Err(error.context(format!("tor in {}:\n{}", dir.display(), last_lines(&path, 8))))
        }
    }
}
