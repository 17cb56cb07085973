//! What this process, and those before it on the same state directory, have published: enough to
//! tell a descriptor of ours from one that somebody else has signed with our key.
//!
//! A descriptor is remembered by a digest of what its signature covers, so nothing that a relay
//! adds around it makes it another one. The digests are on disk before the first upload, beside the
//! revision counters: a restart, and a process that takes over, know what their predecessors
//! published. They are kept for as long as a descriptor's certificates hold, since an HSDir may
//! show an old one for so long. Written and read by the publisher alone.
//!
//! The file has a line for each round: a JSON map of its digests, with the time. A round appends
//! one; a line that a crash or a full disk has torn is passed over, and the next one begins on a
//! line of its own. Once the file has [`limits::PUBLISHED_FILE_GROWTH`] times what is kept, it is
//! written anew beside the old one, which it then replaces. Nobody keeps it open: of two processes
//! of an upgrade one publishes, and the other reads the file again before it does. (Earlier
//! versions wrote one map; that is a file of one line.)

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
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
        source: io::Error,
    },
}

/// Names one descriptor: half of a digest of what its signature covers; in files, in hexadecimal.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Digest([u8; 16]);

impl Digest {
    /// The digest of a document, as HSDirs keep it.
    pub(super) fn of(text: &str) -> Digest {
        let begin = text.find("hs-descriptor ").unwrap_or(0);
        let end = text.rfind("\nsignature ").unwrap_or(text.len()).max(begin);
        let digest = Sha3_256::digest(&text.as_bytes()[begin..end]);
        Digest(std::array::from_fn(|index| digest[index]))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Digest, &'static str> {
        let wrong = "a digest has 32 hexadecimal digits";
        let mut bytes = [0; 16];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|one| one.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = text.get(2 * index..2 * index + 2).ok_or(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong)?;
        }
        Ok(Digest(bytes))
    }
}

/// Descriptors, and when they were published, in seconds since the epoch.
type Known = BTreeMap<Digest, u64>;

/// The descriptors that were published.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// The file.
    path: PathBuf,
    /// Those that are remembered.
    known: Known,
    /// Those of them that could not be written yet.
    unwritten: Known,
    /// Descriptors in the file, those that are over among them.
    in_file: usize,
}

/// What a file has.
#[derive(Debug, Default)]
struct Content {
    /// Its descriptors.
    known: Known,
    /// How many they are with those that are named twice.
    count: usize,
    /// Lines that are none.
    torn: usize,
}

impl Published {
    /// Read the list; a file that is not there is an empty one.
    pub(super) fn load(path: &Path) -> Published {
        let mut published = Published {
            path: path.to_owned(),
            known: Known::new(),
            unwritten: Known::new(),
            in_file: 0,
        };
        published.reload();
        published
    }

    /// Read the list again: another process may have published.
    pub(super) fn reload(&mut self) {
        match read(&self.path) {
            Ok(Content { known, count, torn }) => {
                self.known.extend(known);
                self.in_file = count;
                if torn > 0 {
                    let path = self.path.display();
                    tracing::warn!(
                        "{torn} lines of the list of published descriptors {path} are damaged (as \
                         by a crash or a full disk): they are passed over"
                    );
                }
            }
            Err(source) => self.warn("read", source),
        }
    }

    /// Remember descriptors that are about to be uploaded; they are on disk when this returns, or
    /// the log says why not, and they are written with the next ones.
    pub(super) fn record(&mut self, digests: impl Iterator<Item = Digest>, now_seconds: u64) {
        self.unwritten.extend(digests.map(|digest| (digest, now_seconds)));
        self.known.extend(&self.unwritten);
        self.forget(now_seconds);
        self.unwritten.retain(|digest, _| self.known.contains_key(digest));
        let grown = self.in_file + self.unwritten.len();
        let worth = self.known.len().max(limits::PUBLISHED_REWRITTEN_MIN);
        let written = match grown > worth * limits::PUBLISHED_FILE_GROWTH {
            true => self.rewrite(),
            false => self.append(),
        };
        match written {
            Ok(()) => self.unwritten.clear(),
            Err(source) => self.warn("write", source),
        }
    }

    /// Whether this descriptor is one of ours.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.known.contains_key(digest)
    }

    /// Forget what is over, and the oldest of what is too many.
    fn forget(&mut self, now_seconds: u64) {
        let oldest = now_seconds.saturating_sub(limits::DESCRIPTOR_CERT_LIFETIME_SECONDS);
        self.known.retain(|_, at| *at >= oldest);
        let beyond = self.known.len().saturating_sub(limits::PUBLISHED_KEPT_MAX);
        if beyond > 0 {
            let mut by_age: Vec<(u64, Digest)> =
                self.known.iter().map(|(digest, at)| (*at, *digest)).collect();
            by_age.sort_unstable();
            for (_, digest) in by_age.iter().take(beyond) {
                self.known.remove(digest);
            }
        }
    }

    /// Write what is new behind what is there.
    fn append(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let mut line = Vec::new();
        let length = file.metadata()?.len();
        if length > 0 {
            // What a crash has torn, or an earlier version has written, has no end of its own.
            let mut last = [0];
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
            line.extend((last != *b"\n").then_some(b'\n'));
        }
        serde_json::to_writer(&mut line, &self.unwritten)?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_all()?;
        if length == 0 {
            self.sync_directory()?;
        }
        self.in_file += self.unwritten.len();
        Ok(())
    }

    /// Write what is kept beside the old file, and put it in its place.
    fn rewrite(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut text = serde_json::to_vec(&self.known)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        self.in_file = self.known.len();
        self.sync_directory()
    }

    /// The file's name is on disk as well.
    fn sync_directory(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }

    /// Say why what was published is not known for sure.
    fn warn(&self, action: &'static str, source: io::Error) {
        let error = PublishedError::Io { action, path: self.path.clone(), source };
        tracing::warn!("{error}");
    }
}

/// Read the file.
fn read(path: &Path) -> io::Result<Content> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
        read => read?,
    };
    let mut content = Content::default();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Known>(line) {
            Ok(known) => {
                content.count += known.len();
                content.known.extend(known);
            }
            Err(_) => content.torn += 1,
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
