//! Which stack has which relays as guards.
//!
//! Every relay belongs to exactly one share, by a hash of its identity, and a stack may use the
//! relays of its share alone as guards. Stacks whose links go out from different addresses of this
//! machine have one share, and one set of guards, between them: a guard then has one link from each
//! of the addresses, which it does not take for one client that wants too much. The first of them
//! chooses the guards and the others follow ([`GuardPlan::leader`]).
//!
//! arti has no "not these relays" for guards, but a list of addresses that may be reached; the list
//! is made anew with every consensus. A share of the relays is as good as all of them for one
//! guard: which share it is nobody can choose, since identities are what is hashed.

use std::sync::Arc;

use digest::Digest as _;
use tor_guardmgr::{GuardFilter, GuardMgr};
use tor_linkspec::{HasAddrs as _, HasRelayIds as _, RelayIdType};
use tor_llcrypto::d::Sha3_256;
use tor_netdir::{NetDir, NetDirProvider, Timeliness};
use tor_netdoc::types::policy::AddrPortPattern;

use crate::runtime::CoreRuntime;

/// How the guards are divided among the stacks of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardPlan {
    /// How many stacks there are, at least one.
    stacks: u16,
    /// How many of them have different source addresses, at least one.
    sources: u16,
}

impl GuardPlan {
    /// For so many stacks, and so many source addresses: 0 where the kernel chooses the one.
    pub fn new(stacks: u16, sources: u16) -> GuardPlan {
        GuardPlan { stacks: stacks.max(1), sources: sources.max(1) }
    }

    /// How many stacks there are.
    pub fn stacks(self) -> u16 {
        self.stacks
    }

    /// The stack whose guards are those of `stack` as well: itself or an earlier one.
    pub fn leader(self, stack: u16) -> u16 {
        stack - stack % self.sources
    }

    /// The share of a stack.
    pub(super) fn share(self, stack: u16) -> Share {
        Share { number: stack / self.sources, of: self.stacks.div_ceil(self.sources) }
    }
}

/// One share of the relays among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Which one, from 0.
    pub(super) number: u16,
    /// Of how many.
    pub(super) of: u16,
}

impl Share {
    /// Whether a relay with this identity belongs to this share.
    fn owns(self, identity: &[u8]) -> bool {
        let hash: [u8; 32] =
            Sha3_256::new().chain_update(b"guard share").chain_update(identity).finalize().into();
        let number = u64::from_be_bytes([
            hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
        ]);
        number % u64::from(self.of) == u64::from(self.number)
    }

    /// What stacks of this share may use as guards, by this consensus.
    fn filter(self, reachable: &[AddrPortPattern], netdir: &NetDir) -> GuardFilter {
        let own = netdir.relays().filter(|relay| {
            relay.identity(RelayIdType::Rsa).is_some_and(|identity| self.owns(identity.as_bytes()))
        });
        let addresses: Vec<AddrPortPattern> = own
            .flat_map(|relay| relay.addrs().collect::<Vec<_>>())
            .filter_map(|address| address.to_string().parse().ok())
            .collect();
        let mut filter = GuardFilter::unfiltered();
        // A guard has to pass both lists.
        filter.push_reachable_addresses(reachable.to_vec());
        filter.push_reachable_addresses(addresses);
        filter
    }

    /// Bind the guards to this share, by the newest consensus there is.
    pub(super) fn apply(
        self,
        reachable: &[AddrPortPattern],
        guardmgr: &GuardMgr<CoreRuntime>,
        directory: &Arc<dyn NetDirProvider>,
    ) {
        if self.of > 1
            && let Ok(netdir) = directory.netdir(Timeliness::Unchecked)
        {
            guardmgr.set_filter(self.filter(reachable, &netdir));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GuardPlan, Share};

    #[test]
    fn stacks_with_different_source_addresses_have_the_same_guards() {
        let shares = |plan: GuardPlan| -> Vec<(u16, u16, u16)> {
            let share =
                |stack| (plan.share(stack).number, plan.share(stack).of, plan.leader(stack));
            (0..plan.stacks()).map(share).collect()
        };
        assert_eq!(shares(GuardPlan::new(0, 0)), [(0, 1, 0)]);
        assert_eq!(shares(GuardPlan::new(3, 0)), [(0, 3, 0), (1, 3, 1), (2, 3, 2)]);
        assert_eq!(shares(GuardPlan::new(3, 1)), shares(GuardPlan::new(3, 0)));
        assert_eq!(shares(GuardPlan::new(3, 8)), [(0, 1, 0), (0, 1, 0), (0, 1, 0)]);
        let two = [(0, 3, 0), (0, 3, 0), (1, 3, 2), (1, 3, 2), (2, 3, 4)];
        assert_eq!(shares(GuardPlan::new(5, 2)), two);
    }

    #[test]
    fn every_relay_belongs_to_exactly_one_share_and_shares_are_alike() {
        for of in [1, 2, 3, 8] {
            let mut sizes = vec![0_u32; usize::from(of)];
            for relay in 0..4000_u32 {
                let identity = relay.to_be_bytes();
                let owners: Vec<u16> = (0..of)
                    .filter(|number| Share { number: *number, of }.owns(&identity))
                    .collect();
                assert_eq!(owners.len(), 1);
                sizes[usize::from(owners[0])] += 1;
            }
            let fair = 4000 / u32::from(of);
            assert!(sizes.iter().all(|size| size.abs_diff(fair) < fair / 3), "{sizes:?}");
        }
    }
}
