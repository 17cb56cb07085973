//! One instance of a service on one data core: its introduction points, the decryption of
//! INTRODUCE2, and the rendezvous that it serves.
//!
//! Made and run by `app::data_core` on the core's own thread; everything it spawns stays there.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;

use super::intro::Introduction;
use super::points::Points;
use super::service::{Seat, Service};
use super::session::ServeStream;
use super::{introduction, rendezvous};
use crate::limits;
use crate::runtime::{self, Mailbox};
use crate::tor::stack::CircuitPool;

/// Between the ends of two points.
const POINT_CLOSE_GAP: Duration = Duration::from_millis(limits::POINT_CLOSE_GAP_MS);

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

    /// Run for as long as the future is polled. Once `leaving` is done the points close, one after
    /// another; clients whose introduction had come by then are still served. Dropping the future
    /// closes the points as well; circuits of clients go on in tasks of their own.
    pub async fn run(self, serve: impl ServeStream, leaving: impl Future<Output = ()>) {
        let seat = Arc::clone(&self.service.seats()[self.number]);
        let introductions = Mailbox::new(limits::INTRODUCTIONS_WAITING_MAX);
        seat.set_alive(true);
        tokio::join!(
            self.keep_points(&seat, &introductions, leaving),
            introduction::run(&self.service, self.number, &self.pool, &introductions),
            rendezvous::run(&self.service, self.number, &self.pool, &serve),
        );
    }

    /// Keep the instance's points up until it is `leaving`, then close them.
    ///
    /// One after another, and in turn with the other instances: a C tor relay that is told at once
    /// to destroy two circuits which share their next relay sends the second word only when it
    /// next has something to say there. Until then the point acknowledges introductions that
    /// nobody hears of, and each such client waits for a minute.
    async fn keep_points(
        &self,
        seat: &Arc<Seat>,
        introductions: &Mailbox<Introduction>,
        leaving: impl Future<Output = ()>,
    ) {
        let points = Points::new(&self.service, seat, &self.pool, introductions);
        let slots = usize::from(self.service.settings.intro_points_per_instance);
        let (instances, number) = (self.service.seats().len(), self.number);
        let leaving = leaving.shared();
        let keepers = (0..slots).map(|slot| {
            let (points, leaving) = (Arc::clone(&points), leaving.clone());
            async move {
                let turn = async {
                    leaving.await;
                    let turn = u32::try_from(slot * instances + number).unwrap_or(u32::MAX);
                    runtime::sleep(POINT_CLOSE_GAP.saturating_mul(turn)).await;
                };
                tokio::select! {
                    () = points.keep_slot(slot) => {}
                    () = turn => {}
                }
            }
        });
        let replaced = async {
            tokio::select! {
                () = points.expire_lingering() => {}
                () = leaving.clone() => {}
            }
            while points.close_lingering() {
                runtime::sleep(POINT_CLOSE_GAP).await;
            }
        };
        tokio::join!(join_all(keepers), replaced);
    }
}
