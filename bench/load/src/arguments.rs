//! The command line of `rb-load`, and the plan that it makes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use rustbalance_load::{Circuits, Load, Plan, PlanError, Target, limits};

/// Put load on an onion service that you run yourself, and measure how it answers.
///
/// It is for your own services only. There is no default target, nothing but an onion address is
/// accepted, and every run has bounds in time, in requests and in clients. Load goes through other
/// people's relays as well: ask for no more than you need, and use a private Tor network (`lab`)
/// for what is really much.
///
/// Every latency is measured from the instant at which a request was meant to begin. In an open
/// loop (--rate) these instants are fixed in advance, so a service that stalls is charged for all
/// the requests that had to wait meanwhile.
#[derive(Parser, Debug)]
#[command(name = "rb-load", version, after_long_help = AFTER_HELP, after_help = AFTER_HELP)]
pub struct Arguments {
    /// What to ask for: http://ADDRESS.onion[:PORT]/PATH
    pub url: Target,

    /// SOCKS port of a tor client, as IP:PORT; may be repeated, the clients are spread over them
    #[arg(long, value_name = "ADDR", required = true)]
    pub socks: Vec<SocketAddr>,

    /// Clients: requests at once
    #[arg(long, value_name = "N", default_value_t = limits::CLIENTS_DEFAULT)]
    pub clients: usize,

    /// Open loop: begin so many requests a second, whether or not earlier ones have ended. Without
    /// it, each client sends its next request when its last one has ended (closed loop)
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "hold")]
    pub rate: Option<f64>,

    /// Hold the clients' circuits open, and send a request through each at every --every
    #[arg(long)]
    pub hold: bool,

    /// With --hold: from one request of a client to its next [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = time, requires = "hold")]
    pub every: Option<Duration>,

    /// Circuits of its own for each request, or kept by each client along with its connection
    #[arg(long, value_enum, default_value = "kept")]
    pub circuits: CircuitsName,

    /// Begin no request after this time
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "30s")]
    pub duration: Duration,

    /// Send no more requests than this
    #[arg(long, value_name = "N", default_value_t = limits::REQUESTS_DEFAULT)]
    pub requests: u64,

    /// Time for a request, from its intended start to its last byte
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    pub timeout: Duration,

    /// Begin gently: clients start, or the rate rises, evenly over this time [default: 0s; with
    /// --hold, --every]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub ramp: Option<Duration>,

    /// SHA-256 that each body must have
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub expect_sha256: Option<Sha256>,

    /// Read no more of a body than this
    #[arg(long, value_name = "BYTES")]
    pub bytes_max: Option<u64>,

    /// Write a row for each request to this file, which must not exist yet
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `--help` ends with.
const AFTER_HELP: &str = "\
TIME is a number with ms, s, m or h. Hard limits: 2000 clients, 2000 requests a second, 24 hours.

Examples:
  How fast do ten clients get a page, each as soon as it has the last one?
    rb-load --socks 127.0.0.1:9050 http://ADDRESS.onion/

  How long does a new visitor wait, with 5 of them a second for two minutes?
    rb-load --socks 127.0.0.1:9050 http://ADDRESS.onion/ \\
      --circuits fresh --rate 5 --clients 100 --duration 2m

  What memory do 500 idle visitors cost the service? (watch it meanwhile)
    rb-load --socks 127.0.0.1:9050 http://ADDRESS.onion/small --hold --clients 500 \\
      --duration 10m --requests 50000

Exit codes: 0 every request succeeded, 1 some failed or none ended, 64 usage, 69 a SOCKS proxy
cannot be reached, 70 a failure of this machine, 73 an output file cannot be made or written.";

/// When a client takes new circuits, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CircuitsName {
    /// A new SOCKS user name, and so new circuits, for each request
    Fresh,
    /// One SOCKS user name for each client, and its HTTP connection kept open
    Kept,
}

/// A SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

impl Arguments {
    /// The plan.
    ///
    /// # Errors
    /// When it is out of bounds or contradicts itself.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let every = self.every.unwrap_or(Duration::from_secs(10));
        let load = match (self.rate, self.hold) {
            (Some(rate), _) => Load::Open { rate },
            (None, true) => Load::Hold { every },
            (None, false) => Load::Closed,
        };
        let ramp_default = if self.hold { every } else { Duration::ZERO };
        let plan = Plan {
            clients: self.clients,
            load,
            circuits: match self.circuits {
                CircuitsName::Fresh => Circuits::Fresh,
                CircuitsName::Kept => Circuits::Kept,
            },
            duration: self.duration,
            requests: self.requests,
            timeout: self.timeout,
            ramp: self.ramp.unwrap_or(ramp_default),
            expect_sha256: self.expect_sha256.map(|Sha256(hash)| hash),
            bytes_max: self.bytes_max,
            // Rows of the CSV file are written as requests end: no sample needs to be kept.
            samples_max: 0,
            ..Plan::new(self.socks.clone(), self.url.clone())
        };
        plan.check().map(|()| plan)
    }
}

/// A time on the command line.
fn time(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_s = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a number with ms, s, m or h, such as 30s".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|error| error.to_string())
}

/// A SHA-256 on the command line.
fn sha256(text: &str) -> Result<Sha256, String> {
    let wrong = || "write 64 hexadecimal digits, as sha256sum prints them".to_owned();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        let digits = &text[2 * index..2 * index + 2];
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(Sha256(hash))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory as _, Parser as _};
    use rustbalance_load::{Load, PlanError};

    use super::{Arguments, Sha256, sha256, time};

    fn parse(more: &[&str]) -> Arguments {
        let url = format!("http://{}d.onion/", "a".repeat(55));
        let first = ["rb-load", "--socks", "127.0.0.1:9050", &url];
        Arguments::try_parse_from(first.iter().chain(more)).expect("good arguments")
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_bounded() {
        let plan = parse(&[]).plan().expect("the default");
        assert_eq!((plan.load, plan.requests), (Load::Closed, 10_000));
        assert_eq!(plan.duration, Duration::from_secs(30));
        let hold = parse(&["--hold"]).plan().expect("hold");
        assert_eq!(hold.load, Load::Hold { every: Duration::from_secs(10) });
        assert_eq!(hold.ramp, Duration::from_secs(10));
    }

    #[test]
    fn more_than_the_maximum_is_refused_with_a_sentence() {
        for more in [["--clients", "2001"], ["--rate", "2001"], ["--duration", "25h"]] {
            let error = parse(&more).plan().expect_err("beyond the maximum");
            assert!(matches!(error, PlanError::OutOfRange { .. }), "{more:?}");
            assert!(error.to_string().contains("choose from"), "{error}");
        }
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("24h"), Ok(Duration::from_secs(86_400)));
        for text in ["", "30", "s", "-1s", "1d", "1e3s", "NaNs"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_hash_has_64_digits() {
        assert_eq!(sha256(&"0F".repeat(32)), Ok(Sha256([15; 32])));
        assert!(sha256(&"0f".repeat(31)).is_err());
        assert!(sha256(&"0g".repeat(32)).is_err());
        assert!(sha256(&"é".repeat(32)).is_err());
    }
}
