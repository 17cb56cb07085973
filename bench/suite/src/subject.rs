//! The programs that are compared.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustbalance_lab::{Frontend, OnionService, OnionServiceSpec, free_port};

use crate::cost::Tree;
use crate::inside::Inside;
use crate::site::Site;

/// What can be compared. All with vanguards lite unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RustBalance.
    RustBalance {
        /// Tor instances in the process.
        instances: usize,
        /// Tor stacks, each with guards of its own.
        stacks: usize,
        /// `lite` or `full`.
        vanguards: &'static str,
        /// What drives the sockets: `auto`, which is io_uring where it is to be had, or `epoll`.
        io: &'static str,
    },
    /// One C tor daemon with an onion service.
    CTor,
    /// So many C tor daemons, OnionBalance with its own tor, and HAProxy between them and the
    /// backends: what people run today.
    Classic {
        /// The daemons.
        daemons: usize,
    },
}

impl Kind {
    /// RustBalance as it is compared by default.
    pub fn rustbalance(instances: usize) -> Kind {
        Kind::RustBalance { instances, stacks: 1, vanguards: "lite", io: "auto" }
    }

    /// What tables call it.
    pub fn name(&self) -> String {
        match self {
            Kind::RustBalance { instances, stacks, vanguards, io } => {
                let instances = match instances {
                    1 => "1 instance".to_owned(),
                    many => format!("{many} instances"),
                };
                let stacks = match stacks {
                    1 => String::new(),
                    many => format!(", {many} stacks"),
                };
                let vanguards = match *vanguards {
                    "lite" => String::new(),
                    other => format!(", vanguards {other}"),
                };
                let io = match *io {
                    "auto" => String::new(),
                    other => format!(", {other}"),
                };
                format!("RustBalance, {instances}{stacks}{vanguards}{io}")
            }
            Kind::CTor => "C tor".to_owned(),
            Kind::Classic { daemons } => format!("{daemons} C tor + OnionBalance + HAProxy"),
        }
    }

    /// Start it. It may need half a minute more until it can be reached.
    ///
    /// # Errors
    /// When a part does not start; with the end of its log.
    pub fn start(&self, site: &Site) -> Result<Subject> {
        match self {
            Kind::RustBalance { instances, stacks, vanguards, io } => {
                start_rustbalance(self.name(), site, (*instances, *stacks), vanguards, io)
            }
            Kind::CTor => start_c_tor(self.name(), site),
            Kind::Classic { daemons } => start_classic(self.name(), site, *daemons),
        }
    }
}

/// A running one.
#[derive(Debug)]
pub struct Subject {
    /// What tables call it.
    pub name: String,
    /// Its address, with `.onion`.
    pub onion: String,
    /// Its processes.
    pub tree: Tree,
    /// From its start to its own word that it is ready, where it has one.
    pub ready: Option<Duration>,
    /// Ends with this.
    child: Option<Child>,
    /// How to start it again.
    again: Again,
}

/// How a subject is started again with the same key.
#[derive(Clone, Debug)]
enum Again {
    /// RustBalance, with this configuration and driver.
    RustBalance(PathBuf, &'static str),
    /// A C tor onion service.
    CTor(OnionService),
    /// It is more than one program.
    No,
}

impl Subject {
    /// End it at once, as a crash would, and start it again.
    ///
    /// # Errors
    /// When it does not start, or consists of several programs.
    pub fn restart(&mut self, site: &Site) -> Result<()> {
        match self.again.clone() {
            Again::RustBalance(config, io) => {
                self.stop();
                *self = run_rustbalance(self.name.clone(), site, &config, io)?;
            }
            Again::CTor(service) => {
                let service = site.lab.restart_onion_service(&service)?;
                self.tree.roots = vec![service.pid];
                self.again = Again::CTor(service);
            }
            Again::No => bail!("{} cannot be restarted as one", self.name),
        }
        Ok(())
    }

