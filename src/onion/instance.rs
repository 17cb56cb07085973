//! One instance of a service on one data core: its introduction points, the decryption of
//! INTRODUCE2, and the rendezvous that it serves.
//!
//! Made and run by `app::data_core` on the core's own thread; everything it spawns stays there.

use std::sync::Arc;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};

use super::points::Points;
use super::service::Service;
use super::session::ServeStream;
use super::{introduction, rendezvous};
use crate::limits;
use crate::runtime::Mailbox;
use crate::tor::stack::CircuitPool;

/// One instance of a service.
pub struct Instance {
    /// What the cores share.
    service: Arc<Service>,
    /// The instance's number: its seat.
    number: usize,
    /// Circuits of this core.
    pool: CircuitPool,
}

impl Instance {
    /// Instance `number` of `service`, with the calling core's circuits.
    pub fn new(service: Arc<Service>, number: usize, pool: CircuitPool) -> Instance {
        Instance { service, number, pool }
    }

    /// Run for as long as the future is polled. Dropping it closes every point; circuits of
    /// clients go on in tasks of their own.
    pub async fn run(self, serve: impl ServeStream) {
        let seat = Arc::clone(&self.service.seats()[self.number]);
        let introductions = Mailbox::new(limits::INTRODUCTIONS_WAITING_MAX);
        let points = Points::new(&self.service, &seat, &self.pool, &introductions);
        let slots = usize::from(self.service.settings.intro_points_per_instance);
        let mut keepers: FuturesUnordered<_> =
            (0..slots).map(|slot| points.keep_slot(slot).boxed()).collect();
        seat.set_alive(true);
        tokio::join!(
            async { while keepers.next().await.is_some() {} },
            points.expire_lingering(),
            introduction::run(&self.service, self.number, &self.pool, &introductions),
            rendezvous::run(&self.service, self.number, &self.pool, &serve),
        );
    }
}
