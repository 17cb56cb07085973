//! The permutation against published values, and against another implementation.

use std::vec::Vec;

use other::{Keccak, State1600};

use crate::{f1600, p1600};

/// SHA3-256 (FIPS 202, section 6.1) of a message, with this permutation.
fn sha3_256(message: &[u8]) -> [u8; 32] {
    const RATE_BYTES: usize = 136;
    let mut padded = Vec::from(message);
    padded.push(0x06);
    padded.resize(padded.len().next_multiple_of(RATE_BYTES), 0);
    if let Some(last) = padded.last_mut() {
        *last |= 0x80;
    }
    let mut state = [0; 25];
    for block in padded.chunks_exact(RATE_BYTES) {
        for (lane, bytes) in state.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane ^= u64::from_le_bytes(*bytes);
        }
        f1600(&mut state);
    }
    let mut digest = [0; 32];
    for (bytes, lane) in digest.as_chunks_mut::<8>().0.iter_mut().zip(state) {
        *bytes = lane.to_le_bytes();
    }
    digest
}

/// A digest as NIST writes it.
fn hex(digest: [u8; 32]) -> std::string::String {
    digest.iter().map(|byte| std::format!("{byte:02x}")).collect()
}

/// NIST's examples for FIPS 202: no bits, 24 bits, and 1600 bits, which take two blocks.
#[test]
fn sha3_256_is_that_of_fips_202() {
    assert_eq!(
        hex(sha3_256(b"")),
        "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"
    );
    assert_eq!(
        hex(sha3_256(b"abc")),
        "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"
    );
    assert_eq!(
        hex(sha3_256(&[0xa3; 200])),
        "79f38adec5c20307a98ef76e8324afbfd46cfd81b22e3973c65fa1bd9de31787"
    );
}

/// Every number of rounds that can be asked for, over states that look random: each is what the
/// last one became.
#[test]
fn is_bit_for_bit_what_another_implementation_gives() {
    fn compare<const ROUNDS: usize>(state: &mut State1600) {
        let mut ours = *state;
        p1600(&mut ours, ROUNDS);
        Keccak::new().with_p1600::<ROUNDS>(|permute| permute(state));
        assert_eq!(ours, *state, "after {ROUNDS} rounds");
    }
    macro_rules! compare_all {
        ($state:expr, $($rounds:literal)*) => { $(compare::<$rounds>($state);)* };
    }
    let mut state = [0x5a; 25];
    for _ in 0..1000 {
        compare_all!(&mut state, 24 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23);
        let mut ours = state;
        f1600(&mut ours);
        compare::<24>(&mut state);
        assert_eq!(ours, state);
    }
}

/// There are 24 constants.
#[test]
#[should_panic(expected = "a round without a constant")]
fn more_rounds_than_there_are_constants_are_refused() {
    p1600(&mut [0; 25], 25);
}
