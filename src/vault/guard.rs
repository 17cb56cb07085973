//! What keeps other users from a key file: its permissions and those above it, or a platform that
//! guards it, by name.
//!
//! ```text
//!   permissions of the whole way (fs-mistrust) --no--> a platform's rule --no--> the first's error
//!                     | yes                                  | yes
//!                     v                                      v
//!              Guard::Permissions       SystemdCredential, KubernetesSecret, DockerSecret
//! ```
//!
//! Platforms mount secrets with rights that would be wrong on a disk: 0444, 0644, in a directory of
//! mode 1777. There the container, or the unit's own mount, keeps others out. Each rule wants a
//! file system in memory and a way that only root and we can change. A file on a disk that others
//! can read is never taken. [`decide`] is the whole decision, on facts alone.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs, statfs};

/// `RAMFS_MAGIC` of linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Where Docker and Podman put secrets.
const DOCKER_SECRETS: &str = "/run/secrets";

/// Permission bits by which group and others write.
const OTHERS_WRITE: u32 = 0o022;

/// Only the owner of a file may replace it in its directory.
const STICKY: u32 = 0o1000;

/// What keeps other users from reading a key file and from replacing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Its own permissions, and those of every directory on the way to it.
    Permissions,
    /// systemd: a credential of this unit, below `$CREDENTIALS_DIRECTORY`, in memory.
    SystemdCredential,
    /// Kubernetes: a secret's volume, which is a tmpfs of its own in this container.
    KubernetesSecret,
    /// Docker or Podman: a secret below `/run/secrets`, on a tmpfs of this container.
    DockerSecret,
}

impl fmt::Display for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Guard::Permissions => "its permissions and those of every directory above it",
            Guard::SystemdCredential => "systemd: a credential of this unit, in memory",
            Guard::KubernetesSecret => "Kubernetes: a secret's volume, a tmpfs of this container",
            Guard::DockerSecret => "Docker: a secret in /run/secrets, on a tmpfs of this container",
        })
    }
}

/// A file or a directory, as far as the rules look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// A regular file, and not a directory or a link.
    pub(super) is_file: bool,
    /// Its user.
    pub(super) owner: u32,
    /// Its group.
    pub(super) group: u32,
    /// Its permission bits, with the sticky bit.
    pub(super) mode: u32,
    /// The file system that it is on.
    pub(super) device: u64,
    /// Whether that is a tmpfs or a ramfs.
    pub(super) in_memory: bool,
}

/// The volume of a Kubernetes secret: `NAME -> ..data/NAME`, and `..data -> ..TIME`.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    /// The volume's root.
    pub(super) root: Node,
    /// The directory that it is mounted in.
    pub(super) above: Node,
    /// Owners of both links.
    pub(super) link_owners: [u32; 2],
    /// The directories from `..TIME` down to the file.
    pub(super) inside: Vec<Node>,
}

/// What is so about a key file.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Our user.
    pub(super) us: u32,
    /// Our group.
    pub(super) our_group: u32,
    /// The file behind every link.
    pub(super) file: Node,
    /// Its directory.
    pub(super) directory: Node,
    /// That directory is `$CREDENTIALS_DIRECTORY`.
    pub(super) is_credential: bool,
    /// That directory is `/run/secrets`; then the file system of `/run`.
    pub(super) run_device: Option<u64>,
    /// The volume, where the path leads through the links of one.
    pub(super) volume: Option<Volume>,
    /// Every directory above the secret's own is root's or ours, and others change nothing there.
    pub(super) way_is_ours: bool,
}

/// Which platform guards the file, if one does; else what comes closest, for the error.
///
/// # Errors
/// A clause on what a platform's secret has to be and this is not; nothing where it looks like
/// none.
pub(super) fn decide(facts: &Facts) -> Result<Guard, Option<&'static str>> {
    let trusted = |owner: u32| owner == 0 || owner == facts.us;
    let closed = |node: &Node| trusted(node.owner) && node.mode & OTHERS_WRITE == 0;
    let kept = |node: &Node| closed(node) || (trusted(node.owner) && node.mode & STICKY != 0);
    let file = &facts.file;
    let usable = file.is_file && closed(file) && facts.way_is_ours;

    if facts.is_credential {
        // The group's bits are the mask of an access list, by which systemd lets the unit's user
        // in.
        let group = file.mode & 0o070 == 0 || [0, facts.our_group].contains(&file.group);
        let private = file.mode & 0o007 == 0 && facts.directory.mode & 0o007 == 0;
        let unit = closed(&facts.directory) && group && private;
        return if usable && unit && file.in_memory && facts.directory.in_memory {
            Ok(Guard::SystemdCredential)
        } else {
            Err(Some("a credential of systemd is in memory, and others have no rights to it"))
        };
    }
    if let Some(volume) = &facts.volume {
        let mount = volume.root.device != volume.above.device && volume.root.in_memory;
        let links = volume.link_owners.into_iter().all(trusted);
        let inside = volume.inside.iter().all(closed) && file.device == volume.root.device;
        return if usable && mount && kept(&volume.root) && links && inside && file.in_memory {
            Ok(Guard::KubernetesSecret)
        } else {
            Err(Some("a Kubernetes secret is on a tmpfs of its own that only root changes"))
        };
    }
    if let Some(run) = facts.run_device {
        let mount = file.device != run && file.in_memory;
        return if usable && mount && kept(&facts.directory) {
            Ok(Guard::DockerSecret)
        } else {
            Err(Some("a secret of Docker is on a tmpfs of its own that only root changes"))
        };
    }
    Err(None)
}

