//! Puts the status document together from what each area tells.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use super::control_core::Shared;
use super::daemons;
use super::roster::ServiceShared;
use super::running::Order;
#[cfg(feature = "admin")]
use crate::admin::BackendRequest;
use crate::admin::status::{
    DaemonStatus, DescriptorStatus, InstanceState, InstanceStatus, LookUpsStatus, MemoryStatus,
    ProcessStatus, ServiceStatus, VerificationStatus,
};
#[cfg(feature = "admin")]
use crate::admin::status::{PublishedDescriptor, PublishedStatus, VerifiedStatus};
#[cfg(feature = "admin")]
use crate::base::redact::REDACTED;
use crate::base::stream::CircuitId;
use crate::limits;
use crate::onion::Guest;
use crate::onion::service::Seat;
use crate::onion::status::{
    DescriptorStatus as Published, Engine, GuestState, HeldState, ServiceState,
};
use crate::plane::config::Verdict;
use crate::plane::front::Front;
use crate::plane::status::ListenStatus;
use crate::runtime::core::{LinkRecord, SpawnKind};
use crate::runtime::{CoreId, LookUpCounts, memory, net};
use crate::tor::network::unreachable;
use crate::tor::status::{LinkStatus, NetworkStatus};

impl Shared {
    /// The status of everything.
    pub(super) fn status(&self) -> ProcessStatus {
        use crate::base::overload::ClosedFor::{Bytes, Idle, Unused};
        let served = self.roster.served();
        let closed = |reason| self.common.overload.closed_total(reason);
        let skew = served.iter().find_map(|one| one.publisher.borrow().clock_skew_ms);
        ProcessStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            turbo: self.common.instances > 0,
            io: self.cores_io.summary(self.io),
            clock_skew_ms: skew,
            network: self.network(),
            tasks: self.group.cores().iter().map(|core| core.tasks() as u64).sum(),
            memory: MemoryStatus {
                max_bytes: self.memory.max,
                held_bytes: memory::held_bytes(),
                refusing: self.common.overload.is_short(),
                refused_total: self.common.overload.refused_total(),
                circuits_closed_total: closed(Unused) + closed(Idle) + closed(Bytes),
                circuits_closed_unused_total: closed(Unused),
                circuits_closed_idle_total: closed(Idle),
                circuits_closed_bytes_total: closed(Bytes),
            },
            look_ups: look_ups(),
            links: self.links(),
            daemons: self.daemon_links(),
            services: served.iter().map(|service| self.service(service)).collect(),
            listens: self.fronts.all().iter().map(|front| front.status()).collect(),
        }
    }

    /// Do what is wanted of backends, and say how many were meant.
    #[cfg(feature = "admin")]
    pub(super) fn order_backend(&self, request: &BackendRequest) -> usize {
        let BackendRequest { address, service, port, order } = request;
        let is_meant = |one: &ServiceShared| service.as_ref().is_none_or(|name| one.name() == name);
        let meant = self.roster.with_planes(is_meant).into_iter();
        let changed = meant.map(|one| one.plane.set_order(address, *port, *order)).sum();
        if changed > 0 {
            // What was typed may be an onion address.
            let backend = if address.contains(".onion") { REDACTED } else { address.as_str() };
            tracing::info!(backend, "the operator says: {order:?}");
        }
        changed
    }

    /// What was published, HSDir by HSDir.
    #[cfg(feature = "admin")]
    pub(super) fn descriptors(&self) -> Vec<PublishedStatus> {
        let published = |one: &Published| PublishedDescriptor {
            descriptor: descriptor(one),
            documents: one.variants.clone(),
            hsdirs: one.uploads.clone(),
        };
        let served = self.roster.served();
        let service = |one: &Arc<ServiceShared>| PublishedStatus {
            service: one.name().to_owned(),
            onion: one.onion.clone(),
            descriptors: one.publisher.borrow().descriptors.iter().map(published).collect(),
        };
        served.iter().map(service).collect()
    }

    /// Have the HSDirs of each service, or of the one with this name, asked what they hold.
    #[cfg(feature = "admin")]
    pub(super) async fn verify(self: Arc<Self>, service: Option<String>) -> Vec<VerifiedStatus> {
        let served = self.roster.served();
        let meant = |one: &Arc<ServiceShared>| service.as_ref().is_none_or(|it| one.name() == it);
        let checks = served.into_iter().filter(meant).map(|one| async move { verify(&one).await });
        futures::future::join_all(checks).await
    }

    /// Close a client's circuit; whether it was open. What a daemon has to say is waited for.
    pub(super) fn close_circuit(
        &self,
        circuit: CircuitId,
    ) -> impl Future<Output = bool> + Send + use<> {
        let closed = self.roster.all().iter().any(|one| one.service.close_circuit(circuit));
        let told = self.fronts.all().iter().find_map(|front| front.close_circuit(circuit));
        async move {
            let Some(told) = told.filter(|_| !closed) else { return closed };
            let patience = Duration::from_millis(limits::CTOR_CLOSE_MS_MAX);
            matches!(tokio::time::timeout(patience, told).await, Ok(Ok(true)))
        }
    }

    /// Say something of a client's circuit for so long, to the service that it is open at; to how
    /// many. A circuit of a listener, of which nobody hears when it closes, may be any service's. A
    /// circuit that is banned from a service that closes circuits is closed.
    pub(super) fn set_verdict(
        &self,
        circuit: CircuitId,
        verdict: Verdict,
        lifetime: Duration,
    ) -> usize {
        let ours = circuit.instance < limits::LISTEN_INSTANCE_FIRST;
        let is_there = |one: &ServiceShared| !ours || one.service.has_circuit(circuit);
        let told = |one: &&Arc<ServiceShared>| {
            let told = one.plane.set_verdict(circuit, verdict, lifetime);
            // It may have closed before that was noted.
            if !is_there(one) {
                one.plane.circuit_closed(circuit);
            }
            told
        };
        let told = self.roster.with_planes(is_there).iter().filter(told).count();
        if verdict != Verdict::Banned {
            return told;
        }
        let (all, served) = (self.roster.all(), self.roster.served());
        for one in all.iter().filter(|one| one.plane.closes_circuits()) {
            one.service.close_circuit(circuit);
        }
        let closes = |front: &&Arc<Front>| {
            let theirs = |one: &&Arc<ServiceShared>| one.name() == front.config().service;
            // One that drains has a say only where no other has taken its name.
            match served.iter().find(theirs) {
                Some(one) => one.plane.closes_circuits(),
                None => all.iter().filter(theirs).any(|one| one.plane.closes_circuits()),
            }
        };
        // What a daemon says of it nobody waits for.
        let fronts = self.fronts.all();
        fronts.iter().filter(closes).for_each(|front| drop(front.close_circuit(circuit)));
        told
    }

    /// The way into the Tor network.
    fn network(&self) -> NetworkStatus {
        let attempts = self.group.attempts();
        let waiting = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (trouble, next_try) = match waiting {
            Some((trouble, next_try)) => (Some(trouble), Some(next_try)),
            None if self.group.links().is_empty() => (unreachable(attempts.failures), None),
            None => (None, None),
        };
        NetworkStatus {
            trouble,
            next_try_at: next_try.map(rfc3339),
            connected_total: attempts.connected_total,
            failed_total: attempts.failed_total,
        }
    }

    /// The links to relays. Relays are numbered in the order in which their links opened.
    fn links(&self) -> Vec<LinkStatus> {
        use std::sync::atomic::Ordering::Relaxed;
        let records = self.group.links();
        let guard = |record: &LinkRecord| {
            let first = records.iter().find(|other| other.peer == record.peer);
            first.map_or(record.number, |other| other.number)
        };
        let counted = |record: &LinkRecord| {
            let stack = self.stacks.get(usize::from(record.stack))?.borrow().clone()?;
            stack.circuits_on(record.number)
        };
        let link = |record: &std::sync::Arc<LinkRecord>| LinkStatus {
            stack: record.stack,
            core: u16::try_from(record.core.load(Relaxed)).ok().and_then(|at| at.checked_sub(1)),
            guard: guard(record),
            circuits: counted(record).map(|(open, _)| open),
            bytes_in_total: record.bytes_in.load(Relaxed),
            bytes_out_total: record.bytes_out.load(Relaxed),
            creates_refused_total: counted(record).map(|(_, refused)| refused),
        };
        records.iter().map(link).collect()
    }

    /// The daemons' links to guards.
    fn daemon_links(&self) -> Vec<DaemonStatus> {
        let guards = self.daemons.guards().into_iter();
        let daemon = |(number, guards)| DaemonStatus { name: daemons::label(number), guards };
        (1..).zip(guards).map(daemon).collect()
    }

    /// One service.
    fn service(&self, shared: &ServiceShared) -> ServiceStatus {
        let publisher = shared.publisher.borrow().clone();
        let draining = *self.order.borrow() >= Order::Drain;
        let waiting_for = self.bootstrap.borrow().clone();
        let (state, reason) = match (draining, waiting_for) {
            (true, _) => (ServiceState::Draining, None),
            (false, Some(text)) => (ServiceState::Starting, Some(text)),
            (false, None) => (publisher.state, publisher.reason),
        };
        let (seats, guests) = (shared.service.seats(), shared.service.guests());
        let found = publisher.verification.as_ref();
        let held = |state| found.map_or(0, |found| found.count(state));
        let verification = VerificationStatus {
            checks_total: found.map_or(0, |found| found.number),
            checked_at: found.map(|found| found.checked_at.clone()),
            newest: held(HeldState::Newest),
            older: held(HeldState::Older),
            foreign: held(HeldState::Foreign),
            nothing: held(HeldState::Nothing) + held(HeldState::Unreadable),
            unreachable: held(HeldState::Unreachable),
            foreign_total: publisher.foreign_total,
            alarm: publisher.alarm.is_some(),
            looks_total: publisher.looks_total,
            looked_at: publisher.looked_at.clone(),
        };
        let published =
            publisher.descriptors.iter().map(|one| one.instances).min().unwrap_or_default();
        ServiceStatus {
            name: shared.service.settings.name.clone(),
            onion: shared.onion.clone(),
            state,
            reason,
            summary: format!(
                "Aggregating {published}/{} Instances. Master Onion: {}",
                seats.len() + guests.len(),
                shared.onion
            ),
            instances: (0..)
                .zip(seats)
                .map(|(id, seat)| self.instance(id, seat, draining))
                .chain(
                    (seats.len()..)
                        .zip(guests)
                        .map(|(id, one)| guest(id, one, draining, self.daemon_listen(shared, one))),
                )
                .collect(),
            descriptors: publisher.descriptors.iter().map(descriptor).collect(),
            backends: shared.plane.status(),
            circuits: shared.plane.circuits(),
            verification,
        }
    }

    /// One instance.
    fn instance(&self, id: u16, seat: &Seat, draining: bool) -> InstanceStatus {
        let counters = &seat.counters;
        let points = seat.points().len() as u64;
        let state = match (draining, seat.is_alive(), points) {
            (true, _, _) => InstanceState::Draining,
            (false, true, 1..) => InstanceState::Serving,
            (false, false, _) if counters.introductions_total() > 0 => InstanceState::Failed,
            (false, _, _) => InstanceState::Starting,
        };
        let started = self
            .group
            .spawn_counts()
            .into_iter()
            .find(|count| count.kind == SpawnKind::Circuit && count.core == CoreId::data(id));
        InstanceStatus {
            id,
            engine: Engine::Arti,
            core: Some(id),
            state,
            intro_points: points,
            name: None,
            address: None,
            reason: seat.given_up().map(str::to_owned),
            received_at: None,
            changed_at: None,
            introductions_total: Some(counters.introductions_total()),
            rendezvous_open: Some(counters.rendezvous_open()),
            rendezvous_total: Some(counters.rendezvous_total()),
            streams_open: Some(counters.streams_open()),
            streams_total: Some(counters.streams_total()),
            bytes_in_total: Some(counters.bytes_in_total()),
            bytes_out_total: Some(counters.bytes_out_total()),
            handed_off_total: Some(counters.handed_off_total()),
            introductions_invalid_total: Some(counters.introductions_invalid_total()),
            replays_refused_total: Some(counters.replays_refused_total()),
            queue_full_total: Some(counters.queue_full_total()),
            rendezvous_failed_total: Some(counters.rendezvous_failed_total()),
            rendezvous_braked_total: Some(counters.rendezvous_braked_total()),
            rendezvous_given_up_total: Some(counters.rendezvous_given_up_total()),
            rendezvous_building: Some(counters.rendezvous_building()),
            introductions_no_directory_total: Some(counters.introductions_no_directory_total()),
            introductions_panicked_total: Some(counters.introductions_panicked_total()),
            streams_refused_total: Some(counters.streams_refused_total()),
            circuits_started_total: Some(started.map_or(0, |count| count.total)),
            io: self.cores_io.of(id).map(|io| io.to_string()),
        }
    }
}

