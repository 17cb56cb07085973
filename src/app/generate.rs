//! The classic stack for one configuration: N C tor daemons, OnionBalance, HAProxy, each run by
//! whoever likes to (systemd, a person). Called by `rustbalance ctor generate`; starts nothing.
//!
//! ```text
//!   clients --> tor 1..N --unix socket, PROXY line--> HAProxy --> backends
//!                  '--own descriptors--> HSDirs --> OnionBalance, by a tor of its own --> HSDirs
//! ```
//!
//! The instances' keys are made here, so that OnionBalance's list of addresses is whole before any
//! daemon has run. Everything goes into one new directory, which nobody else can read; nothing that
//! exists is ever written over. Everything that can be refused is refused before the first file.

mod haproxy;
mod layout;
mod text;

#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use self::layout::Layout;
use super::launch::existing_keys;
use crate::config::{Config, Service};
use crate::ctor::{HiddenService, Torrc, TorrcError, torrc};
use crate::limits;
use crate::plane::config::OverLimit;
use crate::vault::{KeyError, MasterKey, file};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The directory to make; it may exist if it is empty.
    pub directory: PathBuf,
    /// Daemons; `None`: one for each CPU, and no more than [`limits::CTOR_DAEMONS_PROPOSED_MAX`].
    pub daemons: Option<u16>,
    /// The CPUs that there are, in order; at least one.
    pub cpus: Vec<usize>,
    /// For Debian's `tor-instance-create` and `tor@.service`.
    pub debian: bool,
    /// Lines for every torrc.
    pub extra: String,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The services' addresses, with `.onion`.
    pub onions: Vec<String>,
    /// Daemons.
    pub daemons: u16,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// The file that says how it goes on.
    pub readme: PathBuf,
}

/// Why nothing, or not all of it, was made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The configuration cannot be served by this stack: one sentence each.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// Something is in the directory.
    #[error(
        "{path} is not empty, and nothing that exists is written over; name a new directory",
        path = .path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Others can read or change what would be written.
    #[error(
        "{path} is open to others or belongs to another user, and keys would lie in it; name a \
         new directory",
        path = .path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// A path or a torrc that cannot be.
    #[error(transparent)]
    Torrc(#[from] TorrcError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system refuses.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// A file that is to be written.
struct Pending {
    /// Where.
    path: PathBuf,
    /// What; none of it is secret.
    text: String,
}

/// Everything but keys, which are made last.
struct Stack<'a> {
    /// Where everything lies.
    layout: Layout,
    /// The services.
    services: &'a [Service],
    /// The CPU of each daemon.
    cpus: Vec<usize>,
    /// Lines for every torrc.
    extra: &'a str,
}

/// Make the stack for `config`.
///
/// # Errors
/// [`GenerateError`]; nothing was written unless it is [`GenerateError::Io`] or a key's.
pub fn generate(config: &Config, request: &Request) -> Result<Report, GenerateError> {
    let cpus = daemon_cpus(request);
    let root = check_directory(&request.directory)?;
    let layout = Layout { root, debian: request.debian };
    let stack = Stack { layout, services: &config.services, cpus, extra: &request.extra };
    stack.check_sockets()?;
    let mut warnings = warnings(request, stack.cpus.len());
    let haproxy = haproxy::text(&stack, &mut warnings).map_err(GenerateError::Config)?;
    let mut pending = vec![Pending { path: stack.layout.haproxy(), text: haproxy }];
    for number in 1..=stack.cpus.len() {
        pending.push(Pending { path: stack.layout.torrc(number), text: stack.torrc(number)? });
        if request.debian {
            let text = text::drop_in(stack.cpus[number - 1]);
            pending.push(Pending { path: stack.layout.drop_in(number), text });
        }
    }
    if !request.debian {
        let text = stack.publisher_torrc()?;
        pending.push(Pending { path: stack.layout.publisher_torrc(), text });
    }
    let keys = existing_keys(config).map_err(GenerateError::Config)?;
    let masters: Vec<MasterKey> =
        keys.into_iter().map(|key| key.unwrap_or_else(MasterKey::generate)).collect();
    let instances: Vec<Vec<MasterKey>> = masters
        .iter()
        .map(|_| stack.cpus.iter().map(|_| MasterKey::generate()).collect())
        .collect();
    let (yaml, readme) = (stack.layout.onionbalance(), stack.layout.readme());
    pending.push(Pending { path: yaml, text: stack.onionbalance(&instances)? });
    pending.push(Pending { path: readme.clone(), text: text::readme(&stack, &masters) });

    make_directory(&stack.layout.root)?;
    for file in &pending {
        write(&stack.layout.written(&file.path), &file.text)?;
    }
    stack.write_keys(&masters, &instances)?;
    let onions = masters.iter().map(|master| master.onion_address().to_string()).collect();
    let daemons = u16::try_from(stack.cpus.len()).unwrap_or(u16::MAX);
    Ok(Report { onions, daemons, warnings, readme })
}

