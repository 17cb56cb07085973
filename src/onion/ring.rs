//! The ring of HSDirs of one time period (rend-spec-v3, sections 2.2.1 to 2.2.3).
//!
//! arti gives the ring of the current period, and those of its neighbours for which the consensus
//! has a shared random value. A service publishes for one neighbour in any case: where the
//! authorities made no value, C tor puts the *disaster value* in its place, on both sides, and so
//! do we ([`live_rings`]). Without that, clients who see a period begin before we do would find
//! nothing.

use std::time::{Duration, SystemTime};

use digest::Digest as _;
use tor_hscrypto::ope::SrvPeriodOffset;
use tor_hscrypto::pk::HsBlindId;
use tor_hscrypto::time::TimePeriod;
use tor_linkspec::{HasRelayIds as _, OwnedCircTarget};
use tor_llcrypto::d::Sha3_256;
use tor_netdir::{HsDirParams, NetDir, Relay};

/// Rounds of one run of the shared random protocol (srv-spec): a run lasts as long as a period.
const ROUNDS_PER_RUN: u32 = 24;

/// What tells the ring of a time period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// In the directory.
    Directory(HsDirParams),
    /// The consensus has no shared random value for this period.
    Disaster(TimePeriod),
}

/// The rings of all periods that a service publishes for, by the consensus `netdir`.
pub(super) fn live_rings(netdir: &NetDir) -> Vec<Ring> {
    let mut rings: Vec<Ring> =
        netdir.hs_all_time_periods().into_iter().map(Ring::Directory).collect();
    let lifetime = netdir.lifetime();
    let neighbour =
        neighbour(netdir.hs_time_period(), lifetime.valid_after(), lifetime.voting_period());
    if let Some(neighbour) = neighbour
        && !rings.iter().any(|ring| ring.time_period() == neighbour)
    {
        rings.push(Ring::Disaster(neighbour));
    }
    rings
}

/// The period that is published for beside `current`: the one before it until the next shared
/// random value is out, the one after it from then on. (A period begins in the middle of a shared
/// random run; C tor, `hs_in_period_between_tp_and_srv`.)
fn neighbour(
    current: TimePeriod,
    valid_after: SystemTime,
    voting_period: Duration,
) -> Option<TimePeriod> {
    let run = u64::from(ROUNDS_PER_RUN) * voting_period.as_secs();
    let now = valid_after.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let run_began = SystemTime::UNIX_EPOCH + Duration::from_secs(now - now.checked_rem(run)?);
    match current.range().ok()?.contains(&run_began) {
        true => current.next(),
        false => current.prev(),
    }
}

impl Ring {
    /// The time period.
    pub(super) fn time_period(&self) -> TimePeriod {
        match self {
            Ring::Directory(params) => params.time_period(),
            Ring::Disaster(period) => *period,
        }
    }

    /// How far `now` is into the shared random run that the period belongs to: what revision
    /// counters are made of. `None` before it has begun.
    pub(super) fn offset(&self, now: SystemTime) -> Option<SrvPeriodOffset> {
        match self {
            Ring::Directory(params) => params.offset_within_srv_period(now),
            Ring::Disaster(period) => {
                // The run began half a period before the period.
                let half = Duration::from_secs(u64::from(period.length().as_minutes()) * 30);
                let began = period.range().ok()?.start.checked_sub(half)?;
                let seconds = now.duration_since(began).ok()?.as_secs();
                Some(SrvPeriodOffset::from(u32::try_from(seconds).ok()?))
            }
        }
    }

    /// The HSDirs that the descriptor of `blinded` goes to, or `None` when arti does not know the
    /// period (any more).
    pub(super) fn hsdirs(
        &self,
        netdir: &NetDir,
        blinded: HsBlindId,
    ) -> Option<Vec<OwnedCircTarget>> {
        let own = |relay: &Relay<'_>| OwnedCircTarget::from_circ_target(relay);
        match self {
            Ring::Directory(params) => {
                let relays = netdir.hs_dirs_upload(blinded, params.time_period()).ok()?;
                Some(relays.map(|relay| own(&relay)).collect())
            }
            Ring::Disaster(period) => {
                let relays = positions(netdir, *period, &disaster_value(*period));
                let chosen = responsible(netdir, *period, &blinded, &relays);
                Some(chosen.into_iter().map(own).collect())
            }
        }
    }
}

