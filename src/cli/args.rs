//! The command line: what may be written, and what `--help` teaches.
//!
//! Called by `main`. A wrong command line ends with 64 ([`EXIT_USAGE`]), before anything was
//! touched.

mod import;
mod key;
mod target;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::base::stream::CircuitId;
use crate::config::address::parse_backend_argument;
use crate::config::{Config, ConfigError, Overrides};
use crate::limits;
use crate::limits::INSTANCES_MAX;
use crate::plane::config::BackendAddress;
use crate::runtime::IoChoice;

pub use self::import::{ImportArgs, ImportCommand};
pub use self::key::{KeyArgs, KeyCommand, Published};
pub use self::target::{Target, configuration};

/// Exit code: it failed.
pub const EXIT_FAILED: u8 = 1;

/// Exit code: the command line is wrong (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Exit code: the configuration is wrong (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// One onion address on every core of a machine.
#[derive(Debug, Parser)]
#[command(
    name = "rustbalance",
    version,
    about = "One onion address on every core of a machine",
    long_about = "RustBalance puts a server behind one onion address that several Tor instances \
                  carry, all in this process and one on each core.",
    after_help = "Examples:\n  \
        rustbalance run --backend 127.0.0.1:8080     a web server as an onion service, now\n  \
        rustbalance run --hello                      without a server: a built-in page\n  \
        rustbalance check --config rustbalance.toml  is the configuration right?\n  \
        rustbalance run --config rustbalance.toml    run it\n  \
        rustbalance status                           what it does\n\n\
        Exit codes: 0 done, 1 failed, 64 wrong command line, 78 wrong configuration.",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// `run --help` begins with this.
const RUN_LONG: &str = "Run the onion service until SIGTERM or SIGINT.\n\n\
    Prints the onion address as soon as it is known, and `ready` when the descriptor is on the \
    HSDirs. The first SIGTERM lets open connections end and exits with 0; a second one exits at \
    once.";

/// `check --help` begins with this.
const CHECK_LONG: &str = "Check a configuration and the keys it names; start and write nothing.\n\n\
    Exits with 0, or with 78 and one line on stderr for each mistake: file, line, key, reason and \
    what to do.";

/// `doctor --help` begins with this.
const DOCTOR_LONG: &str = "Look for what would go wrong on this machine: clock, cores, limits, \
    memory locking, directories.\n\nSays what to do about each, and changes nothing.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the onion service until SIGTERM
    #[command(long_about = RUN_LONG)]
    Run(RunArgs),
    /// Check a configuration and its keys; start and write nothing
    #[command(long_about = CHECK_LONG)]
    Check(CheckArgs),
    /// Look for what would go wrong on this machine
    #[command(long_about = DOCTOR_LONG)]
    Doctor(DoctorArgs),
    /// Make, import or show a master key
    Key(KeyArgs),
    /// Print what another program's configuration is in ours
    #[command(long_about = import::LONG)]
    Import(ImportArgs),
    /// Ask the running service how it is
    Status(StatusArgs),
    /// Show the published descriptors, and what the HSDirs hold
    Descriptor(DescriptorArgs),
    /// Show the backends, take one out, put it back
    Backend(BackendArgs),
    /// Ban a client's circuit, prefer it, close it
    Circuit(CircuitArgs),
    /// Write the classic stack: C tor daemons, OnionBalance, HAProxy
    Ctor(CtorArgs),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    group(
        ArgGroup::new("what")
            .args(["config", "backend", "hello", "onionbalance"])
            .required(true)
            .multiple(true)
    ),
    after_help = "Examples:\n  \
        rustbalance run --backend 127.0.0.1:8080\n  \
        rustbalance run --backend 127.0.0.1:8080 --backend unix:/run/app.sock --instances 4\n  \
        rustbalance run --config /etc/rustbalance/rustbalance.toml\n  \
        rustbalance run --onionbalance /etc/onionbalance/config.yaml\n\n\
        Signals: SIGTERM drains and ends, SIGHUP reads the services again, SIGUSR2 starts the\n\
        program anew to take over from this process without a gap.\n\n\
        Without --config, the service has virtual port 80 and a key of its own in the state\n\
        directory: /var/lib/rustbalance if this user may write there, else rustbalance in the\n\
        user's XDG state directory (~/.local/state)."
)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backend", "hello"])]
    pub config: Option<PathBuf>,

    /// The config.yaml of OnionBalance or GoBalance, in whose place this runs; without a value
    /// $ONIONBALANCE_CONFIG or config.yaml. With --config, that says everything but the services
    #[arg(long, value_name = "CONFIG.yaml", num_args = 0..=1)]
    pub onionbalance: Option<Option<PathBuf>>,

    /// A server: IP:PORT, [IPV6]:PORT, localhost:PORT, unix:/PATH, unix:@ABSTRACT or
    /// ADDRESS.onion:PORT; may be given several times
    #[arg(long, value_name = "ADDR", value_parser = backend_address, conflicts_with = "hello")]
    pub backend: Vec<BackendAddress>,

    /// Serve a built-in page that names the instance that carried it
    #[arg(long)]
    pub hello: bool,

    /// Tor instances in this process [default: one for each core]
    #[arg(long, value_name = "N", value_parser = instance_count())]
    pub instances: Option<u16>,

    /// How sockets are driven: auto (io_uring if the kernel has it), uring or epoll
    #[arg(long, value_name = "IO", default_value = "auto", value_parser = io)]
    pub io: IoChoice,

    /// Where keys, sockets and Tor's state lie
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Replace the process that runs, without a gap: publish first, then have it end
    #[arg(long)]
    pub take_over: bool,
}

