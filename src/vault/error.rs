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
        "key {path}: there is no such file; the nearest folder that exists is {nearest}; correct \
         the path, or make a new key, which is a new onion address: `{make}`",
        path = .path.display(), nearest = .nearest.display(), make = make(.path, .nearest)
    )]
    Missing {
        /// The key file.
        path: PathBuf,
        /// The deepest directory on the way to it that exists.
        nearest: PathBuf,
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
    /// Others could read it, or put another file in its place.
    #[error(
        "key {path}: {reason}; {fix}",
        path = .path.display(), reason = report(.source)
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it or with a directory on the way to it.
        #[source]
        source: fs_mistrust::Error,
        /// What to do.
        fix: String,
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

    /// No file at `path`.
    pub(super) fn missing(path: &Path) -> KeyError {
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let nearest = whole.ancestors().skip(1).find(|above| above.is_dir());
        let nearest = nearest.unwrap_or(Path::new("/")).to_owned();
        KeyError::Missing { path: path.to_owned(), nearest }
    }

    /// The way to the key at `path` is refused; `clause`: why no platform's rule takes it.
    pub(super) fn exposed(
        path: &Path,
        source: fs_mistrust::Error,
        clause: Option<&str>,
    ) -> KeyError {
        let us = nix::unistd::geteuid().as_raw();
        let mut fix = fix(&source, us);
        if let Some(clause) = clause {
            fix = format!("{clause}; {fix}");
        }
        KeyError::Exposed { path: path.to_owned(), source, fix }
    }
}

/// The command that makes a new key at `path`.
fn make(path: &Path, nearest: &Path) -> String {
    let new = format!("rustbalance key new {}", path.display());
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match whole.parent() {
        Some(parent) if parent != nearest => {
            format!("install -d -m 700 {} && {new}", parent.display())
        }
        _ => new,
    }
}

/// An error with its causes.
fn report(error: &fs_mistrust::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What `us` can do about a way that is refused.
fn fix(refusal: &fs_mistrust::Error, us: u32) -> String {
    use fs_mistrust::Error::{BadOwner, BadPermission};
    match refusal {
        BadPermission(at, mode, _) if !at.is_dir() => {
            format!(
                "others may read or write it (mode {mode:04o}); run `chmod 600 {}`",
                at.display()
            )
        }
        BadPermission(at, ..) if is_sticky(at) => format!(
            "everybody may make files in {}; put the key into a directory that is its owner's \
             alone",
            at.display()
        ),
        BadPermission(at, ..) => {
            format!("others may replace the key there; run `chmod go-w {}`", at.display())
        }
        // Who runs this as root is mostly not who serves the key: root's `chown` would lock the
        // service out.
        BadOwner(at, owner) if us == 0 => format!(
            "{} belongs to user {owner}, who may change the key; if the service runs as that user, \
             run this as that user too, as in `sudo -u '#{owner}' rustbalance ...`, else put the \
             key where root alone may write",
            at.display()
        ),
        BadOwner(at, owner) => format!(
            "{at} belongs to user {owner}, who is neither us (user {us}) nor root and may change \
             the key; run `chown {us} {at}` as root, or run this as user {owner}",
            at = at.display()
        ),
        _ => "put the key where only this user and root may write".to_owned(),
    }
}

/// Whether this is a directory like /tmp.
fn is_sticky(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    directory.metadata().is_ok_and(|metadata| metadata.mode() & 0o1000 != 0)
}
