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
use super::super::round::{Round, Sequel, UploadDone, UploadEnd, UploadName};
use super::{Question, Remedy, Scope, Verifier};
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
    /// The last round of each period.
    rounds: Vec<Round>,
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
        let rounds = build(&periods, &mut revisions, &netdir);
        let mut bench =
            Bench { _directory: directory, netdir, periods, revisions, published, rounds };
        bench.upload();
        bench
    }

    /// Another round of each period, which every HSDir takes as well.
    fn publish(&mut self) {
        self.rounds = build(&self.periods, &mut self.revisions, &self.netdir);
        self.upload();
    }

    /// Every HSDir takes what is due.
    fn upload(&mut self) {
        let now = Instant::now();
        for round in &mut self.rounds {
            self.published.record(round.digests(), 1);
            while let Some(attempt) = round.take_due(now) {
                let done = UploadDone { name: attempt.name, end: UploadEnd::Taken, error: None };
                assert_eq!(round.note_done(done, now), Sequel::None);
            }
        }
    }

    /// Everybody who could be asked.
    fn questions(&self) -> Vec<Question> {
        self.rounds.iter().flat_map(Round::questions).collect()
    }

    /// The number of the current period.
    fn current(&self) -> u64 {
        self.netdir.hs_time_period().interval_num()
    }

    /// Ask everybody; `answer` says what each holds.
    fn check(&self, verifier: &mut Verifier, answer: impl FnMut(&Question) -> Held) -> Vec<Remedy> {
        self.ask(verifier, Scope::All, Instant::now(), answer)
    }

    /// Ask those; `answer` says what each holds.
    fn ask(
        &self,
        verifier: &mut Verifier,
        scope: Scope,
        now: Instant,
        mut answer: impl FnMut(&Question) -> Held,
    ) -> Vec<Remedy> {
        verifier.begin(scope, self.questions(), Some(self.current()), 0, now);
        let mut remedies = Vec::new();
        while let Some((question, to_answer)) = verifier.take_question() {
            let held = to_answer(answer(&question));
            remedies.extend(verifier.note(held, |_| None, &self.published, now));
        }
        remedies
    }

    /// What an HSDir holds that is faithful.
    fn faithful(&self, question: &Question) -> Held {
        let mine = self.rounds.iter().find(|one| one.period() == question.period);
        let mine = mine.expect("it asks of what was published");
        let digest = mine.digests().next().expect("there is one");
        let revision = Some(mine.status().revision);
        Held::Descriptor(HeldDescriptor { digest, revision, points: vec![] })
    }
}

/// A round of each period, with two points.
fn build(periods: &[Period], revisions: &mut Revisions, netdir: &NetDir) -> Vec<Round> {
    let hand = |instance: usize| Hand {
        instance,
        points: Arc::new(vec![point(instance as u8)]),
        share: 1,
    };
    let board = Board { replicas: 2, asked: 3, points_max: 16, may_differ: true };
    let wall = netdir.lifetime().valid_after();
    let mut round = |period| {
        let spread = spread(&[hand(0), hand(1)], board, |_, _| false);
        Round::build(period, spread, true, revisions, netdir, Instant::now(), wall)
            .expect("it can be built")
    };
    periods.iter().map(&mut round).collect()
}

/// A descriptor of somebody else with the service's key.
fn foreign(revision: u64) -> Held {
    let digest = Digest::of(&format!("hs-descriptor 3\nrevision-counter {revision}\n"));
    Held::Descriptor(HeldDescriptor { digest, revision: Some(revision), points: vec![] })
}

#[test]
fn faithful_hsdirs_are_all_good() {
    let bench = Bench::new();
    let mut verifier = Verifier::new(None, None);
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
    let mut verifier = Verifier::new(None, None);
    let mut first = true;
    let remedies = bench.check(&mut verifier, |question| match std::mem::take(&mut first) {
        true => Held::Nothing,
        false => bench.faithful(question),
    });
    let [Remedy::Upload(name)] = remedies[..] else { panic!("{remedies:?}") };
    assert!(!verifier.last().expect("a check was made").is_good());
    let now = Instant::now();
    let lose = |bench: &mut Bench| {
        bench.rounds.iter_mut().for_each(|round| round.note_lost(name, now));
        let due = bench.rounds.iter_mut().filter_map(|round| round.take_due(now));
        due.map(|attempt| attempt.name).collect::<Vec<UploadName>>()
    };
    assert_eq!(lose(&mut bench), [name], "one upload is due");
    // Once a newer round is there, the old one's loss is nothing.
    bench.publish();
    assert_eq!(lose(&mut bench), []);
}

