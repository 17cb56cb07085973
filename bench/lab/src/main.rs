//! `lab`: a private Tor network for people and scripts.

use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use nix::sys::signal::{SigSet, Signal};
use rustbalance_lab::{Lab, LabOptions, Size, client, wait_until};

/// A private Tor network on this machine: authorities, relays, clients, services. Nothing leaves
/// the machine, and `lab down` leaves nothing behind.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    lab up                            about 20 s; then:\n  \
    lab arti-toml >>rustbalance.toml  have RustBalance use this network\n  \
    lab nginx --root site             a backend; prints its address\n  \
    lab client me                     a tor client; prints its SOCKS address\n  \
    lab curl http://ADDRESS.onion/    fetch through a tor client, on fresh circuits\n  \
    lab down                          ends all of it\n  \
    lab run -- cargo test             a lab for one command\n\n\
    The default directory is rustbalance-lab below XDG_RUNTIME_DIR or the system's temporary \
    directory; --dir takes another one. Every node's files and logs are in there."
)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: What,
}

/// How many relays.
#[derive(Clone, Copy, ValueEnum)]
enum SizeName {
    /// 3 authorities and 6 relays.
    Small,
    /// 3 authorities and 13 relays: vanguards full really run.
    Full,
}

/// What to do.
#[derive(Subcommand)]
enum What {
    /// Bring a lab up; it stays until `lab down`
    Up(Up),
    /// End a lab and everything in it
    Down(Place),
    /// Say what is up
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
        /// Where the lab is.
        #[command(flatten)]
        place: Place,
    },
    /// Start a tor client, if none of this name runs; prints its SOCKS address
    Client {
        /// Its name.
        name: String,
        /// Where the lab is.
        #[command(flatten)]
        place: Place,
    },
    /// Fetch a URL through a tor client; the body goes to standard output. Fails unless the status
    /// is below 400
    Curl {
        /// SOCKS user name: requests of one user share circuits; by default they are fresh.
        #[arg(long)]
        user: Option<String>,
        /// http://ADDRESS.onion[:PORT]/PATH
        url: String,
        /// Where the lab is.
        #[command(flatten)]
        place: Place,
    },
    /// Start an nginx; prints its address
    Nginx {
        /// The files to serve.
        #[arg(long)]
        root: PathBuf,
        /// Where the lab is.
        #[command(flatten)]
        place: Place,
    },
    /// Print the [arti] tables of a configuration for this network
    ArtiToml(Place),
    /// Print the consensus
    Consensus(Place),
    /// Bring a lab up, run a command with RUSTBALANCE_LAB_DIR set, and end the lab; the exit status
    /// is the command's
    Run {
        /// What kind of lab.
        #[command(flatten)]
        kind: Kind,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Hold a lab until SIGTERM (what `up` starts in the background)
    #[command(hide = true)]
    Hold(Up),
}

/// Where a lab is.
#[derive(clap::Args, Clone)]
struct Place {
    /// The lab's directory
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What kind of lab.
#[derive(clap::Args, Clone)]
struct Kind {
    /// How many relays
    #[arg(long, value_enum, default_value = "small")]
    size: SizeName,
    /// Two network namespaces and the public network's DoS parameters; needs root
    #[arg(long)]
    netns: bool,
    /// A further consensus parameter, NAME=NUMBER; can be given several times
    #[arg(long)]
    param: Vec<String>,
    /// How often the authorities vote, in seconds; a time period is 24 times that [default: 20]
    #[arg(long, value_name = "SECONDS")]
    voting_interval: Option<u16>,
}

/// What `up` takes.
#[derive(clap::Args, Clone)]
struct Up {
    /// What kind of lab.
    #[command(flatten)]
    kind: Kind,
    /// Where the lab is.
    #[command(flatten)]
    place: Place,
}

impl Place {
    /// The directory.
    fn dir(&self) -> PathBuf {
        let above = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, Into::into);
        self.dir.clone().unwrap_or_else(|| above.join("rustbalance-lab"))
    }
}

