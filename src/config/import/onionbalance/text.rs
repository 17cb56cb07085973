//! OnionBalance's configuration in our words, for people to read and to go on with.

use std::fmt::Write as _;

use super::{Frontend, InProcess, OnionBalance, Served, quoted, quoted_path};

/// What everybody should know who goes on with the file.
const HEAD: &str = "\
# Made from OnionBalance's configuration by `rustbalance import onionbalance`. What is different:
#
# * No tor beside it and no control port: RustBalance is its own Tor client. The instances stay as
#   they are (HiddenServiceOnionBalanceInstance 1, and ob_config with the address of the service).
# * OnionBalance looks for new introduction points every 10 minutes; RustBalance looks more often
#   where they change, and publishes a change at once.
# * OnionBalance takes 2 points of each instance and does not count them together, though C tor
#   clients refuse a descriptor with more than 20. RustBalance never publishes more than
#   intro_points_max.
";

/// Why there are no in-process instances.
const NO_INSTANCES: &str = "
[turbo]
# OnionBalance carries no clients itself, and neither does this. With \"auto\" for instances, and a
# [[service.port]] with backends in each service, this machine serves clients beside the others.
instances = 0
";

impl OnionBalance {
    /// The configuration that serves the same, as a file of ours; relative paths have become
    /// absolute.
    pub fn to_toml(&self, in_process: Option<&InProcess>) -> String {
        let mut out = HEAD.to_owned();
        self.write(in_process, &mut out).expect("a String takes everything");
        out
    }

    /// The file below its head.
    fn write(&self, in_process: Option<&InProcess>, out: &mut String) -> std::fmt::Result {
        for service in &self.services {
            write_service(service, in_process.map(|one| &one.target), out)?;
        }
        match in_process {
            None => out.push_str(NO_INSTANCES),
            Some(InProcess { instances: None, .. }) => {
                writeln!(out, "\n[turbo]\ninstances = \"auto\"")?;
            }
            Some(InProcess { instances: Some(number), .. }) => {
                writeln!(out, "\n[turbo]\ninstances = {number}")?;
            }
        }
        if let Some(socket) = &self.status_socket {
            writeln!(out, "\n[admin]")?;
            writeln!(out, "# status-socket-location: status as OnionBalance tells it, for what")?;
            writeln!(out, "# watches it today. `rustbalance status --json` tells more.")?;
            writeln!(out, "onionbalance_socket = {}", quoted_path(socket))?;
        }
        Ok(())
    }
}

/// `[[service]]`
fn write_service(
    service: &Frontend,
    target: Option<&Served>,
    out: &mut String,
) -> std::fmt::Result {
    writeln!(out, "\n[[service]]")?;
    writeln!(out, "name = {}  # in log, status and file names", quoted(&service.name))?;
    writeln!(out, "key = {}", quoted_path(&service.key))?;
    match target {
        Some(Served::Hello) => {
            writeln!(out, "\n[[service.port]]\nvirtual = 80\nhello = true")?;
        }
        Some(Served::Backends(backends)) => {
            let backends: Vec<String> =
                backends.iter().map(|backend| quoted(&backend.to_string())).collect();
            writeln!(out, "\n[[service.port]]\nvirtual = 80")?;
            writeln!(out, "backends = [{}]", backends.join(", "))?;
        }
        None => {}
    }
    for instance in &service.instances {
        writeln!(out, "\n[[service.remote]]")?;
        writeln!(out, "address = {}", quoted(&instance.address.to_string()))?;
        writeln!(out, "name = {}", quoted(&instance.name))?;
    }
    Ok(())
}
