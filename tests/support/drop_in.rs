//! A RustBalance in OnionBalance's place beside a lab: started with OnionBalance's file alone,
//! asked for its status in both forms.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustbalance_lab::{Frontend, Lab, Log};
use serde_json::Value;

/// See the module. Ended with SIGKILL when dropped.
pub struct DropIn {
    /// Its process.
    child: Child,
    /// Its state directory.
    state: PathBuf,
    /// What it wrote so far.
    log: Log,
}

impl DropIn {
    /// Start it with OnionBalance's file; only the private network is not in there.
    pub fn start(lab: &Lab, frontend: &Frontend, dir: &Path) -> DropIn {
        let state = dir.join("state");
        let base = dir.join("base.toml");
        let text = format!(
            "state_dir = \"{}\"\n[arti.vanguards]\nmode = \"lite\"\n{}",
            state.display(),
            lab.arti_toml()
        );
        std::fs::write(&base, text).expect("the directory is writable");
        let mut command = lab.command(env!("CARGO_BIN_EXE_rustbalance"));
        command
            .args(["run", "--onionbalance"])
            .arg(&frontend.config)
            .arg("--config")
            .arg(&base)
            .env("ONIONBALANCE_TOR_CONTROL_SOCKET", "/run/tor/control");
        let (child, log) = lab.spawn_logged(&mut command).expect("the binary was built");
        DropIn { child, state, log }
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Where its own status can be asked.
    pub fn admin_socket(&self) -> PathBuf {
        self.state.join("admin.sock")
    }

    /// Its status, once it answers.
    pub fn status(&self) -> Option<Value> {
        serde_json::to_value(rustbalance::admin::client::status(&self.admin_socket()).ok()?).ok()
    }

    /// Send a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("pids are small"));
        kill(pid, signal).expect("it runs");
    }
}

impl Drop for DropIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program, ours or OnionBalance, tells on its status socket; `None` while nobody does.
pub fn told(socket: &Path) -> Option<Value> {
    let mut text = String::new();
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}
