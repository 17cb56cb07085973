//! Checks against HSDirs that keep, lose, and were given something else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tor_netdir::NetDir;
use tor_netdir::testnet::construct_netdir;

use super::super::super::descriptor::tests::point;
use super::super::super::hsdir::{Held, HeldDescriptor};
use super::super::super::period::Period;
use super::super::super::published::{Digest, Published};
use super::super::super::revision::Revisions;
use super::super::super::ring::live_rings;
use super::super::super::spread::{Board, Hand, spread};
use super::super::super::status::HeldState;
use super::super::round::{Round, UploadDone, UploadEnd};
use super::{Question, Remedy, Verifier};
use crate::limits;
use crate::vault::MasterKey;

/// A service that has published, and what it needs to go on.
struct Bench {
    /// Where files lie.
    _directory: tempfile::TempDir,
    /// The network.
    netdir: NetDir,
    /// Live periods.
    periods: Vec<Period>,
    /// Counters.
    revisions: Revisions,
    /// What was published.
    published: Published,
    /// The last round.
    round: Round,
}

impl Bench {
    /// One round, which every HSDir has taken.
    fn new() -> Bench {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let netdir = construct_netdir().unwrap_if_sufficient();
        let netdir = netdir.unwrap_or_else(|_| panic!("it has all it needs"));
        let master = MasterKey::generate();
        let periods = live_rings(&netdir).into_iter().map(|ring| Period::derive(&master, ring));
        let periods: Vec<Period> =
            periods.map(|one| one.expect("any key can be blinded")).collect();
        let path = directory.path().join("revisions-main.json");
        let mut revisions = Revisions::load(&path).expect("no file is an empty one");
        let published = Published::load(&revisions.beside("published"));
        let round = build(&periods, &mut revisions, &netdir);
        let mut bench =
            Bench { _directory: directory, netdir, periods, revisions, published, round };
        bench.upload();
        bench
    }

    /// Another round, which every HSDir takes as well.
    fn publish(&mut self) {
        self.round = build(&self.periods, &mut self.revisions, &self.netdir);
        self.upload();
    }

    /// Every HSDir takes what is due.
    fn upload(&mut self) {
        self.published.record(self.round.digests(), 1);
        let now = Instant::now();
        while let Some(attempt) = self.round.take_due(now) {
            let done = UploadDone { name: attempt.name, end: UploadEnd::Taken, error: None };
            assert!(!self.round.note_done(done, now));
        }
    }

    /// Ask everybody; `answer` says what each holds.
    fn check(
        &self,
        verifier: &mut Verifier,
        mut answer: impl FnMut(&Question) -> Held,
    ) -> Vec<Remedy> {
        verifier.begin(&self.round, 0, Instant::now());
        let mut remedies = Vec::new();
        while let Some((question, to_answer)) = verifier.take_question() {
            let held = to_answer(answer(&question));
            remedies.extend(verifier.note(held, &self.round, &self.published));
        }
        remedies
    }

    /// What an HSDir holds that is faithful.
    fn faithful(&self, question: &Question) -> Held {
        let status = self.round.status();
        let mine =
            status.iter().zip(self.round.digests()).find(|(one, _)| one.period == question.period);
        let (mine, digest) = mine.expect("it asks of what was published");
        Held::Descriptor(HeldDescriptor { digest, revision: Some(mine.revision), points: vec![] })
    }
}

/// A round with two points.
fn build(periods: &[Period], revisions: &mut Revisions, netdir: &NetDir) -> Round {
    let hand = |instance: usize| Hand {
        instance,
        points: Arc::new(vec![point(instance as u8)]),
        share: 1,
    };
    let board = Board { replicas: 2, asked: 3, points_max: 16, may_differ: true };
    let spread = spread(&[hand(0), hand(1)], board, |_, _| false);
    let wall = netdir.lifetime().valid_after();
    Round::build(periods, spread, true, revisions, netdir, Instant::now(), wall)
        .expect("it can be built")
}

/// A descriptor of somebody else with the service's key.
fn foreign(revision: u64) -> Held {
    let digest = Digest::of(&format!("hs-descriptor 3\nrevision-counter {revision}\n"));
    Held::Descriptor(HeldDescriptor { digest, revision: Some(revision), points: vec![] })
}

#[test]
fn faithful_hsdirs_are_all_good() {
    let bench = Bench::new();
    let mut verifier = Verifier::new(None);
    assert!(bench.check(&mut verifier, |question| bench.faithful(question)).is_empty());
    let last = verifier.last().expect("a check was made");
    assert!(last.is_good(), "{last:?}");
    assert_eq!(last.hsdirs.len(), 16, "eight for each of two periods");
    assert_eq!(last.hsdirs.iter().filter(|one| one.hsdir.asked).count(), 12);
    assert!(verifier.alarm().is_none());
}

