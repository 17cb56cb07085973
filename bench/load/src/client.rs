//! A client: a task that sends one request after the other and hands a sample of each to the
//! collector.
//!
//! ```text
//!   due at its intended start --> connect (unless kept) --> send --> head --> body --> sample
//!        ^                                                                               |
//!        '-------------------------------------------------------------------------------'
//! ```
//!
//! A whole request has one deadline, counted from its intended start. It never fails the run: how
//! it failed stands in its sample.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::Response;
use hyper::body::Incoming;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::exchange::{BodyEnd, Link, OpenCount, receive};
use crate::failure::{Failure, Phase};
use crate::limits::FAILURE_REST;
use crate::plan::{Circuits, Load, Plan};
use crate::report::Sample;
use crate::schedule;
use crate::socks;

/// What all clients of a run share.
pub(crate) struct Shared {
    /// What to do.
    pub(crate) plan: Plan,
    /// When the run began.
    pub(crate) start: Instant,
    /// The number of the next request; clients take from it.
    next: AtomicU64,
    /// Requests that have begun; clients count, the collector reads it at an interruption.
    begun: AtomicU64,
    /// Connections that are open.
    pub(crate) open: OpenCount,
}

/// One client.
pub(crate) struct Client {
    shared: Arc<Shared>,
    /// From 0.
    number: usize,
    /// Its share of the proxies.
    proxy: SocketAddr,
    /// Its circuits.
    user: String,
    /// Whether those circuits have not carried a stream yet.
    user_is_new: bool,
    /// A connection that may be used again.
    link: Option<Link>,
}

/// What is known of a request so far: it outlives one that is cancelled at its deadline.
struct Trace {
    phase: Phase,
    connected: Option<Instant>,
    first_byte: Option<Instant>,
    last_byte: Option<Instant>,
    bytes: u64,
    connections: u8,
    new_circuit: bool,
    resent: bool,
}

impl Shared {
    /// For a run that begins now.
    pub(crate) fn new(plan: Plan) -> Shared {
        Shared {
            plan,
            start: Instant::now(),
            next: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            open: OpenCount::default(),
        }
    }

    /// The number of a request to send; `None` when there have been enough.
    fn take_number(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.plan.requests).then_some(number)
    }

    /// How many requests should have begun by now: those that did, and in an open loop those that
    /// are due and find no client.
    pub(crate) fn due(&self) -> u64 {
        let next = self.next.load(Ordering::Relaxed);
        let unclaimed = schedule::open_due(&self.plan, next, self.start.elapsed());
        self.begun.load(Ordering::Relaxed) + unclaimed
    }
}

impl Client {
    /// Client number `number`, from 0.
    pub(crate) fn new(shared: Arc<Shared>, number: usize) -> Client {
        let proxy = shared.plan.socks[number % shared.plan.socks.len()];
        let user = socks::fresh_user();
        Client { shared, number, proxy, user, user_is_new: true, link: None }
    }

    /// Send requests until the plan has no more.
    pub(crate) async fn work(mut self, samples: Sender<Sample>) {
        let mut index = 0_u32;
        while let Some(intended) = self.next_request(index).await {
            let sample = self.request(intended).await;
            let failed = sample.outcome.is_err();
            if samples.send(sample).await.is_err() {
                return;
            }
            if failed && self.shared.plan.load == Load::Closed {
                sleep_until(Instant::now() + FAILURE_REST).await;
            }
            index = index.saturating_add(1);
        }
    }

