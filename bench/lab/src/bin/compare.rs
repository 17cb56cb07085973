//! `compare`: what RustBalance costs beside a C tor onion service, in one run.
//!
//! Subjects take turns (A B C A B C ...), two of them are the same C tor service twice, which shows
//! the noise. CPU is user and system time of the subject's process tree; every body's hash is
//! checked, and a round in which a request of a subject failed is void for it and said so.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use rustbalance_lab::client::{fresh_user, random_file};
use rustbalance_lab::measure::{cpu_seconds, rss_bytes};
use rustbalance_lab::{Client, Lab, LabOptions, OnionServiceSpec, Size};

/// Compare RustBalance with a C tor onion service: CPU for a byte and for a client, memory, start.
#[derive(Parser)]
struct Arguments {
    /// The rustbalance binary, built with `cargo build --release`
    #[arg(long, default_value = "target/release/rustbalance")]
    rustbalance: PathBuf,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of each of the four bodies of a round, in MB
    #[arg(long, default_value_t = 50)]
    megabytes: usize,
    /// Fresh clients of a round
    #[arg(long, default_value_t = 60)]
    clients: usize,
    /// Exit with 1 when a bound of docs/SPECIFICATION.md does not hold
    #[arg(long)]
    check: bool,
    /// Write the raw measurements here, as JSON lines
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// Bodies fetched at once.
const STREAMS: usize = 4;

/// Something that is measured.
struct Subject {
    /// What the table calls it.
    name: &'static str,
    /// Its address.
    onion: String,
    /// Its process.
    pid: u32,
    /// From start to ready in seconds, where that can be told.
    start_seconds: Option<f64>,
    /// CPU in ns for a payload byte, a value a round.
    bulk: Vec<f64>,
    /// Throughput in Mbps, a value a round.
    mbps: Vec<f64>,
    /// CPU in ms for a new client, a value a round.
    client: Vec<f64>,
    /// Rounds that are void.
    void: usize,
    /// Ends with the run.
    _child: Option<Guard>,
}

/// A process that ends with this.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A subject that nothing was measured of yet.
fn subject(name: &'static str, onion: String, pid: u32) -> Subject {
    let (bulk, mbps, client) = (Vec::new(), Vec::new(), Vec::new());
    Subject { name, onion, pid, start_seconds: None, bulk, mbps, client, void: 0, _child: None }
}

/// Measure, print, and say whether the bounds hold.
fn run(arguments: &Arguments) -> Result<bool> {
    // Vanguards full need more relays than the small lab has.
    let lab = Lab::start(LabOptions { size: Size::Full, ..LabOptions::default() })?;
    let root = lab.dir().join("www");
    std::fs::create_dir_all(&root)?;
    let page = random_file(&root, "page", 1000)?;
    let bulk = random_file(&root, "bulk", arguments.megabytes * 1_000_000)?;
    let nginx = lab.nginx(&root)?;
    let clients = [lab.client("one")?, lab.client("two")?];
    let target = nginx.address.to_string();
    let mut subjects = Vec::new();
    for name in ["C tor, lite", "C tor, lite (A/A)"] {
        let service = lab.onion_service(&OnionServiceSpec {
            virtual_port: 80,
            target: target.clone(),
            vanguards_lite: true,
            extra: String::new(),
        })?;
        service.wait_reachable(&clients[0], 80)?;
        subjects.push(subject(name, service.hostname.clone(), service.pid));
    }
    for (name, turbo, vanguards) in [
        ("RustBalance, 2 instances, lite", "instances = 2", "lite"),
        ("RustBalance, 2 instances, 2 stacks, lite", "instances = 2\nstacks = 2", "lite"),
        ("RustBalance, 1 instance, lite", "instances = 1", "lite"),
        ("RustBalance, 2 instances, full", "instances = 2", "full"),
    ] {
        subjects.push(rustbalance(&lab, arguments, name, turbo, vanguards, &target)?);
    }
    let mut raw = match &arguments.raw {
        Some(path) => Some(std::fs::File::create(path).context("cannot write the raw data")?),
        None => None,
    };
    for round in 0..arguments.rounds {
        for subject in &mut subjects {
            eprintln!("round {} of {}: {}", round + 1, arguments.rounds, subject.name);
            measure(subject, &clients, arguments, &page, &bulk);
            if let Some(raw) = &mut raw {
                let line = serde_json::json!({ "round": round, "subject": subject.name,
                    "cpu_ns_per_byte": subject.bulk.last(), "mbps": subject.mbps.last(),
                    "cpu_ms_per_client": subject.client.last(), "rss_bytes": rss_bytes(subject.pid),
                    "void": subject.void });
                writeln!(raw, "{line}")?;
            }
        }
    }
    print_table(&subjects);
    Ok(bounds(&subjects) || !arguments.check)
}

/// Start RustBalance and wait until it is ready.
fn rustbalance(
    lab: &Lab,
    arguments: &Arguments,
    name: &'static str,
    turbo: &str,
    vanguards: &str,
    target: &str,
) -> Result<Subject> {
    let dir = lab.dir().join(name.replace([' ', ','], "-"));
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("rustbalance.toml");
    let text = format!(
        "state_dir = \"{}\"\n[[service]]\nname = \"main\"\n[[service.port]]\nvirtual = 80\n\
         backends = [\"{target}\"]\n[turbo]\n{turbo}\n\
         [arti.vanguards]\nmode = \"{vanguards}\"\n{}",
        dir.join("state").display(),
        lab.arti_toml()
    );
    std::fs::write(&config, text)?;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
    let program = std::fs::canonicalize(&arguments.rustbalance).with_context(|| {
        format!("no {}; run: cargo build --release", arguments.rustbalance.display())
    })?;
    let started = Instant::now();
    let mut child = lab
        .command(path(&program)?)
        .arg("run")
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(dir.join("log"))?)
        .spawn()?;
    lab.keep(child.id())?;
    let stdout = child.stdout.take().context("it is piped")?;
    let child = Guard(child);
    let mut onion = None;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some(address) = line.strip_prefix("onion ") {
            onion = Some(address.to_owned());
        }
        if line == "ready" {
            let seconds = started.elapsed().as_secs_f64();
            let onion = onion.context("ready without an address")?;
            return Ok(Subject {
                start_seconds: Some(seconds),
                pid: child.0.id(),
                _child: Some(child),
                ..subject(name, onion, 0)
            });
        }
    }
    bail!("{name} ended; its log: {}", std::fs::read_to_string(dir.join("log"))?)
}

