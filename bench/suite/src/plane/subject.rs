//! The programs that are compared: each listens on one port for a backend that answers, and on
//! another for one that is silent, and runs on one CPU.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use rustbalance_lab::free_port;

use super::load::{Backend, LOAD_CPU, allow_pairs, wait_for};
use crate::cost::Tree;
use crate::site::Site;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RustBalance with this driver.
    RustBalance(&'static str),
    /// HAProxy in its TCP mode, with or without splice.
    Haproxy {
        /// `option splice-request` and `option splice-response`
        splice: bool,
    },
    /// nginx's stream module.
    Nginx,
}

impl Kind {
    /// What tables call it.
    pub fn name(self) -> String {
        match self {
            Kind::RustBalance(io) => format!("RustBalance, {io}"),
            Kind::Haproxy { splice: true } => "HAProxy, splice".to_owned(),
            Kind::Haproxy { splice: false } => "HAProxy, copies".to_owned(),
            Kind::Nginx => "nginx stream".to_owned(),
        }
    }
}

/// A running one.
#[derive(Debug)]
pub struct Subject {
    /// What it is.
    pub kind: Kind,
    /// What tables call it.
    pub name: String,
    /// Leads to the backend that answers.
    pub to: SocketAddr,
    /// Leads to the silent backend.
    pub to_silent: SocketAddr,
    /// Its process.
    pub tree: Tree,
    /// Ends with this.
    child: Child,
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Subject {
    /// Start it in a new directory and wait until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(kind: Kind, site: &Site, backends: [&[&Backend]; 2]) -> Result<Subject> {
        let port = || free_port().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let ports = [port()?, port()?];
        let dir = site.lab.dir().join(format!("plane-{}", ports[0].port()));
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
        let addresses = |of: &[&Backend]| of.iter().map(|one| one.address).collect();
        let pairs = [(ports[0], addresses(backends[0])), (ports[1], addresses(backends[1]))];
        let mut command = match kind {
            Kind::RustBalance(io) => rustbalance(&dir, site, io, pairs)?,
            Kind::Haproxy { splice } => haproxy(&dir, splice, pairs)?,
            Kind::Nginx => nginx(&dir, pairs)?,
        };
        let log = std::fs::File::create(dir.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run {}", kind.name()))?;
        site.lab.keep(child.id())?;
        let tree = Tree { roots: vec![child.id()] };
        let [to, to_silent] = ports;
        let subject = Subject { kind, name: kind.name(), to, to_silent, tree, child };
        let said = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        wait_for(to).with_context(|| format!("{}: {}", kind.name(), said()))?;
        wait_for(to_silent)?;
        Ok(subject)
    }
}

/// Where a subject listens, and the backends behind it: one, or two that it balances.
type Pair = (SocketAddr, Vec<SocketAddr>);

/// A program on the CPU that is the subject's.
fn on_own_cpu(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("--cpu-list").arg((LOAD_CPU + 1).to_string()).arg(program);
    command
}

/// A file in the directory.
fn file(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

/// RustBalance: one data core. Its Tor side finds the lab's network, and is not asked for anything.
fn rustbalance(dir: &Path, site: &Site, io: &str, pairs: [Pair; 2]) -> Result<Command> {
    let mut text = format!("state_dir = \"{}\"\n[[service]]\n", dir.join("state").display());
    for (port, (_, backends)) in (80..).zip(&pairs) {
        let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
        text += &format!("[[service.port]]\nvirtual = {port}\nbackends = {backends:?}\n");
    }
    for (port, (listen, _)) in (80..).zip(&pairs) {
        text += &format!("[[listen]]\naddress = \"{listen}\"\nvirtual = {port}\n");
    }
    text += "[turbo]\ninstances = 1\n";
    text += &site.lab.arti_toml();
    let config = file(dir, "rustbalance.toml", &text)?;
    let mut command = on_own_cpu(&site.rustbalance);
    command.args(["run", "--io", io, "--config"]).arg(config);
    Ok(command)
}

/// HAProxy: one thread.
fn haproxy(dir: &Path, splice: bool, pairs: [Pair; 2]) -> Result<Command> {
    // Not `splice-auto`, which decides against it here.
    let splice = if splice { "  option splice-request\n  option splice-response\n" } else { "" };
    // It refuses to start where these, and its pipes, need more descriptors than there are.
    let most = allow_pairs() + 20;
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn {most}\n  maxpipes 20\n\
         defaults\n  mode tcp\n  maxconn {most}\n\
         {splice}  retries 3\n  option redispatch 1\n  timeout connect 5s\n  \
         timeout client 1h\n  timeout server 1h\n"
    );
    for (at, (listen, backends)) in pairs.into_iter().enumerate() {
        text += &format!("listen l{at}\n  bind {listen} backlog 4096\n");
        // Checks only where there is a choice: they cost as well.
        let check = if backends.len() > 1 { " check inter 1s" } else { "" };
        for (number, backend) in backends.into_iter().enumerate() {
            text += &format!("  server s{number} {backend}{check}\n");
        }
    }
    let config = file(dir, "haproxy.cfg", &text)?;
    let mut command = on_own_cpu(Path::new("haproxy"));
    command.arg("-db").arg("-f").arg(config);
    Ok(command)
}

/// nginx: one worker, its buffers as large as ours.
fn nginx(dir: &Path, pairs: [Pair; 2]) -> Result<Command> {
    let mut servers = String::new();
    for (at, (listen, backends)) in pairs.into_iter().enumerate() {
        let backends: String =
            backends.iter().map(|backend| format!("server {backend}; ")).collect();
        servers += &format!(
            "  upstream u{at} {{ {backends}}}\n  server {{ listen {listen} backlog=4096; \
             proxy_pass u{at}; proxy_timeout 1h; }}\n"
        );
    }
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\n\
         master_process off;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections {most}; }}\n\
         stream {{\n  proxy_buffer_size 32k;\n{servers}}}\n",
        dir = dir.display(),
        most = 2 * allow_pairs() + 100,
    );
    let config = file(dir, "nginx.conf", &text)?;
    let mut command = on_own_cpu(Path::new("nginx"));
    command.arg("-e").arg(dir.join("error.log")).arg("-c").arg(config);
    Ok(command)
}
