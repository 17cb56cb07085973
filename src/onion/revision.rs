//! Revision counters: larger with every descriptor, and the same that C tor would use.
//!
//! `counter = max(OPE(seconds since the shared random run began), last + 1)`. The OPE key is
//! derived as C tor does, from the 64-byte blinded secret key (in the vault), so that a service
//! that moves from C tor (or back) is not blocked by a counter of the other's. `last` is the
//! highest counter that was published or seen for a blinded key; it is on disk *before* the upload,
//! so a crash cannot publish the same counter twice. See rend-spec-v3, section F.2.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tor_hscrypto::pk::HsBlindId;

/// Counters of this many blinded keys are kept: each live period has one, and old ones are of no
/// use after two periods.
const KEYS_KEPT_MAX: usize = 16;

/// Why the file of counters cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// The file cannot be read.
    #[error("cannot read the revision counters in {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no list of counters.
    #[error(
        "the revision counters in {path} are damaged ({source}); remove the file to start anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it is damaged.
        #[source]
        source: serde_json::Error,
    },
    /// The file cannot be written: nothing may be published then.
    #[error("cannot write the revision counters to {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The highest counter of each blinded key, in memory and on disk.
#[derive(Clone, Debug)]
pub struct Revisions {
    /// The file.
    path: PathBuf,
    /// Highest counters, by blinded key in hexadecimal.
    highest: BTreeMap<String, Highest>,
}

/// A counter and when it was used.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Highest {
    /// The counter.
    counter: u64,
    /// Seconds since the epoch; the oldest keys are forgotten first.
    used_at_seconds: u64,
}

