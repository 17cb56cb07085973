//! `flood`: far more introductions than a service can serve, from several clients, and what becomes
//! of one honest client in the meantime. Bounded in count and time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustbalance_lab::client::fresh_user;

use crate::bench::{Bench, Level, cost_of};
use crate::sample::Values;
use crate::site::{SINK, Site};
use crate::subject::Subject;

/// The suite's name.
pub const NAME: &str = "flood";

/// Introductions a second that are offered.
pub fn rates(level: Level) -> &'static [u32] {
    level.pick(&[5], &[50, 200], &[50, 500, 2000])
}

/// How long a flood lasts.
fn span(level: Level) -> Duration {
    Duration::from_secs(level.pick(2, 5, 5))
}

/// What a case is called.
pub fn case_name(rate: u32) -> String {
    format!("{rate} introductions a second offered")
}

/// Steps that it takes.
pub fn steps(level: Level) -> usize {
    rates(level).len() * level.pick(1, 1, 5)
}

/// Measure.
///
/// # Errors
/// When results cannot be written.
pub fn run(bench: &mut Bench, subjects: &[Subject]) -> Result<()> {
    let (rounds, span) = (bench.level.pick(1, 1, 5), span(bench.level));
    for rate in rates(bench.level) {
        let case = case_name(*rate);
        bench.interleave(NAME, &case, rounds, subjects, |site, subject| {
            flooded(site, subject, *rate, span)
        })?;
    }
    Ok(())
}

/// How long one that floods waits: what it began goes on at the service either way.
const PATIENCE: Duration = Duration::from_secs(3);

/// Threads that flood: each holds one SOCKS request at a time.
const FLOODERS: usize = 64;

/// Flood one subject, with an honest client beside.
fn flooded(site: &Site, subject: &Subject, rate: u32, span: Duration) -> Result<Values> {
    site.warm_up(&subject.onion, site.clients.len())?;
    let over = AtomicBool::new(false);
    let (begun, came_through) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let started = Instant::now();
    let (honest, cost) = cost_of(&subject.tree, || {
        std::thread::scope(|scope| {
            for _ in 0..FLOODERS {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let number = begun.fetch_add(1, Ordering::Relaxed);
                        let intended = Duration::from_secs_f64(number as f64 / f64::from(rate));
                        std::thread::sleep(intended.saturating_sub(started.elapsed()));
                        // A circuit for one stream that carries nothing: an introduction and a
                        // rendezvous are all that it costs anybody.
                        let client = site.client(number).clone().with_timeout(PATIENCE);
                        let stream = client.stream(&subject.onion, SINK, &fresh_user());
                        came_through.fetch_add(usize::from(stream.is_ok()), Ordering::Relaxed);
                    }
                });
            }
            let honest = scope.spawn(|| {
                let (mut served, mut asked, mut waits) = (0_u32, 0_u32, Vec::new());
                while started.elapsed() < span {
                    asked += 1;
                    if let Ok(wait) = site.fetch_page(0, &subject.onion, &fresh_user()) {
                        served += 1;
                        waits.push(wait.as_secs_f64() * 1e3);
                    }
                }
                over.store(true, Ordering::Relaxed);
                (served, asked, waits)
            });
            honest.join().map_err(|_| anyhow::anyhow!("the honest client panicked"))
        })
    })?;
    let (served, asked, mut waits) = honest;
    waits.sort_by(f64::total_cmp);
    let begun = begun.load(Ordering::Relaxed) as f64;
    let through = came_through.load(Ordering::Relaxed) as f64;
    Ok(Values::from([
        ("offered_per_second", f64::from(rate)),
        ("begun_per_second", begun / cost.seconds),
        ("rendezvous_per_second", through / cost.seconds),
        ("cpu_ms_per_rendezvous", cost.cpu_seconds * 1e3 / through.max(1.0)),
        ("cores", cost.cpu_seconds / cost.seconds),
        ("honest_served_percent", 100.0 * f64::from(served) / f64::from(asked.max(1))),
        ("honest_first_byte_ms", waits.get(waits.len() / 2).copied().unwrap_or(f64::NAN)),
    ]))
}