#[test]
fn what_a_predecessor_published_is_older_and_no_alarm() {
    let mut bench = Bench::new();
    let before = bench.rounds[0].digests().next().expect("there is one");
    bench.publish();
    let mut verifier = Verifier::new(None, None);
    let old = || HeldDescriptor { digest: before, revision: Some(1), points: vec![] };
    bench.check(&mut verifier, |_| Held::Descriptor(old()));
    assert_eq!(verifier.last().expect("a check was made").count(HeldState::Older), 16);
    assert!(verifier.alarm().is_none());
}

#[test]
fn a_foreign_descriptor_is_an_alarm_and_is_exceeded_until_checks_are_clean() {
    let bench = Bench::new();
    let mut verifier = Verifier::new(None, None);
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
    let mut verifier = Verifier::new(None, None);
    let remedies = bench.check(&mut verifier, |_| Held::Unreadable("a wrong signature".to_owned()));
    assert_eq!(remedies.len(), 16);
    assert!(verifier.alarm().is_none());
}

#[test]
fn checks_of_all_come_where_it_is_configured_sooner_during_an_alarm_and_at_once_when_asked() {
    let bench = Bench::new();
    let now = Instant::now();
    let hour = Duration::from_secs(3600);
    let mut verifier = Verifier::new(Some(hour), None);
    assert!(verifier.next_check().is_none() && verifier.due(0, now + hour * 2).is_none());
    verifier.note_published(now);
    let next = verifier.next_check().expect("it is due some time");
    assert!((hour * 3 / 4..=hour * 5 / 4).contains(&(next - now)));
    assert_eq!((verifier.due(0, now), verifier.due(0, next)), (None, Some(Scope::All)));
    // Asked for: due at once, until it is answered by a check that began later.
    assert_eq!(verifier.due(1, now), Some(Scope::All));
    verifier.begin(Scope::All, bench.questions(), None, 1, now);
    assert_eq!(verifier.due(1, now), None, "it is under way");
    while let Some((_, to_answer)) = verifier.take_question() {
        let _ = verifier.note(to_answer(foreign(1)), |_| None, &bench.published, now);
    }
    assert_eq!((verifier.due(1, now), verifier.due(2, now)), (None, Some(Scope::All)));
    let alarmed = Duration::from_secs(limits::ALARM_CHECK_SECONDS) * 5 / 4;
    let next = verifier.next_check().expect("it is due some time");
    assert!(next - now <= alarmed, "the alarm brings the check forward that was planned before");
    verifier.begin(Scope::All, bench.questions(), None, 2, now);
    verifier.give_up();
    assert!(verifier.next_check().is_none(), "another process publishes");
    verifier.note_published(now);
    let next = verifier.next_check().expect("it is due some time");
    assert!(next - now <= alarmed);
}

/// Two days of a service with the default configuration: no HSDir is asked but one of the current
/// period, now and then.
#[test]
fn by_default_one_hsdir_of_the_current_period_is_asked_every_few_hours() {
    let bench = Bench::new();
    let start = Instant::now();
    let every = Duration::from_secs(limits::THEFT_CHECK_SECONDS_DEFAULT);
    let mut verifier = Verifier::new(None, Some(every));
    verifier.note_published(start);
    let (mut now, mut looks, mut asked) = (start, 0, std::collections::BTreeSet::new());
    while now - start < Duration::from_secs(48 * 3600) {
        let next = verifier.next_check().expect("it is due some time");
        assert!((every / 2..=every * 3 / 2).contains(&(next - now)), "{:?}", next - now);
        now = next;
        assert_eq!(verifier.due(0, now), Some(Scope::One));
        let mut questions = 0;
        let remedies = bench.ask(&mut verifier, Scope::One, now, |question| {
            assert_eq!(question.period, bench.current());
            asked.insert(question.position.relay.clone());
            questions += 1;
            bench.faithful(question)
        });
        assert!(questions == 1 && remedies.is_empty(), "{questions} {remedies:?}");
        looks += 1;
    }
    assert!((8..=24).contains(&looks), "{looks}");
    assert!(asked.len() > 1, "they are chosen at random: {asked:?} of {looks}");
    assert_eq!(verifier.looks().0, looks);
    assert!(verifier.last().is_none() && verifier.alarm().is_none());
}

