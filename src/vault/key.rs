//! The master key: the identity of an onion service.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rand::TryRng;
use tor_hscrypto::pk::{HsIdKey, HsIdKeypair};
use tor_hscrypto::time::TimePeriod;
use tor_llcrypto::pk::ed25519::ExpandedKeypair;
use zeroize::Zeroizing;

use super::address::OnionAddress;
use super::error::{KeyError, KeyFormatError};
use super::guard::Guard;
use super::period::{PeriodSigner, SignError};
use super::{file, format, stack};
use crate::base::redact::REDACTED;
use crate::base::secret::SecretBytes;

/// The identity of an onion service: an expanded Ed25519 key (rend-spec-v3, `KP_hs_id`).
///
/// Kept in the form that tor has in its file, scalar and nonce prefix, byte for byte, so that a key
/// that was imported leaves as it came. It stands once in memory, and does not leave the vault but
/// for a file: what others need is a [`PeriodSigner`]. `Debug` prints `[redacted]`.
pub struct MasterKey {
    /// The secret half, which the signers of its periods share.
    secret: Arc<Secret>,
    /// The public half.
    address: OnionAddress,
    /// What guards the file that it was read from.
    guard: Option<Guard>,
}

/// Scalar (32 bytes, little endian) and nonce prefix (32 bytes).
pub(super) type Secret = SecretBytes<64>;

impl MasterKey {
    /// A new key from the kernel's random numbers.
    pub fn generate() -> MasterKey {
        let mut seed = SecretBytes::<32>::zeroed();
        rand::rngs::SysRng
            .try_fill_bytes(seed.expose_mut())
            .expect("the kernel's random numbers do not fail after boot");
        MasterKey::new(stack::wiped(|| format::expand(seed.expose())), None)
    }

    /// Read tor's `hs_ed25519_secret_key`: 32 bytes of header, 64 of expanded key.
    ///
    /// # Errors
    /// A wrong length or header, a scalar that is none, a constant nonce prefix.
    pub fn from_tor_file_bytes(bytes: &[u8]) -> Result<MasterKey, KeyFormatError> {
        Ok(MasterKey::new(stack::wiped(|| format::parse_tor(bytes))?, None))
    }

    /// Read a PKCS#8 Ed25519 private key in PEM (RFC 8410), as OnionBalance writes them.
    ///
    /// # Errors
    /// Damaged or encrypted PEM, another algorithm.
    pub fn from_pem(text: &str) -> Result<MasterKey, KeyFormatError> {
        Ok(MasterKey::new(stack::wiped(|| format::parse_pem(text.as_bytes()))?, None))
    }

    /// Read a key file of either form, which must be safe where it is: see [`file::read`].
    ///
    /// # Errors
    /// [`KeyError`], each with what to do about it.
    pub fn load(path: &Path) -> Result<MasterKey, KeyError> {
        MasterKey::load_with_format(path).map(|(key, _)| key)
    }

    /// [`MasterKey::load`], and the form that was found.
    ///
    /// # Errors
    /// As [`MasterKey::load`].
    pub fn load_with_format(path: &Path) -> Result<(MasterKey, format::KeyFormat), KeyError> {
        let (bytes, guard) = file::read(path)?;
        let (secret, format) = stack::wiped(|| format::parse(&bytes))
            .map_err(|source| KeyError::Format { path: path.to_owned(), source })?;
        Ok((MasterKey::new(secret, Some(guard)), format))
    }

    /// Read a file of the first RustBalance: a bare seed of 32 bytes (RFC 8032), which has to be as
    /// safe where it is as any key. For an import: nothing but its length says that it is a key.
    ///
    /// # Errors
    /// As [`MasterKey::load`].
    pub fn load_seed(path: &Path) -> Result<MasterKey, KeyError> {
        let (bytes, guard) = file::read(path)?;
        let secret = stack::wiped(|| format::parse_seed(&bytes))
            .map_err(|source| KeyError::Format { path: path.to_owned(), source })?;
        Ok(MasterKey::new(secret, Some(guard)))
    }

    /// [`MasterKey::load`], or, where there is no such file, a new key that is written there; its
    /// directory is made (mode 0700) if need be. `true` for a new key.
    ///
    /// # Errors
    /// As [`MasterKey::load`] and [`MasterKey::create_new`].
    pub fn load_or_create(path: &Path) -> Result<(MasterKey, bool), KeyError> {
        match MasterKey::load(path) {
            Err(KeyError::Missing { .. }) => {}
            loaded => return loaded.map(|key| (key, false)),
        }
        file::make_directory(path)?;
        let key = MasterKey::generate();
        key.create_new(path)?;
        Ok((key, true))
    }

    /// Write the key to a new file in tor's form: mode 0600, whole or not at all, on the disk when
    /// this returns.
    ///
    /// # Errors
    /// The file exists (it is never overwritten), its directory is not safe, or the system refuses.
    pub fn create_new(&self, path: &Path) -> Result<(), KeyError> {
        file::create_new(path, &self.to_tor_file_bytes())
    }

    /// The contents of tor's `hs_ed25519_secret_key` for this key, 96 bytes.
    pub fn to_tor_file_bytes(&self) -> Zeroizing<Vec<u8>> {
        format::write_tor(&self.secret)
    }

    /// The service's address.
    pub fn onion_address(&self) -> OnionAddress {
        self.address
    }

    /// What guards the file that the key was read from; `None` for one that was made here.
    pub fn guard(&self) -> Option<Guard> {
        self.guard
    }

    /// What the descriptors of one period need of the key.
    ///
    /// # Errors
    /// [`SignError::Blinding`], with a chance of one in 2^250.
    pub fn period(&self, time_period: TimePeriod) -> Result<PeriodSigner, SignError> {
        PeriodSigner::derive(&self.secret, self.address, time_period)
    }

    /// The key in arti's type, by value: for tests of the vault, which look into signatures.
    #[cfg(test)]
    pub(super) fn keypair(&self) -> HsIdKeypair {
        keypair(&self.secret)
    }

    /// Wrap an expanded key that was checked.
    fn new(secret: Secret, guard: Option<Guard>) -> MasterKey {
        let public = stack::wiped(|| HsIdKey::from(&keypair(&secret)));
        MasterKey { secret: Arc::new(secret), address: public.id().into(), guard }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MasterKey({REDACTED})")
    }
}

/// Scalar and nonce prefix together, never one without the other. A value of it leaves copies on
/// the stack wherever it is moved: call this inside of [`stack::wiped`].
pub(super) fn keypair(secret: &Secret) -> HsIdKeypair {
    let pair = ExpandedKeypair::from_secret_key_bytes(*secret.expose());
    HsIdKeypair::from(pair.expect("every 64 bytes are an expanded key"))
}