/// A path as text.
fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}

/// One round of one subject.
fn measure(
    subject: &mut Subject,
    clients: &[Client],
    arguments: &Arguments,
    page: &str,
    bulk: &str,
) {
    match measure_bulk(subject, clients, arguments, bulk) {
        Ok((ns, mbps)) => {
            subject.bulk.push(ns);
            subject.mbps.push(mbps);
        }
        Err(error) => {
            eprintln!("void: {}: {error:#}", subject.name);
            subject.void += 1;
        }
    }
    match measure_clients(subject, clients, arguments, page) {
        Ok(ms) => subject.client.push(ms),
        Err(error) => {
            eprintln!("void: {}: {error:#}", subject.name);
            subject.void += 1;
        }
    }
}

/// CPU in ns for a payload byte, and Mbps, of several downloads at once.
fn measure_bulk(
    subject: &Subject,
    clients: &[Client],
    arguments: &Arguments,
    hash: &str,
) -> Result<(f64, f64)> {
    // The circuits are there before the clock starts.
    let users: Vec<String> = (0..STREAMS).map(|_| fresh_user()).collect();
    for (user, client) in users.iter().zip(clients.iter().cycle()) {
        client.fetch(&subject.onion, 80, "/page", user)?;
    }
    let (cpu, started) = (cpu_seconds(subject.pid), Instant::now());
    std::thread::scope(|scope| {
        let downloads: Vec<_> = users
            .iter()
            .zip(clients.iter().cycle())
            .map(|(user, client)| {
                scope.spawn(move || client.fetch(&subject.onion, 80, "/bulk", user))
            })
            .collect();
        for download in downloads {
            let answer = download.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            if answer.sha256() != hash {
                bail!("a body arrived damaged");
            }
        }
        Ok(())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let bytes = (STREAMS * arguments.megabytes * 1_000_000) as f64;
    let cpu = cpu_seconds(subject.pid) - cpu;
    Ok((cpu * 1e9 / bytes, bytes * 8.0 / seconds / 1e6))
}

/// CPU in ms for a new client that fetches 1 kB.
fn measure_clients(
    subject: &Subject,
    clients: &[Client],
    arguments: &Arguments,
    hash: &str,
) -> Result<f64> {
    let cpu = cpu_seconds(subject.pid);
    let each = arguments.clients / clients.len();
    std::thread::scope(|scope| {
        let fetch = |client| {
            scope.spawn(move || -> Result<()> {
                for _ in 0..each {
                    let answer = Client::fetch_fresh(client, &subject.onion, 80, "/page")?;
                    if answer.sha256() != hash {
                        bail!("a body arrived damaged");
                    }
                }
                Ok(())
            })
        };
        let running: Vec<_> = clients.iter().map(fetch).collect();
        for one in running {
            one.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let cpu = cpu_seconds(subject.pid) - cpu;
    Ok(cpu * 1e3 / (each * clients.len()) as f64)
}

/// The middle of some values.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length => (sorted[(length - 1) / 2] + sorted[length / 2]) / 2.0,
    }
}

/// Median with its spread.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(values))
}

/// The results.
fn print_table(subjects: &[Subject]) {
    println!("| subject | CPU-ns a byte | Mbps | CPU-ms a client | memory, MB | start, s | void |");
    println!("|---|---|---|---|---|---|---|");
    for one in subjects {
        let start = one.start_seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
        println!(
            "| {} | {} | {} | {} | {:.0} | {start} | {} |",
            one.name,
            spread(&one.bulk),
            spread(&one.mbps),
            spread(&one.client),
            rss_bytes(one.pid) as f64 / 1e6,
            one.void
        );
    }
}

/// The bounds of docs/SPECIFICATION.md, by ratio to C tor in this run.
fn bounds(subjects: &[Subject]) -> bool {
    let (tor, two, stacks) = (&subjects[0], &subjects[2], &subjects[3]);
    let ratio = |of: &[f64], to: &[f64]| median(of) / median(to);
    let memory = rss_bytes(two.pid) as f64 / rss_bytes(tor.pid) as f64;
    let start = two.start_seconds.unwrap_or(f64::INFINITY);
    let rows = [
        ("CPU a byte, to C tor's", ratio(&two.bulk, &tor.bulk), 1.6),
        ("CPU a byte with 2 stacks, to C tor's", ratio(&stacks.bulk, &tor.bulk), 1.45),
        ("CPU a client, to C tor's", ratio(&two.client, &tor.client), 1.2),
        ("CPU a client with 2 stacks, to C tor's", ratio(&stacks.client, &tor.client), 1.1),
        ("memory, to one C tor's", memory, 1.0),
        ("start to ready, s", start, 5.0),
    ];
    let mut all = subjects.iter().all(|one| one.void == 0);
    println!("\n| bound | measured | at most | holds |\n|---|---|---|---|");
    for (what, measured, at_most) in rows {
        // A value that is no number holds no bound.
        let holds = measured <= at_most;
        all &= holds;
        println!(
            "| {what} | {measured:.2} | {at_most:.2} | {} |",
            if holds { "yes" } else { "NO" }
        );
    }
    all
}