/// A blinded key as the file names it.
fn name(key: HsBlindId) -> String {
    let bytes: [u8; 32] = *key.as_ref();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Revisions {
    /// Read the counters; a file that is not there is an empty one.
    ///
    /// # Errors
    /// [`RevisionError::Read`], [`RevisionError::Damaged`].
    pub fn load(path: &Path) -> Result<Revisions, RevisionError> {
        let path = path.to_owned();
        let highest = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| RevisionError::Damaged { path: path.clone(), source })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(RevisionError::Read { path, source }),
        };
        Ok(Revisions { path, highest })
    }

    /// Read the counters again: another process may have published.
    ///
    /// # Errors
    /// As [`Revisions::load`]; nothing has changed then.
    pub fn reload(&mut self) -> Result<(), RevisionError> {
        self.highest = Revisions::load(&self.path)?.highest;
        Ok(())
    }

    /// The path of a file that goes with this one, named `what` where this one is named
    /// `revisions`.
    pub(super) fn beside(&self, what: &str) -> PathBuf {
        let name = self.path.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default();
        let rest = name.strip_prefix("revisions").unwrap_or(&name);
        self.path.with_file_name(format!("{what}{rest}"))
    }

    /// The counter for a new descriptor; it is on disk when this returns.
    ///
    /// # Errors
    /// [`RevisionError::Write`]: do not publish.
    pub(super) fn next(
        &mut self,
        key: HsBlindId,
        by_time: u64,
        now_seconds: u64,
    ) -> Result<u64, RevisionError> {
        let name = name(key);
        // At the highest number there is, a counter is used again: HSDirs refuse it, which shows.
        let after_last = self.highest.get(&name).map_or(0, |last| last.counter.saturating_add(1));
        let counter = by_time.max(after_last);
        self.highest.insert(name, Highest { counter, used_at_seconds: now_seconds });
        while self.highest.len() > KEYS_KEPT_MAX {
            let oldest = self.highest.iter().min_by_key(|(_, used)| used.used_at_seconds);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            self.highest.remove(&oldest);
        }
        self.store().map_err(|source| RevisionError::Write { path: self.path.clone(), source })?;
        Ok(counter)
    }

    /// An HSDir holds a descriptor with this counter: the next one will be higher. Whether the last
    /// one was not.
    pub(super) fn note_seen(&mut self, key: HsBlindId, counter: u64, now_seconds: u64) -> bool {
        let seen = Highest { counter, used_at_seconds: now_seconds };
        let highest = self.highest.entry(name(key)).or_insert(Highest { counter: 0, ..seen });
        let is_news = highest.counter < counter;
        highest.counter = highest.counter.max(counter);
        is_news
    }

    /// Write the file beside the old one and put it in its place.
    fn store(&self) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(&self.highest)?;
        let new = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(directory) => std::fs::File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Revisions;
    use tor_hscrypto::ope::AesOpeKey;
    use tor_hscrypto::pk::HsBlindId;

    #[test]
    fn a_counter_is_never_used_twice_not_even_across_a_restart() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("revisions.json");
        let key = HsBlindId::from([7; 32]);
        let mut revisions = Revisions::load(&path).expect("no file is an empty file");
        assert_eq!(revisions.next(key, 100, 1).expect("the directory is writable"), 100);
        assert_eq!(revisions.next(key, 100, 2).expect("the directory is writable"), 101);
        drop(revisions);
        let mut revisions = Revisions::load(&path).expect("the file is ours");
        assert_eq!(revisions.next(key, 5, 3).expect("the directory is writable"), 102);
        assert_eq!(revisions.next(key, 900, 4).expect("the directory is writable"), 900);
        let other = HsBlindId::from([8; 32]);
        assert_eq!(revisions.next(other, 5, 5).expect("the directory is writable"), 5);
    }

    #[test]
    fn a_counter_that_an_hsdir_holds_is_exceeded() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("revisions.json");
        let key = HsBlindId::from([7; 32]);
        let mut revisions = Revisions::load(&path).expect("no file is an empty file");
        assert!(revisions.note_seen(key, 5000, 1));
        assert_eq!(revisions.next(key, 100, 2).expect("the directory is writable"), 5001);
        assert!(!revisions.note_seen(key, 7, 3));
        assert_eq!(revisions.next(key, 100, 4).expect("the directory is writable"), 5002);
    }

    #[test]
    fn a_full_disk_publishes_nothing_and_loses_no_counter() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("revisions.json");
        let key = HsBlindId::from([7; 32]);
        let mut revisions = Revisions::load(&path).expect("no file is an empty file");
        assert_eq!(revisions.next(key, 100, 1).expect("there is room"), 100);
        // Every write to /dev/full says that the disk is full.
        let new = path.with_extension("new");
        std::os::unix::fs::symlink("/dev/full", &new).expect("a new link");
        let error = revisions.next(key, 100, 2).expect_err("the disk is full");
        assert!(error.to_string().contains("revisions.json"), "{error}");
        let on_disk = Revisions::load(&path).expect("the file is as it was");
        assert_eq!(on_disk.highest.values().map(|one| one.counter).max(), Some(100));
        std::fs::remove_file(&new).expect("it is there");
        assert!(revisions.next(key, 100, 3).expect("there is room again") > 100);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("revisions.json");
        std::fs::write(&path, "{").expect("the directory is writable");
        let error = Revisions::load(&path).expect_err("half a file is damaged");
        assert!(error.to_string().contains("revisions.json"), "{error}");
    }

    /// A vector of GoBalance's tests: 122,771 seconds (the 1 that the specification adds is in
    /// it) under a 32-byte secret.
    #[test]
    fn order_preserving_encryption_gives_the_published_counter() {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::STANDARD
            .decode("5FPpKghcg2LnAuG8eO1n/+EwYKePXbxl1kFPp+iKbb8=")
            .expect("the vector is base64");
        assert_eq!(AesOpeKey::from_secret(&secret).encrypt(122_770.into()), 4_033_953_644);
    }

    #[test]
    fn the_counter_grows_with_time() {
        let key = AesOpeKey::from_secret(&[0; 65]);
        let at = |seconds: u32| key.encrypt(seconds.into());
        let mut last = 0;
        for seconds in [0, 1, 2, 3600, 3601, 86_399] {
            assert!(at(seconds) > last, "{seconds}");
            last = at(seconds);
        }
    }
}
