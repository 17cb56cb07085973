//! Which introduction points stand in which descriptor.
//!
//! While all points fit into one descriptor, every HSDir gets the same. Where they do not, the
//! HSDirs that clients ask get different ones: on the public network three positions of each of two
//! replicas, so six documents of 16 points, 96 in all. A client asks one of them at random, and
//! chooses one of its points at random.
//!
//! ```text
//!   replica 1:  [set 0] [set 1] [set 2] (spare)      replica 2:  [set 3] [set 4] [set 5] (spare)
//!                  '----- every instance, in turns -----'           '----- every instance again
//! ```
//!
//! Points are dealt in passes, for each replica on its own: one of every instance, then another of
//! every instance (of those with half a share, every second time), until its sets are full. So
//! * an instance is in sets of both replicas as long as there are no more instances than places in
//!   one replica's sets, and in one set as long as there are no more than places altogether;
//! * instances are chosen as often as their shares say, as far as they have points;
//! * what an instance gets depends on its own number, hardly on the others: sets stay as they are
//!   while points do, and change a little when a few points do.
//!
//! No set names a point twice, nor a relay, unless all points fit into it. Pure: knows nothing of
//! documents or HSDirs.

use std::sync::Arc;

/// One instance, as it is dealt.
#[derive(Clone, Debug)]
pub(super) struct Hand<T> {
    /// Its number.
    pub(super) instance: usize,
    /// The points that it has.
    pub(super) points: Arc<Vec<T>>,
    /// How often clients shall choose it beside the others; 0: only if there is no other.
    pub(super) share: u32,
}

/// The sets that clients can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Board {
    /// Replicas of a descriptor (`hsdir_n_replicas`).
    pub(super) replicas: usize,
    /// Positions of each replica that clients ask (`hsdir_spread_fetch`).
    pub(super) asked: usize,
    /// Points in a set at most.
    pub(super) points_max: usize,
    /// Whether sets may differ.
    pub(super) may_differ: bool,
}

/// The sets, with the numbers of the points' instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spread<T> {
    /// The different sets; none is empty, unless there is no point at all.
    pub(super) sets: Vec<Vec<(usize, T)>>,
    /// How many positions of a replica have a set of their own.
    asked: usize,
}

impl<T> Spread<T> {
    /// The set for a position (from 1) of a replica (from 1).
    pub(super) fn set_for(&self, replica: usize, position: usize) -> usize {
        let replicas = self.sets.len() / self.asked.max(1);
        if self.asked == 0 || replicas == 0 {
            return 0;
        }
        let (replica, position) = (replica.saturating_sub(1), position.saturating_sub(1));
        if position < self.asked {
            return (replica % replicas) * self.asked + position;
        }
        // Where two replicas meet on a ring of few relays, clients ask the first one's spare in
        // the place of the second one's last.
        match replica + 1 < replicas {
            true if position == self.asked => (replica + 2) * self.asked - 1,
            _ => (replica % replicas) * self.asked + position % self.asked,
        }
    }
}

/// Deal the points. `same_relay` tells points that may not stand in one set.
pub(super) fn spread<T: Clone>(
    hands: &[Hand<T>],
    board: Board,
    same_relay: impl Fn(&T, &T) -> bool,
) -> Spread<T> {
    let has_points = |hand: &&Hand<T>| !hand.points.is_empty();
    let wanted = hands.iter().filter(has_points).any(|hand| hand.share > 0);
    let hands: Vec<&Hand<T>> =
        hands.iter().filter(has_points).filter(|hand| hand.share > 0 || !wanted).collect();
    let trimmed: Vec<Hand<T>> = hands.iter().map(|hand| trim(hand, &hands)).collect();
    let all: usize = trimmed.iter().map(|hand| hand.points.len()).sum();
    let differ = board.may_differ && board.replicas * board.asked > 1;
    if all <= board.points_max || !differ {
        // Two instances may have chosen one relay: a set is better with both than without.
        let apart = |one: &T, other: &T| all > board.points_max && same_relay(one, other);
        let trimmed: Vec<&Hand<T>> = trimmed.iter().collect();
        let one = Replica::deal(&trimmed, (0, 0), 1, board.points_max, &apart);
        return Spread { sets: one.sets, asked: 0 };
    }
    let numbers = hands.iter().map(|hand| hand.instance + 1).max().unwrap_or(0);
    let sets = (0..board.replicas).flat_map(|replica| {
        // Another one begins, so that those who have one more are not the same.
        let first = replica * numbers / board.replicas;
        Replica::deal(&hands, (replica, first), board.asked, board.points_max, &same_relay).sets
    });
    Spread { sets: sets.collect(), asked: board.asked }
}

