//! Where state lies when nothing is configured.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

/// The system's place for state.
pub const SYSTEM_STATE_DIR: &str = "/var/lib/rustbalance";

/// The state directory by default: [`SYSTEM_STATE_DIR`] for root and for a user who may write
/// there, else `rustbalance` in the user's XDG state directory (XDG Base Directory Specification
/// 0.8). Looks, and makes nothing.
pub fn default_state_dir() -> PathBuf {
    let system = Path::new(SYSTEM_STATE_DIR);
    let ours = geteuid().is_root() || access(system, AccessFlags::W_OK).is_ok();
    choose(ours, |name| std::env::var_os(name))
}

/// The choice, with the environment as an argument.
fn choose(system: bool, environment: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let directory = |name| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = directory("XDG_STATE_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".local/state")));
    match user {
        Some(user) if !system => user.join("rustbalance"),
        _ => PathBuf::from(SYSTEM_STATE_DIR),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::choose;

    #[test]
    fn the_system_comes_before_the_user_and_xdg_before_home() {
        let both = |name: &str| match name {
            "XDG_STATE_HOME" => Some("/home/a/state".into()),
            "HOME" => Some("/home/a".into()),
            _ => None,
        };
        let home = |name: &str| (name == "HOME").then(|| "/home/a".into());
        let relative = |_: &str| Some("state".into());
        assert_eq!(choose(true, both), Path::new("/var/lib/rustbalance"));
        assert_eq!(choose(false, both), Path::new("/home/a/state/rustbalance"));
        assert_eq!(choose(false, home), Path::new("/home/a/.local/state/rustbalance"));
        assert_eq!(choose(false, relative), Path::new("/var/lib/rustbalance"));
    }
}