impl Stack<'_> {
    /// Whether HAProxy can listen where the daemons will look for it.
    fn check_sockets(&self) -> Result<(), TorrcError> {
        let last = self.cpus.len();
        self.services.iter().try_for_each(|service| {
            service.ports.iter().try_for_each(|port| {
                let socket = self.layout.socket(last, &service.name, port.virtual_first);
                torrc::check_socket(&socket, limits::HAPROXY_SOCKET_PATH_BYTES_MAX)
            })
        })
    }

    /// The torrc of one daemon.
    fn torrc(&self, number: usize) -> Result<String, TorrcError> {
        let services = self.services.iter().map(|service| HiddenService {
            directory: self.layout.service(number, &service.name),
            ports: service
                .ports
                .iter()
                .map(|port| torrc::HiddenPort {
                    first: port.virtual_first,
                    last: port.virtual_last,
                    socket: self.layout.socket(number, &service.name, port.virtual_first),
                })
                .collect(),
            intro_points: service.intro_points_per_instance,
            intro_dos: service.intro_dos.map(|dos| (dos.rate_per_second, dos.burst)),
            streams_max: service
                .circuit_limits
                .streams_max
                .map(|streams| (streams, service.circuit_limits.over == OverLimit::Close)),
        });
        let comment = vec![
            format!("Daemon {number} of {}, made by `rustbalance ctor generate`.", self.cpus.len()),
            "Its own onion addresses are known to OnionBalance alone; clients never see them."
                .to_owned(),
        ];
        let torrc = Torrc {
            comment,
            publish: true,
            services: services.collect(),
            extra: self.extra.to_owned(),
            ..self.daemon(&self.layout.data(number))
        };
        torrc.text()
    }

    /// The torrc of the tor that OnionBalance fetches and publishes through.
    fn publisher_torrc(&self) -> Result<String, TorrcError> {
        let data = self.layout.publisher_data();
        let torrc = Torrc {
            comment: vec!["OnionBalance fetches and publishes through this one.".to_owned()],
            control_socket: Some(self.layout.publisher_control()),
            publish: true,
            extra: self.extra.to_owned(),
            ..self.daemon(&data)
        };
        torrc.text()
    }

    /// What a daemon has that nothing but its torrc configures; Debian's defaults do the same.
    fn daemon(&self, data: &Path) -> Torrc {
        if self.layout.debian {
            return Torrc::default();
        }
        let log = data.join("notice.log");
        Torrc {
            data_directory: Some(data.to_owned()),
            paths: vec![("PidFile", data.join("pid"))],
            options: vec![("RunAsDaemon", "1".to_owned())],
            log_file: Some(log),
            ..Torrc::default()
        }
    }

    /// OnionBalance's `config.yaml`.
    fn onionbalance(&self, instances: &[Vec<MasterKey>]) -> Result<String, TorrcError> {
        let addresses = |keys: &Vec<MasterKey>| {
            keys.iter().map(|key| key.onion_address().to_string()).collect::<Vec<_>>()
        };
        let services: Vec<(String, Vec<String>)> = self
            .services
            .iter()
            .zip(instances)
            .map(|(service, keys)| (Layout::key_name(&service.name), addresses(keys)))
            .collect();
        let status = (!self.layout.debian).then(|| self.layout.onionbalance_status());
        text::onionbalance(&services, status.as_deref())
    }

    /// The master keys, and each daemon's directories with their keys.
    fn write_keys(
        &self,
        masters: &[MasterKey],
        instances: &[Vec<MasterKey>],
    ) -> Result<(), GenerateError> {
        for ((service, master), keys) in self.services.iter().zip(masters).zip(instances) {
            master.create_new(&self.layout.written(&self.layout.key(&service.name)))?;
            for (index, key) in keys.iter().enumerate() {
                let directory = self.layout.written(&self.layout.service(index + 1, &service.name));
                make_directory(&directory)?;
                key.create_new(&directory.join("hs_ed25519_secret_key"))?;
                let public = key.onion_address().to_tor_public_file_bytes();
                file::create_new(&directory.join("hs_ed25519_public_key"), &public)?;
                write(&directory.join("hostname"), &format!("{}\n", key.onion_address()))?;
                let ob_config = torrc::ob_config(&master.onion_address().to_string());
                write(&directory.join("ob_config"), &ob_config)?;
            }
        }
        if !self.layout.debian {
            make_directory(&self.layout.publisher_data())?;
            make_directory(&self.layout.sockets())?;
        }
        Ok(())
    }
}

