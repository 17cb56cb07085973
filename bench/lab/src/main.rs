//! `lab`: a private Tor network for people and scripts.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use rustbalance_lab::{Client, Lab, LabOptions, Size, client, wait_until};

/// A private Tor network on this machine: authorities, relays, clients, services. Nothing leaves
/// the machine, and `lab down` leaves nothing behind.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  lab up\n  lab client me\n  lab curl http://ADDRESS.onion/\n  \
    lab down\n  lab run -- cargo test\n\nThe default directory is rustbalance-lab below \
    XDG_RUNTIME_DIR or the system's temporary directory."
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
    Status(Place),
    /// Start a tor client; prints its SOCKS address
    Client {
        /// Its name.
        name: String,
        /// Where the lab is.
        #[command(flatten)]
        place: Place,
    },
    /// Fetch a URL through a tor client, on fresh circuits; the body goes to standard output
    Curl {
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
    /// Bring a lab up, run a command with RUSTBALANCE_LAB_DIR set, and end the lab
    Run {
        /// How many relays.
        #[arg(long, value_enum, default_value = "small")]
        size: SizeName,
        /// Two network namespaces and the public network's DoS parameters; needs root.
        #[arg(long)]
        netns: bool,
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
    /// The lab's directory [default: RUSTBALANCE_LAB_DIR, as in `lab run`, or a usual place]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What `up` takes.
#[derive(clap::Args, Clone)]
struct Up {
    /// How many relays
    #[arg(long, value_enum, default_value = "small")]
    size: SizeName,
    /// Two network namespaces and the public network's DoS parameters; needs root
    #[arg(long)]
    netns: bool,
    /// A further consensus parameter, NAME=NUMBER
    #[arg(long)]
    param: Vec<String>,
    /// Where the lab is.
    #[command(flatten)]
    place: Place,
}

impl Place {
    /// The directory.
    fn dir(&self) -> PathBuf {
        let above = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, Into::into);
        let named = std::env::var_os("RUSTBALANCE_LAB_DIR").map(PathBuf::from);
        self.dir.clone().or(named).unwrap_or_else(|| above.join("rustbalance-lab"))
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
        What::Down(place) => take_down(&place.dir())?,
        What::Status(place) => {
            let lab = Lab::join(&place.dir())?;
            let running = lab.relays().iter().filter(|relay| relay.pid().is_some()).count();
            writeln!(out, "{} of {} relays run", running, lab.relays().len())?;
            writeln!(out, "{}", lab.dir().display())?;
        }
        What::Client { name, place } => {
            let client = Lab::join(&place.dir())?.client(name)?;
            writeln!(out, "{}", socks_text(&client))?;
        }
        What::Curl { url, place } => {
            let lab = Lab::attach(&place.dir())?;
            let (host, port, path) = parse_url(url)?;
            let client = lab.client("curl")?;
            let response = client.fetch(&host, port, &path, &client::fresh_user())?;
            eprintln!("{} in {:.2} s", response.status, response.elapsed.as_secs_f32());
            out.write_all(&response.body)?;
        }
        What::Nginx { root, place } => {
            let nginx = Lab::join(&place.dir())?.nginx(root)?;
            writeln!(out, "{}", nginx.address)?;
        }
        What::ArtiToml(place) => write!(out, "{}", Lab::join(&place.dir())?.arti_toml())?,
        What::Consensus(place) => write!(out, "{}", Lab::join(&place.dir())?.consensus()?)?,
        What::Run { size, netns, command } => return run_in(size.size(), *netns, command),
    }
    Ok(ExitCode::SUCCESS)
}

/// A client's SOCKS port, as people write it.
fn socks_text(client: &Client) -> String {
    match client.socks() {
        rustbalance_lab::client::SocksAddress::Tcp(address) => address.to_string(),
        rustbalance_lab::client::SocksAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// The options that the arguments make.
fn options(up: &Up) -> Result<LabOptions> {
    let mut extra_params = Vec::new();
    for param in &up.param {
        let (name, value) =
            param.split_once('=').with_context(|| format!("{param}: write NAME=NUMBER"))?;
        let value = value.parse().with_context(|| format!("{param}: not a number"))?;
        extra_params.push((name.to_owned(), value));
    }
    Ok(LabOptions {
        size: up.size.size(),
        netns: up.netns,
        extra_params,
        dir: Some(up.place.dir()),
        quiet: false,
    })
}

/// Start a process that holds the lab, and wait until it is up.
fn bring_up(up: &Up) -> Result<()> {
    let dir = up.place.dir();
    if Lab::join(&dir).is_ok() {
        bail!("a lab is up in {}; `lab down` ends it", dir.display());
    }
    let mut holder = Command::new(std::env::current_exe()?);
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments[0] = "hold".into();
    let mut child = holder
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Its progress goes to our terminal; Ctrl-C there ends us alone, and then it as well.
        .process_group(0)
        .spawn()
        .context("cannot start the holder")?;
    wait_until("the lab comes up", 180, || {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(Err(anyhow::anyhow!("the lab did not come up ({status})")));
        }
        Lab::join(&dir).is_ok().then_some(Ok(()))
    })??;
    println!("{}", dir.display());
    eprintln!("`lab client NAME` starts a client, `lab down` ends it all");
    Ok(())
}

/// Hold a lab until SIGTERM or SIGINT.
fn hold(up: &Up) -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block()?;
    let lab = Lab::start(options(up)?)?;
    // Whoever reads `lab up` through a pipe shall see its end.
    nix::unistd::dup2_stderr(std::fs::OpenOptions::new().write(true).open("/dev/null")?)?;
    ends.wait()?;
    drop(lab);
    Ok(())
}

/// End the lab in `dir`.
fn take_down(dir: &Path) -> Result<()> {
    let text = std::fs::read_to_string(dir.join("lab.json"))
        .with_context(|| format!("no lab is up in {}", dir.display()))?;
    let record: serde_json::Value = serde_json::from_str(&text)?;
    let holder = record["holder"].as_i64().context("the lab's record names no holder")?;
    let holder = nix::unistd::Pid::from_raw(i32::try_from(holder)?);
    nix::sys::signal::kill(holder, nix::sys::signal::Signal::SIGTERM)
        .context("the lab's holder has gone")?;
    wait_until("the lab ends", 60, || (!dir.exists()).then_some(()))
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
fn run_in(size: Size, netns: bool, command: &[String]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let lab = Lab::start(LabOptions { size, netns, ..LabOptions::default() })?;
    let status = Command::new(program)
        .args(arguments)
        .env("RUSTBALANCE_LAB_DIR", lab.dir())
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    drop(lab);
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}
