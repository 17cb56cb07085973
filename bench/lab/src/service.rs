//! A C tor onion service: the peer that RustBalance is measured against.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::client::fresh_user;
use crate::node::{self, Side};
use crate::wait::wait_until;
use crate::{Client, Lab, free_port};

/// What a C tor onion service is made with.
#[derive(Clone, Debug)]
pub struct OnionServiceSpec {
    /// The port that clients ask for.
    pub virtual_port: u16,
    /// Where its streams go: `127.0.0.1:8080` or `unix:/path`.
    pub target: String,
    /// `false` switches vanguards lite off.
    pub vanguards_lite: bool,
    /// Further lines for the torrc, below `HiddenServiceDir`.
    pub extra: String,
}

/// A running C tor onion service.
#[derive(Debug)]
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
        let dir = self.dir().join(self.unique("service"));
        let hs_dir = dir.join("hs");
        node::make_directory(&dir)?;
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
        torrc.push_str(&format!(
            "HiddenServiceDir {}\nHiddenServicePort {} {}\n{}\n{}",
            hs_dir.display(),
            spec.virtual_port,
            spec.target,
            spec.extra,
            self.record().dir_authorities
        ));
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
