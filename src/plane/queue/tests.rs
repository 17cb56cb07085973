//! Who waits, who is called, and who goes.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use super::{Queue, Standing, Verdict, Waiting};
use crate::base::stream::{CircuitId, Party};
use crate::limits;

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(60);

/// The line of the circuit of this number, of those of whom nothing is said.
fn of(serial: u32) -> (Party, Verdict) {
    (Party::Circuit(CircuitId { instance: 0, serial }), Verdict::Normal)
}

/// A stream that is in line: the first of all looks once before.
async fn in_line(queue: &Arc<Queue>, serial: u32, most: u32) -> Option<Waiting> {
    let mut waiting = queue.enter(of(serial), most, LONG)?;
    let looks = waiting.wait(false).now_or_never();
    let looks = looks.and_then(|_| waiting.wait(false).now_or_never());
    assert!(looks.is_none(), "there is no place");
    Some(waiting)
}

/// Whether it was called: it may look.
fn is_called(waiting: &mut Waiting) -> bool {
    waiting.wait(false).now_or_never() == Some(true)
}

#[tokio::test]
async fn a_circuit_that_waits_with_1024_streams_holds_up_anothers_only_stream_by_one_place() {
    let (queue, most) = (Arc::new(Queue::default()), limits::BACKEND_QUEUE_DEFAULT);
    let mut greedy = Vec::new();
    for _ in 0..most {
        greedy.push(in_line(&queue, 1, most).await.expect("there is room"));
    }
    assert!(queue.enter(of(1), most, LONG).is_none(), "no more of the same circuit");
    let mut other = in_line(&queue, 2, most).await.expect("in the place of the newest");
    assert_eq!((queue.waiting(), queue.refused_total()), (most, 2));
    let newest = greedy.last_mut().expect("there are some");
    assert_eq!(newest.wait(false).now_or_never(), Some(false), "it has to go");
    greedy.pop();
    assert_eq!(queue.waiting(), most);
    // The first place is for who came first, the second for the other circuit.
    queue.note_free();
    assert!(greedy[0].wait(false).now_or_never() == Some(true) && !is_called(&mut other));
    queue.note_free();
    assert!(is_called(&mut other));
    drop((other, greedy));
    assert_eq!(queue.waiting(), 0);
    assert!(!queue.is_for_others(Verdict::Normal));
}

#[tokio::test]
async fn places_go_round_the_circuits() {
    let queue = Arc::new(Queue::default());
    let mut lines = Vec::new();
    for serial in [1, 1, 1, 2, 2, 3] {
        lines.push((serial, in_line(&queue, serial, 10).await.expect("there is room")));
    }
    let mut order = Vec::new();
    queue.note_free();
    while !lines.is_empty() {
        let called = lines
            .iter_mut()
            .position(|(_, waiting)| *waiting.ticket.standing() == Standing::Called);
        let (serial, served) = lines.remove(called.expect("one of them is called"));
        order.push(serial);
        // It has its place; the next is called when it leaves the queue.
        drop(served);
    }
    assert_eq!(order, [1, 2, 3, 1, 2, 1]);
}

#[tokio::test]
async fn who_finds_no_place_keeps_its_turn_and_who_tried_some_leaves_the_next_to_others() {
    let queue = Arc::new(Queue::default());
    let mut first = in_line(&queue, 1, 10).await.expect("there is room");
    let mut second = in_line(&queue, 2, 10).await.expect("there is room");
    queue.note_free();
    assert!(is_called(&mut first));
    assert!(first.wait(false).now_or_never().is_none());
    queue.note_free();
    assert!(is_called(&mut first) && !is_called(&mut second));
    assert!(first.wait(true).now_or_never().is_none());
    queue.note_free();
    assert!(is_called(&mut second) && !is_called(&mut first));
}

#[tokio::test]
async fn a_place_that_becomes_free_while_somebody_looks_is_not_missed() {
    let queue = Arc::new(Queue::default());
    let mut stream = queue.enter(of(1), 1, LONG).expect("there is room");
    // What became free before it came, it sees by looking; what does while it looks, by this.
    assert!(is_called(&mut stream));
    queue.note_free();
    assert!(is_called(&mut stream));
    assert!(stream.wait(false).now_or_never().is_none());
    // One that goes without its place leaves it to the next.
    let mut next = in_line(&queue, 1, 2).await.expect("there is room");
    queue.note_free();
    drop(stream);
    assert!(is_called(&mut next));
}

#[tokio::test]
async fn a_queue_is_bounded_in_length_and_time() {
    let queue = Arc::new(Queue::default());
    assert!(queue.enter(of(1), 0, LONG).is_none());
    let mut late = queue.enter(of(1), 2, Duration::ZERO).expect("there is room");
    let _second = in_line(&queue, 2, 2).await.expect("there is room");
    // Each circuit has one: the third has no more right to wait than they.
    assert!(queue.enter(of(3), 2, LONG).is_none());
    assert!(late.wait(false).await && !late.wait(false).await);
    assert_eq!((queue.waiting(), queue.refused_total()), (2, 3));
    drop(late);
    assert_eq!(queue.waiting(), 1);
}

#[tokio::test]
async fn each_lane_has_turns_of_its_own() {
    let queue = Arc::new(Queue::default());
    let mut normal = in_line(&queue, 1, 10).await.expect("there is room");
    let (party, _) = of(2);
    let banned = queue.enter((party, Verdict::Banned), 10, LONG);
    let mut banned = banned.expect("there is room");
    assert!(is_called(&mut banned));
    assert!(banned.wait(false).now_or_never().is_none());
    queue.note_free();
    assert!(is_called(&mut normal) && is_called(&mut banned));
}

#[tokio::test]
async fn one_that_was_called_and_does_not_look_holds_up_others_for_a_second_only() {
    let queue = Arc::new(Queue::default());
    let _hangs = in_line(&queue, 1, 10).await.expect("there is room");
    let mut other = in_line(&queue, 2, 10).await.expect("there is room");
    queue.note_free();
    let begun = std::time::Instant::now();
    assert!(other.wait(false).await);
    assert!(begun.elapsed() >= Duration::from_millis(limits::BACKEND_QUEUE_LOOK_MS));
}