impl RunArgs {
    /// The configuration that these arguments make: the file's or the command line's own.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub fn config(&self) -> Result<Config, Vec<String>> {
        let lines = |error: ConfigError| -> Vec<String> {
            error.to_string().lines().map(str::to_owned).collect()
        };
        let config = match (&self.onionbalance, &self.config) {
            (Some(file), _) => super::onionbalance::config(file.as_deref(), self)?,
            (None, Some(file)) => Config::load(file).map_err(lines)?,
            (None, None) => Config::from_backends(&self.backend, self.hello),
        };
        config.with_overrides(&self.overrides()).map_err(lines)
    }

    /// What these arguments say over a configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides { state_dir: self.state_dir.clone(), instances: self.instances }
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        rustbalance check --config rustbalance.toml\n  \
        rustbalance check --config rustbalance.toml --explain > effective.toml\n  \
        rustbalance check --onionbalance config.yaml",
    group(ArgGroup::new("what").args(["config", "onionbalance"]).required(true).multiple(true))
)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The config.yaml of OnionBalance or GoBalance, as `run --onionbalance` takes it
    #[arg(long, value_name = "CONFIG.yaml")]
    pub onionbalance: Option<PathBuf>,

    /// Print the effective configuration, defaults filled in, as TOML
    #[arg(long)]
    pub explain: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at this configuration's directories and keys too
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The config.yaml of OnionBalance or GoBalance, as `run --onionbalance` takes it
    #[arg(long, value_name = "CONFIG.yaml")]
    pub onionbalance: Option<PathBuf>,
    /// Print a JSON list of {"grade", "what", "text"} instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        rustbalance status\n  \
        rustbalance status --config rustbalance.toml --json\n  \
        rustbalance status --onionbalance config.yaml --config base.toml\n\n\
        Without --config and --socket, the socket is admin.sock in the default state directory.")]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Which running service is meant.
    #[command(flatten)]
    pub target: Target,
}

/// Arguments of `descriptor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        rustbalance descriptor show\n  \
        rustbalance descriptor verify main || mail -s 'look at the HSDirs' root\n  \
        rustbalance descriptor verify --watch --every 600\n\n\
        HSDirs are numbered: replica 1 or 2, position 1 to 4, of which clients ask the first \
        three. \
        --json names the relays as well.")]
pub struct DescriptorArgs {
    /// What to do with descriptors.
    #[command(subcommand)]
    pub command: DescriptorCommand,
}

/// What to do with descriptors.
#[derive(Debug, Subcommand)]
pub enum DescriptorCommand {
    /// Show what was published: period, revision, points of each instance, each HSDir's receipt
    Show {
        /// The service's name; every service by default
        #[arg(value_name = "SERVICE")]
        service: Option<String>,

        /// Print JSON
        #[arg(long)]
        json: bool,

        /// Which running service is meant.
        #[command(flatten)]
        target: Target,
    },
    /// Fetch back what each responsible HSDir holds, and compare
    Verify(VerifyArgs),
}

