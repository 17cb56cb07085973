//! Signatures are made with the whole expanded key: the nonce comes from the secret prefix.
//!
//! A balancer once signed with the 32-byte scalar alone. Its nonces were then hashes of public
//! data, and anybody could compute the master key from one descriptor. Here every signature is
//! computed a second time, step by step from RFC 8032 with arithmetic of our own, and compared.

use std::cmp::Ordering;

use digest::Digest;
use tor_hscrypto::time::TimePeriod;
use tor_llcrypto::d::Sha512;
use tor_llcrypto::pk::ed25519::ExpandedKeypair;

use super::{RFC_SEED, hex, pem};
use crate::vault::MasterKey;

/// The order of the base point (RFC 8032, section 5.1), least significant limb first.
const ORDER: [u64; 4] = [0x5812_631a_5cf5_d3ed, 0x14de_f9de_a2f7_9cd6, 0, 1 << 60];

/// A number below [`ORDER`].
type Number = [u64; 4];

/// `a + b` modulo the order.
fn add(a: Number, b: Number) -> Number {
    let mut sum = [0; 4];
    let mut carry = false;
    for index in 0..4 {
        let (low, first) = a[index].overflowing_add(b[index]);
        let (low, second) = low.overflowing_add(u64::from(carry));
        (sum[index], carry) = (low, first || second);
    }
    assert!(!carry, "both are below 2^253");
    if sum.iter().rev().cmp(ORDER.iter().rev()) == Ordering::Less { sum } else { minus_order(sum) }
}

/// `a - order`.
fn minus_order(a: Number) -> Number {
    let mut difference = [0; 4];
    let mut borrow = false;
    for index in 0..4 {
        let (low, first) = a[index].overflowing_sub(ORDER[index]);
        let (low, second) = low.overflowing_sub(u64::from(borrow));
        (difference[index], borrow) = (low, first || second);
    }
    difference
}

/// Bits of little-endian bytes, the most significant first.
fn bits(bytes: &[u8]) -> impl Iterator<Item = bool> + '_ {
    bytes.iter().rev().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
}

/// Little-endian bytes modulo the order.
fn reduce(bytes: &[u8]) -> Number {
    bits(bytes).fold([0; 4], |number, bit| add(add(number, number), [u64::from(bit), 0, 0, 0]))
}

/// `a * b` modulo the order.
fn multiply(a: Number, b: Number) -> Number {
    let zero = [0; 4];
    bits(&encode(a)).fold(zero, |sum, bit| add(add(sum, sum), if bit { b } else { zero }))
}

/// Little-endian bytes of a number.
fn encode(number: Number) -> [u8; 32] {
    let bytes: Vec<u8> = number.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    bytes.try_into().expect("four times eight")
}

/// SHA-512 of the parts, modulo the order.
fn hash(parts: &[&[u8]]) -> Number {
    let mut hash = Sha512::new();
    parts.iter().for_each(|part| hash.update(part));
    reduce(&hash.finalize())
}

/// `number` times the base point, encoded.
fn point(number: Number) -> [u8; 32] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&encode(number));
    let pair = ExpandedKeypair::from_secret_key_bytes(bytes).expect("64 bytes");
    pair.public().to_bytes()
}

/// A signature as RFC 8032, section 5.1.6, computes it from scalar and prefix.
fn sign(scalar: &[u8], prefix: &[u8], message: &[u8]) -> [u8; 64] {
    let a = reduce(scalar);
    let nonce = hash(&[prefix, message]);
    let commitment = point(nonce);
    let challenge = hash(&[&commitment, &point(a), message]);
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&commitment);
    signature[32..].copy_from_slice(&encode(add(nonce, multiply(challenge, a))));
    signature
}

/// What two signatures of one key must be, given its scalar and its nonce prefix.
fn assert_prefix_is_used(pair: &ExpandedKeypair, scalar: &[u8], prefix: &[u8]) {
    let (one, two) = (b"one descriptor".as_slice(), b"another descriptor".as_slice());
    let signed = |message| pair.sign(message).to_bytes();
    assert_eq!(signed(one), sign(scalar, prefix, one), "not RFC 8032 with this prefix");
    assert_eq!(signed(two), sign(scalar, prefix, two), "not RFC 8032 with this prefix");
    assert_ne!(signed(one)[..32], signed(two)[..32], "the nonce does not depend on the message");
    for constant in [[0_u8; 32].as_slice(), &[0xff; 32], &[], scalar] {
        let leaking = sign(scalar, constant, one);
        assert_ne!(signed(one)[..32], leaking[..32], "the nonce is made from a public prefix");
    }
    assert!(pair.public().verify(one, &pair.sign(one)).is_ok());
    assert!(pair.public().verify(two, &pair.sign(one)).is_err());
}

