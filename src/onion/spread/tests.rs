//! What every deal has to be, for many numbers of instances and points.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Board, Hand, Spread, spread};

/// The public network's, with the default number of points.
const BOARD: Board = Board { replicas: 2, asked: 3, points_max: 16, may_differ: true };

/// Points have names, and relays of their own unless a test says otherwise.
type Point = u64;

/// Instances with so many points each, numbered from 0; an instance without points has none.
fn hands(counts: &[usize]) -> Vec<Hand<Point>> {
    let hand = |(instance, count): (usize, &usize)| Hand {
        instance,
        points: Arc::new((0..*count).map(|point| (instance * 1000 + point) as u64).collect()),
        share: 100,
    };
    counts.iter().enumerate().map(hand).filter(|hand| !hand.points.is_empty()).collect()
}

fn deal(counts: &[usize], board: Board) -> Spread<Point> {
    spread(&hands(counts), board, |_, _| false)
}

/// How likely a client is to choose each instance: a random position of those that clients ask,
/// then a random point.
fn chances(spread: &Spread<Point>, board: Board) -> BTreeMap<usize, f64> {
    let mut chances = BTreeMap::new();
    let positions = (board.replicas * board.asked) as f64;
    for replica in 1..=board.replicas {
        for position in 1..=board.asked {
            let set = &spread.sets[spread.set_for(replica, position)];
            for (instance, _) in set {
                *chances.entry(*instance).or_default() += 1.0 / (positions * set.len() as f64);
            }
        }
    }
    chances
}

/// The replicas in which an instance can be met.
fn replicas_of(spread: &Spread<Point>, board: Board, instance: usize) -> BTreeSet<usize> {
    let met = |replica: &usize| {
        (1..=board.asked).any(|position| {
            let set = &spread.sets[spread.set_for(*replica, position)];
            set.iter().any(|(other, _)| *other == instance)
        })
    };
    (1..=board.replicas).filter(met).collect()
}

#[test]
fn what_fits_into_one_descriptor_is_one_descriptor() {
    for (counts, points) in [(vec![3; 5], 15), (vec![16], 16), (vec![1; 16], 16), (vec![], 0)] {
        let dealt = deal(&counts, BOARD);
        assert_eq!(dealt.sets.len(), 1, "{counts:?}");
        assert_eq!(dealt.sets[0].len(), points, "{counts:?}");
        assert_eq!((dealt.set_for(1, 1), dealt.set_for(2, 4), dealt.set_for(9, 9)), (0, 0, 0));
    }
    let one = deal(&[3; 12], Board { may_differ: false, ..BOARD });
    assert_eq!((one.sets.len(), one.sets[0].len()), (1, 16), "as it was before");
    assert_eq!(one.sets[0].iter().map(|(owner, _)| owner).collect::<BTreeSet<_>>().len(), 12);
}

#[test]
fn no_set_is_above_the_cap_or_names_a_point_twice_or_one_that_is_not_there() {
    for instances in 0..110 {
        for points in 1..6 {
            let counts = vec![points; instances];
            for set in deal(&counts, BOARD).sets {
                assert!(set.len() <= BOARD.points_max, "{instances} x {points}");
                let names: BTreeSet<u64> = set.iter().map(|(_, name)| *name).collect();
                assert_eq!(names.len(), set.len(), "{instances} x {points}: {set:?}");
                for (instance, name) in set {
                    assert_eq!(name / 1000, instance as u64);
                    assert!(instance < instances && name % 1000 < points as u64);
                }
            }
        }
    }
}

#[test]
fn every_instance_can_be_met_and_in_both_replicas_where_there_is_room() {
    for instances in 1..=96 {
        for points in 1..6 {
            let dealt = deal(&vec![points; instances], BOARD);
            for instance in 0..instances {
                let met = replicas_of(&dealt, BOARD, instance);
                assert!(!met.is_empty(), "{instance} of {instances} x {points}");
                let room = instances <= BOARD.asked * BOARD.points_max;
                assert!(!room || met.len() == 2, "{instance} of {instances} x {points}: {met:?}");
            }
        }
    }
}

#[test]
fn every_point_of_twelve_instances_is_used_and_no_document_is_short() {
    let dealt = deal(&[3; 12], BOARD);
    assert_eq!(dealt.sets.len(), 6);
    assert!(dealt.sets.iter().all(|set| set.len() == 16), "{dealt:?}");
    let names: BTreeSet<u64> = dealt.sets.iter().flatten().map(|(_, name)| *name).collect();
    assert_eq!(names.len(), 36);
}

#[test]
fn replicas_name_different_points_where_an_instance_has_few_places() {
    let dealt = deal(&[3; 48], BOARD);
    let names: BTreeSet<u64> = dealt.sets.iter().flatten().map(|(_, name)| *name).collect();
    assert_eq!(names.len(), 96, "one place in each replica, and a point for each");
}

#[test]
fn clients_choose_every_instance_equally_often() {
    for instances in 1..=48_usize {
        for points in 1..6 {
            let dealt = deal(&vec![points; instances], BOARD);
            let chances = chances(&dealt, BOARD);
            let least = chances.values().copied().fold(f64::MAX, f64::min);
            let most = chances.values().copied().fold(0.0, f64::max);
            // One place more or less in all six sets together, where they do not come out even.
            let place = 1.0 / 96.0;
            let bound = match dealt.sets.len() {
                1 => place * 6.0,
                _ => place * 1.6,
            };
            assert!(most - least <= bound, "{instances} x {points}: {least} to {most}");
        }
    }
}

