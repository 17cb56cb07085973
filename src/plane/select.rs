//! Which of several backends a stream gets: no lock, no allocation, one look at each candidate.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt as _;

use super::config::Balance;
use crate::base::stream::CircuitId;
use crate::limits;

/// Words of a [`Set`].
const WORDS: usize = limits::BACKENDS_PER_PORT_MAX.div_ceil(64);

/// Some of the backends of a port, by their index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set([u64; WORDS]);

impl Set {
    /// Those of `0..length` for which `holds` is true.
    pub(super) fn of(length: usize, mut holds: impl FnMut(usize) -> bool) -> Set {
        let mut set = Set::default();
        (0..length).filter(|index| holds(*index)).for_each(|index| set.insert(index));
        set
    }

    /// Add one.
    pub(super) fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    /// Take one out.
    pub(super) fn remove(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }

    /// Whether it is in it.
    pub(super) fn has(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    /// Those that are not in `others`.
    pub(super) fn without(&self, others: &Set) -> Set {
        Set(std::array::from_fn(|word| self.0[word] & !others.0[word]))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Set::default()
    }
}

/// Picks for one port.
#[derive(Debug)]
pub(super) struct Selector {
    /// How.
    balance: Balance,
    /// The weight of each backend.
    weights: Box<[u16]>,
    /// A whole turn: every backend as often as its weight says, spread evenly.
    turn: Box<[u16]>,
    /// Where in it the next stream begins.
    next: AtomicUsize,
}

impl Selector {
    /// For backends of these weights; a weight of 0 counts as 1.
    pub(super) fn new(balance: Balance, weights: impl Iterator<Item = u16>) -> Selector {
        let weights: Box<[u16]> = weights.map(|weight| weight.max(1)).collect();
        let turn = spread(&weights);
        Selector { balance, weights, turn, next: AtomicUsize::new(0) }
    }

    /// One of `candidates`, unless there is none. `open` tells the connections of each.
    pub(super) fn pick(
        &self,
        candidates: &Set,
        circuit: CircuitId,
        open: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        if candidates.is_empty() || self.turn.is_empty() {
            return None;
        }
        // Connections for each weight, compared without a division: a/x < b/y is a*y < b*x.
        let load = |index: usize| (open(index) + 1, u64::from(self.weights[index]));
        let lighter = |one: usize, other: usize| {
            let ((ours, weight), (theirs, their_weight)) = (load(one), load(other));
            if ours * their_weight < theirs * weight { one } else { other }
        };
        match self.balance {
            Balance::RoundRobin => self.first_in_turn(candidates, self.advance()),
            // The first of equals is another one each time.
            Balance::LeastConnections => {
                let first = self.first_in_turn(candidates, self.advance())?;
                let others = (0..self.weights.len()).filter(|index| candidates.has(*index));
                Some(others.fold(first, |best, index| lighter(index, best)))
            }
            Balance::RandomTwo => {
                let draw = || {
                    let place = rand::rng().random_range(0..self.turn.len());
                    self.first_in_turn(candidates, place)
                };
                let (one, other) = (draw()?, draw()?);
                Some(lighter(one, other))
            }
            Balance::Circuit => (0..self.weights.len())
                .filter(|index| candidates.has(*index))
                .map(|index| (claim(circuit, index, self.weights[index]), index))
                .min_by(|(one, _), (other, _)| one.total_cmp(other))
                .map(|(_, index)| index),
        }
    }

    /// The place in the turn where this stream begins.
    fn advance(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.turn.len()
    }

    /// The first candidate in the turn from `place` on.
    fn first_in_turn(&self, candidates: &Set, place: usize) -> Option<usize> {
        let (before, after) = self.turn.split_at(place);
        let mut places = after.iter().chain(before).map(|index| usize::from(*index));
        places.find(|index| candidates.has(*index))
    }
}

/// How good a backend's claim to a circuit is; the smallest wins. Weighted rendezvous hashing
/// (Schindelhauer and Schomaker 2005): a backend that goes moves its own circuits alone.
fn claim(circuit: CircuitId, index: usize, weight: u16) -> f64 {
    let mut hasher = DefaultHasher::new();
    (circuit.instance, circuit.serial, index).hash(&mut hasher);
    // 52 bits make a number between 0 and 1, both excluded.
    let uniform = ((hasher.finish() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -uniform.ln() / f64::from(weight)
}

/// A turn in which index `i` stands `weights[i]` times (divided by what they have in common), as
/// far from itself as can be: at every place the one that is furthest behind its share.
fn spread(weights: &[u16]) -> Box<[u16]> {
    let common = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / common)).collect();
    let total: i64 = weights.iter().sum();
    let mut behind = vec![0_i64; weights.len()];
    let place = |_| {
        behind.iter_mut().zip(&weights).for_each(|(behind, weight)| *behind += weight);
        // The first of equals, so that backends of one weight are used in their order.
        let furthest = (0..weights.len()).rev().max_by_key(|index| behind[*index]).unwrap_or(0);
        behind[furthest] -= total;
        furthest as u16
    };
    (0..total).map(place).collect()
}

/// The greatest common divisor.
fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::{Selector, Set, spread};
    use crate::base::stream::CircuitId;
    use crate::limits;
    use crate::plane::config::Balance;

