//! A C tor onion service: the peer that RustBalance is measured against.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::client::fresh_user;
use crate::measure::has_ended;
use crate::node::{self, Side};
use crate::wait::wait_until;
use crate::{Client, Lab, free_port};

/// What a C tor onion service is made with.
#[derive(Clone, Debug)]
pub struct OnionServiceSpec {
    /// The ports that clients ask for, each with where its streams go: `127.0.0.1:8080` or
    /// `unix:/path`.
    pub ports: Vec<(u16, String)>,
    /// `false` switches vanguards lite off.
    pub vanguards_lite: bool,
    /// Further lines for the torrc, below `HiddenServiceDir`.
    pub extra: String,
}

impl OnionServiceSpec {
    /// An instance of a service that OnionBalance, or something in its place, publishes.
    pub fn instance(ports: Vec<(u16, String)>) -> OnionServiceSpec {
        let extra = "HiddenServiceOnionBalanceInstance 1".to_owned();
        OnionServiceSpec { ports, vanguards_lite: true, extra }
    }
}

/// A running C tor onion service.
#[derive(Clone, Debug)]
pub struct OnionService {
    /// Its address, with `.onion`.
    pub hostname: String,
    /// Its process.
    pub pid: u32,
    /// Its key and hostname.
    pub hs_dir: PathBuf,
    /// Its control port, on 127.0.0.1.
    pub control_port: u16,
}

impl Lab {
    /// Start a C tor onion service. It is reachable some 30 s later.
    ///
    /// # Errors
    /// When it does not start.
    pub fn onion_service(&self, spec: &OnionServiceSpec) -> Result<OnionService> {
        let dir = self.new_directory("service")?;
        let hs_dir = dir.join("hs");
        node::make_directory(&hs_dir)?;
        let control_port = free_port()?;
        let mut torrc = format!(
            "SocksPort 0\nControlPort 127.0.0.1:{control_port}\nVanguardsLiteEnabled {}\n",
            u8::from(spec.vanguards_lite)
        );
        if let Some(namespaces) = &self.record().namespaces {
            let address = namespaces.add_service_address()?;
            torrc.push_str(&format!("OutboundBindAddress {address}\n"));
        }
        torrc.push_str(&format!("HiddenServiceDir {}\n", hs_dir.display()));
        for (virtual_port, target) in &spec.ports {
            torrc.push_str(&format!("HiddenServicePort {virtual_port} {target}\n"));
        }
        torrc.push_str(&format!("{}\n{}", spec.extra, self.record().dir_authorities));
        node::write_torrc(&dir, &torrc)?;
        let namespaces = self.record().namespaces.as_ref();
        let mut child = node::start(self.keeper(), namespaces, Side::Services, &dir)?;
        node::wait_for_log(&dir, &mut child, "Bootstrapped 100%", 90)?;
        let hostname = std::fs::read_to_string(hs_dir.join("hostname"))
            .context("the service has no hostname")?;
        let hostname = hostname.trim().to_owned();
        Ok(OnionService { hostname, pid: child.id(), hs_dir, control_port })
    }
}

impl Lab {
    /// End a service's tor at once and start it again, with the torrc and the key that lie there,
    /// but on another control port.
    ///
    /// # Errors
    /// When it does not end or not start.
    pub fn restart_onion_service(&self, service: &OnionService) -> Result<OnionService> {
        let dir = service.hs_dir.parent().context("a service has a directory")?.to_owned();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(service.pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        wait_until("the service ends", 10, || has_ended(pid).then_some(()))?;
        // The kernel may not have taken the old control port back yet, or have lent it to
        // somebody's connection since.
        let control_port = free_port()?;
        let line = |port: u16| format!("ControlPort 127.0.0.1:{port}\n");
        let torrc = std::fs::read_to_string(dir.join("torrc"))?;
        let torrc = torrc.replace(&line(service.control_port), &line(control_port));
        std::fs::write(dir.join("torrc"), torrc)?;
        // Or the first run's word that it is ready would be taken for this one's.
        let log = node::log(&dir);
        std::fs::rename(&log, log.with_extension("earlier.log"))?;
        let namespaces = self.record().namespaces.as_ref();
        let mut child = node::start(self.keeper(), namespaces, Side::Services, &dir)?;
        node::wait_for_log(&dir, &mut child, "Bootstrapped 100%", 90)?;
        Ok(OnionService { pid: child.id(), control_port, ..service.clone() })
    }
}

impl OnionService {
    /// Wait until `client` gets any answer from it.
    ///
    /// # Errors
    /// When it does not within three minutes.
    pub fn wait_reachable(&self, client: &Client, port: u16) -> Result<()> {
        wait_until("the onion service answers", 180, || {
            client.fetch(&self.hostname, port, "/", &fresh_user()).ok().map(|_| ())
        })
    }
}
