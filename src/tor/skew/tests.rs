//! Relays that agree, that lie, and a consensus that knows better.

use std::time::{Duration, SystemTime};

use tor_llcrypto::pk::rsa::RsaIdentity;
use tor_netdoc::doc::netstatus::Lifetime;
use tor_proto::ClockSkew;

use super::{Clocks, FastProof, Skews};

/// An hour after the machine's start, at noon.
const NOON: Clocks =
    Clocks { wall: Duration::from_secs(1_800_000_000), boot: Duration::from_secs(3600) };

/// A relay.
fn relay(number: u8) -> RsaIdentity {
    RsaIdentity::from([number; 20])
}

/// Links to as many relays, which say this; the first link has number 1.
fn told(skews: &[ClockSkew]) -> Skews {
    let all = Skews::default();
    for (number, skew) in (1_u8..).zip(skews) {
        all.note_at(u64::from(number), relay(number), *skew, NOON);
    }
    all
}

/// Fast by so many minutes.
fn fast(minutes: u64) -> ClockSkew {
    ClockSkew::Fast(Duration::from_secs(minutes * 60))
}

/// A consensus that began so many minutes before noon, and is valid for three hours.
fn consensus(minutes_ago: u64) -> Lifetime {
    let at = |minutes: u64| {
        SystemTime::UNIX_EPOCH + NOON.wall + Duration::from_secs(minutes * 60)
            - Duration::from_secs(minutes_ago * 60)
    };
    Lifetime::new(at(0), at(60), at(180)).expect("they are in order")
}

#[test]
fn a_clock_that_is_set_is_noticed_and_one_that_runs_on_is_not() {
    let skews = told(&[ClockSkew::Slow(Duration::from_secs(2))]);
    let hour = Duration::from_secs(3600);
    let later = Clocks { wall: NOON.wall + hour, boot: NOON.boot + hour };
    assert_eq!(skews.median_ms_at(later), Some(2_000));
    let ahead = Clocks { wall: later.wall + hour, ..later };
    assert_eq!(skews.median_ms_at(ahead), Some(2_000 - 3_600_000));
    let back = Clocks { wall: later.wall - hour, ..later };
    assert_eq!(skews.median_ms_at(back), Some(2_000 + 3_600_000));
}

#[test]
fn one_relay_that_lies_among_three_changes_nothing() {
    assert_eq!(Skews::default().median_ms_at(NOON), None);
    let slow = ClockSkew::Slow(Duration::from_secs(3600));
    let skews = told(&[ClockSkew::None, slow, ClockSkew::Fast(Duration::from_secs(2))]);
    assert_eq!(skews.median_ms_at(NOON), Some(0));
}

#[test]
fn one_relay_that_lies_among_two_changes_nothing() {
    for lie in [ClockSkew::Slow(Duration::from_secs(900)), ClockSkew::Fast(Duration::MAX)] {
        let skews = told(&[lie, ClockSkew::None]);
        skews.note_silent(3);
        assert_eq!(skews.median_ms_at(NOON), Some(0));
    }
}

#[test]
fn a_link_that_has_closed_does_not_count() {
    let skews = told(&[fast(10)]);
    assert_eq!(skews.median_ms_at(NOON), Some(-600_000));
    skews.keep_only(&[2]);
    assert!(!skews.knows(1));
    assert_eq!(skews.median_ms(), None);
}

/// The guard of a service, or both of them, may say what they like.
#[test]
fn one_or_two_relays_alone_never_stop_anything() {
    let lies = [fast(5), fast(10), fast(120), fast(60 * 24 * 365), ClockSkew::Fast(Duration::MAX)];
    for lie in lies {
        for skews in [told(&[lie]), told(&[lie, lie])] {
            // The consensus is live by our clock, or there is none.
            for consensus in [None, Some(consensus(0)), Some(consensus(90)), Some(consensus(179))] {
                let proof = skews.proof_of_fast_at(consensus.as_ref(), NOON);
                assert_eq!(proof, None, "{lie:?}, {consensus:?}");
            }
        }
    }
    // Nor when it could not be renewed for long, and their time is not within it either.
    for lie in [fast(10), fast(60 * 24)] {
        assert_eq!(told(&[lie]).proof_of_fast_at(Some(&consensus(10 * 60)), NOON), None);
    }
    // Two links to one relay are one relay.
    let skews = told(&[fast(10)]);
    (2..9).for_each(|link| skews.note_at(link, relay(1), fast(10), NOON));
    assert_eq!(skews.proof_of_fast_at(Some(&consensus(60)), NOON), None);
}

#[test]
fn a_relay_and_the_consensus_that_agree_are_a_proof_until_one_says_otherwise() {
    // Our clock is two hours fast: by it, the consensus has been over for half an hour.
    let (skews, old) = (told(&[fast(120)]), consensus(210));
    assert_eq!(skews.proof_of_fast_at(Some(&old), NOON), Some(FastProof::Consensus));
    // The time goes on, and no other consensus comes.
    let hours = Duration::from_secs(3 * 3600);
    let later = Clocks { wall: NOON.wall + hours, boot: NOON.boot + hours };
    assert_eq!(skews.proof_of_fast_at(Some(&old), later), Some(FastProof::Consensus));
    // One comes that is live by our clock: the relay lied.
    assert_eq!(skews.proof_of_fast_at(Some(&consensus(0)), later), None);
    assert_eq!(skews.proof_of_fast_at(Some(&old), later), None, "it has to be shown anew");
    // The clock is set.
    let (skews, old) = (told(&[fast(120)]), consensus(210));
    assert!(skews.proof_of_fast_at(Some(&old), NOON).is_some());
    let set = Clocks { wall: NOON.wall - Duration::from_secs(7200), ..NOON };
    assert_eq!(skews.proof_of_fast_at(Some(&old), set), None);
}

#[test]
fn three_relays_are_a_proof_but_not_against_the_signatures_of_the_authorities() {
    let three = [fast(10), fast(11), ClockSkew::None];
    let proof = Some(FastProof::Relays(3));
    assert_eq!(told(&three).proof_of_fast_at(Some(&consensus(60)), NOON), proof);
    assert_eq!(told(&three).proof_of_fast_at(None, NOON), proof);
    // Fast by ten minutes, of a consensus that began one minute ago by our clock.
    assert_eq!(told(&three).proof_of_fast_at(Some(&consensus(1)), NOON), None);
    // Four minutes are a warning.
    let four = [fast(4), fast(4), fast(4)];
    assert_eq!(told(&four).proof_of_fast_at(Some(&consensus(60)), NOON), None);
}

#[test]
fn a_slow_clock_never_stops_anything() {
    for minutes in [5, 60, 60 * 24] {
        let slow = ClockSkew::Slow(Duration::from_secs(minutes * 60));
        for skews in [told(&[slow]), told(&[slow; 3])] {
            for consensus in [None, Some(consensus(60)), Some(consensus(600))] {
                assert_eq!(skews.proof_of_fast_at(consensus.as_ref(), NOON), None);
            }
        }
    }
}
