//! Where each part of a generated stack lies: all in one directory, or where Debian wants it.
//!
//! A path is what the parts call each other; for Debian it is written below the directory first
//! ([`Layout::written`]), and the operator copies it from there.

use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct Layout {
    /// The directory, absolute.
    pub root: PathBuf,
    /// Whether everything goes where Debian's packages look.
    pub debian: bool,
}

impl Layout {
    /// The name of a daemon, from 1, as Debian's `tor@NAME` has it: letters and digits alone.
    pub fn daemon(number: usize) -> String {
        format!("rustbalance{number}")
    }

    /// The name of a service's key file.
    pub fn key_name(service: &str) -> String {
        format!("{service}.key")
    }

    /// Where a path is written now.
    pub fn written(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/") {
            Ok(below) if self.debian && !path.starts_with(&self.root) => self.root.join(below),
            _ => path.to_owned(),
        }
    }

    /// One of two.
    fn choose(&self, here: String, debian: String) -> PathBuf {
        if self.debian { PathBuf::from(debian) } else { self.root.join(here) }
    }

    /// What tells the operator how it goes on.
    pub fn readme(&self) -> PathBuf {
        self.root.join("README.md")
    }

    /// A daemon's torrc.
    pub fn torrc(&self, number: usize) -> PathBuf {
        let name = Layout::daemon(number);
        self.choose(format!("torrc.{number}"), format!("/etc/tor/instances/{name}/torrc"))
    }

    /// A daemon's own files.
    pub fn data(&self, number: usize) -> PathBuf {
        let name = Layout::daemon(number);
        self.choose(format!("tor.{number}"), format!("/var/lib/tor-instances/{name}"))
    }

    /// A daemon's instance of a service.
    pub fn service(&self, number: usize, service: &str) -> PathBuf {
        self.data(number).join(service)
    }

    /// What systemd is told of a daemon, on Debian.
    pub fn drop_in(&self, number: usize) -> PathBuf {
        let name = Layout::daemon(number);
        PathBuf::from(format!("/etc/systemd/system/tor@{name}.service.d/rustbalance.conf"))
    }

    /// The directory of the sockets between daemons and HAProxy; Debian's is its package's.
    pub fn sockets(&self) -> PathBuf {
        self.choose("run".to_owned(), "/run/haproxy".to_owned())
    }

    /// The socket at which HAProxy takes a daemon's streams to the ports from this one on.
    pub fn socket(&self, number: usize, service: &str, port: u16) -> PathBuf {
        self.sockets().join(format!("tor{number}-{service}-{port}.sock"))
    }

    /// HAProxy's configuration.
    pub fn haproxy(&self) -> PathBuf {
        self.choose("haproxy.cfg".to_owned(), "/etc/haproxy/haproxy.cfg".to_owned())
    }

    /// OnionBalance's configuration.
    pub fn onionbalance(&self) -> PathBuf {
        let name = "onionbalance/config.yaml";
        self.choose(name.to_owned(), format!("/etc/{name}"))
    }

    /// Where OnionBalance tells how it is.
    pub fn onionbalance_status(&self) -> PathBuf {
        self.root.join("run/onionbalance.sock")
    }

    /// A service's master key, beside OnionBalance's configuration.
    pub fn key(&self, service: &str) -> PathBuf {
        self.onionbalance().with_file_name(Layout::key_name(service))
    }

    /// The torrc of the tor that OnionBalance works through; on Debian it is `tor@default`.
    pub fn publisher_torrc(&self) -> PathBuf {
        self.root.join("torrc.publisher")
    }

    /// Its own files.
    pub fn publisher_data(&self) -> PathBuf {
        self.root.join("tor.publisher")
    }

    /// Its control port.
    pub fn publisher_control(&self) -> PathBuf {
        self.publisher_data().join("control")
    }
}
