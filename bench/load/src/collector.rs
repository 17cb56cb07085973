//! The run itself: starts the clients, gathers their samples, and makes the report.
//!
//! The collector is a `select` over what can happen (a sample, a second that passed, the caller's
//! wish to stop, the end); each event is applied to the tally, which it alone owns.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::Error;
use crate::client::{Client, Shared};
use crate::limits::{PROBE_TIMEOUT, PROGRESS_INTERVAL, SAMPLE_QUEUE};
use crate::plan::Plan;
use crate::report::{Report, Sample, Tally, per_second};

/// How far a run is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Time since the start.
    pub elapsed: Duration,
    /// Estimate of the time until no more requests begin: what is left of the duration, or the
    /// time for the requests that are left at the mean rate so far, whichever is shorter.
    pub left: Duration,
    /// Requests that have ended.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Requests that ended for each second, since the last progress.
    pub requests_per_s: f64,
    /// Median so far, from intended start to first byte, in seconds, of what succeeded.
    pub first_byte_p50_s: Option<f64>,
    /// Connections that are open.
    pub connections_open: usize,
}

/// Who wants to hear of a run while it goes on. It is called on the runtime's thread and should
/// return at once.
pub trait Observer {
    /// A second has passed.
    fn progress(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// A request has ended. Every one is told, also those that the report does not keep.
    fn sample(&mut self, sample: &Sample) {
        let _ = sample;
    }
}

/// An observer out of a closure that hears of the progress alone.
struct OnProgress<F>(F);

impl<F: FnMut(&Progress)> Observer for OnProgress<F> {
    fn progress(&mut self, progress: &Progress) {
        (self.0)(progress);
    }
}

/// Carry out a plan on the current tokio runtime, which needs I/O and time; `observe` hears of the
/// progress once a second.
///
/// It returns at the latest one [`timeout`](Plan::timeout) after the plan's
/// [`duration`](Plan::duration). Dropping it ends every connection. A process needs about as many
/// file descriptors as there are clients.
///
/// # Errors
/// When the plan does not [check](Plan::check), or a SOCKS proxy takes no connection. Requests that
/// fail are no errors of the run: the report counts them.
pub async fn run(plan: Plan, observe: impl FnMut(&Progress)) -> Result<Report, Error> {
    run_until(plan, &mut OnProgress(observe), pending()).await
}

/// As [`run`], with an observer that may also hear of each sample; it ends at once, with the report
/// so far, when `stop` is ready.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    plan: Plan,
    observer: &mut impl Observer,
    stop: impl Future<Output = ()>,
) -> Result<Report, Error> {
    plan.check()?;
    for proxy in &plan.socks {
        probe(*proxy).await?;
    }
    let (sender, samples) = mpsc::channel(SAMPLE_QUEUE);
    let shared = Arc::new(Shared::new(plan));
    let mut clients = JoinSet::new();
    for number in 0..shared.plan.clients {
        clients.spawn(Client::new(Arc::clone(&shared), number).work(sender.clone()));
    }
    // The channel ends with the last client.
    drop(sender);
    let mut collector = Collector::new(shared, observer);
    let interrupted = collector.gather(samples, &mut clients, stop).await;
    // A client that panicked is a defect of this library: do not report over it.
    while let Some(joined) = clients.join_next().await {
        if let Err(error) = joined
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    Ok(collector.tally.finish(interrupted))
}

/// Whether a proxy takes connections.
async fn probe(address: SocketAddr) -> Result<(), Error> {
    let connected = match timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    connected.map(drop).map_err(|source| Error::Proxy { address, source })
}

/// What gathers the samples.
struct Collector<'a, O> {
    shared: Arc<Shared>,
    observer: &'a mut O,
    tally: Tally,
    /// When the last progress was told, and how many requests had ended.
    told: (Instant, u64),
}

impl<'a, O: Observer> Collector<'a, O> {
    /// Of nothing yet.
    fn new(shared: Arc<Shared>, observer: &'a mut O) -> Self {
        let (tally, told) = (Tally::new(&shared.plan), (shared.start, 0));
        Collector { shared, observer, tally, told }
    }

    /// Gather until the clients are done; if it is stopped before, say when, and what is left.
    async fn gather(
        &mut self,
        mut samples: Receiver<Sample>,
        clients: &mut JoinSet<()>,
        stop: impl Future<Output = ()>,
    ) -> Option<(Duration, u64)> {
        let mut stop = std::pin::pin!(stop);
        let mut ticks = interval_at(self.shared.start + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = ticks.tick() => self.tell(),
                sample = samples.recv() => match sample {
                    Some(sample) => self.take(sample),
                    None => return None,
                },
            }
        }
        let at = self.shared.start.elapsed();
        let due = self.shared.due();
        clients.abort_all();
        // Those that had ended before the stop are still in the queue.
        while let Ok(sample) = samples.try_recv() {
            self.take(sample);
        }
        Some((at, due.saturating_sub(self.tally.so_far().requests)))
    }

    /// A request has ended.
    fn take(&mut self, sample: Sample) {
        self.tally.note_open(self.shared.open.now());
        self.observer.sample(&sample);
        self.tally.add(sample);
    }

    /// A second has passed.
    fn tell(&mut self) {
        self.tally.note_open(self.shared.open.now());
        let plan = &self.shared.plan;
        let elapsed = self.shared.start.elapsed();
        let so_far = self.tally.so_far();
        let by_time = plan.duration.saturating_sub(elapsed);
        let missing = plan.requests.saturating_sub(so_far.requests);
        let pace = elapsed.div_f64(f64::from(u32::try_from(so_far.requests).unwrap_or(1).max(1)));
        let by_requests = pace.saturating_mul(u32::try_from(missing).unwrap_or(u32::MAX));
        let is_known = so_far.requests > 0;
        let (last, requests) = std::mem::replace(&mut self.told, (Instant::now(), so_far.requests));
        let progress = Progress {
            elapsed,
            left: if is_known { by_time.min(by_requests) } else { by_time },
            requests: so_far.requests,
            failed: so_far.failed,
            requests_per_s: per_second(so_far.requests - requests, last.elapsed()),
            first_byte_p50_s: so_far.first_byte.quantile_s(0.5),
            connections_open: self.shared.open.now(),
        };
        self.observer.progress(&progress);
    }
}
