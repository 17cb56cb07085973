//! The two forms of a master key in a file: tor's own, and PKCS#8 in PEM as OnionBalance writes.

use digest::Digest;
use pkcs8::PrivateKeyInfo;
use tor_llcrypto::d::Sha512;
use zeroize::Zeroizing;

use super::error::KeyFormatError;
use super::pem;
use crate::base::secret::SecretBytes;

/// First 32 bytes of tor's `hs_ed25519_secret_key`.
pub(super) const TOR_HEADER: &[u8; 32] = b"== ed25519v1-secret: type0 ==\0\0\0";

/// First bytes of tor's `hs_ed25519_public_key`.
const TOR_PUBLIC_HEADER: &[u8] = b"== ed25519v1-public:";

/// Bytes of a bare seed, which the first RustBalance kept in a file.
const SEED_BYTES: usize = 32;

/// Bytes of tor's secret key file: header, scalar, nonce prefix.
pub(super) const TOR_FILE_BYTES: usize = 96;

/// The object identifier of Ed25519 (RFC 8410).
const ED25519: pkcs8::ObjectIdentifier = pkcs8::ObjectIdentifier::new_unwrap("1.3.101.112");

/// How a key is written in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// tor's `hs_ed25519_secret_key`, 96 bytes.
    Tor,
    /// PKCS#8 in PEM.
    Pem,
}

impl std::fmt::Display for KeyFormat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            KeyFormat::Tor => "tor (hs_ed25519_secret_key)",
            KeyFormat::Pem => "PEM (PKCS#8)",
        })
    }
}

/// Read either form.
pub(super) fn parse(bytes: &[u8]) -> Result<(SecretBytes<64>, KeyFormat), KeyFormatError> {
    if !bytes.starts_with(TOR_HEADER) && pem::is_pem(bytes) {
        return Ok((parse_pem(bytes)?, KeyFormat::Pem));
    }
    match parse_tor(bytes) {
        Err(KeyFormatError::Unknown { bytes: SEED_BYTES }) => Err(KeyFormatError::BareSeed),
        parsed => Ok((parsed?, KeyFormat::Tor)),
    }
}

/// Read a bare seed. Nothing but its length says what it is, so text and constants are refused.
pub(super) fn parse_seed(bytes: &[u8]) -> Result<SecretBytes<64>, KeyFormatError> {
    let seed: &[u8; SEED_BYTES] = bytes.try_into().map_err(|_| KeyFormatError::NoSeed)?;
    let text = seed.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if text || seed.iter().all(|byte| *byte == seed[0]) {
        return Err(KeyFormatError::NoSeed);
    }
    Ok(expand(seed))
}

/// Read tor's form.
pub(super) fn parse_tor(bytes: &[u8]) -> Result<SecretBytes<64>, KeyFormatError> {
    if bytes.starts_with(TOR_PUBLIC_HEADER) {
        return Err(KeyFormatError::Public);
    }
    let Some(expanded) = bytes.strip_prefix(TOR_HEADER) else {
        return Err(KeyFormatError::Unknown { bytes: bytes.len() });
    };
    let expanded: &[u8; 64] =
        expanded.try_into().map_err(|_| KeyFormatError::Length { bytes: bytes.len() })?;
    check(expanded)?;
    Ok(SecretBytes::copied_from(expanded))
}

/// Read a PEM private key, among whatever else openssl has put into the file.
pub(super) fn parse_pem(bytes: &[u8]) -> Result<SecretBytes<64>, KeyFormatError> {
    let refused = |reason: &str| KeyFormatError::Pem { reason: reason.to_owned() };
    let text = pem::private_key(bytes)?;
    let (_, document) =
        pkcs8::SecretDocument::from_pem(&text).map_err(|_| refused("the PEM lines are damaged"))?;
    let info: PrivateKeyInfo<'_> =
        document.decode_msg().map_err(|_| refused("its contents are damaged"))?;
    if info.algorithm.oid != ED25519 {
        return Err(refused("it is a key for another algorithm"));
    }
    // RFC 8410: an OCTET STRING of the 32-byte seed inside of the OCTET STRING `privateKey`.
    let seed: Option<&[u8; 32]> = match info.private_key {
        [0x04, 0x20, seed @ ..] => seed.try_into().ok(),
        _ => None,
    };
    seed.map(expand).ok_or_else(|| refused("its seed has not 32 bytes"))
}

/// Expand a seed into scalar and nonce prefix (RFC 8032, section 5.1.5, steps 1 and 2).
pub(super) fn expand(seed: &[u8; 32]) -> SecretBytes<64> {
    let mut expanded = SecretBytes::<64>::zeroed();
    let bytes = expanded.expose_mut();
    Sha512::new().chain_update(seed).finalize_into(bytes.into());
    bytes[0] &= 0b1111_1000;
    bytes[31] &= 0b0111_1111;
    bytes[31] |= 0b0100_0000;
    expanded
}

/// Write tor's form.
pub(super) fn write_tor(expanded: &SecretBytes<64>) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(TOR_FILE_BYTES));
    bytes.extend_from_slice(TOR_HEADER);
    bytes.extend_from_slice(expanded.expose());
    bytes
}

/// The order of Ed25519's base point, least significant byte first (RFC 8032, section 5.1).
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Refuse an expanded key that is damaged, or that would leak when it signs.
///
/// A scalar is either clamped (as tor and vanity generators write it) or reduced by the group's
/// order (as other tools write it); anything else was damaged. A constant prefix makes the nonce of
/// every signature public, and with it the key.
fn check(expanded: &[u8; 64]) -> Result<(), KeyFormatError> {
    let (scalar, prefix) = expanded.split_at(32);
    let clamped = scalar[0] & 0b111 == 0 && scalar[31] & 0b1100_0000 == 0b0100_0000;
    let reduced = scalar.iter().rev().lt(GROUP_ORDER.iter().rev());
    let zero = scalar.iter().all(|byte| *byte == 0);
    if zero || !(clamped || reduced) {
        return Err(KeyFormatError::Scalar);
    }
    if prefix.iter().all(|byte| *byte == prefix[0]) {
        return Err(KeyFormatError::Prefix);
    }
    Ok(())
}