    /// All of `length`.
    fn all(length: usize) -> Set {
        Set::of(length, |_| true)
    }

    /// A circuit.
    fn circuit(serial: u32) -> CircuitId {
        CircuitId { instance: 1, serial }
    }

    /// How often each of `length` backends is picked in `rounds`.
    fn picked(selector: &Selector, candidates: &Set, length: usize, rounds: u32) -> Vec<u32> {
        let mut picked = vec![0; length];
        for serial in 0..rounds {
            let index = selector.pick(candidates, circuit(serial), |_| 0).expect("a candidate");
            assert!(candidates.has(index));
            picked[index] += 1;
        }
        picked
    }

    #[test]
    fn a_turn_is_spread_evenly_and_as_short_as_can_be() {
        assert_eq!(*spread(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(*spread(&[100, 100]), [0, 1]);
        assert_eq!(*spread(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert!(spread(&[]).is_empty());
        let longest = vec![limits::BACKEND_WEIGHT_MAX; limits::BACKENDS_PER_PORT_MAX - 1];
        let longest: Vec<u16> = longest.into_iter().chain([99]).collect();
        assert_eq!(spread(&longest).len(), 255 * 100 + 99);
    }

    #[test]
    fn the_last_backend_of_a_port_can_be_a_candidate() {
        let last = limits::BACKENDS_PER_PORT_MAX - 1;
        let mut set = Set::default();
        set.insert(last);
        assert!(set.has(last) && !set.has(last - 1) && !set.is_empty());
        let selector = Selector::new(Balance::RoundRobin, std::iter::repeat_n(1, last + 1));
        assert_eq!(selector.pick(&set, circuit(0), |_| 0), Some(last));
        set.remove(last);
        assert_eq!(selector.pick(&set, circuit(0), |_| 0), None);
    }

    #[test]
    fn round_robin_gives_each_its_weight_and_skips_who_is_out() {
        let selector = Selector::new(Balance::RoundRobin, [3, 1, 2].into_iter());
        assert_eq!(picked(&selector, &all(3), 3, 600), [300, 100, 200]);
        let mut two = all(3);
        two.remove(0);
        let shares = picked(&selector, &two, 3, 600);
        assert!(shares[0] == 0 && shares[1] > 0 && shares[2] > shares[1], "{shares:?}");
    }

    #[test]
    fn least_connections_counts_for_the_weight() {
        let selector = Selector::new(Balance::LeastConnections, [1, 4].into_iter());
        let pick = |open: [u64; 2]| selector.pick(&all(2), circuit(0), |index| open[index]);
        assert_eq!(pick([0, 1]), Some(1));
        assert_eq!(pick([0, 4]), Some(0));
        assert_eq!(pick([9, 20]), Some(1));
        // Equals take turns.
        let equal = Selector::new(Balance::LeastConnections, [1, 1].into_iter());
        assert_eq!(picked(&equal, &all(2), 2, 10), [5, 5]);
    }

    #[test]
    fn the_better_of_two_keeps_loads_together() {
        let selector = Selector::new(Balance::RandomTwo, std::iter::repeat_n(1, 10));
        let mut open = [0_u64; 10];
        for serial in 0..10_000 {
            let index = selector.pick(&all(10), circuit(serial), |index| open[index]);
            open[index.expect("a candidate")] += 1;
        }
        let (least, most) = (open.iter().min().expect("ten"), open.iter().max().expect("ten"));
        // Drawn by chance alone they would be some 180 apart.
        assert!(most - least < 20, "{open:?}");
    }

    #[test]
    fn a_circuit_stays_and_moves_only_when_its_backend_goes() {
        let selector = Selector::new(Balance::Circuit, [1, 1, 2].into_iter());
        let shares = picked(&selector, &all(3), 3, 4000);
        for (share, expected) in shares.iter().zip([1000, 1000, 2000]) {
            assert!(share.abs_diff(expected) < 150, "{shares:?}");
        }
        let without = Set::of(3, |index| index != 1);
        for serial in 0..1000 {
            let before = selector.pick(&all(3), circuit(serial), |_| 0).expect("a candidate");
            assert_eq!(selector.pick(&all(3), circuit(serial), |_| 7), Some(before));
            let after = selector.pick(&without, circuit(serial), |_| 0).expect("a candidate");
            assert!(after == before || before == 1, "{serial}: {before} then {after}");
        }
    }
}