/// Look-ups of backends' names.
fn look_ups() -> LookUpsStatus {
    let LookUpCounts { hanging, silent_total, refused_total } = net::look_ups();
    LookUpsStatus { hanging, silent_total, refused_total }
}

/// One instance that is not in this process. What it counts is not known here, but for
/// the streams of a daemon of ours, which come to its listener.
fn guest(id: usize, guest: &Guest, draining: bool, listen: Option<ListenStatus>) -> InstanceStatus {
    let now = guest.now();
    let counted = |of: fn(&ListenStatus) -> u64| listen.as_ref().map(of);
    let state = match now.state {
        _ if draining => InstanceState::Draining,
        GuestState::Starting => InstanceState::Starting,
        GuestState::Serving => InstanceState::Serving,
        GuestState::Draining => InstanceState::Draining,
        GuestState::Failed => InstanceState::Failed,
    };
    InstanceStatus {
        id: u16::try_from(id).unwrap_or(u16::MAX),
        engine: guest.config.engine,
        core: None,
        state,
        intro_points: now.points.len() as u64,
        name: Some(guest.config.label.clone()),
        address: guest.config.address.clone(),
        reason: now.reason,
        received_at: now.received_at.map(rfc3339),
        changed_at: now.changed_at.map(rfc3339),
        introductions_total: None,
        rendezvous_open: None,
        rendezvous_total: None,
        streams_open: counted(|listen| listen.streams_open),
        streams_total: counted(|listen| listen.streams_total),
        bytes_in_total: counted(|listen| listen.bytes_in_total),
        bytes_out_total: counted(|listen| listen.bytes_out_total),
        handed_off_total: counted(|listen| listen.handed_off_total),
        introductions_invalid_total: None,
        replays_refused_total: None,
        queue_full_total: None,
        rendezvous_failed_total: None,
        rendezvous_braked_total: None,
        rendezvous_given_up_total: None,
        rendezvous_building: None,
        introductions_no_directory_total: None,
        introductions_panicked_total: None,
        streams_refused_total: counted(|listen| listen.streams_refused_total),
        circuits_started_total: None,
        io: None,
    }
}

