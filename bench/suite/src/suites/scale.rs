//! `scale`: what more cores bring. A model of costs that were measured (a byte, a client) is held
//! against a mix of both that it was not made from, and says what larger machines would carry.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use rustbalance_lab::client::fresh_user;

use crate::bench::{Bench, C_TOR, C_TORS, Level, cost_of};
use crate::sample::{Sample, Values, summary};
use crate::site::all_at_once;
use crate::subject::{Kind, Subject};
use crate::suites::{bytes, flood, memory, rendezvous};

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
    /// CPU in ns for a payload byte, whichever core does it.
    pub byte_ns: f64,
    /// CPU in ms for a new client.
    pub client_ms: f64,
    /// The part of `byte_ns` that the core does which carries the link: TLS, and sorting cells to
    /// circuits. Only where the subject says what its cores did.
    pub link_ns: Option<f64>,
    /// CPU in ms a second for one more instance while nobody asks.
    pub instance_ms: Option<f64>,
    /// CPU in ms for an introduction with the rendezvous that answers it, and nothing sent.
    pub introduction_ms: Option<f64>,
}

impl Model {
    /// From what the other suites measured; `None` when `bytes` and `rendezvous` were not run.
    pub fn of(samples: &[Sample], subjects: &[&str], level: Level) -> Option<Model> {
        let median = |suite: &str, case: &str, figure: &str| {
            summary(samples, suite, case, subjects, figure).map(|found| found.median)
        };
        let case = bytes::case_name(true, level.pick(2, 4, 4));
        let rate = flood::rates(level).first().copied().unwrap_or_default();
        Some(Model {
            byte_ns: median(bytes::NAME, &case, "cpu_ns_per_byte")?,
            client_ms: median(rendezvous::NAME, rendezvous::SATURATED, "cpu_ms_per_client")?,
            link_ns: median(bytes::NAME, &case, "link_ns_per_byte").filter(|link| *link > 0.0),
            instance_ms: instance_ms(samples, level),
            introduction_ms: median(flood::NAME, &flood::case_name(rate), "cpu_ms_per_rendezvous"),
        })
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

    /// Payload in Gbps that the link of one stack carries: one core does its work.
    pub fn link_gbps(&self) -> Option<f64> {
        self.link_ns.map(|link| 8.0 / link)
    }

    /// Payload in Gbps of so many cores with so many stacks, and what becomes short first.
    pub fn first_short(&self, cores: u32, stacks: u32) -> (f64, &'static str) {
        let all = self.gbps(f64::from(cores));
        match self.link_gbps().map(|link| link * f64::from(stacks)) {
            Some(links) if links < all => (links, "the core of the link"),
            _ => (all, "the data cores"),
        }
    }

    /// New clients a second that so many data cores serve when nothing else is short.
    pub fn clients_per_second(&self, cores: f64) -> f64 {
        cores * 1e3 / self.client_ms
    }
}

/// What one more instance takes while nobody asks: from the fewest and the most of `memory`.
fn instance_ms(samples: &[Sample], level: Level) -> Option<f64> {
    let counts = memory::counts(level);
    let (few, many) = (*counts.first()?, *counts.last()?);
    let of = |count: usize| {
        let (case, figure) = (memory::case_name(count), "idle_cpu_ms_per_second");
        Some(summary(samples, memory::NAME, &case, &["RustBalance"], figure)?.median)
    };
    (many > few).then_some(())?;
    Some((of(many)? - of(few)?) / (many - few) as f64)
}

/// Measure the mix.
///
/// # Errors
/// When results cannot be written.
pub fn run(bench: &mut Bench, subjects: &[Subject], rounds: usize) -> Result<()> {
    let clients = bench.level.pick(2, 16, 40);
    bench.interleave(NAME, HELD_OUT, rounds, subjects, |site, subject| {
        site.warm_up(&subject.onion, site.clients.len())?;
        let body = site.body(MIX_BYTES)?;
        let ((), cost) = cost_of(&subject.tree, || {
            all_at_once(clients, 4, |at| site.download(at, &subject.onion, &fresh_user(), &body))
        })?;
        ensure!(cost.cpu_seconds > 0.0, "the subject's CPU time cannot be read");
        Ok(Values::from([("cpu_ms_per_client", cost.cpu_seconds * 1e3 / clients as f64)]))
    })
}

/// Data cores that the report predicts for.
const CORES: [u32; 6] = [1, 2, 4, 8, 16, 64];
/// Payload in Gbps that the report plans for.
const GBPS: [f64; 5] = [1.0, 2.5, 10.0, 40.0, 100.0];

/// The part of the report that predicts; empty when the model's suites were not run.
pub fn report(samples: &[Sample], level: Level) -> String {
    let ours = Kind::rustbalance(2).name();
    let mut text = two_against_one(samples, level);
    let held_out = |subjects: &[&str]| {
        let measured = summary(samples, NAME, HELD_OUT, subjects, "cpu_ms_per_client")?;
        let model = Model::of(samples, subjects, level)?;
        Some((model.client_with(MIX_BYTES as f64), measured.median))
    };
    for (name, subjects) in [(ours.as_str(), vec![ours.as_str()]), (C_TOR, C_TORS.to_vec())] {
        if let Some((predicted, measured)) = held_out(&subjects) {
            let _ = writeln!(
                text,
                "* {name}: a new client with 200 kB should cost {predicted:.1} ms by the model, \
                 and cost {measured:.1} ms.",
            );
        }
    }
    let Some(model) = Model::of(samples, &[&ours], level) else { return text };
    text.push_str(&costs(&model));
    text.push_str(&predictions(&model));
    text
}

/// What two instances carried on this machine beside one.
fn two_against_one(samples: &[Sample], level: Level) -> String {
    let case = bytes::case_name(true, level.pick(2, 4, 4));
    let of = |instances: usize, figure: &str| {
        let name = Kind::rustbalance(instances).name();
        summary(samples, bytes::NAME, &case, &[&name], figure).map(|found| found.median)
    };
    let both = |figure: &str| Some((of(1, figure)?, of(2, figure)?));
    let (Some(mbps), Some(cores)) = (both("mbps"), both("cores")) else { return String::new() };
    format!(
        "* Two cores against one, {case}: {:.0} Mbps with {:.2} cores busy against {:.0} Mbps with \
         {:.2}. Relays and clients share the two cores of this machine, so this shows what a \
         second core costs and not what it brings.\n",
        mbps.1, cores.1, mbps.0, cores.0
    )
}

/// The measured costs that the model is made of.
fn costs(model: &Model) -> String {
    let optional = |value: Option<f64>, digits: usize, unit: &str| {
        let least = 0.5 * 10_f64.powi(-(digits as i32));
        match value {
            None => "not measured".to_owned(),
            // A difference of two measurements may come out below nothing.
            Some(value) if value < least => "too little to be measured".to_owned(),
            Some(value) => format!("{value:.digits$} {unit}"),
        }
    };
    format!(
        "\nThe model's costs, measured in this run: a payload byte {:.1} ns (the link's part of \
         it, on the core that carries the link: {}); a new client {:.2} ms; an introduction with \
         its rendezvous: {}; one more instance while nobody asks: {}.\n",
        model.byte_ns,
        optional(model.link_ns, 1, "ns"),
        model.client_ms,
        optional(model.introduction_ms, 2, "ms"),
        optional(model.instance_ms, 2, "ms a second"),
    )
}

/// What larger machines would carry.
fn predictions(model: &Model) -> String {
    let mut text = "\n**Predicted, not measured**, for cores like this machine's. A guard's own \
        bandwidth, the network card and the backends are not in it; any of them may be short \
        earlier.\n\n| data cores | stacks | payload at most, Gbps | short first | new clients a \
        second at most |\n|---|---|---|---|---|\n"
        .to_owned();
    for cores in CORES {
        let clients = model.clients_per_second(f64::from(cores));
        for stacks in if cores == 1 { vec![1] } else { vec![1, cores] } {
            let (gbps, short) = model.first_short(cores, stacks);
            let _ = writeln!(text, "| {cores} | {stacks} | {gbps:.2} | {short} | {clients:.0} |");
        }
    }
    text.push_str("\n| payload, Gbps | data cores | stacks at least |\n|---|---|---|\n");
    for gbps in GBPS {
        let cores = (gbps / model.gbps(1.0)).ceil();
        let stacks = model.link_gbps().map(|link| (gbps / link).ceil());
        let stacks = stacks.map_or("not measured".to_owned(), |stacks| format!("{stacks:.0}"));
        let _ = writeln!(text, "| {gbps} | {cores:.0} | {stacks} |");
    }
    if let Some(instance) = model.instance_ms.filter(|instance| *instance > 0.0) {
        let _ = writeln!(
            text,
            "\nAt rest, 64 instances would keep {:.1} % of one core busy.",
            64.0 * instance / 10.0
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Model;

    const MODEL: Model = Model {
        byte_ns: 40.0,
        client_ms: 4.0,
        link_ns: Some(10.0),
        instance_ms: None,
        introduction_ms: None,
    };

    #[test]
    fn the_model_adds_up() {
        assert!((MODEL.client_with(101_000.0) - 8.0).abs() < 1e-9);
        assert!((MODEL.gbps(2.0) - 0.4).abs() < 1e-9);
        assert!((MODEL.clients_per_second(2.0) - 500.0).abs() < 1e-9);
    }

    #[test]
    fn the_first_bottleneck_is_named() {
        // A link of 10 ns a byte carries 0.8 Gbps, as much as four cores.
        assert_eq!(MODEL.first_short(2, 1).1, "the data cores");
        let (gbps, short) = MODEL.first_short(16, 1);
        assert!((gbps - 0.8).abs() < 1e-9);
        assert_eq!(short, "the core of the link");
        assert_eq!(MODEL.first_short(16, 16).1, "the data cores");
        let unknown = Model { link_ns: None, ..MODEL };
        assert_eq!(unknown.first_short(64, 1).1, "the data cores");
    }
}
