//! The master key: published vectors, what tor itself says, and which files are refused.

mod files;
mod guards;
mod memory;
mod openssl;
mod signing;

use tor_hscrypto::pk::{HsId, HsIdKey};
use tor_hscrypto::time::TimePeriod;

use super::{KeyFormatError, MasterKey};

/// Bytes from hexadecimal.
fn hex<const N: usize>(text: &str) -> [u8; N] {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    bytes.try_into().expect("the vector has the right length")
}

/// The file of an expanded key.
fn tor_file(expanded: &[u8; 64]) -> Vec<u8> {
    [super::format::TOR_HEADER.as_slice(), expanded].concat()
}

/// An Ed25519 seed in PKCS#8 and PEM, framed by hand (RFC 8410, section 7).
fn pem(seed: &[u8; 32]) -> String {
    let mut der = hex::<16>("302e020100300506032b657004220420").to_vec();
    der.extend(seed);
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

/// The key file of OnionBalance's test (test/v3/test_v3_keys.py).
const ONIONBALANCE_FILE: &str = "3d3d206564323535313976312d7365637265743a207479706530203d3d000000\
    a0c632db831865c9562c5eca9446c50d1c6a88d9985e372986c9ae800a7f347a\
    93bd4a97b9b18adf2ad9bceee4d167bf3d61362440066c22719d3cb5d1f97011";

/// The address that belongs to it.
const ONIONBALANCE_ADDRESS: &str = "4a2zwxetkje5lwvahfv75arzrctn6bznkwmosvfyobmyv2fc3idbpwyd.onion";

/// The seed and public key of RFC 8032, section 7.1, TEST 1.
const RFC_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

/// Proves that a tor key file gives the address that OnionBalance's test has for it, and leaves as
/// it came.
#[test]
fn a_tor_key_file_gives_its_address_and_the_same_file_again() {
    let file: [u8; 96] = hex(ONIONBALANCE_FILE);
    let key = MasterKey::from_tor_file_bytes(&file).expect("a good key");
    assert_eq!(key.onion_address().to_string(), ONIONBALANCE_ADDRESS);
    assert_eq!(key.to_tor_file_bytes().as_slice(), file);
}

/// Proves that a PEM key expands as RFC 8032 says: TEST 1's public key is
/// d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a, and C tor's
/// test_build_address has the address of just that key.
#[test]
fn a_pem_key_gives_the_address_of_rfc_8032s_key() {
    let key = MasterKey::from_pem(&pem(&hex(RFC_SEED))).expect("a good key");
    let address = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";
    assert_eq!(key.onion_address().to_string(), address);
    // As a tor file it is the same key.
    let again = MasterKey::from_tor_file_bytes(&key.to_tor_file_bytes()).expect("a good key");
    assert_eq!(again.onion_address(), key.onion_address());
    let crlf = pem(&hex(RFC_SEED)).replace('\n', "\r\n");
    let again = MasterKey::from_pem(&crlf).expect("line ends of another system");
    assert_eq!(again.onion_address(), key.onion_address());
}

/// Proves blinding on the vector that arti's tor-hscrypto has from C tor (key_blinding_testvec).
#[test]
fn blinding_matches_c_tor() {
    let expanded = hex("D8C7FF0E31295B66540D789AF3E3DF992038A9592EEA01D8B7CBA06D6E66D159\
         4D6167696320576F7264733A20737065697373636F62616C742062697669756D");
    let key = MasterKey::from_tor_file_bytes(&tor_file(&expanded)).expect("a good key");
    let id: [u8; 32] = hex("833990B085C1A688C1D4C8B1F6B56AFAF5A2ECA674449E1D704F83765CCB7BC6");
    assert_eq!(key.onion_address().public_key(), &id);
    let period = TimePeriod::from_parts(1440, 1234, 12 * 3600);
    let (public, pair, subcredential) =
        key.keypair().compute_blinded_key(period).expect("it can be blinded");
    let blinded: [u8; 32] = hex("3A50BF210E8F9EE955AE0014F7A6917FB65EBF098A86305ABB508D1A7291B6D5");
    assert_eq!(public.id().as_ref(), &blinded);
    let expected: [u8; 32] =
        hex("635D55907816E8D76398A675A50B1C2F3E36B42A5CA77BA3A0441285161AE07D");
    assert_eq!(subcredential.as_ref(), &expected);
    let expected: [u8; 64] =
        hex("A958DC83AC885F6814C67035DE817A2C604D5D2F715282079448F789B656350B\
         4540FE1F80AA3F7E91306B7BF7A8E367293352B14A29FDCC8C19F3558075524B");
    assert_eq!(pair.as_ref().to_secret_key_bytes(), expected);
}

/// Proves blinding of a public key on a vector that was computed with NaCl, with the period length
/// of the live network.
#[test]
fn blinding_a_public_key_matches_nacl() {
    let id =
        HsId::from(hex::<32>("e33734887a0d09abdf3470ca9839814b5813e29844f05feaff0609899f8ce633"));
    let key = HsIdKey::try_from(id).expect("a point of the curve");
    let period = TimePeriod::from_parts(1440, 20_487, 12 * 3600);
    let (public, _) = key.compute_blinded_key(period).expect("it can be blinded");
    let expected: [u8; 32] =
        hex("b03fd1be70bb50c29e73aaaa972ffb63b8f4efc0fe472e22444f33d505054955");
    assert_eq!(public.id().as_ref(), &expected);
}

#[test]
fn generated_keys_differ_and_print_nothing() {
    let (one, two) = (MasterKey::generate(), MasterKey::generate());
    assert_ne!(one.onion_address(), two.onion_address());
    assert_eq!(format!("{one:?}"), "MasterKey([redacted])");
    let again = MasterKey::from_tor_file_bytes(&one.to_tor_file_bytes()).expect("a good key");
    assert_eq!(again.onion_address(), one.onion_address());
}

#[test]
fn what_is_no_key_is_refused_with_its_reason() {
    let file: [u8; 96] = hex(ONIONBALANCE_FILE);
    let refused = |bytes: &[u8]| MasterKey::from_tor_file_bytes(bytes).expect_err("no key");
    assert_eq!(refused(&[]), KeyFormatError::Unknown { bytes: 0 });
    assert_eq!(refused(&[7; 96]), KeyFormatError::Unknown { bytes: 96 });
    assert_eq!(refused(&file[..95]), KeyFormatError::Length { bytes: 95 });
    assert_eq!(refused(&[&file[..], &[0]].concat()), KeyFormatError::Length { bytes: 97 });
    let public = [b"== ed25519v1-public: type0 ==\0\0\0".as_slice(), &[9; 32]].concat();
    assert_eq!(refused(&public), KeyFormatError::Public);

    let with = |change: fn(&mut [u8; 64])| {
        let mut expanded: [u8; 64] = file[32..].try_into().expect("64 bytes");
        change(&mut expanded);
        MasterKey::from_tor_file_bytes(&tor_file(&expanded)).map(|_| ())
    };
    // Neither clamped nor below the group's order; zero.
    assert_eq!(with(|key| key[31] = 0xff), Err(KeyFormatError::Scalar));
    assert_eq!(with(|key| key[0] |= 1), Err(KeyFormatError::Scalar));
    assert_eq!(with(|key| key[..32].fill(0)), Err(KeyFormatError::Scalar));
    // A scalar that was reduced is one that other tools write.
    assert_eq!(with(|key| key[31] = 0x0f), Ok(()));
    // A constant nonce prefix gives the key away with the first signature.
    assert_eq!(with(|key| key[32..].fill(0)), Err(KeyFormatError::Prefix));
    assert_eq!(with(|key| key[32..].fill(0x5a)), Err(KeyFormatError::Prefix));
}

#[test]
fn pem_of_something_else_is_refused_with_its_reason() {
    let good = pem(&hex(RFC_SEED));
    let refused = |text: &str| MasterKey::from_pem(text).expect_err("no key").to_string();
    let encrypted = good.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert!(refused(&encrypted).contains("openssl pkcs8"));
    let public = good.replace("PRIVATE KEY", "PUBLIC KEY");
    assert!(refused(&public).contains("`PUBLIC KEY`"), "{}", refused(&public));
    // 2b6570 is Ed25519; 2b656e is X25519.
    let mut der = hex::<16>("302e020100300506032b656e04220420").to_vec();
    der.extend([1; 32]);
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    let other = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    assert!(refused(&other).contains("another algorithm"), "{}", refused(&other));
    assert!(refused(&good.replace("MC4C", "!!!!")).contains("damaged"));
    assert!(refused(&good[..60]).contains("damaged"));
}
