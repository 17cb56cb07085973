//! What this process, and those before it on the same state directory, have published: enough to
//! tell a descriptor of ours from one that somebody else has signed with our key.
//!
//! A descriptor is remembered by a digest of what its signature covers, so nothing that a relay
//! adds around it makes it another one. The digests are on disk before the first upload, beside the
//! revision counters: a restart, and a process that takes over, know what their predecessors
//! published. They are kept for as long as a descriptor's certificates hold, since an HSDir may
//! show an old one for so long. Written and read by the publisher alone.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use digest::Digest as _;
use tor_llcrypto::d::Sha3_256;

use crate::limits;

/// Why what was published before is not known: the next descriptors are published all the same.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishedError {
    /// The file cannot be read or written.
    #[error("cannot {action} the list of published descriptors {path}: {source}")]
    Io {
        /// What was done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no such list.
    #[error("the list of published descriptors {path} is damaged ({source}); it begins anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it is damaged.
        #[source]
        source: serde_json::Error,
    },
}

/// Names one descriptor: half of a digest of what its signature covers, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Digest(String);

impl Digest {
    /// The digest of a document, as HSDirs keep it.
    pub(super) fn of(text: &str) -> Digest {
        let begin = text.find("hs-descriptor ").unwrap_or(0);
        let end = text.rfind("\nsignature ").unwrap_or(text.len()).max(begin);
        let digest = Sha3_256::digest(&text.as_bytes()[begin..end]);
        Digest(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The descriptors that were published, and when, in seconds since the epoch.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// The file.
    path: PathBuf,
    /// Those that are remembered.
    known: BTreeMap<Digest, u64>,
}

impl Published {
    /// Read the list; a file that is not there, or damaged, is an empty one.
    pub(super) fn load(path: &Path) -> Published {
        let mut published = Published { path: path.to_owned(), known: BTreeMap::new() };
        published.reload();
        published
    }

    /// Read the list again: another process may have published.
    pub(super) fn reload(&mut self) {
        match read(&self.path) {
            Ok(known) => self.known.extend(known),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Remember descriptors that are about to be uploaded; they are on disk when this returns, or
    /// the log says why not.
    pub(super) fn record(&mut self, texts: impl Iterator<Item = Digest>, now_seconds: u64) {
        self.known.extend(texts.map(|digest| (digest, now_seconds)));
        let oldest = now_seconds.saturating_sub(limits::DESCRIPTOR_CERT_LIFETIME_SECONDS);
        self.known.retain(|_, at| *at >= oldest);
        while self.known.len() > limits::PUBLISHED_KEPT_MAX {
            let first = self.known.iter().min_by_key(|(_, at)| **at);
            let Some(first) = first.map(|(digest, _)| digest.clone()) else { break };
            self.known.remove(&first);
        }
        if let Err(source) = self.store() {
            let error = PublishedError::Io { action: "write", path: self.path.clone(), source };
            tracing::warn!("{error}");
        }
    }

    /// Whether this descriptor is one of ours.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.known.contains_key(digest)
    }

    /// Write the file beside the old one and put it in its place.
    fn store(&self) -> std::io::Result<()> {
        let text = serde_json::to_vec(&self.known)?;
        let new = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)
    }
}

/// Read the file.
fn read(path: &Path) -> Result<BTreeMap<Digest, u64>, PublishedError> {
    let path = path.to_owned();
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| PublishedError::Damaged { path, source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(PublishedError::Io { action: "read", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Published};
    use crate::limits;

    /// A document in form.
    fn document(revision: u64) -> String {
        format!("hs-descriptor 3\nrevision-counter {revision}\nsignature AAAA\n")
    }

    #[test]
    fn what_a_relay_adds_around_a_descriptor_makes_it_no_other() {
        let ours = Digest::of(&document(7));
        assert_eq!(Digest::of(&format!("\n{}\n\n", document(7))), ours);
        assert_ne!(Digest::of(&document(8)), ours);
        // Nothing of these is a descriptor; none may panic.
        for text in ["", "\nsignature ", "\nsignature x hs-descriptor 3", "hs-descriptor "] {
            Digest::of(text);
        }
    }

    #[test]
    fn a_restart_knows_what_was_published_and_so_does_a_process_that_goes_on() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("published-main.json");
        let mut before = Published::load(&path);
        let mut old = Published::load(&path);
        let (first, second) = (Digest::of(&document(1)), Digest::of(&document(2)));
        before.record([first.clone()].into_iter(), 100);
        let mut after = Published::load(&path);
        assert!(after.contains(&first) && !after.contains(&second));
        after.record([second.clone()].into_iter(), 101);
        assert!(!old.contains(&second));
        old.reload();
        assert!(old.contains(&first) && old.contains(&second));
    }

    #[test]
    fn a_descriptor_is_forgotten_once_its_certificates_are_over() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut published = Published::load(&directory.path().join("published-main.json"));
        let (first, second) = (Digest::of(&document(1)), Digest::of(&document(2)));
        published.record([first.clone()].into_iter(), 100);
        let later = 101 + limits::DESCRIPTOR_CERT_LIFETIME_SECONDS;
        published.record([second.clone()].into_iter(), later);
        assert!(!published.contains(&first) && published.contains(&second));
    }

    #[test]
    fn the_list_is_bounded_and_the_oldest_go_first() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut published = Published::load(&directory.path().join("published-main.json"));
        let first = Digest::of(&document(0));
        published.record([first.clone()].into_iter(), 1);
        let many =
            (1..=limits::PUBLISHED_KEPT_MAX as u64).map(|number| Digest::of(&document(number)));
        published.record(many, 2);
        assert_eq!(published.known.len(), limits::PUBLISHED_KEPT_MAX);
        assert!(!published.contains(&first));
    }

    #[test]
    fn a_damaged_list_begins_anew_and_a_full_disk_only_costs_the_memory_of_a_restart() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("published-main.json");
        std::fs::write(&path, "{").expect("the directory is writable");
        let mut published = Published::load(&path);
        let ours = Digest::of(&document(1));
        std::os::unix::fs::symlink("/dev/full", path.with_extension("new")).expect("a new link");
        published.record([ours.clone()].into_iter(), 1);
        assert!(published.contains(&ours));
        std::fs::remove_file(path.with_extension("new")).expect("it is there");
        published.record(std::iter::empty(), 2);
        assert!(Published::load(&path).contains(&ours));
    }
}
