//! Platforms that guard a key file: the decision on facts, and real mounts.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::vault::file::read_beside;
use crate::vault::guard::{Facts, Guard, Node, Volume, decide};
use crate::vault::{KeyError, MasterKey};

/// The disk, and the tmpfs of a secret.
const DISK: u64 = 1;
const TMPFS: u64 = 2;

/// Something of root's on a tmpfs.
fn node(mode: u32) -> Node {
    Node { is_file: false, owner: 0, group: 0, mode, device: TMPFS, in_memory: true }
}

/// A file of root's on a tmpfs, which a user without rights reads.
fn facts(file: u32, directory: u32) -> Facts {
    Facts {
        us: 1000,
        our_group: 1000,
        file: Node { is_file: true, ..node(file) },
        directory: node(directory),
        is_credential: false,
        run_device: None,
        volume: None,
        way_is_ours: true,
    }
}

fn credential() -> Facts {
    Facts { is_credential: true, ..facts(0o440, 0o550) }
}

fn docker() -> Facts {
    Facts { run_device: Some(DISK), ..facts(0o444, 0o1777) }
}

fn kubernetes() -> Facts {
    let volume = Volume {
        root: node(0o1777),
        above: Node { device: DISK, in_memory: false, ..node(0o755) },
        link_owners: [0, 0],
        inside: vec![node(0o755)],
    };
    Facts { volume: Some(volume), ..facts(0o644, 0o755) }
}

/// Facts, changed.
fn with(mut facts: Facts, change: impl FnOnce(&mut Facts)) -> Facts {
    change(&mut facts);
    facts
}

/// The volume of [`kubernetes`], changed.
fn volume(change: impl FnOnce(&mut Volume)) -> Facts {
    with(kubernetes(), |facts| change(facts.volume.as_mut().expect("it has one")))
}

#[test]
fn what_each_platform_mounts_is_taken_by_its_name() {
    assert_eq!(decide(&credential()), Ok(Guard::SystemdCredential));
    assert_eq!(decide(&docker()), Ok(Guard::DockerSecret));
    assert_eq!(decide(&kubernetes()), Ok(Guard::KubernetesSecret));
    // Modes that people set, and fsGroup with its set-group bit.
    for mode in [0o400, 0o440, 0o444] {
        assert!(decide(&with(kubernetes(), |facts| facts.file.mode = mode)).is_ok());
        assert!(decide(&with(docker(), |facts| facts.file.mode = mode)).is_ok());
    }
    assert!(decide(&volume(|volume| volume.root.mode = 0o3777)).is_ok());
    assert!(decide(&volume(|volume| volume.inside[0].mode = 0o2755)).is_ok());
    // A file of ours, as a user's own service manager and `runAsUser` make them.
    assert!(decide(&with(credential(), |facts| facts.file.owner = 1000)).is_ok());
    assert!(decide(&with(kubernetes(), |facts| facts.file.owner = 1000)).is_ok());
    // No platform: nothing to say about one.
    assert_eq!(decide(&facts(0o444, 0o755)), Err(None));
}

/// Proves that no rule takes a file that is on a disk, that others can change, or whose way they
/// can.
#[test]
fn one_fact_less_and_it_is_refused() {
    for platform in [credential, docker, kubernetes] {
        let refused = |change: fn(&mut Facts)| {
            let facts = with(platform(), change);
            assert!(matches!(decide(&facts), Err(Some(_))), "{facts:?}");
        };
        refused(|facts| facts.file.in_memory = false);
        refused(|facts| facts.file.is_file = false);
        refused(|facts| facts.file.owner = 4321);
        refused(|facts| facts.file.mode |= 0o020);
        refused(|facts| facts.file.mode |= 0o002);
        refused(|facts| facts.way_is_ours = false);
    }
    let refused = |facts: Facts| assert!(matches!(decide(&facts), Err(Some(_))), "{facts:?}");
    refused(with(credential(), |facts| facts.file.mode = 0o444));
    refused(with(credential(), |facts| facts.file.group = 27));
    refused(with(credential(), |facts| facts.directory.mode = 0o555));
    refused(with(credential(), |facts| facts.directory.in_memory = false));
    refused(with(credential(), |facts| facts.directory.owner = 4321));
    // /run is a tmpfs on every machine: /run/secrets has to be another one.
    refused(with(docker(), |facts| facts.run_device = Some(TMPFS)));
    refused(with(docker(), |facts| facts.directory.mode = 0o777));
    refused(with(docker(), |facts| facts.directory.owner = 4321));
    refused(volume(|volume| volume.above.device = TMPFS));
    refused(volume(|volume| volume.root.in_memory = false));
    refused(volume(|volume| volume.root.mode = 0o777));
    refused(volume(|volume| volume.root.owner = 4321));
    refused(volume(|volume| volume.link_owners[0] = 4321));
    refused(volume(|volume| volume.link_owners[1] = 4321));
    refused(volume(|volume| volume.inside[0].mode = 0o775));
    refused(with(kubernetes(), |facts| facts.file.device = DISK));
}

