//! `rendezvous`: CPU for a new client, new clients a second, and how long a new client waits for
//! its first byte.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use rustbalance_lab::client::fresh_user;

use crate::bench::{Bench, Level, cost_of};
use crate::sample::Values;
use crate::site::all_at_once;
use crate::subject::Subject;

/// The suite's name.
pub const NAME: &str = "rendezvous";
/// The case in which clients follow each other without a pause.
pub const SATURATED: &str = "as many new clients as the machine carries";
/// The case in which clients come at intended instants.
pub const OPEN_LOOP: &str = "new clients at a steady rate";

/// Clients that wait at the same time.
const AT_ONCE: usize = 8;
/// Latest lateness of a client's start that still counts as the offered load.
const LATE_MAX: Duration = Duration::from_millis(500);

/// Steps that it takes.
pub fn steps(level: Level) -> usize {
    level.pick(2, 10, 10)
}

/// Measure.
///
/// # Errors
/// When results cannot be written.
pub fn run(bench: &mut Bench, subjects: &[Subject], rounds: usize) -> Result<()> {
    let idle = bench.idle;
    let clients = bench.level.pick(4, 20, 60);
    bench.interleave(NAME, SATURATED, rounds, subjects, |site, subject| {
        // Both clients have the descriptor already: what is measured is the rendezvous.
        site.warm_up(&subject.onion, site.clients.len())?;
        let ((), cost) = cost_of(&subject.tree, || {
            all_at_once(clients, AT_ONCE, |at| {
                site.fetch_page(at, &subject.onion, &fresh_user()).map(|_| ())
            })
        })?;
        Ok(Values::from([
            ("cpu_ms_per_client", cost.cpu_seconds * 1e3 / clients as f64),
            ("machine_cpu_ms_per_client", cost.machine_above(idle) * 1e3 / clients as f64),
            ("clients_per_second", clients as f64 / cost.seconds),
        ]))
    })?;
    let (rate, clients) = bench.level.pick((2.0, 4), (4.0, 10), (8.0, 64));
    bench.interleave(NAME, OPEN_LOOP, rounds, subjects, |site, subject| {
        site.warm_up(&subject.onion, site.clients.len())?;
        let waits = open_loop(rate, clients, |at| {
            site.fetch_page(at, &subject.onion, &fresh_user()).map(|_| ())
        })?;
        let ms = |quantile: f64| waits.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Values::from([
            ("served_ms_p50", ms(0.5)),
            ("served_ms_p90", ms(0.9)),
            ("served_ms_p99", ms(0.99)),
            ("served_ms_p999", ms(0.999)),
            ("served_ms_most", waits.max() as f64 / 1e3),
            ("offered_per_second", rate),
        ]))
    })
}

/// Do so many jobs at a steady rate, each at its own instant whether or not others have ended, and
/// say in microseconds how long each took from its *intended* start.
///
/// # Errors
/// The first error of a job, or that the load could not be offered in time.
pub fn open_loop(
    rate_per_second: f64,
    jobs: usize,
    job: impl Fn(usize) -> Result<()> + Sync,
) -> Result<Histogram<u64>> {
    let waits = Mutex::new(Histogram::<u64>::new_with_bounds(1, 120_000_000, 3)?);
    let began = Instant::now();
    // One thread a job that may be under way: a job that takes long keeps nobody from starting.
    let most = (rate_per_second * 60.0).ceil() as usize;
    all_at_once(jobs, most.clamp(1, 512), |at| {
        let intended = Duration::from_secs_f64(at as f64 / rate_per_second);
        std::thread::sleep(intended.saturating_sub(began.elapsed()));
        let late = began.elapsed().saturating_sub(intended);
        ensure!(late < LATE_MAX, "the offered load was missed: a client began {late:?} late");
        job(at)?;
        let waited = began.elapsed().saturating_sub(intended);
        let waited = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let mut waits = waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        waits.saturating_record(waited);
        Ok(())
    })?;
    Ok(waits.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::open_loop;

    #[test]
    fn a_job_that_stalls_keeps_no_other_from_starting() {
        let stalled = Mutex::new(());
        let waits = open_loop(100.0, 20, |at| {
            if at == 0 {
                let _held = stalled.lock();
                std::thread::park_timeout(Duration::from_millis(200));
            }
            Ok(())
        });
        let waits = waits.expect("the load is small");
        assert_eq!(waits.len(), 20);
        assert!(waits.max() >= 190_000, "{}", waits.max());
        assert!(waits.value_at_quantile(0.5) < 190_000, "{}", waits.value_at_quantile(0.5));
    }

    #[test]
    fn a_failure_is_told() {
        assert!(open_loop(1000.0, 3, |_| anyhow::bail!("no")).is_err());
    }
}
