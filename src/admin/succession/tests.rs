//! The old process's side, told by successors that keep to the conversation and by others.

use std::sync::Mutex;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::{Offer, Succession, converse};

/// Remembers what is asked of it.
#[derive(Default)]
struct Old {
    /// What was called, in order.
    calls: Mutex<Vec<&'static str>>,
    /// How often it cannot go on.
    held: Mutex<usize>,
    /// Whether it goes on and on.
    refuses_to_drain: bool,
    /// Why it cannot be taken over.
    refuses: Option<&'static str>,
}

impl Old {
    /// Something was called.
    fn note(&self, call: &'static str) {
        self.calls.lock().expect("no panic").push(call);
    }
}

impl Succession for Old {
    fn offer(&self) -> Result<Offer, String> {
        self.note("offer");
        match self.refuses {
            Some(why) => Err(why.to_owned()),
            None => Ok(Offer { state_dir: "/state".into(), creates: 25, rest_ms: 10 }),
        }
    }

    fn yield_state(&self) -> Result<(), String> {
        self.note("yield");
        Ok(())
    }

    fn leave(&self) {
        self.note("leave");
    }

    fn drains(&self) -> BoxFuture<'static, ()> {
        match self.refuses_to_drain {
            true => futures::future::pending().boxed(),
            false => futures::future::ready(()).boxed(),
        }
    }

    fn go_on(&self) -> Result<(), String> {
        self.note("go on");
        let mut held = self.held.lock().expect("no panic");
        match held.checked_sub(1) {
            Some(less) => {
                *held = less;
                Err("the directory is in use".to_owned())
            }
            None => Ok(()),
        }
    }
}

/// What the old process answers to these lines, after which the connection ends, and what was
/// asked of it.
fn told(old: &Old, lines: &str) -> (String, Vec<&'static str>) {
    let driver = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let answers = driver.expect("a driver").block_on(async {
        let (mut new, side) = tokio::io::duplex(4096);
        let (read, write) = tokio::io::split(side);
        let asking = async {
            new.write_all(lines.as_bytes()).await.expect("it listens");
            new.shutdown().await.expect("it listens");
            let mut answers = String::new();
            new.read_to_string(&mut answers).await.expect("it ends");
            answers
        };
        let conversing = async {
            converse(BufReader::new(read), write, old).await.expect("the other reads");
        };
        tokio::join!(asking, conversing).0
    });
    (answers, old.calls.lock().expect("no panic").clone())
}

const OFFERED: &str = "{\"handover\":\"offered\",\"state_dir\":\"/state\",\"creates\":25,\
                       \"rest_ms\":10}\n";
const YOURS: &str = "{\"handover\":\"yours\"}\n";
const TAKE: &str = "{\"handover\":\"take\"}\n";
const PUBLISHED: &str = "{\"handover\":\"published\"}\n";

#[test]
fn the_old_process_leaves_once_the_new_one_has_published() {
    let old = Old { refuses_to_drain: true, ..Old::default() };
    let (answers, calls) = told(&old, &format!("{TAKE}{PUBLISHED}"));
    assert_eq!(answers, format!("{OFFERED}{YOURS}{{\"handover\":\"leaving\"}}\n"));
    assert_eq!(calls, ["offer", "yield", "leave"]);
}

#[test]
fn a_successor_that_ends_changes_nothing() {
    let old = Old::default();
    assert_eq!(told(&old, ""), (OFFERED.to_owned(), vec!["offer", "go on"]));
    // One that is still ending holds the directory for a moment.
    let old = Old { held: Mutex::new(2), ..Old::default() };
    let (answers, calls) = told(&old, TAKE);
    assert_eq!(answers, format!("{OFFERED}{YOURS}"));
    assert_eq!(calls, ["offer", "yield", "go on", "go on", "go on"]);
}

#[test]
fn a_successor_that_is_silent_and_alive_is_left_with_the_service() {
    let old = Old { held: Mutex::new(usize::MAX), ..Old::default() };
    let (_, calls) = told(&old, TAKE);
    assert_eq!(calls.last(), Some(&"leave"));
}

#[test]
fn what_comes_out_of_turn_takes_nothing() {
    for lines in [PUBLISHED, "{\"handover\":\"yours\"}\n", "nonsense\n"] {
        let old = Old::default();
        assert_eq!(told(&old, lines), (OFFERED.to_owned(), vec!["offer", "go on"]), "{lines}");
    }
    let old = Old::default();
    let (_, calls) = told(&old, &format!("{TAKE}{TAKE}"));
    assert_eq!(calls, ["offer", "yield", "go on"]);
}

#[test]
fn a_refusal_is_told_and_ends_it() {
    let old = Old { refuses: Some("it is ending already"), ..Old::default() };
    let (answers, calls) = told(&old, TAKE);
    assert_eq!(answers, "{\"error\":\"it is ending already\"}\n");
    assert_eq!(calls, ["offer"]);
}

#[test]
fn the_connection_lasts_until_one_of_the_two_has_ended() {
    let old = Old::default();
    let driver = tokio::runtime::Builder::new_current_thread().enable_time().build();
    driver.expect("a driver").block_on(async {
        let (mut new, side) = tokio::io::duplex(4096);
        let (read, write) = tokio::io::split(side);
        let mut conversing = std::pin::pin!(converse(BufReader::new(read), write, &old));
        new.write_all(format!("{TAKE}{PUBLISHED}").as_bytes()).await.expect("it listens");
        let mut told = String::new();
        let answers = async {
            while !told.contains("draining") {
                let mut some = [0; 256];
                let length = new.read(&mut some).await.expect("it tells");
                told.push_str(std::str::from_utf8(&some[..length]).expect("it is text"));
            }
        };
        tokio::select! {
            ended = &mut conversing => panic!("{ended:?} before the new process has"),
            () = answers => {}
        }
        assert!(futures::poll!(&mut conversing).is_pending(), "the old one lives");
        drop(new);
        conversing.await.expect("it ends with the other");
    });
}

#[test]
fn an_older_process_offers_nothing_of_its_guards() {
    let old = "{\"handover\":\"offered\",\"state_dir\":\"/state\"}";
    let offered = Offer { state_dir: "/state".into(), creates: 0, rest_ms: 0 };
    let answer: super::Answer = serde_json::from_str(old).expect("it is understood");
    assert_eq!(answer, super::Answer::Offered(offered));
}
