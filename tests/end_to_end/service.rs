//! A RustBalance process beside a lab: its configuration, its start, its status, its end.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use rustbalance_lab::{Lab, Log, wait_until};
use serde_json::Value;

/// What a service is started with.
#[derive(Clone, Debug)]
pub struct Spec {
    /// In-process instances.
    pub instances: u16,
    /// Backends of virtual port 80; none for the built-in page.
    pub backends: Vec<String>,
    /// arti's vanguard mode; `None` leaves RustBalance's default.
    pub vanguards: Option<&'static str>,
    /// Further lines in the `[[service]]` table.
    pub service_lines: String,
    /// Further lines in the `[[service.port]]` table.
    pub port_lines: String,
    /// Further lines in the `[turbo]` table.
    pub turbo_lines: String,
    /// Further lines at the top of the file.
    pub top_lines: String,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            instances: 2,
            backends: Vec::new(),
            vanguards: Some("lite"),
            service_lines: String::new(),
            port_lines: String::new(),
            turbo_lines: String::new(),
            top_lines: String::new(),
        }
    }
}

/// A running RustBalance. Ended with SIGKILL when dropped.
pub struct Service {
    /// Its files; `None` once they were taken for another one.
    dir: Option<tempfile::TempDir>,
    /// Its process.
    child: Child,
    /// Its address, with `.onion`.
    pub onion: String,
    /// What it wrote to standard output and standard error so far.
    log: Log,
    /// When it was started.
    started: Instant,
    /// From the start of the process to `ready`.
    pub ready_after: Duration,
}

/// What is tested.
const BINARY: &str = env!("CARGO_BIN_EXE_rustbalance");
/// Longest wait for `ready`.
const READY_SECONDS_MAX: u64 = 90;

impl Service {
    /// Start one and wait until it is ready.
    pub fn start(lab: &Lab, spec: &Spec) -> Service {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Service::start_in(lab, spec, dir)
    }

    /// Start one on the files of an earlier one.
    pub fn start_in(lab: &Lab, spec: &Spec, dir: tempfile::TempDir) -> Service {
        Service::start_in_with_environment(lab, spec, dir, &[])
    }

    /// Start one whose clock is off, in faketime(1)'s words (`+10m`); it may never be ready.
    pub fn start_with_clock(lab: &Lab, spec: &Spec, off: &str) -> Service {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        // Not by the program faketime, which stays between us and the process that we end. The
        // dynamic linker puts the architecture's directory in place of `$LIB`.
        let preload = "/usr/$LIB/faketime/libfaketime.so.1";
        let clock = [("LD_PRELOAD", preload), ("FAKETIME", off), ("FAKETIME_DISABLE_SHM", "1")];
        Service::launch(lab, spec, dir, &clock)
    }

    /// Start one in which something will fail (see `app::fault`), and wait until it is ready.
    pub fn start_with_fault(lab: &Lab, spec: &Spec, fault: &str) -> Service {
        Service::start_with_environment(lab, spec, &[("RUSTBALANCE_FAULT", fault)])
    }

    /// Start one with more in its environment, and wait until it is ready.
    pub fn start_with_environment(lab: &Lab, spec: &Spec, environment: &[(&str, &str)]) -> Service {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Service::start_in_with_environment(lab, spec, dir, environment)
    }

    /// Start one in a directory, with more in its environment, and wait until it is ready.
    pub fn start_in_with_environment(
        lab: &Lab,
        spec: &Spec,
        dir: tempfile::TempDir,
        environment: &[(&str, &str)],
    ) -> Service {
        let mut service = Service::launch(lab, spec, dir, environment);
        service.wait_until_ready();
        service
    }

    /// Start one as systemd does that has bound sockets for it, and wait until it is ready. systemd
    /// knows the process's number when it writes the environment; here a shell does.
    pub fn start_with_sockets(lab: &Lab, spec: &Spec, sockets: Vec<(OwnedFd, &str)>) -> Service {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = lab.command("sh");
        command
            .args(["-c", "export LISTEN_PID=$$; exec \"$@\"", "sh", BINARY])
            .env("LISTEN_FDS", sockets.len().to_string());
        let (fds, names): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        command.env("LISTEN_FDNAMES", names.join(":"));
        let mapping = |(child_fd, parent_fd)| FdMapping { parent_fd, child_fd };
        command.fd_mappings((3..).zip(fds).map(mapping).collect()).expect("each has its number");
        let mut service = Service::launch_by(command, lab, spec, dir);
        service.wait_until_ready();
        service
    }

