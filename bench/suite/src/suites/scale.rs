//! `scale`: what more cores bring. A model of costs that were measured (a byte, a client) is held
//! against a mix of both that it was not made from, and says what larger machines would carry.

use anyhow::{Result, ensure};
use rustbalance_lab::client::fresh_user;

use crate::bench::{Bench, C_TOR, C_TORS, Level, cost_of};
use crate::sample::{Sample, Values, summary};
use crate::site::all_at_once;
use crate::subject::{Kind, Subject};
use crate::suites::{bytes, rendezvous};

/// The suite's name.
pub const NAME: &str = "scale";
/// The mix that the model has not seen.
pub const HELD_OUT: &str = "new clients with 200 kB each";

/// Bytes that each client of the mix fetches.
const MIX_BYTES: usize = 200_000;

/// Steps that it takes.
pub fn steps(level: Level) -> usize {
    level.pick(1, 5, 10)
}

/// What one subject costs.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// CPU in ns for a payload byte.
    pub byte_ns: f64,
    /// CPU in ms for a new client.
    pub client_ms: f64,
}

impl Model {
    /// From the suites `bytes` and `rendezvous`; `None` when they were not run.
    pub fn of(samples: &[Sample], subjects: &[&str], streams: usize) -> Option<Model> {
        let case = bytes::case_name(true, streams);
        let byte = summary(samples, bytes::NAME, &case, subjects, "cpu_ns_per_byte")?;
        let (suite, case) = (rendezvous::NAME, rendezvous::SATURATED);
        let client = summary(samples, suite, case, subjects, "cpu_ms_per_client")?;
        Some(Model { byte_ns: byte.median, client_ms: client.median })
    }

    /// CPU in ms for a new client that fetches so many bytes.
    pub fn client_with(&self, bytes: f64) -> f64 {
        // A page is part of what a new client was measured with.
        self.client_ms + (bytes - crate::site::PAGE_BYTES as f64).max(0.0) * self.byte_ns / 1e6
    }

    /// Payload in Gbps that so many data cores carry when nothing else is short.
    pub fn gbps(&self, cores: f64) -> f64 {
        cores * 8.0 / self.byte_ns
    }

    /// New clients a second that so many data cores serve when nothing else is short.
    pub fn clients_per_second(&self, cores: f64) -> f64 {
        cores * 1e3 / self.client_ms
    }
}

/// Measure the mix.
///
/// # Errors
/// When results cannot be written.
pub fn run(bench: &mut Bench, subjects: &[Subject], rounds: usize) -> Result<()> {
    let clients = bench.level.pick(2, 24, 100);
    bench.interleave(NAME, HELD_OUT, rounds, subjects, |site, subject| {
        site.warm_up(&subject.onion, site.clients.len())?;
        let body = site.body(MIX_BYTES)?;
        let ((), cost) = cost_of(&subject.tree, || {
            all_at_once(clients, 8, |at| site.download(at, &subject.onion, &fresh_user(), &body))
        })?;
        ensure!(cost.cpu_seconds > 0.0, "the subject's CPU time cannot be read");
        Ok(Values::from([("cpu_ms_per_client", cost.cpu_seconds * 1e3 / clients as f64)]))
    })
}

/// Data cores that the report predicts for.
const CORES: [u32; 6] = [1, 2, 4, 8, 16, 64];

/// The part of the report that predicts; empty when the model's suites were not run.
pub fn report(samples: &[Sample], level: Level) -> String {
    let streams = level.pick(2, 4, 4);
    let ours = Kind::rustbalance(2).name();
    let mut text = String::new();
    let held_out = |subjects: &[&str]| {
        let measured = summary(samples, NAME, HELD_OUT, subjects, "cpu_ms_per_client")?;
        let model = Model::of(samples, subjects, streams)?;
        Some((model.client_with(MIX_BYTES as f64), measured.median))
    };
    for (name, subjects) in [(ours.as_str(), vec![ours.as_str()]), (C_TOR, C_TORS.to_vec())] {
        if let Some((predicted, measured)) = held_out(&subjects) {
            text.push_str(&format!(
                "* {name}: a new client with 200 kB should cost {predicted:.1} ms by the model, \
                 and cost {measured:.1} ms.\n"
            ));
        }
    }
    let Some(model) = Model::of(samples, &[&ours], streams) else { return text };
    text.push_str(
        "\nPredicted for RustBalance from this machine's cores (**not measured**: nothing but the \
         CPU of data cores is in the model, and a link's TLS, which one core does for each link, \
         is a part of a byte's cost that does not spread; with one stack and one guard that link \
         is what becomes short first, then the guard's own bandwidth):\n\n\
         | data cores | payload at most, Gbps | new clients a second at most |\n|---|---|---|\n",
    );
    for cores in CORES {
        let (gbps, clients) =
            (model.gbps(f64::from(cores)), model.clients_per_second(f64::from(cores)));
        text.push_str(&format!("| {cores} | {gbps:.2} | {clients:.0} |\n"));
    }
    text.push_str(&format!(
        "\n10 Gbps of payload would take {:.0} such cores, 100 Gbps {:.0}.\n",
        (10.0 / model.gbps(1.0)).ceil(),
        (100.0 / model.gbps(1.0)).ceil()
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::Model;

    #[test]
    fn the_model_adds_up() {
        let model = Model { byte_ns: 40.0, client_ms: 4.0 };
        assert!((model.client_with(101_000.0) - 8.0).abs() < 1e-9);
        assert!((model.gbps(2.0) - 0.4).abs() < 1e-9);
        assert!((model.clients_per_second(2.0) - 500.0).abs() < 1e-9);
    }
}
