//! Wakes between threads, panics, fairness, and what is left when a core ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::ThreadId;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::oneshot;

use super::{RunQueue, current_queue, spawn};
use crate::runtime::Driver;

fn driver() -> Driver {
    Driver::new().expect("the machine has descriptors")
}

/// A timer of the driver's.
async fn timer(after: Duration) {
    let _ = tokio::time::timeout(after, std::future::pending::<()>()).await;
}

/// A core on a thread of its own: its queue, and what ends it.
fn core() -> (Arc<RunQueue>, oneshot::Sender<()>, std::thread::JoinHandle<()>) {
    let (ends, end) = oneshot::channel::<()>();
    let (tell, told) = mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        driver().block_on(async {
            tell.send(current_queue().expect("a core has a queue")).expect("the test listens");
            let _ = end.await;
        });
    });
    (told.recv().expect("the core starts"), ends, thread)
}

#[test]
fn no_wake_between_cores_is_lost() {
    const TURNS: u32 = 50_000;
    let (left, end_left, left_thread) = core();
    let (right, end_right, right_thread) = core();
    // Room for one item each way: every turn parks and wakes both sides.
    let (mut to_right, mut at_right) = futures::channel::mpsc::channel::<u32>(0);
    let (mut to_left, mut at_left) = futures::channel::mpsc::channel::<u32>(0);
    let (done, finished) = mpsc::sync_channel(1);
    right.spawn(async move {
        while let Some(turn) = at_right.next().await {
            let _ = futures::SinkExt::send(&mut to_left, turn + 1).await;
        }
    });
    left.spawn(async move {
        let mut turn = 0;
        while turn < TURNS {
            futures::SinkExt::send(&mut to_right, turn).await.expect("the other side is there");
            turn = at_left.next().await.expect("the other side answers");
        }
        done.send(turn).expect("the test listens");
    });
    let turn = finished.recv_timeout(Duration::from_secs(60)).expect("a wake was lost");
    assert_eq!(turn, TURNS);
    drop((end_left, end_right));
    left_thread.join().expect("no panic");
    right_thread.join().expect("no panic");
}

#[test]
fn a_task_that_panics_takes_no_other_along() {
    let queue = driver().block_on(async {
        spawn(async { panic!("a task's own fault") });
        let (tell, told) = oneshot::channel();
        spawn(async {
            let _ = tell.send(());
        });
        told.await.expect("the second task runs");
        current_queue().expect("a core has a queue")
    });
    assert_eq!(queue.panics(), 1);
}

#[test]
fn tasks_that_never_rest_starve_neither_timers_nor_other_cores() {
    let (queue, end, thread) = core();
    for _ in 0..100 {
        queue.spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..100 {
        queue.spawn(async {
            loop {
                // Wakes itself at once, which tokio's own yield does not.
                let mut rested = false;
                std::future::poll_fn(|cx| match std::mem::replace(&mut rested, true) {
                    true => std::task::Poll::Ready(()),
                    false => {
                        cx.waker().wake_by_ref();
                        std::task::Poll::Pending
                    }
                })
                .await;
            }
        });
    }
    let (tell, told) = mpsc::sync_channel(1);
    queue.spawn(async move {
        timer(Duration::from_millis(20)).await;
        tell.send(()).expect("the test listens");
    });
    told.recv_timeout(Duration::from_secs(30)).expect("the timer fires");
    drop(end);
    thread.join().expect("no panic");
}

/// Notes on which thread it was dropped.
struct Dropped(Arc<AtomicU32>, ThreadId);

impl Drop for Dropped {
    fn drop(&mut self) {
        if std::thread::current().id() == self.1 {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn every_task_is_dropped_on_its_core_when_the_core_ends() {
    let dropped = Arc::new(AtomicU32::new(0));
    let here = std::thread::current().id();
    let queue = driver().block_on(async {
        // One that waits forever, one that holds the other end of what it waits for, one that
        // waits for a timer, one that has not run yet.
        let (sender, receiver) = oneshot::channel::<()>();
        let guards: Vec<_> = (0..4).map(|_| Dropped(Arc::clone(&dropped), here)).collect();
        let mut guards = guards.into_iter();
        let mut guard = || guards.next().expect("there are four");
        let (first, second, third, fourth) = (guard(), guard(), guard(), guard());
        spawn(async move {
            let _guard = first;
            let _ = receiver.await;
        });
        spawn(async move {
            let _guard = second;
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        spawn(async move {
            let _guard = third;
            timer(Duration::from_secs(3600)).await;
        });
        // Tasks run in the order of their spawns: when this has run, all three wait.
        let (tell, told) = oneshot::channel();
        spawn(async move {
            let _ = tell.send(());
        });
        told.await.expect("it runs");
        spawn(async move {
            let _guard = fourth;
            std::future::pending::<()>().await;
        });
        current_queue().expect("a core has a queue")
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 4);
    // The core has ended: what is spawned now is dropped at once.
    let late = Dropped(Arc::clone(&dropped), here);
    queue.spawn(async move {
        let _late = late;
        std::future::pending::<()>().await;
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 5);
}
