//! A load generator for an onion service of one's own, as a library.
//!
//! The binary `rb-load` is a thin layer above it; a benchmark may call it directly. It asks one
//! HTTP URL of one onion service again and again, through one or more SOCKS ports of tor, and
//! measures every request from the instant at which it was *meant* to begin. It never follows a
//! redirect, never keeps a body, and never goes anywhere but to an onion address.
//!
//! ```text
//!   client 0 --.                           samples (bounded queue)
//!   client 1 --+--> SOCKS port --> tor     -------------------------> collector --> Report
//!   client N --'                                                          |
//!                                                             Observer: progress, samples
//! ```
//!
//! Each client is a task with at most one request under way. They share two counters (which
//! request is next, how many have begun) and nothing else; the collector alone owns the numbers.
//!
//! ```no_run
//! # async fn example() -> Result<(), rustbalance_load::Error> {
//! use rustbalance_load::{Load, Plan, run};
//!
//! let target = format!("http://{}d.onion/", "a".repeat(55)).parse()?;
//! let mut plan = Plan::new(vec![([127, 0, 0, 1], 9050).into()], target);
//! plan.load = Load::Open { rate: 20.0 };
//! let report = run(plan, |progress| eprintln!("{} done", progress.requests)).await?;
//! assert_eq!(report.failed, 0);
//! # Ok(())
//! # }
//! ```

mod client;
mod collector;
mod exchange;
mod failure;
mod latency;
pub mod limits;
mod plan;
mod report;
mod schedule;
mod socks;
mod target;

pub use collector::{Observer, Progress, run, run_until};
pub use failure::{Failure, Phase, socks_reply_name};
pub use latency::Latency;
pub use plan::{Circuits, Load, Plan, PlanError};
pub use report::{FailureCount, Report, Sample};
pub use target::Target;

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The plan cannot be carried out as it stands.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A SOCKS proxy of the plan takes no connection.
    #[error("cannot reach the SOCKS proxy at {address}")]
    Proxy {
        /// Its address.
        address: std::net::SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}