/// Arguments of `descriptor verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "The running process asks every HSDir of every live period over Tor, which \
        takes some seconds to three minutes.\n\n\
        newest       our newest descriptor\n\
        older        an older one of ours; it gets the newest again\n\
        nothing      none; it gets the newest again\n\
        foreign      one that is signed with the service's key and was not published here: other \
        software still publishes the address, or the key was stolen\n\
        unreadable   something that the key did not sign\n\
        unreachable  it could not be asked\n\n\
        Exit code 0 when every HSDir holds the newest, 1 when one does not. With --watch it goes \
        on \
        until it is interrupted, or RustBalance no longer answers."
)]
pub struct VerifyArgs {
    /// The service's name; every service by default
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,

    /// Print JSON; with --watch, one line for each check
    #[arg(long)]
    pub json: bool,

    /// Check again and again, and say aloud when somebody else has the key
    #[arg(long)]
    pub watch: bool,

    /// With --watch: time between two checks
    #[arg(
        long = "every",
        value_name = "SECONDS",
        default_value_t = 600,
        requires = "watch",
        value_parser = clap::value_parser!(u64)
            .range(limits::VERIFY_SECONDS_MIN..=limits::VERIFY_SECONDS_MAX)
    )]
    pub seconds: u64,

    /// Which running service is meant.
    #[command(flatten)]
    pub target: Target,
}

/// Arguments of `backend`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        rustbalance backend list\n  \
        rustbalance backend drain 127.0.0.1:8080       no new streams; open ones go on\n  \
        rustbalance backend maintenance unix:/run/app.sock   nor health checks\n  \
        rustbalance backend ready 127.0.0.1:8080       as before\n\n\
        An order holds until the next one or the end of the process, also over a reload.")]
pub struct BackendArgs {
    /// What to do with backends.
    #[command(subcommand)]
    pub command: BackendCommand,
}

/// What to do with backends.
#[derive(Debug, Subcommand)]
pub enum BackendCommand {
    /// Show every backend: state, connections, failures, the last health check
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,

        /// Which running service is meant.
        #[command(flatten)]
        target: Target,
    },
    /// Give it no new stream; open ones go on
    Drain(BackendOrderArgs),
    /// Give it no new stream, and do not check it
    Maintenance(BackendOrderArgs),
    /// Give it streams again
    Ready(BackendOrderArgs),
}

/// Which backend is meant.
#[derive(Debug, Args)]
pub struct BackendOrderArgs {
    /// Its address, as `rustbalance backend list` shows it
    #[arg(value_name = "ADDRESS")]
    pub address: String,

    /// Of this service alone
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// Of this virtual port alone
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// Which running service is meant.
    #[command(flatten)]
    pub target: Target,
}

/// Arguments of `circuit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        rustbalance circuit ban 1/666 --for 600\n  \
        rustbalance circuit close 1/666\n  \
        rustbalance circuit close fc00:dead:beef:4dad:0:1:0:29a\n\n\
        The id is what a backend hears of a client (proxy_protocol, in its configuration). \
        Circuits of C tor daemons in front of a [[listen]] are theirs: close them at their \
        control port.")]
pub struct CircuitArgs {
    /// What to do with circuits.
    #[command(subcommand)]
    pub command: CircuitCommand,
}

/// Which circuit is meant, and for how long.
#[derive(Debug, Args)]
pub struct VerdictArgs {
    /// INSTANCE/NUMBER, or the circuit's address in a PROXY header
    #[arg(value_name = "ID")]
    pub circuit: CircuitId,

    /// For how long
    #[arg(
        long = "for",
        value_name = "SECONDS",
        default_value_t = 3600,
        value_parser = clap::value_parser!(u64).range(1..=limits::VERDICT_SECONDS_MAX)
    )]
    pub seconds: u64,

    /// Which running service is meant.
    #[command(flatten)]
    pub target: Target,
}

