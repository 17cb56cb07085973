//! `rustbalance run` where there is no network, watched from outside.

use std::fs::File;
use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::Signal;
use rustbalance_lab::wait_until;
use serde_json::Value;

use crate::program::Place;

/// Longest wait for anything; a start takes less than a second.
const SECONDS_MAX: u64 = 30;

/// `rustbalance run`, here; its output goes to the files `out` and `err`. Killed when dropped.
pub struct Process<'a> {
    /// Where it runs.
    pub place: &'a Place,
    /// The process.
    pub child: Child,
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Process<'a> {
    /// Start it, and wait until it answers on its socket.
    pub fn start(place: &'a Place) -> Process<'a> {
        Process::spawn(place, place.command(&["run", "--config", "rustbalance.toml"]))
    }

    /// See [`Process::start`]; with this command.
    pub fn spawn(place: &'a Place, mut command: Command) -> Process<'a> {
        let mut process = Process::begin(place, &mut command);
        process.wait_for("it answers", |process| process.status());
        process
    }

    /// Start it with this command, and wait for nothing.
    pub fn begin(place: &'a Place, command: &mut Command) -> Process<'a> {
        let file = |name: &str| File::create(place.path(name)).expect("the directory is writable");
        let child = command.stdout(file("out")).stderr(file("err")).spawn();
        Process { place, child: child.expect("the binary was built") }
    }

    /// Wait for a condition, while it runs.
    pub fn wait_for<T>(&mut self, what: &str, condition: impl Fn(&Process<'_>) -> Option<T>) -> T {
        let found = wait_until(what, SECONDS_MAX, || {
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.read("err"));
            condition(self)
        });
        found.unwrap_or_else(|error| panic!("{error}\n{}", self.read("err")))
    }

    /// What it wrote to `out` or `err`.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.path(name)).expect("it was made at the start")
    }

    /// Its status document, once it answers.
    pub fn status(&self) -> Option<Value> {
        let socket = self.place.path("state/admin.sock");
        let status = rustbalance::admin::client::status(&socket).ok()?;
        Some(serde_json::to_value(status).expect("a status is JSON"))
    }

    /// Send a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("pids are small");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Wait for its end.
    pub fn end(&mut self) -> ExitStatus {
        let ended =
            wait_until("it ends", SECONDS_MAX, || self.child.try_wait().expect("it is our child"));
        ended.unwrap_or_else(|error| panic!("{error}\n{}", self.read("err")))
    }
}