    /// What it does inside, where it can be asked: RustBalance says, C tor does not.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn inside(&self, site: &Site) -> Result<Option<Inside>> {
        match (&self.again, &self.child) {
            (Again::RustBalance(config, _), Some(child)) => {
                Inside::look(&site.rustbalance, config, child.id()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// End its processes now.
    pub fn stop(&mut self) {
        for root in self.tree.roots.drain(..) {
            if self.child.as_ref().is_some_and(|child| child.id() == root) {
                continue;
            }
            let pid = i32::try_from(root).map(nix::unistd::Pid::from_raw);
            if let Ok(pid) = pid {
                // The lab's keeper started it and reaps it.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Start RustBalance with a new key in a new directory, and wait until it says that it is ready.
fn start_rustbalance(
    name: String,
    site: &Site,
    (instances, stacks): (usize, usize),
    vanguards: &str,
    io: &'static str,
) -> Result<Subject> {
    let dir = new_directory(site, "rustbalance")?;
    let config = dir.join("rustbalance.toml");
    let text = format!(
        "state_dir = \"{}\"\n{}[turbo]\ninstances = {instances}\nstacks = {stacks}\n\
         [arti.vanguards]\nmode = \"{vanguards}\"\n{}",
        dir.join("state").display(),
        service(site),
        site.lab.arti_toml()
    );
    std::fs::write(&config, text)?;
    run_rustbalance(name, site, &config, io)
}

/// Run RustBalance with a configuration that is there.
///
/// # Errors
/// When it ends before it is ready; with its log.
fn run_rustbalance(name: String, site: &Site, config: &Path, io: &'static str) -> Result<Subject> {
    let log = config.with_extension("log");
    let program = site.rustbalance.to_str().context("the path is not UTF-8")?;
    let started = Instant::now();
    let mut child = site
        .lab
        .command(program)
        .args(["run", "--io", io, "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .spawn()
        .context("cannot run rustbalance")?;
    site.lab.keep(child.id())?;
    let stdout = child.stdout.take().context("it is piped")?;
    let tree = Tree { roots: vec![child.id()] };
    let again = Again::RustBalance(config.to_owned(), io);
    let mut subject =
        Subject { name, onion: String::new(), tree, ready: None, child: Some(child), again };
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some(address) = line.strip_prefix("onion ") {
            subject.onion = address.to_owned();
        }
        if line == "ready" {
            subject.ready = Some(started.elapsed());
            return Ok(subject);
        }
    }
    bail!("{} ended: {}", subject.name, std::fs::read_to_string(&log)?)
}

/// Start a C tor daemon with an onion service.
fn start_c_tor(name: String, site: &Site) -> Result<Subject> {
    let service = site.lab.onion_service(&OnionServiceSpec {
        ports: site.targets().to_vec(),
        vanguards_lite: true,
        extra: String::new(),
    })?;
    let tree = Tree { roots: vec![service.pid] };
    let onion = service.hostname.clone();
    Ok(Subject { name, onion, tree, ready: None, child: None, again: Again::CTor(service) })
}

/// Start what people run today, as `rustbalance ctor generate` writes it.
fn start_classic(name: String, site: &Site, daemons: usize) -> Result<Subject> {
    let dir = new_directory(site, "classic")?;
    let (config, extra, stack) = (dir.join("service.toml"), dir.join("extra"), dir.join("stack"));
    let state_dir = dir.join("state");
    let service = format!("state_dir = {:?}\n{}", state_dir.display().to_string(), service(site));
    std::fs::write(&config, service)?;
    std::fs::write(&extra, site.lab.torrc_lines())?;
    let program = site.rustbalance.to_str().context("the path is not UTF-8")?;
    let made = site
        .lab
        .command(program)
        .args(["ctor", "generate", "--instances", &daemons.to_string(), "--config"])
        .args([&config, Path::new("--torrc-extra"), &extra, &stack])
        .output()?;
    if !made.status.success() {
        bail!("ctor generate: {}", String::from_utf8_lossy(&made.stderr));
    }
    let hostname = String::from_utf8(made.stdout)?.trim().to_owned();
    let haproxy = site.lab.haproxy(&std::fs::read_to_string(stack.join("haproxy.cfg"))?)?;
    let mut roots = vec![haproxy.pid];
    let cpus = std::thread::available_parallelism()?.get();
    for daemon in 0..daemons {
        let torrc = stack.join(format!("torrc.{}", daemon + 1));
        roots.push(site.lab.tor(&torrc, daemon % cpus)?);
    }
    // Its tor is a client of the lab's, and it is told that this is a test network: its own pace
    // is that of periods of a day, and the lab's are minutes.
    let tor = site.lab.client_with("onionbalance", "")?;
    let frontend = Frontend {
        hostname,
        config: stack.join("onionbalance/config.yaml"),
        status_socket: stack.join("run/onionbalance.sock"),
    };
    let balance = site.lab.start_onionbalance(&frontend, &tor, "warning")?;
    roots.extend([balance.pid, balance.tor.pid()]);
    let (tree, again) = (Tree { roots }, Again::No);
    Ok(Subject { name, onion: balance.hostname, tree, ready: None, child: None, again })
}

/// A directory for a subject's files, for us alone.
fn new_directory(site: &Site, what: &str) -> Result<PathBuf> {
    let dir = site.lab.dir().join(format!("{what}-{}", free_port()?));
    std::fs::create_dir_all(&dir)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
    Ok(dir)
}

/// The service, in the words of rustbalance's configuration.
fn service(site: &Site) -> String {
    let port = |(port, target): &(u16, String)| {
        format!("[[service.port]]\nvirtual = {port}\nbackends = [\"{target}\"]\n")
    };
    let ports: String = site.targets().iter().map(port).collect();
    format!("[[service]]\nname = \"main\"\n{ports}")
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn names_say_what_differs() {
        assert_eq!(Kind::rustbalance(1).name(), "RustBalance, 1 instance");
        let full = Kind::RustBalance { instances: 2, stacks: 2, vanguards: "full", io: "auto" };
        assert_eq!(full.name(), "RustBalance, 2 instances, 2 stacks, vanguards full");
        assert_eq!(Kind::Classic { daemons: 2 }.name(), "2 C tor + OnionBalance + HAProxy");
    }
}
