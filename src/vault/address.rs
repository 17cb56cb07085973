//! The onion address of a version 3 service (rend-spec-v3, section 6, ONIONADDRESS).

use std::fmt;
use std::str::FromStr;

use digest::Digest;
use tor_hscrypto::pk::HsId;
use tor_llcrypto::d::Sha3_256;

use crate::base::redact::REDACTED;

/// The version that ends every address of a version 3 service.
const VERSION: u8 = 3;

/// First 32 bytes of tor's `hs_ed25519_public_key`.
const TOR_PUBLIC_FILE_HEADER: &[u8; 32] = b"== ed25519v1-public: type0 ==\0\0\0";

/// Base32 as in RFC 4648, in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A version 3 onion address. `Display` prints `<56 characters>.onion`; `Debug` is for logs and
/// prints `[redacted]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OnionAddress(HsId);

/// Why a text is no onion address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no version 3 onion address ({reason}); it has 56 characters and `.onion`")]
pub struct OnionAddressError {
    /// What is wrong.
    reason: String,
}

impl OnionAddress {
    /// The service's identity key in arti's form.
    pub fn hs_id(&self) -> HsId {
        self.0
    }

    /// The service's public identity key, 32 bytes.
    pub fn public_key(&self) -> &[u8; 32] {
        self.0.as_ref()
    }

    /// The contents of tor's `hs_ed25519_public_key` for this address, 64 bytes.
    pub fn to_tor_public_file_bytes(self) -> Vec<u8> {
        [TOR_PUBLIC_FILE_HEADER.as_slice(), self.public_key()].concat()
    }

    /// The checksum between key and version.
    fn checksum(&self) -> [u8; 2] {
        let digest = Sha3_256::new()
            .chain_update(b".onion checksum")
            .chain_update(self.public_key())
            .chain_update([VERSION])
            .finalize();
        [digest[0], digest[1]]
    }
}

impl From<HsId> for OnionAddress {
    fn from(id: HsId) -> OnionAddress {
        OnionAddress(id)
    }
}

impl FromStr for OnionAddress {
    type Err = OnionAddressError;

    fn from_str(text: &str) -> Result<OnionAddress, OnionAddressError> {
        text.parse::<HsId>()
            .map(OnionAddress)
            .map_err(|error| OnionAddressError { reason: error.to_string() })
    }
}

impl fmt::Display for OnionAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0_u8; 35];
        bytes[..32].copy_from_slice(self.public_key());
        bytes[32..34].copy_from_slice(&self.checksum());
        bytes[34] = VERSION;
        // 35 bytes are 7 groups of 40 bits, so there is no padding.
        let mut text = String::with_capacity(62);
        for group in bytes.chunks_exact(5) {
            let bits = group.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            for index in (0..8).rev() {
                let digit = usize::try_from(bits >> (5 * index) & 31).expect("five bits");
                text.push(char::from(ALPHABET[digit]));
            }
        }
        text.push_str(".onion");
        formatter.pad(&text)
    }
}

impl fmt::Debug for OnionAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use tor_hscrypto::pk::HsId;

    use super::OnionAddress;

    /// Proves key <-> address on the vectors of C tor (test_hs_common.c, test_build_address) and
    /// stem (test/unit/descriptor/hidden_service_v3.py).
    #[test]
    fn public_keys_and_addresses_match_the_published_ones() {
        let vectors = [
            (
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion",
            ),
            (
                "92e680fa57552e7d484c9d2a3edb46fbc076e54ea90b77bb84e3e6d5657d52a1",
                "sltib6sxkuxh2scmtuvd5w2g7pahnzkovefxpo4e4ptnkzl5kkq5h2ad.onion",
            ),
        ];
        for (key, address) in vectors {
            let bytes: Vec<u8> = (0..64)
                .step_by(2)
                .map(|at| u8::from_str_radix(&key[at..at + 2], 16).expect("hexadecimal"))
                .collect();
            let id = HsId::from(<[u8; 32]>::try_from(bytes).expect("32 bytes"));
            assert_eq!(OnionAddress::from(id).to_string(), address);
            let read: OnionAddress = address.parse().expect("a good address");
            assert_eq!(read.hs_id(), id);
        }
    }

    #[test]
    fn a_wrong_address_is_refused_and_the_log_form_shows_nothing() {
        let good = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";
        let address: OnionAddress = good.parse().expect("a good address");
        assert_eq!(format!("{address:?}"), "[redacted]");
        for wrong in ["", "example.com", "25njq.onion", &good.replace("25nj", "25nk")] {
            let error = wrong.parse::<OnionAddress>().expect_err("no address").to_string();
            assert!(error.contains("no version 3 onion address"), "{error}");
        }
    }
}
