//! What the cgroups of this process grant, see cgroups(7).

use std::path::{Path, PathBuf};

/// Where cgroups are mounted.
pub(super) const MOUNT: &str = "/sys/fs/cgroup";

/// The cgroups of this process, as the kernel names them.
pub(super) fn own() -> String {
    std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// The smallest of what `read` finds in the cgroups that `own` (`/proc/self/cgroup`) names, and in
/// those above them, where cgroups are mounted below `root`; of version 1, in those of the
/// `controller`.
pub(super) fn smallest<T: PartialOrd>(
    root: &Path,
    own: &str,
    controller: &str,
    read: impl Fn(&Path) -> Option<T>,
) -> Option<T> {
    let mut smallest: Option<T> = None;
    for line in own.lines() {
        // "hierarchy:controllers:path"
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let mounts: Vec<PathBuf> = match controllers {
            "" => vec![root.to_owned(), root.join("unified")],
            _ if controllers.split(',').any(|one| one == controller) => {
                vec![root.join(controller), root.join(controllers)]
            }
            _ => continue,
        };
        for mount in mounts {
            // A container sees the path from outside, of which only the top is mounted in it.
            for group in Path::new(path.trim_start_matches('/')).ancestors() {
                if let Some(found) = read(&mount.join(group))
                    && smallest.as_ref().is_none_or(|other| found < *other)
                {
                    smallest = Some(found);
                }
            }
        }
    }
    smallest
}