/// Look at what `path` leads to, which is open as `file`. `credentials`: `$CREDENTIALS_DIRECTORY`.
///
/// # Errors
/// The system's answer.
pub(super) fn look(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    credentials: Option<&Path>,
) -> io::Result<Facts> {
    let path = std::path::absolute(path)?;
    let real = path.canonicalize()?;
    let directory = parent(&real);
    let volume = volume(&path, &real)?;
    let secret = match &volume {
        Some((root, _)) => root.clone(),
        None => directory.clone(),
    };
    let us = nix::unistd::geteuid().as_raw();
    let credentials = credentials.and_then(|credentials| credentials.canonicalize().ok());
    let run_device = match directory == Path::new(DOCKER_SECRETS) {
        true => Some(Path::new("/run").metadata()?.dev()),
        false => None,
    };
    Ok(Facts {
        us,
        our_group: nix::unistd::getegid().as_raw(),
        file: Node::new(metadata, is_in_memory(fstatfs(file)?.filesystem_type())),
        directory: Node::at(&directory)?,
        is_credential: credentials.is_some_and(|credentials| credentials == directory),
        run_device,
        volume: volume.map(|(_, volume)| volume),
        way_is_ours: is_ours(&secret, us)?,
    })
}

impl Node {
    /// From what stat(2) says.
    fn new(metadata: &Metadata, in_memory: bool) -> Node {
        Node {
            is_file: metadata.is_file(),
            owner: metadata.uid(),
            group: metadata.gid(),
            mode: metadata.mode() & 0o7777,
            device: metadata.dev(),
            in_memory,
        }
    }

    /// What is at a path that has no links in it.
    fn at(path: &Path) -> io::Result<Node> {
        Ok(Node::new(&path.metadata()?, is_in_memory(statfs(path)?.filesystem_type())))
    }
}

/// Whether a file system keeps everything in memory.
fn is_in_memory(kind: FsType) -> bool {
    [TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind)
}

/// The directory that something lies in; of `/`, itself.
fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

/// Whether everything above `directory` belongs to root or to us, and others can neither write
/// there nor, where they can, move what is not theirs.
fn is_ours(directory: &Path, us: u32) -> io::Result<bool> {
    for above in directory.ancestors().skip(1) {
        let metadata = above.metadata()?;
        let trusted = [0, us].contains(&metadata.uid());
        if !trusted || (metadata.mode() & OTHERS_WRITE != 0 && metadata.mode() & STICKY == 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The volume of a Kubernetes secret that `path` leads through, with its root, if it does.
fn volume(path: &Path, real: &Path) -> io::Result<Option<(PathBuf, Volume)>> {
    for link in path.ancestors() {
        let (Some(name), Ok(target)) = (link.file_name(), link.read_link()) else { continue };
        if target != Path::new("..data").join(name) {
            continue;
        }
        let root = parent(link).canonicalize()?;
        let data = root.join("..data");
        let Ok(time) = data.read_link() else { continue };
        let one = matches!(time.components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
        let dir = root.join(&time);
        if !one || !time.to_string_lossy().starts_with("..") || !real.starts_with(&dir) {
            continue;
        }
        let inside = real.ancestors().skip(1).take_while(|above| above.starts_with(&dir));
        let volume = Volume {
            root: Node::at(&root)?,
            above: Node::at(&parent(&root))?,
            link_owners: [link.symlink_metadata()?.uid(), data.symlink_metadata()?.uid()],
            inside: inside.map(Node::at).collect::<Result<_, _>>()?,
        };
        return Ok(Some((root, volume)));
    }
    Ok(None)
}
