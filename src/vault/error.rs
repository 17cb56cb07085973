//! What can be wrong with a key, each with what to do about it. Never a byte of the key.

use std::path::{Path, PathBuf};

/// Why bytes are no master key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    /// Neither of the two formats.
    #[error(
        "this is neither a tor key file (hs_ed25519_secret_key, 96 bytes) nor a PEM private key \
         (PKCS#8, Ed25519); it has {bytes} bytes; give another file"
    )]
    Unknown {
        /// The file's length.
        bytes: usize,
    },
    /// As long as a seed: only an import takes one, since any 32 bytes would do.
    #[error(
        "this has the 32 bytes of a bare seed, which is read by `rustbalance key import SOURCE \
         FILE` alone; import it and give the new file"
    )]
    BareSeed,
    /// Bytes that are no seed that somebody drew at random.
    #[error("this is no bare seed: a seed is 32 random bytes; give another file")]
    NoSeed,
    /// A tor key file that is cut off, or that has more than a key in it.
    #[error("a tor key file has 96 bytes and this one has {bytes}; copy it again from its backup")]
    Length {
        /// The file's length.
        bytes: usize,
    },
    /// Tor's public key file instead of the secret one.
    #[error("this is a public key; give hs_ed25519_secret_key instead")]
    Public,
    /// The scalar is not one that Ed25519 uses, so the file is damaged.
    #[error("the secret scalar is not a valid Ed25519 scalar; copy the file again from its backup")]
    Scalar,
    /// A constant nonce prefix: every signature would give the key away.
    #[error(
        "the second half of the key (the nonce prefix) is constant, so that one signature would \
         give the key away; do not use this key, make a new one with `rustbalance key new FILE`"
    )]
    Prefix,
    /// PEM, but encrypted.
    #[error(
        "the PEM file is encrypted; decrypt it with `openssl pkcs8 -in FILE -out PLAIN` and then \
         `rustbalance key import PLAIN FILE`"
    )]
    Encrypted,
    /// PEM of something else.
    #[error("the PEM file holds no Ed25519 private key in PKCS#8 ({reason}); give another file")]
    Pem {
        /// What was found; no contents.
        reason: String,
    },
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such file.
    #[error(
        "key {path}: there is no such file; make one with `rustbalance key new {path}`",
        path = .path.display()
    )]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("key {path}: cannot {action}: {source}; {fix}", path = .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// A directory, a pipe, a device.
    #[error(
        "key {path}: this is no regular file; give the path of a key file",
        path = .path.display()
    )]
    NotAFile {
        /// The key file.
        path: PathBuf,
    },
    /// Others than the owner have rights.
    #[error(
        "key {path}: others may read or write it (mode {mode:04o}); run `chmod 600 {path}`",
        path = .path.display()
    )]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is somebody else's.
    #[error(
        "key {path}: it belongs to user {owner}, who is neither us (user {us}) nor root; \
         run `chown {us} {path}`",
        path = .path.display()
    )]
    Owner {
        /// The key file.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
        /// Our effective user id.
        us: u32,
    },
    /// Others could put another file in its place.
    #[error(
        "key {path}: others may write to its directory (mode {mode:04o}) and so replace the key; \
         run `chmod go-w {directory}`",
        path = .path.display(), directory = .directory.display()
    )]
    DirectoryMode {
        /// The key file.
        path: PathBuf,
        /// The directory it is in.
        directory: PathBuf,
        /// The directory's permission bits.
        mode: u32,
    },
    /// The directory is somebody else's, who could put another file in its place.
    #[error(
        "key {path}: its directory {directory} belongs to user {owner}, who is neither us \
         (user {us}) nor root and may replace the key; run `chown {us} {directory}`",
        path = .path.display(), directory = .directory.display()
    )]
    DirectoryOwner {
        /// The key file.
        path: PathBuf,
        /// The directory it is in.
        directory: PathBuf,
        /// The user id that owns it.
        owner: u32,
        /// Our effective user id.
        us: u32,
    },
    /// The contents are no key.
    #[error("key {path}: {source}", path = .path.display())]
    Format {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: KeyFormatError,
    },
    /// A key file is never overwritten.
    #[error(
        "key {path}: the file exists and is not overwritten; choose another name or move it away",
        path = .path.display()
    )]
    Exists {
        /// The key file.
        path: PathBuf,
    },
}

impl KeyError {
    /// An error of the system.
    pub(super) fn io(
        action: &'static str,
        path: &Path,
        source: std::io::Error,
        fix: &'static str,
    ) -> KeyError {
        KeyError::Io { action, path: path.to_owned(), source, fix }
    }
}