/// Mount a file system of this type, with these options.
fn mount(kind: &str, options: &str, at: &Path) {
    std::fs::create_dir_all(at).expect("a directory to mount at");
    let mount = Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(at).status();
    assert!(mount.expect("mount runs").success(), "{kind} at {}", at.display());
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// A key of this mode at `path`, where its directory may be anything.
fn key(path: &Path, mode: u32) {
    std::fs::write(path, MasterKey::generate().to_tor_file_bytes()).expect("it is written");
    chmod(path, mode);
}

/// What guards the file.
fn guard(path: &Path, credentials: Option<&Path>) -> Result<Guard, String> {
    let read = read_beside(path, credentials);
    read.map(|(_, guard)| guard).map_err(|error: KeyError| error.to_string())
}

/// A volume as the kubelet writes it.
fn kubelet(root: &Path) {
    let time = root.join("..2026_11_29_09_00_00.123456789");
    std::fs::create_dir(&time).expect("a directory");
    chmod(&time, 0o755);
    key(&time.join("master.key"), 0o644);
    symlink(time.file_name().expect("a name"), root.join("..data")).expect("a link");
    symlink("..data/master.key", root.join("master.key")).expect("a link");
}

/// Everything that needs mounts; this thread has a mount namespace of its own.
fn with_mounts(directory: &Path) {
    let volume = directory.join("volume");
    mount("tmpfs", "mode=1777", &volume);
    kubelet(&volume);
    let secret = volume.join("master.key");
    assert_eq!(guard(&secret, None), Ok(Guard::KubernetesSecret));
    assert_eq!(MasterKey::load(&secret).expect("a key").guard(), Some(Guard::KubernetesSecret));
    // What lies there without the links is nobody's secret.
    key(&volume.join("plain.key"), 0o644);
    assert!(guard(&volume.join("plain.key"), None).is_err());
    // The same in a directory of a tmpfs, which nobody has mounted for it.
    let inside = volume.join("inside");
    std::fs::create_dir(&inside).expect("a directory");
    kubelet(&inside);
    let refusal = guard(&inside.join("master.key"), None).expect_err("no mount of its own");
    assert!(refusal.contains("a Kubernetes secret is on a tmpfs of its own"), "{refusal}");

    let unit = directory.join("credentials");
    mount("ramfs", "mode=0550", &unit);
    chmod(&unit, 0o550);
    key(&unit.join("master.key"), 0o440);
    let credential = unit.join("master.key");
    assert_eq!(guard(&credential, Some(&unit)), Ok(Guard::SystemdCredential));
    assert!(guard(&credential, None).is_err() && guard(&credential, Some(directory)).is_err());
    chmod(&credential, 0o444);
    assert!(guard(&credential, Some(&unit)).is_err());

    // On /run itself it is as open as it looks.
    mount("tmpfs", "mode=0755", Path::new("/run"));
    let secrets = Path::new("/run/secrets");
    std::fs::create_dir(secrets).expect("a directory");
    key(&secrets.join("master.key"), 0o444);
    let refusal = guard(&secrets.join("master.key"), None).expect_err("it is the host's");
    assert!(refusal.contains("a secret of Docker is on a tmpfs of its own"), "{refusal}");
    mount("tmpfs", "mode=1777", secrets);
    key(&secrets.join("master.key"), 0o444);
    assert_eq!(guard(&secrets.join("master.key"), None), Ok(Guard::DockerSecret));
    chmod(&secrets.join("master.key"), 0o446);
    assert!(guard(&secrets.join("master.key"), None).is_err());
}

/// Proves on real mounts that each platform's secret is read, by its rule, and that the same file
/// elsewhere is not.
#[test]
fn secrets_of_platforms_are_read_where_these_mount_them() {
    let mode = Permissions::from_mode(0o700);
    let directory = tempfile::Builder::new().permissions(mode).tempdir().expect("a directory");
    let disk = directory.path().join("disk");
    std::fs::create_dir(&disk).expect("a directory");
    kubelet(&disk);
    let refusal = guard(&disk.join("master.key"), None).expect_err("nothing is mounted there");
    assert!(refusal.contains("a Kubernetes secret is on a tmpfs of its own"), "{refusal}");
    assert!(refusal.contains("chmod 600 "), "{refusal}");

    std::thread::scope(|scope| {
        let mounted = scope.spawn(|| {
            // For this thread alone; what is mounted goes with it.
            if let Err(refused) = unshare(CloneFlags::CLONE_NEWNS) {
                let skipped = "SKIPPED: this user may not mount";
                let _ = writeln!(std::io::stderr(), "{skipped}: {refused}");
                return;
            }
            let private = Command::new("mount").args(["--make-rprivate", "/"]).status();
            assert!(private.expect("mount runs").success());
            with_mounts(directory.path());
        });
        mounted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