/// Have the HSDirs of a service asked what they hold.
#[cfg(feature = "admin")]
async fn verify(shared: &ServiceShared) -> VerifiedStatus {
    let mut publisher = shared.publisher.subscribe();
    let published = !publisher.borrow().descriptors.is_empty();
    let wanted = shared.service.want_check();
    let longest = Duration::from_secs(crate::limits::VERIFY_SECONDS_WAIT_MAX);
    let done = publisher
        .wait_for(|now| now.verification.as_ref().is_some_and(|found| found.answers >= wanted));
    let done = match published {
        true => tokio::time::timeout(longest, done).await.is_ok_and(|done| done.is_ok()),
        false => false,
    };
    let now = shared.publisher.borrow().clone();
    let reason = match (published, done) {
        (false, _) => Some("nothing is published yet".to_owned()),
        (true, false) => Some(now.reason.unwrap_or_else(|| "the HSDirs take too long".to_owned())),
        (true, true) => now.alarm.clone(),
    };
    VerifiedStatus {
        service: shared.name().to_owned(),
        onion: shared.onion.clone(),
        reason,
        alarm: now.alarm.is_some(),
        verification: now.verification.filter(|_| done),
    }
}

/// A published descriptor.
fn descriptor(one: &Published) -> DescriptorStatus {
    DescriptorStatus {
        period: one.period,
        revision: one.revision,
        variants: one.variants.len() as u64,
        intro_points: one.intro_points as u64,
        size_bytes: one.size_bytes as u64,
        hsdirs_ok: one.hsdirs_ok as u64,
        hsdirs_total: one.hsdirs_total as u64,
        published_at: rfc3339(one.published_at),
    }
}

/// A time as RFC 3339 writes it, in UTC and whole seconds.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
