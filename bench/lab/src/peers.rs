//! The other programs of the field: nginx behind, HAProxy between, OnionBalance in front.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::measure::has_ended;
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

/// An address that OnionBalance publishes, or somebody in its place.
#[derive(Clone, Debug)]
pub struct Frontend {
    /// The address, with `.onion`.
    pub hostname: String,
    /// OnionBalance's `config.yaml`, which names the key beside it and all instances.
    pub config: PathBuf,
    /// Where OnionBalance tells its status.
    pub status_socket: PathBuf,
}

impl Frontend {
    /// Where OnionBalance writes its log.
    pub fn log(&self) -> PathBuf {
        self.config.with_file_name("log")
    }
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
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let socket = dir.join("nginx.sock");
        let text = format!(
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
        );
        let path = dir.join("nginx.conf");
        std::fs::write(&path, text)?;
        let mut command = self.command("nginx");
        command.arg("-e").arg(dir.join("error.log")).arg("-c").arg(&path);
        let child = self.keeper().spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let log = dir.join("error.log");
        wait_until("nginx listens", 15, || socket.exists().then_some(()))
            .with_context(|| last_lines(&log, 5))?;
        Ok(Nginx { address, socket, pid: child.id() })
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

    /// Run a tor with this torrc on a CPU, in the foreground whatever it says; its process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn tor(&self, torrc: &Path, cpu: usize) -> Result<u32> {
        // taskset becomes tor: it is one process.
        let mut command = self.command("taskset");
        command.args(["-c", &cpu.to_string(), "tor", "--quiet", "-f"]).arg(torrc);
        command.args(["--RunAsDaemon", "0"]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(self.keeper().spawn(&mut command)?.id())
    }

    /// Start Debian's OnionBalance over `instances` new C tor onion services, each of which leads
    /// to the targets of `ports` (see [`OnionServiceSpec`]). It is reachable some 30 s later.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn onionbalance(
        &self,
        instances: usize,
        ports: &[(u16, String)],
    ) -> Result<(OnionBalance, Vec<OnionService>)> {
        let (frontends, services) = self.balanced(1, instances, ports)?;
        let frontend = frontends.first().context("one frontend was made")?;
        let tor = self.client_with("onionbalance", "")?;
        Ok((self.start_onionbalance(frontend, &tor, "warning")?, services))
    }

    /// Make so many onion addresses with OnionBalance's configuration, which nobody publishes yet,
    /// and start as many C tor onion services as `instances` that answer for each of them.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn balanced(
        &self,
        frontends: usize,
        instances: usize,
        ports: &[(u16, String)],
    ) -> Result<(Vec<Frontend>, Vec<OnionService>)> {
        require(&["onionbalance"])?;
        let made: Vec<(PathBuf, String)> =
            (0..frontends).map(|_| self.frontend_key()).collect::<Result<_>>()?;
        let hostnames: Vec<&str> = made.iter().map(|(_, hostname)| hostname.as_str()).collect();
        let spec = OnionServiceSpec::instance(ports.to_vec());
        let services: Vec<OnionService> = (0..instances)
            .map(|_| self.service_balanced_by(&spec, &hostnames))
            .collect::<Result<_>>()?;
        let list: String =
            services.iter().map(|one| format!("  - address: {}\n", one.hostname)).collect();
        let frontend = |(key, hostname): &(PathBuf, String)| {
            let dir = key.parent().context("a key has a directory")?;
            let (config, status_socket) = (dir.join("config.yaml"), dir.join("status"));
            let yaml = format!(
                "services:\n- key: {}\n  instances:\n{list}status-socket-location: {}\n",
                key.file_name().context("a key has a name")?.to_string_lossy(),
                status_socket.display()
            );
            std::fs::write(&config, yaml)?;
            Ok(Frontend { hostname: hostname.clone(), config, status_socket })
        };
        Ok((made.iter().map(frontend).collect::<Result<_>>()?, services))
    }

    /// Start Debian's OnionBalance for a frontend, through `tor`. It logs what is worth `level`
    /// (`warning` is its default; `debug` tells its revision counters) to [`Frontend::log`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_onionbalance(
        &self,
        frontend: &Frontend,
        tor: &Client,
        level: &str,
    ) -> Result<OnionBalance> {
        let crate::control::ControlAddress::Tcp(control) = tor.control_address().clone() else {
            bail!("OnionBalance needs a lab without namespaces");
        };
        let log = std::fs::File::options().create(true).append(true).open(frontend.log())?;
        let mut command = self.command("onionbalance");
        command
            .args(["--is-testnet", "-i", "127.0.0.1", "-p", &control.port().to_string()])
            .args(["-v", level, "-c"])
            .arg(&frontend.config)
            .stdout(Stdio::null())
            .stderr(log);
        let child = self.keeper().spawn(&mut command)?;
        let hostname = frontend.hostname.clone();
        Ok(OnionBalance { hostname, pid: child.id(), tor: tor.clone() })
    }

    /// A key made by OnionBalance's own program, and its address.
    fn frontend_key(&self) -> Result<(PathBuf, String)> {
        let dir = self.new_directory("onionbalance")?;
        let generated = self
            .command("onionbalance-config")
            .args(["--hs-version", "v3", "--no-interactive", "-n", "1", "--output"])
            .arg(dir.join("config"))
            .output()
            .context("cannot run onionbalance-config")?;
        let key = std::fs::read_dir(dir.join("config"))
            .with_context(|| String::from_utf8_lossy(&generated.stderr).into_owned())?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "key"))
            .context("onionbalance-config made no key")?;
        let hostname = key.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let hostname = format!("{}.onion", hostname.trim_end_matches(".onion"));
        Ok((key, hostname))
    }

    /// A C tor onion service that answers for the frontend `hostname` as well, in OnionBalance's
    /// instance mode.
    ///
    /// # Errors
    /// When it does not start.
    pub fn balanced_service(
        &self,
        spec: &OnionServiceSpec,
        hostname: &str,
    ) -> Result<OnionService> {
        self.service_balanced_by(spec, &[hostname])
    }

    /// The same for several frontends.
    fn service_balanced_by(
        &self,
        spec: &OnionServiceSpec,
        hostnames: &[&str],
    ) -> Result<OnionService> {
        let service =
            self.onion_service(&OnionServiceSpec { extra: String::new(), ..spec.clone() })?;
        // tor reads ob_config when it builds a descriptor; the option itself needs a restart.
        let masters: String =
            hostnames.iter().map(|one| format!("MasterOnionAddress {one}\n")).collect();
        std::fs::write(service.hs_dir.join("ob_config"), masters)?;
        let dir = service.hs_dir.parent().context("a service has a directory")?.to_owned();
        let torrc = std::fs::read_to_string(dir.join("torrc"))?;
        let (virtual_port, target) = spec.ports.first().context("a service has a port")?;
        let line = format!("HiddenServicePort {virtual_port} {target}\n");
        std::fs::write(
            dir.join("torrc"),
            torrc.replace(&line, &format!("{line}{}\n", spec.extra)),
        )?;
        self.restart_onion_service(&service)
    }
}

impl OnionBalance {
    /// Stop it, as systemd does, and wait until it has ended. OnionBalance 0.2.2 sometimes does not
    /// end at SIGTERM; systemd kills it then, after 90 seconds.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid)?);
        let ends =
            |seconds| wait_until("OnionBalance ends", seconds, || has_ended(pid).then_some(()));
        kill(pid, Signal::SIGTERM)?;
        ends(20).or_else(|_| {
            kill(pid, Signal::SIGKILL)?;
            ends(20)
        })
    }
}