    /// Start the process, with more in its environment.
    fn launch(
        lab: &Lab,
        spec: &Spec,
        dir: tempfile::TempDir,
        environment: &[(&str, &str)],
    ) -> Service {
        let mut command = lab.command(BINARY);
        command.envs(environment.iter().copied());
        Service::launch_by(command, lab, spec, dir)
    }

    /// Start the process that a command is; the arguments come to those that it has.
    fn launch_by(mut command: Command, lab: &Lab, spec: &Spec, dir: tempfile::TempDir) -> Service {
        let config = dir.path().join("rustbalance.toml");
        std::fs::write(&config, toml(lab, spec, dir.path())).expect("the directory is writable");
        // The same tests for each driver: `scripts/test --long` runs them with epoll as well.
        let io = std::env::var("RUSTBALANCE_TEST_IO").unwrap_or_else(|_| "auto".to_owned());
        let started = Instant::now();
        command.args(["run", "--io", &io, "--config"]).arg(&config);
        let (child, log) = lab.spawn_logged(&mut command).expect("the binary was built");
        let ready_after = Duration::ZERO;
        Service { dir: Some(dir), child, onion: String::new(), log, started, ready_after }
    }

    /// Wait until it is ready.
    fn wait_until_ready(&mut self) {
        wait_until("ready", READY_SECONDS_MAX, || {
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
            self.log().lines().any(|line| line == "ready").then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        self.ready_after = self.started.elapsed();
        let log = self.log();
        let onion = log.lines().find_map(|line| line.strip_prefix("onion "));
        self.onion = onion.expect("the address is printed before ready").to_owned();
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Write its configuration anew.
    pub fn configure(&self, lab: &Lab, spec: &Spec) {
        let dir = self.dir.as_ref().expect("its files are there").path();
        let written = std::fs::write(dir.join("rustbalance.toml"), toml(lab, spec, dir));
        written.expect("the directory is writable");
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its status document, once it answers.
    pub fn try_status(&self) -> Option<Value> {
        let socket = state_dir(self).join("admin.sock");
        serde_json::to_value(rustbalance::admin::client::status(&socket).ok()?).ok()
    }

    /// Its status document.
    pub fn status(&self) -> Value {
        let socket = state_dir(self).join("admin.sock");
        let status = rustbalance::admin::client::status(&socket).expect("it answers");
        serde_json::to_value(status).expect("a status is JSON")
    }

    /// The first (and only) service in the status.
    pub fn service_status(&self) -> Value {
        self.status()["services"][0].clone()
    }

    /// Its files, for another one.
    pub fn take_dir(&mut self) -> tempfile::TempDir {
        self.dir.take().expect("its files are there")
    }

    /// Send a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("pids are small"));
        nix::sys::signal::kill(pid, signal).expect("it runs");
    }

    /// Wait for its end.
    pub fn wait(&mut self, seconds: u64) -> ExitStatus {
        wait_until("the process ends", seconds, || self.child.try_wait().expect("our child"))
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `[ctor]` table of so many daemons on the lab's network, for the end of
/// [`Spec::port_lines`]. `root` has what lasts as long.
pub fn ctor_table(lab: &Lab, root: &Path, daemons: u16) -> String {
    let extra = root.join("extra");
    std::fs::write(&extra, lab.torrc_lines()).expect("the directory is writable");
    let extra = extra.display().to_string();
    format!("[ctor]\ninstances = {daemons}\nextra_torrc = {extra:?}\n")
}

/// The configuration file.
fn toml(lab: &Lab, spec: &Spec, dir: &Path) -> String {
    let target = match spec.backends.is_empty() {
        true => "hello = true".to_owned(),
        false => format!("backends = {:?}", spec.backends),
    };
    let vanguards = match spec.vanguards {
        Some(mode) => format!("[arti.vanguards]\nmode = \"{mode}\"\n"),
        None => String::new(),
    };
    format!(
        "state_dir = \"{}\"\n{}\n[[service]]\nname = \"main\"\n{}\n[[service.port]]\nvirtual = 80\n\
         {target}\n{}\n[turbo]\ninstances = {}\n{}\n{vanguards}{}",
        dir.join("state").display(),
        spec.top_lines,
        spec.service_lines,
        spec.port_lines,
        spec.instances,
        spec.turbo_lines,
        lab.arti_toml()
    )
}

/// The directory that a service keeps its state in.
pub fn state_dir(service: &Service) -> PathBuf {
    service.dir.as_ref().expect("its files are there").path().join("state")
}