/// What to do with circuits.
#[derive(Debug, Subcommand)]
pub enum CircuitCommand {
    /// Give it the backends of the lane `banned`, or refuse its streams where there are none
    Ban(VerdictArgs),
    /// Give it the backends of the lane `preferred`
    Prefer(VerdictArgs),
    /// Take back what was said of it
    Forget {
        /// INSTANCE/NUMBER, or the circuit's address in a PROXY header
        #[arg(value_name = "ID")]
        circuit: CircuitId,

        /// Which running service is meant.
        #[command(flatten)]
        target: Target,
    },
    /// Close it, with all its streams
    Close {
        /// INSTANCE/NUMBER, or the circuit's address in a PROXY header
        #[arg(value_name = "ID")]
        circuit: CircuitId,

        /// Which running service is meant.
        #[command(flatten)]
        target: Target,
    },
}

/// Arguments of `ctor`.
#[derive(Debug, Args)]
pub struct CtorArgs {
    /// What to do with C tor daemons.
    #[command(subcommand)]
    pub command: CtorCommand,
}

/// What to do with C tor daemons.
#[derive(Debug, Subcommand)]
pub enum CtorCommand {
    /// Write torrcs, OnionBalance's and HAProxy's configuration, and how to run them
    #[command(long_about = GENERATE_LONG)]
    Generate(GenerateArgs),
}

/// `ctor generate --help` begins with this.
const GENERATE_LONG: &str = "Write the classic stack for an onion service into a new directory: \
    a torrc and keys for each C tor daemon, OnionBalance's config.yaml with the master key, \
    haproxy.cfg, and a README.md with every command to run them.\n\n\
    Starts nothing, and never writes over anything. The directory holds keys: it is for its owner \
    alone (0700). Prints each service's onion address.";

/// Arguments of `ctor generate`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("served").args(["config", "backend"]).required(true).multiple(true)),
    after_help = "Examples:\n  \
        rustbalance ctor generate stack --backend 127.0.0.1:8080\n  \
        rustbalance ctor generate stack --config rustbalance.toml --instances 4\n  \
        rustbalance ctor generate stack --config rustbalance.toml --debian\n\n\
        With --config, services keep their keys, ports and backends. Stop RustBalance before the\n\
        stack runs: two publishers of one key write over each other's descriptors."
)]
pub struct GenerateArgs {
    /// The directory to make; it may exist if it is empty
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Take services, keys and backends from this configuration file
    #[arg(long, value_name = "FILE", conflicts_with = "backend")]
    pub config: Option<PathBuf>,

    /// A server for virtual port 80 of a new service: IP:PORT, [IPV6]:PORT, localhost:PORT or
    /// unix:/PATH
    #[arg(long, value_name = "ADDR", value_parser = backend_address)]
    pub backend: Vec<BackendAddress>,

    /// C tor daemons [default: one for each CPU, at most 8]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(limits::CTOR_DAEMONS_MAX))
    )]
    pub instances: Option<u16>,

    /// For Debian's tor-instance-create and tor@.service, with a drop-in for each daemon
    #[arg(long)]
    pub debian: bool,

    /// A file whose lines end every torrc
    #[arg(long, value_name = "FILE")]
    pub torrc_extra: Option<PathBuf>,
}

/// Read the command line `arguments`, the program's name first.
///
/// # Errors
/// The exit code, after help or the mistake was printed: 0 for `--help` and `--version`,
/// [`EXIT_USAGE`] for a wrong command line.
pub fn parse<I, T>(arguments: I) -> Result<Cli, u8>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    Cli::try_parse_from(arguments).map_err(|error| {
        // Nothing can be done where even the mistake cannot be printed.
        let _ = error.print();
        exit_code(&error)
    })
}

/// The exit code for what clap found.
fn exit_code(error: &clap::Error) -> u8 {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => 0,
        _ => EXIT_USAGE,
    }
}

/// `--backend`. The error's own words are the help.
fn backend_address(text: &str) -> Result<BackendAddress, String> {
    parse_backend_argument(text).map_err(|error| error.to_string())
}

/// `--instances`
fn instance_count() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(INSTANCES_MAX))
}

/// `--io`
fn io(text: &str) -> Result<IoChoice, String> {
    match text {
        "auto" => Ok(IoChoice::Auto),
        "epoll" => Ok(IoChoice::Epoll),
        "uring" => Ok(IoChoice::Uring),
        _ => Err("there is no such way; write auto, uring or epoll".to_owned()),
    }
}

#[cfg(test)]
mod tests;
