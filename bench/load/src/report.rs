//! What a run found: a sample of each request, and the numbers that follow from all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::failure::Failure;
use crate::latency::Latency;
use crate::plan::{Circuits, Load, Plan};

/// One request. Times are since the start of the run.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The client that sent it, from 0.
    pub client: usize,
    /// When it was meant to begin; all latencies count from here.
    pub intended: Duration,
    /// When it began: later than intended where it found no free client.
    pub start: Duration,
    /// When the proxy said that the stream is open; `None` on a kept connection.
    pub connected: Option<Duration>,
    /// When the head of the response had come.
    pub first_byte: Option<Duration>,
    /// When the last byte of the body had come, or as many as were wanted.
    pub last_byte: Option<Duration>,
    /// When it ended, well or not.
    pub ended: Duration,
    /// Bytes of the body that came.
    pub bytes: u64,
    /// Connections that were opened for it: 0 or 1.
    pub connections: u8,
    /// Whether it was the first to be connected with its SOCKS user name.
    pub new_circuit: bool,
    /// Whether it was sent a second time, as the service had closed the kept connection.
    pub resent: bool,
    /// Whether it succeeded, or how it failed.
    pub outcome: Result<(), Failure>,
}

/// How often requests failed in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureCount {
    /// [`Failure::code`].
    pub code: String,
    /// A phrase for people.
    pub text: String,
    /// How often.
    pub count: u64,
    /// The failure itself.
    #[serde(skip)]
    pub failure: Failure,
}

/// What a run found. Serialized without the samples; nothing in it names the service.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When requests began, as planned.
    pub load: Load,
    /// Clients, as planned.
    pub clients: usize,
    /// Circuits, as planned.
    pub circuits: Circuits,
    /// From the start to the end of the last request, or to the interruption, in seconds.
    pub elapsed_s: f64,
    /// Requests that ended.
    pub requests: u64,
    /// Requests that ended well.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Whether the run was stopped before its end.
    pub interrupted: bool,
    /// Requests that were under way or due when it was stopped; they are in no other number.
    pub unfinished: u64,
    /// Failures by kind, the most frequent first.
    pub failures: Vec<FailureCount>,
    /// Requests that ended, for each second.
    pub requests_per_s: f64,
    /// Bytes of bodies, of all requests that ended.
    pub bytes: u64,
    /// The same as a rate, in 10^6 bits a second.
    pub throughput_mbps: f64,
    /// SOCKS user names with which a stream was opened: for each, tor builds circuits of their own.
    pub circuits_new: u64,
    /// The same for each second.
    pub circuits_new_per_s: f64,
    /// Streams that were opened through the proxies.
    pub connections: u64,
    /// Connections open at once, at most, as seen when a request ended and once a second.
    pub connections_open_max: usize,
    /// Requests that were sent twice, as the service had closed the kept connection.
    pub resent: u64,
    /// From the intended start until the stream was open, of requests that succeeded and did not
    /// have a kept connection.
    pub connected: Latency,
    /// From the intended start until the response's head had come, of requests that succeeded.
    pub first_byte: Latency,
    /// From the intended start until the last byte had come, of requests that succeeded.
    pub last_byte: Latency,
    /// The first requests that ended, in that order; at most
    /// [`Plan::samples_max`](crate::Plan::samples_max).
    #[serde(skip)]
    pub samples: Vec<Sample>,
    /// Requests that ended and whose samples were not kept.
    #[serde(skip)]
    pub samples_dropped: u64,
}

/// A report in the making. [`Tally::add`] is the only way in.
pub(crate) struct Tally {
    report: Report,
    samples_max: usize,
    /// At most one entry for each reply code, status and phase: about 1,300.
    failures: BTreeMap<Failure, u64>,
    /// The end of the request that ended last.
    ended: Duration,
}

impl Tally {
    /// Of nothing yet.
    pub(crate) fn new(plan: &Plan) -> Tally {
        let report = Report {
            load: plan.load,
            clients: plan.clients,
            circuits: plan.circuits,
            elapsed_s: 0.0,
            requests: 0,
            succeeded: 0,
            failed: 0,
            interrupted: false,
            unfinished: 0,
            failures: Vec::new(),
            requests_per_s: 0.0,
            bytes: 0,
            throughput_mbps: 0.0,
            circuits_new: 0,
            circuits_new_per_s: 0.0,
            connections: 0,
            connections_open_max: 0,
            resent: 0,
            connected: Latency::new(),
            first_byte: Latency::new(),
            last_byte: Latency::new(),
            samples: Vec::new(),
            samples_dropped: 0,
        };
        let (failures, ended) = (BTreeMap::new(), Duration::ZERO);
        Tally { report, samples_max: plan.samples_max, failures, ended }
    }

    /// The numbers so far; rates, times and failures are not among them.
    pub(crate) fn so_far(&self) -> &Report {
        &self.report
    }

    /// So many connections are open.
    pub(crate) fn note_open(&mut self, open: usize) {
        self.report.connections_open_max = self.report.connections_open_max.max(open);
    }

    /// A request has ended.
    pub(crate) fn add(&mut self, sample: Sample) {
        let report = &mut self.report;
        report.requests += 1;
        report.bytes = report.bytes.saturating_add(sample.bytes);
        report.circuits_new += u64::from(sample.new_circuit);
        report.connections += u64::from(sample.connections);
        report.resent += u64::from(sample.resent);
        self.ended = self.ended.max(sample.ended);
        match sample.outcome {
            Ok(()) => {
                report.succeeded += 1;
                let latencies = [
                    (&mut report.connected, sample.connected),
                    (&mut report.first_byte, sample.first_byte),
                    (&mut report.last_byte, sample.last_byte),
                ];
                for (latency, at) in latencies {
                    if let Some(at) = at {
                        latency.record(at.saturating_sub(sample.intended));
                    }
                }
            }
            Err(failure) => {
                report.failed += 1;
                *self.failures.entry(failure).or_default() += 1;
            }
        }
        match report.samples.len() < self.samples_max {
            true => report.samples.push(sample),
            false => report.samples_dropped += 1,
        }
    }

    /// The report. `interrupted` has the time of an interruption and what it left unfinished.
    pub(crate) fn finish(self, interrupted: Option<(Duration, u64)>) -> Report {
        let Tally { mut report, failures, ended, .. } = self;
        let elapsed = interrupted.map_or(ended, |(at, _)| at.max(ended));
        report.elapsed_s = elapsed.as_secs_f64();
        report.interrupted = interrupted.is_some();
        report.unfinished = interrupted.map_or(0, |(_, unfinished)| unfinished);
        report.requests_per_s = per_second(report.requests, elapsed);
        report.circuits_new_per_s = per_second(report.circuits_new, elapsed);
        report.throughput_mbps = per_second(report.bytes, elapsed) * 8.0 / 1e6;
        let count = |(failure, count): (Failure, u64)| FailureCount {
            code: failure.code(),
            text: failure.to_string(),
            count,
            failure,
        };
        report.failures = failures.into_iter().map(count).collect();
        report.failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        report
    }
}

/// A number for each second; nothing in no time.
#[expect(clippy::cast_precision_loss, reason = "rates are shown with a few digits")]
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    match elapsed.is_zero() {
        true => 0.0,
        false => count as f64 / elapsed.as_secs_f64(),
    }
}
