//! The real binary, run in a directory of its own where there is no network: arti's only way in is
//! a closed port of loopback.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustbalance_lab::wait_until;

/// `[arti]` tables with which nothing leaves this machine, and nothing is found on it.
pub const NO_NETWORK: &str = "\
[arti.tor_network]
fallback_caches = [ { rsa_identity = \"23061d3f4c1a7b8f23061d3f4c1a7b8f23061d3f\", \
ed_identity = \"iwpE9XjMO1n2S8Uz9sQm2nsbGgSN0SCQWzRQ8fWl3W8\", orports = [\"127.0.0.1:1\"] } ]
[arti.tor_network.authorities]
v3idents = [\"23061d3f4c1a7b8f23061d3f4c1a7b8f23061d3f\"]
";

/// Longest that a command may take which does not serve.
const COMMAND_SECONDS_MAX: u64 = 60;

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A directory that only we can use, with a configuration in it.
pub struct Place {
    /// Goes away with this.
    dir: tempfile::TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Place {
        let mode = std::fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().permissions(mode).tempdir();
        Place { dir: dir.expect("a temporary directory can be made") }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Write the configuration.
    pub fn configure(&self, text: &str) -> PathBuf {
        let file = self.path("rustbalance.toml");
        std::fs::write(&file, text).expect("the directory is writable");
        file
    }

    /// The binary, ready to start here.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rustbalance"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("RUSTBALANCE_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Run the binary to its end; one that does not end is killed, and the test fails.
    pub fn rustbalance(&self, arguments: &[&str]) -> Answer {
        let mut command = self.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let ended = wait_until("the command ends", COMMAND_SECONDS_MAX, || {
            child.try_wait().expect("it is our child")
        });
        if ended.is_err() {
            let _ = child.kill();
        }
        let Output { status, stdout, stderr } = child.wait_with_output().expect("it is our child");
        let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
        let (out, err) = (text(stdout), text(stderr));
        assert!(ended.is_ok(), "{arguments:?} does not end:\n{out}{err}");
        let code = status.code().unwrap_or_else(|| panic!("{arguments:?}: {status}\n{err}"));
        Answer { code, out, err }
    }
}
