//! Turns by a list of times: who has them, and when.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Allowance, Brake, GuardShare, Pace, Purpose, Turn, Turns};
use crate::limits;

/// One that has to wait.
fn wait(turns: &mut Turns, purpose: Purpose, now: Instant) -> oneshot::Receiver<()> {
    match turns.ask(purpose, now) {
        Turn::Later(told) => told,
        other => panic!("{purpose:?}: {other:?}"),
    }
}

/// Turns with the brake on, the first of which was taken.
fn braked(now: Instant) -> Turns {
    let mut turns = Turns::default();
    for _ in 0..limits::REFUSED_MAX {
        turns.brake.note_refused(now);
    }
    assert!(matches!(turns.ask(Purpose::Rendezvous, now), Turn::Now));
    turns
}

#[test]
fn looks_come_last_and_one_has_its_turn_after_so_many_others() {
    let start = Instant::now();
    let mut turns = braked(start);
    let mut look = wait(&mut turns, Purpose::Look, start);
    let mut clients: Vec<_> =
        (0..12).map(|_| wait(&mut turns, Purpose::Rendezvous, start)).collect();
    assert!(!turns.is_behind(), "neither has its turn before clients");
    let pause = Duration::from_millis(limits::REFUSED_PAUSE_MS_MIN);
    let mut before = 0;
    for turn in 1.. {
        turns.advance(start + pause * turn);
        if look.try_recv().is_ok() {
            break;
        }
        before += 1;
        assert!(before <= limits::TURNS_FOR_A_LOOK, "it starves");
    }
    assert_eq!(before, limits::TURNS_FOR_A_LOOK);
    let served = clients.iter_mut().filter_map(|told| told.try_recv().ok()).count();
    assert_eq!(served as u32, limits::TURNS_FOR_A_LOOK);
}

#[test]
fn points_come_first_then_uploads_then_rendezvous_each_in_order() {
    let start = Instant::now();
    let mut turns = braked(start);
    // Asked for in the order of a loaded service that loses a point.
    let asked = [
        Purpose::Rendezvous,
        Purpose::Rendezvous,
        Purpose::Upload,
        Purpose::Point,
        Purpose::Rendezvous,
        Purpose::Upload,
        Purpose::Point,
    ];
    let mut waiting: Vec<_> =
        asked.iter().map(|purpose| wait(&mut turns, *purpose, start)).enumerate().collect();
    let pause = Duration::from_millis(limits::REFUSED_PAUSE_MS_MIN);
    let mut had = Vec::new();
    for turn in 1..=7 {
        let at = start + pause * turn;
        turns.advance(at - Duration::from_millis(1));
        assert!(waiting.iter_mut().all(|(_, told)| told.try_recv().is_err()), "too early");
        turns.advance(at);
        let before = waiting.len();
        waiting.retain_mut(|(number, told)| {
            let told = told.try_recv().is_ok();
            if told {
                had.push(*number);
            }
            !told
        });
        assert_eq!(waiting.len() + 1, before, "one a pause");
    }
    assert_eq!(had, [3, 6, 2, 5, 0, 1, 4]);
}

#[test]
fn a_row_that_is_full_says_so_and_the_others_go_on() {
    let start = Instant::now();
    let mut turns = braked(start);
    let mut waiting: Vec<_> = (0..limits::RENDEZVOUS_TURNS_MAX)
        .map(|_| wait(&mut turns, Purpose::Rendezvous, start))
        .collect();
    assert!(matches!(turns.ask(Purpose::Rendezvous, start), Turn::Full));
    let mut point = wait(&mut turns, Purpose::Point, start);
    // One that gives up makes room, and costs no turn.
    waiting.remove(0);
    waiting.push(wait(&mut turns, Purpose::Rendezvous, start));
    let pause = Duration::from_millis(limits::REFUSED_PAUSE_MS_MIN);
    turns.advance(start + pause);
    point.try_recv().expect("the point is first");
    turns.advance(start + 2 * pause);
    waiting[0].try_recv().expect("the next one is second");
}

