//! The other programs of the field: nginx behind, HAProxy between, OnionBalance in front.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::client::fresh_user;
use crate::control::ControlAddress;
use crate::wait::{last_lines, require, wait_until};
use crate::{Client, Lab, OnionService, OnionServiceSpec, free_port};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its unix socket, which serves the same.
    pub socket: PathBuf,
    /// Its process.
    pub pid: u32,
}

/// A running HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    /// Its process.
    pub pid: u32,
}

/// A running OnionBalance.
#[derive(Debug)]
pub struct OnionBalance {
    /// The address that it publishes, with `.onion`.
    pub hostname: String,
    /// Its process.
    pub pid: u32,
    /// The tor that it publishes through.
    pub tor: Client,
    /// What it says.
    log: PathBuf,
}

impl Lab {
    /// Start an nginx that serves the files below `root`, on a free port and on a unix socket.
    ///
    /// # Errors
    /// When it does not start.
    pub fn nginx(&self, root: &Path) -> Result<Nginx> {
        require(&["nginx"])?;
        let root = std::fs::canonicalize(root)
            .with_context(|| format!("cannot serve {}", root.display()))?;
        let dir = self.new_directory("nginx")?;
        let (log, socket) = (dir.join("error.log"), dir.join("nginx.sock"));
        // The port was free a moment ago; should somebody be faster, another one will do.
        let mut turns = 0;
        loop {
            turns += 1;
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
            let path = dir.join("nginx.conf");
            std::fs::write(&path, nginx_conf(&dir, &root, address, &socket))?;
            let _ = std::fs::remove_file(&socket);
            let mut command = self.command("nginx");
            command.arg("-e").arg(&log).arg("-c").arg(&path);
            let mut child =
                self.keeper().spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
            // nginx writes it when it listens on everything.
            let pid_file = dir.join("nginx.pid");
            let listens = wait_until("nginx listens", 15, || {
                if child.try_wait().ok().flatten().is_some() {
                    return Some(false);
                }
                pid_file.exists().then_some(true)
            })
            .with_context(|| last_lines(&log, 5))?;
            if listens {
                return Ok(Nginx { address, socket, pid: child.id() });
            }
            if turns == 3 {
                bail!("nginx ended:\n{}", last_lines(&log, 5));
            }
        }
    }

    /// Start a HAProxy with this configuration.
    ///
    /// # Errors
    /// When it refuses the configuration.
    pub fn haproxy(&self, config: &str) -> Result<Haproxy> {
        require(&["haproxy"])?;
        let dir = self.new_directory("haproxy")?;
        let path = dir.join("haproxy.cfg");
        std::fs::write(&path, config)?;
        let check = self.command("haproxy").arg("-c").arg("-f").arg(&path).output()?;
        if !check.status.success() {
            bail!("haproxy: {}", String::from_utf8_lossy(&check.stderr));
        }
        let mut command = self.command("haproxy");
        command.arg("-db").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.keeper().spawn(&mut command)?;
        Ok(Haproxy { pid: child.id() })
    }

    /// Start Debian's OnionBalance over `instances` new C tor onion services, each of which leads
    /// to `target`. It is reachable some 30 s later.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn onionbalance(
        &self,
        instances: usize,
        virtual_port: u16,
        target: &str,
    ) -> Result<(OnionBalance, Vec<OnionService>)> {
        require(&["onionbalance", "onionbalance-config"])?;
        if self.has_namespaces() {
            bail!("OnionBalance needs a lab without namespaces");
        }
        let config_dir = self.new_directory("onionbalance")?.join("config");
        let key = onionbalance_key(self, &config_dir)?;
        let hostname = key.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let hostname = format!("{}.onion", hostname.trim_end_matches(".onion"));
        let spec = OnionServiceSpec {
            virtual_port,
            target: target.to_owned(),
            ..OnionServiceSpec::default()
        };
        let services: Vec<OnionService> = (0..instances)
            .map(|_| self.onion_service_of(&spec, Some(&hostname)))
            .collect::<Result<_>>()?;
        let list: String =
            services.iter().map(|one| format!("  - address: {}\n", one.hostname)).collect();
        let yaml = format!("services:\n- key: {}\n  instances:\n{list}", key.display());
        let config = config_dir.join("config.yaml");
        std::fs::write(&config, yaml)?;
        let tor = self.client_with("onionbalance", "")?;
        let ControlAddress::Tcp(control) = tor.control_address() else {
            bail!("OnionBalance needs a control port on loopback");
        };
        let mut command = self.command("onionbalance");
        command
            .args(["--is-testnet", "-i", "127.0.0.1", "-p", &control.port().to_string(), "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(config_dir.join("log"))?);
        let child = self.keeper().spawn(&mut command)?;
        let log = config_dir.join("log");
        Ok((OnionBalance { hostname, pid: child.id(), tor, log }, services))
    }
}

impl OnionBalance {
    /// Wait until `client` gets any answer through it.
    ///
    /// # Errors
    /// When it does not within three minutes.
    pub fn wait_reachable(&self, client: &Client, port: u16) -> Result<()> {
        wait_until("OnionBalance's address answers", 180, || {
            client.fetch(&self.hostname, port, "/", &fresh_user()).ok().map(|_| ())
        })
        .with_context(|| last_lines(&self.log, 8))
    }
}

/// The configuration of an nginx that serves `root` in `dir`.
fn nginx_conf(dir: &Path, root: &Path, address: SocketAddr, socket: &Path) -> String {
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\nuser root;\n\
         pid {dir}/nginx.pid;\nerror_log {dir}/error.log warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  client_max_body_size 0;\n\
         client_body_temp_path {dir}/body;\n  proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi;\n  uwsgi_temp_path {dir}/uwsgi;\n\
         scgi_temp_path {dir}/scgi;\n\
         server {{\n    listen {address};\n    listen unix:{socket};\n    root {root};\n\
         }}\n}}\n",
        dir = dir.display(),
        socket = socket.display(),
        root = root.display(),
    )
}

/// Have OnionBalance make a configuration in `config_dir`; the key in it.
fn onionbalance_key(lab: &Lab, config_dir: &Path) -> Result<PathBuf> {
    let generated = lab
        .command("onionbalance-config")
        .args(["--hs-version", "v3", "--no-interactive", "-n", "1", "--output"])
        .arg(config_dir)
        .output()
        .context("cannot run onionbalance-config")?;
    std::fs::read_dir(config_dir)
        .with_context(|| String::from_utf8_lossy(&generated.stderr).into_owned())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "key"))
        .context("onionbalance-config made no key")
}
