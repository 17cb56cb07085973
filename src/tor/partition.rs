//! Disjoint guards for several stacks: every relay belongs to exactly one stack, by a hash of its
//! identity, and a stack may use its own relays as guards alone.
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

/// One stack among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Which one, from 0.
    pub(super) number: u16,
    /// Of how many.
    pub(super) of: u16,
}

impl Share {
    /// Whether a relay with this identity belongs to this stack.
    fn owns(self, identity: &[u8]) -> bool {
        let hash: [u8; 32] =
            Sha3_256::new().chain_update(b"guard share").chain_update(identity).finalize().into();
        let number = u64::from_be_bytes([
            hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
        ]);
        number % u64::from(self.of) == u64::from(self.number)
    }

    /// What this stack may use as guards, by this consensus.
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
    use super::Share;

    #[test]
    fn every_relay_belongs_to_exactly_one_stack_and_shares_are_alike() {
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