#[test]
fn several_refusals_in_a_short_time_slow_down_and_it_passes() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut brake = Brake::default();
    // Some, far apart: that happens.
    for turn in 0..5 {
        assert!(!brake.note_refused(at(turn * limits::REFUSED_WINDOW_MS)));
    }
    let begun = 6 * limits::REFUSED_WINDOW_MS;
    assert_eq!(brake.next(at(begun)), at(begun));
    let put_on: Vec<bool> =
        (0..limits::REFUSED_MAX).map(|_| brake.note_refused(at(begun))).collect();
    assert!(put_on.last() == Some(&true) && put_on.iter().filter(|on| **on).count() == 1);
    // One after another.
    for turn in 0..20 {
        assert_eq!(brake.next(at(begun)), at(begun + turn * limits::REFUSED_PAUSE_MS_MIN));
        brake.take(at(begun));
    }
    // Longer with each that is refused, up to a bound; shorter with each that is built.
    for _ in 0..20 {
        assert!(!brake.note_refused(at(begun)));
    }
    assert_eq!(brake.pause, Duration::from_millis(limits::REFUSED_PAUSE_MS_MAX));
    (0..20).for_each(|_| brake.note_built(at(begun)));
    assert_eq!(brake.pause, Duration::from_millis(limits::REFUSED_PAUSE_MS_MIN));
    assert!(brake.refused.len() <= limits::REFUSED_MAX);
    let passed = begun + limits::REFUSED_SLOW_SECONDS * 1000;
    assert!(brake.is_on(at(passed - 1)) && !brake.is_on(at(passed)));
    assert_eq!(brake.next(at(passed)), at(passed));
}

/// Circuits that this share allows from `from` on, when each is asked for as soon as it may be.
fn greedy(pace: &mut Pace, from: Instant, seconds: u64) -> Vec<Instant> {
    let mut at = from;
    let end = from + Duration::from_secs(seconds);
    std::iter::from_fn(|| {
        at = at.max(pace.next(at));
        (at < end).then(|| pace.take(at))?;
        Some(at)
    })
    .collect()
}

#[test]
fn two_processes_that_share_a_guard_stay_below_what_it_allows() {
    let start = Instant::now();
    let burst = (limits::GUARD_CREATES_BURST - limits::GUARD_CREATES_RESERVE) / 2;
    let (old, new) = (GuardShare::Old(burst), GuardShare::New(burst));
    let (mut old, mut new) = (Pace::new(burst, old, start), Pace::new(burst, new, start));
    let mut asked = greedy(&mut old, start, 60);
    asked.extend(greedy(&mut new, start, 60));
    assert!(asked.iter().filter(|at| **at == start).count() as u64 == 2 * burst, "at once");
    let settled = start + Duration::from_secs(60);
    let (mut old, mut new) =
        (old.slowed(GuardShare::Leaving, settled), new.slowed(GuardShare::Serving, settled));
    asked.extend(greedy(&mut old, settled, 60));
    asked.extend(greedy(&mut new, settled, 60));
    asked.sort();
    let mut guard = Allowance::new(start);
    let least = (1..).zip(&asked).map(|(number, at)| {
        guard.note(number, *at);
        guard.left()
    });
    assert!(least.min() >= Some(limits::GUARD_CREATES_RESERVE - 1), "the guard has refused some");
    // Each of them has something.
    let last = asked.last().expect("some were asked for");
    assert!(*last > settled + Duration::from_secs(50) && asked.len() > 200, "{}", asked.len());
}

#[test]
fn what_a_guard_allows_comes_back_and_is_not_known_after_another_process() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut allowance = Allowance::new(start);
    allowance.note(50, start);
    assert_eq!(allowance.left(), limits::GUARD_CREATES_BURST - 50);
    allowance.note(50, at(5));
    assert_eq!(allowance.left(), 20);
    allowance.note(1_000, at(6));
    assert_eq!(allowance.left(), 0);
    allowance.note(1_000, at(600));
    assert_eq!(allowance.left(), limits::GUARD_CREATES_BURST);
    allowance.was_shared();
    assert_eq!(allowance.left(), limits::GUARD_CREATES_RESERVE);
}

#[test]
fn a_share_that_ends_lets_all_go_that_wait() {
    let start = Instant::now();
    let mut turns = Turns::default();
    turns.share(Some(GuardShare::Old(1)), start);
    assert!(matches!(turns.ask(Purpose::Rendezvous, start), Turn::Now));
    let mut waiting: Vec<_> =
        (0..5).map(|_| wait(&mut turns, Purpose::Rendezvous, start)).collect();
    turns.share(None, start);
    assert!(waiting.iter_mut().all(|told| told.try_recv().is_ok()));
}