/// A place on the ring.
type Position = [u8; 32];

/// Where an HSDir stands among those that are responsible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The replica, from 1.
    pub(super) replica: u8,
    /// Which one after the replica's place on the ring, from 1.
    pub(super) position: u8,
    /// Whether clients ask it. (Where rings of two replicas overlap, as in a network of a few
    /// relays, they may ask the first replica's last one in its stead.)
    pub(super) asked: bool,
}

impl Place {
    /// The place of the HSDir with this index, in the order of [`Ring::hsdirs`].
    pub(super) fn of(index: usize, netdir: &NetDir) -> Place {
        let number = |value: i32| usize::try_from(value).unwrap_or(1).max(1);
        let store = number(netdir.params().hsdir_spread_store.get());
        let fetch = number(netdir.params().hsdir_spread_fetch.get());
        let small = |value: usize| u8::try_from(value + 1).unwrap_or(u8::MAX);
        Place {
            replica: small(index / store),
            position: small(index % store),
            asked: index % store < fetch,
        }
    }
}

/// Every HSDir with its position, in order.
fn positions<'dir>(
    netdir: &'dir NetDir,
    period: TimePeriod,
    shared_random: &[u8; 32],
) -> Vec<(Position, Relay<'dir>)> {
    let mut relays: Vec<(Position, Relay<'dir>)> = netdir
        .relays()
        .filter(|relay| relay.rs().is_flagged_hsdir())
        .filter_map(|relay| {
            let identity = *relay.ed_identity()?;
            Some((hsdir_index(period, identity.as_bytes(), shared_random), relay))
        })
        .collect();
    relays.sort_by_key(|(position, _)| *position);
    relays
}

/// The first `hsdir_spread_store` HSDirs from each replica's position on, none of them twice.
fn responsible<'ring, 'dir>(
    netdir: &NetDir,
    period: TimePeriod,
    blinded: &HsBlindId,
    relays: &'ring [(Position, Relay<'dir>)],
) -> Vec<&'ring Relay<'dir>> {
    let params = netdir.params();
    let replicas = u64::try_from(params.hsdir_n_replicas.get()).unwrap_or(0);
    let spread = usize::try_from(params.hsdir_spread_store.get()).unwrap_or(0);
    let mut taken = vec![false; relays.len()];
    let mut chosen = Vec::new();
    for replica in 1..=replicas {
        let from = hs_index(period, blinded.as_ref(), replica);
        let start = relays.partition_point(|(position, _)| *position < from);
        let around = (start..relays.len()).chain(0..start);
        let free: Vec<usize> = around.filter(|&index| !taken[index]).take(spread).collect();
        for index in free {
            taken[index] = true;
            chosen.push(&relays[index].1);
        }
    }
    chosen
}

/// The value that stands for a shared random value that the authorities did not make.
fn disaster_value(period: TimePeriod) -> [u8; 32] {
    Sha3_256::new()
        .chain_update(b"shared-random-disaster")
        .chain_update(u64::from(period.length().as_minutes()).to_be_bytes())
        .chain_update(period.interval_num().to_be_bytes())
        .finalize()
        .into()
}

/// Where an HSDir is on the ring.
fn hsdir_index(period: TimePeriod, identity: &[u8], shared_random: &[u8; 32]) -> Position {
    Sha3_256::new()
        .chain_update(b"node-idx")
        .chain_update(identity)
        .chain_update(shared_random)
        .chain_update(period.interval_num().to_be_bytes())
        .chain_update(u64::from(period.length().as_minutes()).to_be_bytes())
        .finalize()
        .into()
}

/// Where a replica of a descriptor is on the ring.
fn hs_index(period: TimePeriod, blinded: &[u8], replica: u64) -> Position {
    Sha3_256::new()
        .chain_update(b"store-at-idx")
        .chain_update(blinded)
        .chain_update(replica.to_be_bytes())
        .chain_update(u64::from(period.length().as_minutes()).to_be_bytes())
        .chain_update(period.interval_num().to_be_bytes())
        .finalize()
        .into()
}

#[cfg(test)]
mod tests;