#[test]
fn an_hsdir_that_lost_the_descriptor_gets_it_again() {
    let mut bench = Bench::new();
    let mut verifier = Verifier::new(None);
    let mut first = true;
    let remedies = bench.check(&mut verifier, |question| match std::mem::take(&mut first) {
        true => Held::Nothing,
        false => bench.faithful(question),
    });
    let [Remedy::Upload(name)] = remedies[..] else { panic!("{remedies:?}") };
    assert!(!verifier.last().expect("a check was made").is_good());
    let now = Instant::now();
    bench.round.note_lost(name, now);
    let again = bench.round.take_due(now).expect("one upload is due");
    assert_eq!(again.name, name);
    assert!(bench.round.take_due(now).is_none());
    // Once a newer round is there, the old one's loss is nothing.
    bench.publish();
    bench.round.note_lost(name, now);
    assert!(bench.round.take_due(now).is_none());
}

#[test]
fn what_a_predecessor_published_is_older_and_no_alarm() {
    let mut bench = Bench::new();
    let before = bench.round.digests().next().expect("there is one");
    bench.publish();
    let mut verifier = Verifier::new(None);
    let old = || HeldDescriptor { digest: before, revision: Some(1), points: vec![] };
    bench.check(&mut verifier, |_| Held::Descriptor(old()));
    assert_eq!(verifier.last().expect("a check was made").count(HeldState::Older), 16);
    assert!(verifier.alarm().is_none());
}

#[test]
fn a_foreign_descriptor_is_an_alarm_and_is_exceeded_until_checks_are_clean() {
    let bench = Bench::new();
    let mut verifier = Verifier::new(None);
    let high = u64::from(u32::MAX) << 8;
    let mut first = true;
    let remedies = bench.check(&mut verifier, |question| match std::mem::take(&mut first) {
        true => foreign(high),
        false => bench.faithful(question),
    });
    assert!(
        matches!(remedies[..], [Remedy::Exceed(_, counter)] if counter == high),
        "{remedies:?}"
    );
    assert!(verifier.alarm().is_some_and(|text| text.contains("another publisher holds")));
    assert_eq!(verifier.foreign_total(), 1);
    for check in 0..limits::ALARM_CLEAN_CHECKS {
        assert!(verifier.alarm().is_some(), "{check}");
        // A check that nobody answers says nothing.
        bench.check(&mut verifier, |_| Held::Unreachable("no answer in time".to_owned()));
        assert!(verifier.alarm().is_some(), "{check}");
        bench.check(&mut verifier, |question| bench.faithful(question));
    }
    assert!(verifier.alarm().is_none());
    assert_eq!(verifier.foreign_total(), 1);
}

#[test]
fn what_the_key_did_not_sign_is_the_hsdirs_own_and_no_alarm() {
    let bench = Bench::new();
    let mut verifier = Verifier::new(None);
    let remedies = bench.check(&mut verifier, |_| Held::Unreadable("a wrong signature".to_owned()));
    assert_eq!(remedies.len(), 16);
    assert!(verifier.alarm().is_none());
}

#[test]
fn checks_come_by_themselves_sooner_during_an_alarm_and_at_once_when_asked() {
    let bench = Bench::new();
    let now = Instant::now();
    let hour = Duration::from_secs(3600);
    let mut verifier = Verifier::new(Some(hour));
    assert!(verifier.next_check().is_none() && !verifier.is_due(0, now + hour * 2));
    verifier.note_published(now);
    let next = verifier.next_check().expect("it is due some time");
    assert!((hour * 3 / 4..=hour * 5 / 4).contains(&(next - now)));
    assert!(!verifier.is_due(0, now) && verifier.is_due(0, next));
    // Asked for: due at once, until it is answered by a check that began later.
    assert!(verifier.is_due(1, now));
    verifier.begin(&bench.round, 1, now);
    assert!(!verifier.is_due(1, now), "it is under way");
    while let Some((_, to_answer)) = verifier.take_question() {
        let _ = verifier.note(to_answer(foreign(1)), &bench.round, &bench.published);
    }
    assert!(!verifier.is_due(1, now) && verifier.is_due(2, now));
    verifier.begin(&bench.round, 2, now);
    verifier.give_up();
    assert!(verifier.next_check().is_none(), "another process publishes");
    verifier.note_published(now);
    let next = verifier.next_check().expect("it is due some time");
    assert!(next - now <= Duration::from_secs(limits::ALARM_CHECK_SECONDS) * 5 / 4);
}