    /// Wait until the next request is due, and say when it was meant to begin; `index` is the
    /// number of requests that this client has sent.
    async fn next_request(&self, index: u32) -> Option<Instant> {
        let Shared { plan, start, .. } = &*self.shared;
        let after_start = match plan.load {
            Load::Closed if index == 0 => schedule::first(plan, self.number),
            Load::Closed => start.elapsed(),
            Load::Open { rate } => schedule::open(self.shared.take_number()?, rate, plan.ramp),
            Load::Hold { every } => schedule::hold(plan, self.number, every, index),
        };
        if after_start >= plan.duration {
            if let Load::Hold { .. } = plan.load {
                // Held to the end, though there is nothing more to send.
                sleep_until(*start + plan.duration).await;
            }
            return None;
        }
        let intended = *start + after_start;
        sleep_until(intended).await;
        // In an open loop the number belongs to the instant; elsewhere to who comes first.
        if !matches!(plan.load, Load::Open { .. }) {
            self.shared.take_number()?;
        }
        self.shared.begun.fetch_add(1, Ordering::Relaxed);
        Some(intended)
    }

    /// Send one request that was meant to begin at `intended`.
    async fn request(&mut self, intended: Instant) -> Sample {
        let shared = Arc::clone(&self.shared);
        let begun = Instant::now();
        let mut trace = Trace {
            phase: Phase::Waiting,
            connected: None,
            first_byte: None,
            last_byte: None,
            bytes: 0,
            connections: 0,
            new_circuit: false,
            resent: false,
        };
        let deadline = intended + shared.plan.timeout;
        let outcome = match begun < deadline {
            true => match timeout_at(deadline, self.exchange(&mut trace)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::Timeout(trace.phase)),
            },
            false => Err(Failure::Timeout(Phase::Waiting)),
        };
        let since = |instant: Instant| instant.saturating_duration_since(shared.start);
        Sample {
            client: self.number,
            intended: since(intended),
            start: since(begun),
            connected: trace.connected.map(since),
            first_byte: trace.first_byte.map(since),
            last_byte: trace.last_byte.map(since),
            ended: since(Instant::now()),
            bytes: trace.bytes,
            connections: trace.connections,
            new_circuit: trace.new_circuit,
            resent: trace.resent,
            outcome,
        }
    }

    /// The request itself.
    async fn exchange(&mut self, trace: &mut Trace) -> Result<(), Failure> {
        if self.shared.plan.circuits == Circuits::Fresh {
            self.user = socks::fresh_user();
            self.user_is_new = true;
            self.link = None;
        }
        let (link, response) = self.respond(trace).await?;
        trace.first_byte = Some(Instant::now());
        trace.phase = Phase::Receiving;
        let status = response.status();
        let received = receive(response, &self.shared.plan, &mut trace.bytes).await;
        // A service that refuses sends another page: its status says more than its hash does.
        if !status.is_success() {
            if received == Ok(BodyEnd::Whole) || received == Err(Failure::WrongHash) {
                self.keep(link);
            }
            return Err(Failure::Status(status.as_u16()));
        }
        if received != Err(Failure::ShortBody) {
            trace.last_byte = Some(Instant::now());
        }
        if received != Ok(BodyEnd::Enough) {
            self.keep(link);
        }
        received.map(|_| ())
    }

    /// Get the head of a response, over the kept connection where there is one.
    ///
    /// The service may close a kept connection at any time, also just when a request is on its way.
    /// Then the request is sent once more, over a new one.
    async fn respond(&mut self, trace: &mut Trace) -> Result<(Link, Response<Incoming>), Failure> {
        if let Some(mut link) = self.link.take().filter(|link| !link.is_closed()) {
            trace.phase = Phase::Responding;
            match link.send(&self.shared.plan).await {
                Ok(response) => return Ok((link, response)),
                Err(_) => trace.resent = true,
            }
        }
        trace.phase = Phase::Connecting;
        let stream = socks::connect(self.proxy, &self.shared.plan.target, &self.user).await?;
        trace.connected = Some(Instant::now());
        trace.new_circuit = std::mem::take(&mut self.user_is_new);
        trace.connections += 1;
        trace.phase = Phase::Responding;
        let mut link = Link::open(stream, &self.shared.open).await?;
        let response = link.send(&self.shared.plan).await?;
        Ok((link, response))
    }

    /// Keep a connection for the next request, where circuits are kept.
    fn keep(&mut self, link: Link) {
        if self.shared.plan.circuits == Circuits::Kept {
            self.link = Some(link);
        }
    }
}
