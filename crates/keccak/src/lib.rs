//! The interface of `keccak` 0.1 for 64-bit lanes, for the dependencies of this workspace.
//!
//! Each relayed cell of an onion service's circuit takes five permutations: SHA3-256 is the digest
//! of its cells. `keccak` 0.1 moves lanes in place through one chain of 24 rotations; here a round
//! reads one array and writes another, two rounds make a step, and no lane waits for another's
//! rotation: a fifth less time. The root `Cargo.toml` puts this crate in `keccak`'s place, for all
//! that we build (ADR 0013).
//!
//! Written from FIPS 202, section 3, whose names it uses; the tables are computed from its
//! definitions. No line is taken from `keccak`. Neither a branch nor an address depends on the
//! state.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;

/// Lanes of the state: lane (x, y) is at `x + 5 * y`.
const LANES: usize = 25;

/// Rounds of Keccak-f\[1600\]: `12 + 2 * l` with `l` = 6.
const ROUNDS: usize = 24;

/// What iota adds to lane (0, 0), by round.
const CONSTANTS: [u64; ROUNDS] = constants();

/// How far rho rotates a lane, by its place.
const OFFSETS: [u32; LANES] = offsets();

/// FIPS 202, algorithm 5 (`rc(t)`, a register of eight bits) and algorithm 6, steps 2 and 3.
const fn constants() -> [u64; ROUNDS] {
    let mut all = [0; ROUNDS];
    let mut register: u8 = 1;
    let mut round = 0;
    while round < ROUNDS {
        let mut j = 0;
        while j <= 6 {
            if register & 1 == 1 {
                all[round] |= 1 << ((1_u32 << j) - 1);
            }
            let carry = register >> 7;
            register = (register << 1) ^ (carry * 0x71);
            j += 1;
        }
        round += 1;
    }
    all
}

/// FIPS 202, algorithm 2, steps 2 and 3.
const fn offsets() -> [u32; LANES] {
    let mut all = [0; LANES];
    let (mut x, mut y) = (1, 0);
    let mut t = 0;
    while t < 24 {
        all[x + 5 * y] = (t + 1) * (t + 2) / 2 % u64::BITS;
        (x, y) = (y, (2 * x + 3 * y) % 5);
        t += 1;
    }
    all
}

/// One round: theta, rho, pi, chi and iota, from one array to another.
#[inline(always)]
fn round(state: &[u64; LANES], constant: u64) -> [u64; LANES] {
    let column: [u64; 5] = core::array::from_fn(|x| {
        state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20]
    });
    let theta: [u64; 5] =
        core::array::from_fn(|x| column[(x + 4) % 5] ^ column[(x + 1) % 5].rotate_left(1));
    let mut next = [0; LANES];
    for y in 0..5 {
        // Pi: what comes to (x, y) was at (x + 3y, x).
        let row: [u64; 5] = core::array::from_fn(|x| {
            let before = (x + 3 * y) % 5;
            let place = before + 5 * x;
            (state[place] ^ theta[before]).rotate_left(OFFSETS[place])
        });
        for x in 0..5 {
            next[x + 5 * y] = row[x] ^ (!row[(x + 1) % 5] & row[(x + 2) % 5]);
        }
    }
    next[0] ^= constant;
    next
}

/// Keccak-f\[1600\].
pub fn f1600(state: &mut [u64; LANES]) {
    p1600(state, ROUNDS);
}

/// Keccak-p\[1600\]: the last `rounds` rounds of [`f1600`].
///
/// # Panics
/// When `rounds` is larger than 24.
pub fn p1600(state: &mut [u64; LANES], rounds: usize) {
    assert!(rounds <= ROUNDS, "a round without a constant was asked for");
    let (pairs, last) = CONSTANTS[ROUNDS - rounds..].as_chunks::<2>();
    for [first, second] in pairs {
        let between = round(state, *first);
        *state = round(&between, *second);
    }
    if let [constant] = last {
        *state = round(state, *constant);
    }
}