impl SizeName {
    /// For the library.
    fn size(self) -> Size {
        match self {
            SizeName::Small => Size::Small,
            SizeName::Full => Size::Full,
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Do it.
fn run(what: &What) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match what {
        What::Up(up) => bring_up(up)?,
        What::Hold(up) => hold(up)?,
        What::Down(place) => Lab::take_down(&place.dir())?,
        What::Status { json, place } => status(&Lab::join(&place.dir())?, *json, &mut out)?,
        What::Client { name, place } => {
            let client = Lab::join(&place.dir())?.client(name)?;
            writeln!(out, "{}", client.socks())?;
        }
        What::Curl { user, url, place } => {
            let (host, port, path) = parse_url(url)?;
            let client = Lab::join(&place.dir())?.client("curl")?;
            let user = user.clone().unwrap_or_else(client::fresh_user);
            let response = client.fetch(&host, port, &path, &user)?;
            eprintln!("{} in {:.2} s", response.status, response.elapsed.as_secs_f32());
            out.write_all(&response.body)?;
            if response.status >= 400 {
                return Ok(ExitCode::FAILURE);
            }
        }
        What::Nginx { root, place } => {
            let nginx = Lab::join(&place.dir())?.nginx(root)?;
            writeln!(out, "{}", nginx.address)?;
        }
        What::ArtiToml(place) => write!(out, "{}", Lab::join(&place.dir())?.arti_toml())?,
        What::Consensus(place) => write!(out, "{}", Lab::join(&place.dir())?.consensus()?)?,
        What::Run { kind, command } => return run_in(kind.options(None)?, command),
    }
    Ok(ExitCode::SUCCESS)
}

impl Kind {
    /// The options that the arguments make.
    fn options(&self, dir: Option<PathBuf>) -> Result<LabOptions> {
        let mut extra_params = Vec::new();
        for param in &self.param {
            let (name, value) =
                param.split_once('=').with_context(|| format!("{param}: write NAME=NUMBER"))?;
            let value = value.parse().with_context(|| format!("{param}: not a number"))?;
            extra_params.push((name.to_owned(), value));
        }
        Ok(LabOptions {
            size: self.size.size(),
            netns: self.netns,
            extra_params,
            voting_interval_seconds: self.voting_interval,
            dir,
            quiet: false,
        })
    }
}

/// Say what is up.
fn status(lab: &Lab, json: bool, out: &mut impl std::io::Write) -> Result<()> {
    let running = lab.relays().iter().filter(|relay| relay.pid().is_some()).count();
    if !json {
        writeln!(out, "{running} of {} relays run", lab.relays().len())?;
        writeln!(out, "{}", lab.dir().display())?;
        return Ok(());
    }
    let relays: Vec<_> = lab
        .relays()
        .iter()
        .map(|relay| {
            serde_json::json!({ "nickname": relay.nickname, "authority": relay.v3ident.is_some(),
                "fingerprint": relay.fingerprint, "or_address": relay.or_address(),
                "pid": relay.pid() })
        })
        .collect();
    let status = serde_json::json!({ "dir": lab.dir(), "size": lab.size(),
        "netns": lab.has_namespaces(), "running": running, "relays": relays });
    writeln!(out, "{status:#}")?;
    Ok(())
}

/// Start a process that holds the lab, and wait until it is up.
fn bring_up(up: &Up) -> Result<()> {
    let dir = up.place.dir();
    if Lab::join(&dir).is_ok() {
        bail!("a lab is up in {}; `lab down` ends it", dir.display());
    }
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments[0] = "hold".into();
    let mut holder = Command::new(std::env::current_exe()?)
        .args(arguments)
        // It ends with us, until we tell it to stay.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C ends us alone, and then it as well: it is not in the terminal's process group.
        .process_group(0)
        .spawn()
        .context("cannot start the holder")?;
    wait_until("the lab comes up", 240, || {
        if let Ok(Some(_)) = holder.try_wait() {
            // It has said why.
            return Some(Err(anyhow::anyhow!("the lab did not come up")));
        }
        Lab::join(&dir).is_ok().then_some(Ok(()))
    })??;
    holder.stdin.take().context("it is piped")?.write_all(STAY)?;
    println!("{}", dir.display());
    let place = up.place.dir.as_ref().map(|dir| format!(" --dir {}", dir.display()));
    let place = place.unwrap_or_default();
    eprintln!(
        "It stays until `lab down{place}`. Next: `lab arti-toml{place}` prints RustBalance's \
         tables for it,\n`lab client NAME{place}` starts a tor client, `lab curl{place} \
         http://ADDRESS.onion/` fetches through one."
    );
    Ok(())
}

/// What `up` says to `hold` when the lab is up and shall stay.
const STAY: &[u8] = b"stay";

/// Hold a lab until SIGTERM or SIGINT.
fn hold(up: &Up) -> Result<()> {
    let (told, stay) = std::sync::mpsc::sync_channel(1);
    // Before any other thread, so that all have them blocked.
    let ends = block_signals()?;
    std::thread::spawn(move || {
        let mut word = [0; STAY.len()];
        if std::io::stdin().read_exact(&mut word).is_err() {
            // The keeper clears away what there is.
            std::process::exit(1);
        }
        let _ = told.send(());
    });
    let lab = Lab::start(up.kind.options(Some(up.place.dir()))?)?;
    stay.recv().context("nobody waits for the lab")?;
    // Whoever reads the standard error of `up` shall see its end.
    let nothing = std::fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stderr(nothing)?;
    ends.wait()?;
    drop(lab);
    Ok(())
}

/// Have SIGTERM and SIGINT wait until somebody waits for them.
fn block_signals() -> Result<SigSet> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block()?;
    Ok(ends)
}

/// Take a URL apart.
fn parse_url(url: &str) -> Result<(String, u16, String)> {
    let rest = url.strip_prefix("http://").context("write http://ADDRESS.onion[:PORT]/PATH")?;
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let (host, port) = match host.split_once(':') {
        Some((host, port)) => (host, port.parse().context("not a port")?),
        None => (host, 80),
    };
    Ok((host.to_owned(), port, format!("/{path}")))
}

/// Run a command beside a lab of its own.
fn run_in(options: LabOptions, command: &[String]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let lab = Lab::start(options)?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("RUSTBALANCE_LAB_DIR", lab.dir())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    // Should we be killed, it has no lab any more, and ends.
    lab.keep(child.id())?;
    let status = child.wait()?;
    drop(lab);
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
