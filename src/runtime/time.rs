//! Sleeping and deadlines, on whichever driver the calling core has.
//!
//! Called by every area instead of a runtime's own functions, so that the same code runs on a data
//! core's ring, on the control core, and in a test.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::timers::{self, Timer};

thread_local! {
    /// The clock as this data core has last read it.
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time, as the calling core's batch began with it: arti asks several times for each cell. On a
/// thread that is no data core, the clock's. Never ahead of the clock, and behind it by at most
/// one batch of tasks, which is little beside any round trip through Tor.
pub fn now() -> Instant {
    NOW.get().unwrap_or_else(Instant::now)
}

/// [`now`] as a number that fits an atomic: since somebody first asked for this.
pub fn uptime() -> Duration {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    now().saturating_duration_since(*BEGUN)
}

/// The clock of a data core, for as long as this lives.
pub(super) struct Clock(());

impl Clock {
    /// From now on [`now`] does not read the clock on this thread.
    pub(super) fn start() -> Clock {
        let clock = Clock(());
        clock.read();
        clock
    }

    /// Read the clock.
    pub(super) fn read(&self) -> Instant {
        let now = Instant::now();
        NOW.set(Some(now));
        now
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        NOW.set(None);
    }
}

/// A future that is ready at a time, and on a data core not before [`now`] is there. It may be
/// polled and dropped on another core than the one that made it.
#[derive(Debug)]
pub struct Sleep(Kind);

/// Who wakes it.
#[derive(Debug)]
enum Kind {
    /// The core's own timers.
    Core(Timer),
    /// tokio's.
    Tokio(Pin<Box<tokio::time::Sleep>>),
}

/// The time was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

/// Sleep until `at`.
pub fn sleep_until(at: Instant) -> Sleep {
    if timers::are_here() {
        return Sleep(Kind::Core(Timer::new(at)));
    }
    Sleep(Kind::Tokio(Box::pin(tokio::time::sleep_until(at.into()))))
}

/// Sleep for `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    // Longer than anybody runs this; `Instant` ends somewhere.
    const YEARS: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    sleep_until(Instant::now() + duration.min(YEARS))
}

impl Sleep {
    /// Be ready at another time.
    pub fn reset(&mut self, at: Instant) {
        match &mut self.0 {
            Kind::Core(timer) => timer.reset(at),
            Kind::Tokio(sleep) => sleep.as_mut().reset(at.into()),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Kind::Core(timer) = &self.0
            && !timers::are_here()
        {
            // It has come to a core without timers of ours.
            let at = timer.at();
            self.0 = Kind::Tokio(Box::pin(tokio::time::sleep_until(at.into())));
        }
        match &mut self.0 {
            Kind::Core(timer) => Pin::new(timer).poll(cx),
            Kind::Tokio(sleep) => sleep.as_mut().poll(cx),
        }
    }
}

/// Wait for `future`, for at most `duration`.
///
/// # Errors
/// [`Elapsed`] when the time is over first; the future is dropped then.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut sleep = sleep(duration);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use super::{now, sleep, sleep_until};
    use crate::runtime::ring::tests::on_ring;
    use crate::runtime::{Driver, Io};

    /// Until the clock is there, while the batch's stands still.
    pub(crate) fn spin_until(at: Instant) {
        while Instant::now() < at {
            std::hint::spin_loop();
        }
    }

    /// Who waits for [`now`] in a loop around a sleep would wait for ever: the batch goes on when
    /// the loop has ended.
    #[test]
    fn a_timer_is_not_ready_before_the_batchs_clock_is_there() {
        on_ring(|| async {
            let at = now() + Duration::from_millis(3);
            let mut timer = sleep_until(at);
            spin_until(at + Duration::from_millis(3));
            let ready = poll_fn(|cx| Poll::Ready(Pin::new(&mut timer).poll(cx).is_ready()));
            assert!(!ready.await && now() < at);
            timer.await;
            assert!(now() >= at);
        });
    }

    #[test]
    fn a_batch_has_one_time_and_the_next_has_another() {
        let driver = Driver::for_data_core(Io::Epoll).expect("descriptors are left");
        driver.block_on(async {
            let first = now();
            spin_until(first + Duration::from_millis(2));
            assert_eq!(now(), first);
            assert!(now() < Instant::now());
            sleep(Duration::from_millis(3)).await;
            assert!(now() >= first + Duration::from_millis(3));
        });
        let before = now();
        assert!(before.elapsed() < Duration::from_secs(1));
        assert!(now() >= before);
    }
}