#[test]
fn sets_stay_while_points_stay_and_change_little_when_an_instance_goes() {
    let placed = |spread: &Spread<Point>| -> BTreeSet<(usize, usize, u64)> {
        let sets = spread.sets.iter().enumerate();
        sets.flat_map(|(set, all)| all.iter().map(move |(owner, name)| (set, *owner, *name)))
            .collect()
    };
    for instances in [8, 12, 20, 33, 48] {
        let before = deal(&vec![3; instances], BOARD);
        assert_eq!(before, deal(&vec![3; instances], BOARD));
        for gone in 0..instances {
            let mut counts = vec![3; instances];
            counts[gone] = 0;
            let after = deal(&counts, BOARD);
            let kept: BTreeSet<_> = placed(&after);
            let moved = placed(&before)
                .into_iter()
                .filter(|(_, owner, _)| *owner != gone)
                .filter(|place| !kept.contains(place))
                .count();
            assert!(moved <= 96 / 16, "{moved} of 96 places moved when {gone} of {instances} went");
        }
    }
}

#[test]
fn no_set_has_two_points_at_one_relay() {
    // Nine relays for 36 points, as in a small network: a relay is its number modulo nine.
    let same = |one: &u64, other: &u64| relay(*one) == relay(*other);
    let dealt = spread(&hands(&[3; 12]), BOARD, same);
    assert_eq!(dealt.sets.len(), 6);
    for set in &dealt.sets {
        let relays: BTreeSet<u64> = set.iter().map(|(_, name)| relay(*name)).collect();
        assert_eq!(relays.len(), set.len(), "{set:?}");
        assert!(set.len() >= 8, "of nine relays: {set:?}");
    }
    for instance in 0..12 {
        assert_eq!(replicas_of(&dealt, BOARD, instance).len(), 2, "{instance}: {dealt:?}");
    }
}

/// The relay of a point, where there are nine.
fn relay(name: u64) -> u64 {
    (name / 1000 * 3 + name % 1000) % 9
}

#[test]
fn who_has_fewer_points_is_dealt_what_there_is() {
    let dealt = deal(&[1, 0, 20, 3], BOARD);
    let count = |instance: usize| {
        dealt.sets.iter().flatten().filter(|(owner, _)| *owner == instance).count()
    };
    // One point stands in all six sets.
    assert_eq!(count(0), 6, "{dealt:?}");
    assert_eq!(count(1), 0);
    assert_eq!(count(0) + count(2) + count(3), 96);
    assert!(count(3) == 18 && count(2) == 72, "{} {}", count(3), count(2));
}

#[test]
fn who_has_half_a_share_is_chosen_half_as_often_and_who_has_none_not_at_all() {
    let mut unequal = hands(&[8; 8]);
    unequal[2].share = 50;
    unequal[5].share = 0;
    let dealt = spread(&unequal, BOARD, |_, _| false);
    let chances = chances(&dealt, BOARD);
    let half = chances[&2] / chances[&0];
    assert!((0.4..=0.6).contains(&half), "{half}: {chances:?}");
    assert!(!chances.contains_key(&5), "{chances:?}");
    assert!(dealt.sets.iter().all(|set| set.len() == 16), "{dealt:?}");
    // But for want of anybody else.
    unequal.iter_mut().for_each(|hand| hand.share = 0);
    assert_eq!(super::spread(&unequal, BOARD, |_, _| false).sets.len(), 6);
}

#[test]
fn who_has_half_a_share_gives_up_half_its_points_where_all_fit_into_one() {
    let mut unequal = hands(&[4, 4, 4]);
    unequal[1].share = 50;
    unequal[2].share = 1;
    let dealt = spread(&unequal, BOARD, |_, _| false);
    assert_eq!(dealt.sets.len(), 1);
    let mut owners: Vec<usize> = dealt.sets[0].iter().map(|(owner, _)| *owner).collect();
    owners.sort_unstable();
    assert_eq!(owners, [0, 0, 0, 0, 1, 1, 2]);
}

#[test]
fn spares_repeat_sets_and_where_replicas_meet_nothing_is_lost() {
    let dealt = deal(&[3; 12], BOARD);
    let of = |replica, position| dealt.set_for(replica, position);
    assert_eq!([of(1, 1), of(1, 2), of(1, 3), of(2, 1), of(2, 2), of(2, 3)], [0, 1, 2, 3, 4, 5]);
    // The first replica's spare stands in for the second one's last position.
    assert_eq!((of(1, 4), of(2, 4), of(2, 5)), (5, 3, 4));
    // More replicas than there are sets for repeat them.
    assert_eq!((of(3, 1), of(3, 3), of(4, 2)), (0, 2, 4));
}

#[test]
fn other_networks_have_other_boards() {
    for replicas in 1..5 {
        for asked in 1..6 {
            for points_max in [1, 4, 20] {
                let board = Board { replicas, asked, points_max, may_differ: true };
                let dealt = deal(&[2; 9], board);
                assert!(dealt.sets.iter().all(|set| set.len() <= points_max));
                let places = replicas * asked * points_max;
                let met = chances(&dealt, board).len();
                assert_eq!(met, places.min(9), "{board:?}");
                for (replica, position) in [(1, 1), (replicas, asked), (replicas + 1, asked + 3)] {
                    assert!(dealt.set_for(replica, position) < dealt.sets.len(), "{board:?}");
                }
            }
        }
    }
}