#[test]
fn one_foreign_answer_is_an_alarm_and_all_are_asked_until_it_is_over() {
    let bench = Bench::new();
    let start = Instant::now();
    let mut verifier = Verifier::new(None, Some(Duration::from_secs(4 * 3600)));
    verifier.note_published(start);
    let mut now = verifier.next_check().expect("it is due some time");
    let remedies = bench.ask(&mut verifier, Scope::One, now, |_| foreign(u64::from(u32::MAX) << 8));
    assert!(matches!(remedies[..], [Remedy::Exceed(..)]), "{remedies:?}");
    assert!(verifier.alarm().is_some() && verifier.foreign_total() == 1);
    for _ in 0..limits::ALARM_CLEAN_CHECKS {
        let next = verifier.next_check().expect("it is due some time");
        assert!(next - now <= Duration::from_secs(limits::ALARM_CHECK_SECONDS) * 5 / 4);
        now = next;
        assert_eq!(verifier.due(0, now), Some(Scope::All));
        assert!(verifier.alarm().is_some());
        bench.ask(&mut verifier, Scope::All, now, |question| bench.faithful(question));
    }
    assert!(verifier.alarm().is_none());
    let next = verifier.next_check().expect("it is due some time");
    assert!(next - now >= Duration::from_secs(2 * 3600), "as few as before are asked");
    assert_eq!(verifier.due(0, next), Some(Scope::One));
}

#[test]
fn an_hsdir_that_held_a_higher_counter_is_looked_at_once_later_and_no_other_is() {
    let mut bench = Bench::new();
    let mut verifier = Verifier::new(None, None);
    bench.rounds = build(&bench.periods, &mut bench.revisions, &bench.netdir);
    let mut now = Instant::now();
    let attempt = bench.rounds[0].take_due(now).expect("uploads are due");
    let Held::Descriptor(other) = foreign(u64::from(u32::MAX)) else { panic!("it is one") };
    let end = UploadEnd::Refused(Some((attempt.blinded, other)));
    let done = UploadDone { name: attempt.name, end, error: Some("refused".to_owned()) };
    let sequel = bench.rounds[0].note_done(done, now);
    let Sequel::HigherCounter { first: true, relay } = sequel else { panic!("{sequel:?}") };
    verifier.note_doubt(bench.rounds[0].period(), relay.clone(), now);
    assert_eq!(verifier.due(0, now), None, "the next round has to come there first");
    let next = verifier.next_check().expect("it is due some time");
    assert!(next - now >= Duration::from_secs(limits::DOUBT_LOOK_SECONDS_MIN));
    // It has not taken the newest yet: it is left for later.
    now = next;
    assert_eq!(verifier.due(0, now), Some(Scope::Doubts));
    bench.ask(&mut verifier, Scope::Doubts, now, |_| panic!("there is nothing to ask"));
    assert_eq!(verifier.due(0, now), None);
    bench.publish();
    now = verifier.next_check().expect("it is due some time");
    let mut asked = Vec::new();
    let remedies = bench.ask(&mut verifier, Scope::Doubts, now, |question| {
        asked.push(question.position.relay.clone());
        foreign(u64::from(u32::MAX) << 8)
    });
    assert_eq!(asked, [relay]);
    assert!(matches!(remedies[..], [Remedy::Exceed(..)]), "{remedies:?}");
    assert!(verifier.alarm().is_some(), "somebody is there who goes on");
    // Without anything more to look at, but for the alarm.
    assert_eq!(verifier.due(0, now + Duration::from_secs(300)), None);
}

#[test]
fn a_lost_receipt_is_made_up_for_by_what_the_hsdir_holds() {
    let mut bench = Bench::new();
    bench.rounds = build(&bench.periods, &mut bench.revisions, &bench.netdir);
    let now = Instant::now();
    let round = &mut bench.rounds[0];
    let digest = round.digests().next().expect("there is one");
    let ours = HeldDescriptor { digest, revision: Some(round.status().revision), points: vec![] };
    // No receipt, and a refusal: C tor's HSDirs refuse what they hold already.
    for end in [UploadEnd::NoReceipt as fn(_) -> _, UploadEnd::Refused] {
        let attempt = round.take_due(now).expect("uploads are due");
        let end = end(Some((attempt.blinded, ours.clone())));
        let done = UploadDone { name: attempt.name, end, error: Some("no receipt".to_owned()) };
        assert_eq!(round.note_done(done, now), Sequel::None);
    }
    assert_eq!(round.status().hsdirs_ok, 2, "{:#?}", round.status());
    // Where it holds nothing, it gets it again, and no new round is needed for that.
    let attempt = round.take_due(now).expect("uploads are due");
    let end = UploadEnd::NoReceipt(None);
    let done = UploadDone { name: attempt.name, end, error: Some("no receipt".to_owned()) };
    assert_eq!(round.note_done(done, now), Sequel::None);
    assert_eq!(round.status().hsdirs_ok, 2);
    assert!(round.next_attempt().is_some() && !round.was_refused());
}