/// Proves that this file's own arithmetic is right, on RFC 8032, section 7.1, TEST 1.
#[test]
fn our_rfc_8032_gives_the_rfcs_signature() {
    let key = MasterKey::from_pem(&pem(&hex(RFC_SEED))).expect("a good key");
    let file = key.to_tor_file_bytes();
    let expected: [u8; 64] = hex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701\
         cf9b46bd25bf5f0595bbe24655141438e7a100b",
    );
    assert_eq!(sign(&file[32..64], &file[64..], b""), expected);
    assert_eq!(key.keypair().as_ref().sign(b"").to_bytes(), expected);
}

/// Proves that a master key signs with its nonce prefix, whichever form it came in.
#[test]
fn a_master_key_signs_with_its_nonce_prefix() {
    let from_pem = MasterKey::from_pem(&pem(&hex(RFC_SEED))).expect("a good key");
    let from_tor = MasterKey::from_tor_file_bytes(&from_pem.to_tor_file_bytes()).expect("good");
    for key in [MasterKey::generate(), from_pem, from_tor] {
        let file = key.to_tor_file_bytes();
        assert_prefix_is_used(key.keypair().as_ref(), &file[32..64], &file[64..]);
    }
}

/// Proves that a blinded key, which is what signs descriptors, has a secret nonce prefix of its
/// own, derived from the master's (rend-spec-v3, section A.2).
#[test]
fn a_blinded_key_signs_with_a_prefix_derived_from_the_masters() {
    let key = MasterKey::generate();
    let file = key.to_tor_file_bytes();
    let prefix_of = |master_prefix: &[u8]| -> [u8; 64] {
        let hash = Sha512::new()
            .chain_update(b"Derive temporary signing key hash input")
            .chain_update(master_prefix);
        hash.finalize().into()
    };
    let prefix = &prefix_of(&file[64..])[..32];
    let mut prefixes = Vec::new();
    for interval in [20_000, 20_001] {
        let period = TimePeriod::from_parts(1440, interval, 12 * 3600);
        let (_, blinded, _) = key.keypair().compute_blinded_key(period).expect("it can be blinded");
        let secret = blinded.as_ref().to_secret_key_bytes();
        assert_prefix_is_used(blinded.as_ref(), &secret[..32], prefix);
        prefixes.push(secret[32..].to_vec());
        assert_ne!(secret[32..], prefix_of(&[0; 32])[..32]);
    }
    assert_eq!(prefixes[0], prefix);
}

/// Shows that the leak is real, and so that these tests watch the right thing: with a public nonce
/// prefix, one signature gives the scalar.
#[test]
fn a_public_prefix_gives_the_scalar_away() {
    let key = MasterKey::generate();
    let file = key.to_tor_file_bytes();
    let message = b"one descriptor".as_slice();
    let recovered = |signature: [u8; 64], prefix: &[u8]| -> Number {
        let nonce = hash(&[prefix, message]);
        let public = key.onion_address();
        let challenge = hash(&[&signature[..32], public.public_key(), message]);
        let minus_one = minus(ORDER, [1, 0, 0, 0]);
        let difference = add(reduce(&signature[32..]), multiply(minus_one, nonce));
        multiply(difference, inverse(challenge))
    };
    let secret = reduce(&file[32..64]);
    let leaking = sign(&file[32..64], &[0; 32], message);
    assert_eq!(recovered(leaking, &[0; 32]), secret, "the attack works on a leaking signature");
    let ours = key.keypair().as_ref().sign(message).to_bytes();
    assert_ne!(recovered(ours, &[0; 32]), secret, "the attack does not work on ours");
}

/// `a - b`, where no limb of `b` is above that of `a`.
fn minus(a: Number, b: Number) -> Number {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
}

/// `1 / a` modulo the order, which is a prime: `a` to the power of order - 2.
fn inverse(a: Number) -> Number {
    let exponent = encode(minus(ORDER, [2, 0, 0, 0]));
    let one = [1, 0, 0, 0];
    bits(&exponent).fold(one, |power, bit| {
        let square = multiply(power, power);
        if bit { multiply(square, a) } else { square }
    })
}