/// The CPU of each daemon.
fn daemon_cpus(request: &Request) -> Vec<usize> {
    let cpus = if request.cpus.is_empty() { &[0][..] } else { &request.cpus };
    let proposed = cpus.len().min(usize::from(limits::CTOR_DAEMONS_PROPOSED_MAX));
    let daemons = request.daemons.map_or(proposed, usize::from).max(1);
    (0..daemons).map(|turn| cpus[turn % cpus.len()]).collect()
}

/// What the operator should know of so many daemons.
fn warnings(request: &Request, daemons: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let cpus = request.cpus.len();
    if request.daemons.is_none() && cpus > daemons {
        warnings.push(format!(
            "this machine has {cpus} CPUs and gets {daemons} daemons; --instances makes up to {}, \
             which is as many as OnionBalance can name in a descriptor that clients take",
            limits::CTOR_DAEMONS_MAX
        ));
    }
    if daemons > 1 {
        warnings.push(format!(
            "each of the {daemons} daemons chooses guards of its own, so that {daemons} times as \
             many relays as with one know this machine"
        ));
    }
    warnings
}

/// The directory's absolute path, if it may be made or is empty and ours alone.
fn check_directory(path: &Path) -> Result<PathBuf, GenerateError> {
    let failed = |action, source| GenerateError::Io { action, path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(path).map_err(|error| failed("name", error))?;
            let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Err(failed("name", std::io::ErrorKind::InvalidFilename.into()));
            };
            let parent = parent.canonicalize().map_err(|error| failed("make", error))?;
            Ok(parent.join(name))
        }
        Err(error) => Err(failed("look at", error)),
        Ok(found) if !found.is_dir() => Err(GenerateError::NotEmpty { path: path.to_owned() }),
        Ok(found) => {
            let mut entries = std::fs::read_dir(path).map_err(|error| failed("read", error))?;
            if entries.next().is_some() {
                return Err(GenerateError::NotEmpty { path: path.to_owned() });
            }
            let ours = found.uid() == nix::unistd::geteuid().as_raw();
            if !ours || found.mode() & 0o077 != 0 {
                return Err(GenerateError::Open { path: path.to_owned() });
            }
            path.canonicalize().map_err(|error| failed("name", error))
        }
    }
}

/// Make a directory and those above it, for us alone.
fn make_directory(path: &Path) -> Result<(), GenerateError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| GenerateError::Io { action: "make", path: path.to_owned(), source })
}

/// Write a new file, and make its directory.
fn write(path: &Path, text: &str) -> Result<(), GenerateError> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| GenerateError::Io { action: "write", path: path.to_owned(), source })
}