/// What an instance has for one set in which everybody's points stand: the fewer, the smaller its
/// share is beside the largest; one at least.
fn trim<T: Clone>(hand: &Hand<T>, all: &[&Hand<T>]) -> Hand<T> {
    let most = all.iter().map(|hand| u64::from(hand.share)).max().unwrap_or(0);
    if u64::from(hand.share) == most {
        return hand.clone();
    }
    let count = (hand.points.len() as u64 * u64::from(hand.share)).div_ceil(most).max(1);
    let kept = usize::try_from(count).unwrap_or(usize::MAX);
    Hand { points: Arc::new(hand.points.iter().take(kept).cloned().collect()), ..hand.clone() }
}

/// The sets of one replica, as they fill.
struct Replica<'relay, T> {
    /// The sets.
    sets: Vec<Vec<(usize, T)>>,
    /// Index in its hand of each point in each set, by instance.
    dealt: Vec<Vec<(usize, usize)>>,
    /// Points in a set at most.
    points_max: usize,
    /// Which replica it is, from 0: another one begins with other points of each instance.
    turn: usize,
    /// Tells points that may not stand in one set.
    same_relay: &'relay dyn Fn(&T, &T) -> bool,
}

/// An instance at the table.
struct Player<'hand, T> {
    /// What it has.
    hand: &'hand Hand<T>,
    /// What it has given.
    given: usize,
    /// What it is owed: a point each time that this reaches the largest share.
    credit: i64,
}

impl<'relay, T: Clone> Replica<'relay, T> {
    /// Deal to the `count` sets of a replica, the instance with the number `first` before the
    /// others.
    fn deal<'hands>(
        hands: &[&'hands Hand<T>],
        (turn, first): (usize, usize),
        count: usize,
        points_max: usize,
        same_relay: &'relay dyn Fn(&T, &T) -> bool,
    ) -> Replica<'relay, T> {
        let mut replica = Replica {
            sets: vec![Vec::new(); count],
            dealt: vec![Vec::new(); count],
            points_max,
            turn,
            same_relay,
        };
        let begin = hands.iter().position(|hand| hand.instance >= first).unwrap_or(0);
        let order = hands[begin..].iter().chain(&hands[..begin]);
        let most = hands.iter().map(|hand| i64::from(hand.share)).max().unwrap_or(0).max(1);
        // In the first pass everybody is owed one.
        let player = |hand: &&'hands Hand<T>| Player { hand, given: 0, credit: most };
        let mut players: Vec<Player<'_, T>> = order.map(player).collect();
        while !players.is_empty() && replica.has_room() {
            // Whoever can give nothing more is out.
            players.retain_mut(|player| {
                if player.credit < most {
                    player.credit += i64::from(player.hand.share.max(1));
                }
                match player.credit >= most {
                    true => {
                        player.credit -= most;
                        replica.take_from(player)
                    }
                    false => true,
                }
            });
        }
        replica
    }

    /// Whether any set takes another point.
    fn has_room(&self) -> bool {
        self.sets.iter().any(|set| set.len() < self.points_max)
    }

    /// Put one more point of an instance into a set: that of its number and of how many it has
    /// given, or the next one that takes one. Whether that was possible.
    fn take_from(&mut self, player: &mut Player<'_, T>) -> bool {
        let Player { hand, given, .. } = player;
        let (sets, points) = (self.sets.len(), hand.points.len());
        for try_set in 0..sets {
            let set = (hand.instance + *given + try_set) % sets;
            if self.sets[set].len() >= self.points_max {
                continue;
            }
            for try_point in 0..points {
                let index = (self.turn + *given + *given / sets + try_point) % points;
                if self.takes(set, hand, index) {
                    self.sets[set].push((hand.instance, hand.points[index].clone()));
                    self.dealt[set].push((hand.instance, index));
                    *given += 1;
                    return true;
                }
            }
        }
        false
    }

    /// Whether a set takes this point: it has neither the point nor its relay.
    fn takes(&self, set: usize, hand: &Hand<T>, index: usize) -> bool {
        let point = &hand.points[index];
        !self.dealt[set].contains(&(hand.instance, index))
            && !self.sets[set].iter().any(|(_, other)| (self.same_relay)(other, point))
    }
}

#[cfg(test)]
mod tests;
