//! The life of one managed C tor daemon: started, watched, started anew with back-off, ended.
//!
//! ```text
//!      .--------------------- wait, twice as long each time ---------------------.
//!      v                                                                         |
//!   files -> process -> control port -> ask for descriptors, each second and ----+--> end
//!                                       when an introduction circuit changes
//! ```
//!
//! It carries an instance of every service, which publishes nothing: its introduction points are
//! read from its control port and told to whoever runs this (`app`), which merges them. tor closes
//! all of them at once at a rotation of the shared random value; the next look, within a second,
//! has the new ones.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::control::{Control, ControlError};
use super::process::Process;
use super::torrc::{HiddenService, Torrc, TorrcError, ob_config};
use crate::limits;

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct DaemonSettings {
    /// Its number, from 1.
    pub number: u16,
    /// tor.
    pub binary: PathBuf,
    /// Its own directory.
    pub directory: PathBuf,
    /// The CPU it shall run on.
    pub cpu: Option<usize>,
    /// The operator's lines for its torrc.
    pub extra: String,
}

/// A service that it shall carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its name, which is that of its directory too.
    pub name: String,
    /// The address for which it answers as well, with its `.onion`.
    pub master: String,
    /// Its torrc's part. Its directory is [`DaemonSettings::service_dir`].
    pub service: HiddenService,
}

/// What is heard of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A service's descriptor as it stands now, and the address that it is for, without `.onion`.
    Descriptor {
        /// The service.
        name: &'a str,
        /// The instance's own address.
        address: &'a str,
        /// The descriptor's text.
        text: &'a str,
    },
    /// A service has no descriptor yet.
    NoDescriptor {
        /// The service.
        name: &'a str,
    },
    /// It has links to these guards.
    Guards {
        /// Their identities.
        guards: &'a [String],
    },
    /// It serves nobody, and why.
    Down {
        /// A sentence without addresses.
        reason: &'a str,
    },
}

/// A client's circuit that shall close.
#[derive(Debug)]
pub struct Close {
    /// Its number, as tor's PROXY line has it.
    pub circuit: u32,
    /// Told whether it was open; dropped, where the daemon is not there.
    pub closed: oneshot::Sender<bool>,
}

/// Why a daemon serves nobody.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    /// A file of its.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    File {
        /// What was done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its torrc.
    #[error(transparent)]
    Torrc(#[from] TorrcError),
    /// It could not be started.
    #[error("cannot start {binary}: {source}", binary = .binary.display())]
    Start {
        /// tor.
        binary: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It ended.
    #[error("the daemon ended ({how}){complaint}")]
    Ended {
        /// How.
        how: String,
        /// What it said last, if it had not come up.
        complaint: String,
    },
    /// Its control port.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Its control port did not come.
    #[error("the daemon has no control port after {} s", limits::CTOR_START_SECONDS_MAX)]
    NoControl,
}

impl DaemonSettings {
    /// Where the instance of a service has its keys.
    pub fn service_dir(&self, name: &str) -> PathBuf {
        self.directory.join(format!("service-{name}"))
    }

    /// Its control port.
    fn control(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Where tor keeps its state.
    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Its torrc for these services.
    ///
    /// # Errors
    /// [`TorrcError`]: a path that cannot be.
    pub fn torrc(&self, carried: &[Carried]) -> Result<String, TorrcError> {
        let torrc = Torrc {
            comment: vec![
                "Written by RustBalance at each start of this daemon; see [ctor] in its".to_owned(),
                "configuration.".to_owned(),
            ],
            data_directory: Some(self.data()),
            options: vec![("Log", "notice stdout".to_owned()), ("RunAsDaemon", "0".to_owned())],
            control_socket: Some(self.control()),
            owner: Some(std::process::id()),
            services: carried.iter().map(|one| one.service.clone()).collect(),
            extra: self.extra.clone(),
            ..Torrc::default()
        };
        torrc.text()
    }
}

/// Run a daemon until `stop` ends. `carried` may change: the daemon is told to read its torrc
/// again, which leaves what has not changed alone. `closes` are circuits of the process that runs
/// when they are read.
pub async fn run(
    settings: &DaemonSettings,
    mut carried: watch::Receiver<Vec<Carried>>,
    mut closes: mpsc::Receiver<Close>,
    mut hear: impl FnMut(Heard<'_>),
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let mut wait = Duration::from_millis(limits::CTOR_RESTART_MS_MIN);
    loop {
        let started = Instant::now();
        let ended = run_once(settings, &mut carried, &mut closes, &mut hear, stop.as_mut()).await;
        let Some(error) = ended else { return };
        if started.elapsed() >= Duration::from_secs(limits::CTOR_RAN_WELL_SECONDS) {
            wait = Duration::from_millis(limits::CTOR_RESTART_MS_MIN);
        }
        let reason = error.to_string();
        tracing::warn!(daemon = settings.number, "{reason}; starting anew in {wait:?}");
        hear(Heard::Down { reason: &reason });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.as_mut() => return,
        }
        wait = (wait * 2).min(Duration::from_millis(limits::CTOR_RESTART_MS_MAX));
    }
}

/// One process, from its files to its end; `None` where it was told to stop.
async fn run_once(
    settings: &DaemonSettings,
    carried: &mut watch::Receiver<Vec<Carried>>,
    closes: &mut mpsc::Receiver<Close>,
    hear: &mut impl FnMut(Heard<'_>),
    stop: impl Future<Output = ()>,
) -> Option<DaemonError> {
    let now = carried.borrow_and_update().clone();
    let started = write_files(settings, &now).and_then(|torrc| {
        let binary = &settings.binary;
        let failed = |source| DaemonError::Start { binary: binary.clone(), source };
        Process::start(settings.number, binary, &torrc, settings.cpu).map_err(failed)
    });
    let mut process = match started {
        Ok(process) => process,
        Err(error) => return Some(error),
    };
    // Those of the process before it are gone.
    while closes.try_recv().is_ok() {}
    let end = {
        let (up, is_up) = watch::channel(false);
        let talk = converse(settings, now, (carried, closes), hear, up);
        let mut talk = std::pin::pin!(talk);
        let mut stop = std::pin::pin!(stop);
        loop {
            process.is_up = *is_up.borrow();
            tokio::select! {
                ended = process.run() => break End::Process(ended),
                error = talk.as_mut() => break End::Talk(error),
                () = stop.as_mut() => break End::Told,
                // Its lines are read with other eyes from now on.
                () = came_up(&is_up), if !process.is_up => {}
            }
        }
    };
    let end = match end {
        End::Told => None,
        End::Process(ended) => Some(ended_error(ended, &mut process)),
        End::Talk(error) => {
            hear(Heard::Down { reason: &error.to_string() });
            // It often ends at the same moment, and its own words say more.
            let patience = Duration::from_millis(limits::CTOR_END_MS_MAX);
            let said = tokio::time::timeout(patience, process.run()).await;
            Some(said.map_or(error, |ended| ended_error(ended, &mut process)))
        }
    };
    process.end().await;
    end
}

/// How a process and the conversation with it come to an end.
enum End {
    /// It was told to stop.
    Told,
    /// It ended.
    Process(io::Result<std::process::ExitStatus>),
    /// Its control port is of no use any more.
    Talk(DaemonError),
}

/// Wait until it has answered.
async fn came_up(is_up: &watch::Receiver<bool>) {
    let mut is_up = is_up.clone();
    if is_up.wait_for(|up| *up).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Why it ended.
fn ended_error(ended: io::Result<std::process::ExitStatus>, process: &mut Process) -> DaemonError {
    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    let complaint = process.complaint.take().filter(|_| !process.is_up);
    DaemonError::Ended {
        how,
        complaint: complaint.map_or_else(String::new, |text| format!(": {text}")),
    }
}

/// Talk to its control port until that ends.
async fn converse(
    settings: &DaemonSettings,
    mut now: Vec<Carried>,
    (carried, closes): (&mut watch::Receiver<Vec<Carried>>, &mut mpsc::Receiver<Close>),
    hear: &mut impl FnMut(Heard<'_>),
    up: watch::Sender<bool>,
) -> DaemonError {
    let mut control = match connect(settings).await {
        Ok(control) => control,
        Err(error) => return error,
    };
    up.send_replace(true);
    tracing::info!(daemon = settings.number, "the daemon is up");
    let mut guards_at = Instant::now();
    loop {
        if Instant::now() >= guards_at {
            guards_at = Instant::now() + Duration::from_millis(limits::CTOR_GUARDS_LOOK_MS);
            match guards(&mut control).await {
                Ok(guards) => hear(Heard::Guards { guards: &guards }),
                Err(error) => return error.into(),
            }
        }
        for one in &now {
            if let Err(error) = ask(settings, &mut control, one, hear).await {
                return error.into();
            }
        }
        let least = tokio::time::Instant::now() + Duration::from_millis(limits::CTOR_LOOK_MS_MIN);
        let next = tokio::time::Instant::now() + Duration::from_millis(limits::CTOR_LOOK_MS);
        let changed = loop {
            let close = tokio::select! {
                () = tokio::time::sleep_until(next) => break false,
                event = control.intro_circuit() => match event {
                    Ok(()) => break false,
                    Err(error) => return error.into(),
                },
                changed = carried.changed() => break changed.is_ok(),
                Some(close) = closes.recv() => close,
            };
            if let Err(error) = close_circuit(&mut control, close).await {
                return error.into();
            }
        };
        if changed {
            now = carried.borrow_and_update().clone();
            let reloaded = match write_files(settings, &now) {
                Ok(_) => control.command("SIGNAL RELOAD").await.map_err(DaemonError::from),
                Err(error) => Err(error),
            };
            if let Err(error) = reloaded {
                return error;
            }
        }
        // Circuits come up in threes.
        tokio::time::sleep_until(least).await;
    }
}

/// Connect to a daemon that was just started, and make it ours.
async fn connect(settings: &DaemonSettings) -> Result<Control, DaemonError> {
    let patience = Duration::from_secs(limits::CTOR_START_SECONDS_MAX);
    let deadline = Instant::now() + patience;
    let (socket, cookie) = (settings.control(), settings.data().join("control_auth_cookie"));
    let mut control = loop {
        match Control::connect(&socket, &cookie).await {
            Ok(control) => break control,
            // The socket is there before the cookie, and that of an earlier run before both.
            Err(error) if Instant::now() >= deadline => {
                tracing::debug!(daemon = settings.number, "{error}");
                return Err(DaemonError::NoControl);
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(limits::CTOR_CONNECT_LOOK_MS)).await;
    };
    // From now on it ends when this conversation does.
    control.command("TAKEOWNERSHIP").await?;
    control.command("SETEVENTS CIRC").await?;
    Ok(control)
}

/// Ask for a service's descriptor.
async fn ask(
    settings: &DaemonSettings,
    control: &mut Control,
    one: &Carried,
    hear: &mut impl FnMut(Heard<'_>),
) -> Result<(), ControlError> {
    let name = &one.name;
    // tor makes the keys, and so the name.
    let hostname = std::fs::read_to_string(settings.service_dir(name).join("hostname"));
    let hostname = hostname.unwrap_or_default();
    let address = hostname.trim().trim_end_matches(".onion");
    let is_address =
        address.len() == 56 && address.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_address {
        hear(Heard::NoDescriptor { name });
        return Ok(());
    }
    let key = format!("hs/service/desc/id/{address}");
    let reply = match control.command(&format!("GETINFO {key}")).await {
        Ok(reply) => reply,
        Err(ControlError::Refused { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let text = reply.first().and_then(|text| text.strip_prefix(&format!("{key}=\n")));
    match text {
        // The lines of a descriptor end, the last one too.
        Some(text) => {
            let text = &format!("{text}\n");
            hear(Heard::Descriptor { name, address, text });
        }
        None => hear(Heard::NoDescriptor { name }),
    }
    Ok(())
}

/// Close a circuit. tor knows it by the number that its PROXY line has.
async fn close_circuit(control: &mut Control, close: Close) -> Result<(), ControlError> {
    let Close { circuit, closed } = close;
    let was_open = match control.command(&format!("CLOSECIRCUIT {circuit}")).await {
        Ok(_) => true,
        // It has closed already.
        Err(ControlError::Refused { .. }) => false,
        Err(error) => return Err(error),
    };
    // Nobody may wait for it.
    let _ = closed.send(was_open);
    Ok(())
}

/// The guards that it has links to.
async fn guards(control: &mut Control) -> Result<Vec<String>, ControlError> {
    let reply = control.command("GETINFO entry-guards orconn-status").await?;
    let relays = |which: &str, with: &str| -> Vec<String> {
        let text = reply.iter().find_map(|text| text.strip_prefix(which)).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains(with));
        lines.filter_map(|line| line.get(..41)).map(str::to_owned).collect()
    };
    let linked = relays("orconn-status=", " CONNECTED");
    let mut guards = relays("entry-guards=", " up");
    guards.retain(|guard| linked.contains(guard));
    Ok(guards)
}

/// Write its torrc and what lies beside it; the torrc's path.
fn write_files(settings: &DaemonSettings, carried: &[Carried]) -> Result<PathBuf, DaemonError> {
    let text = settings.torrc(carried)?;
    make_directory(&settings.data())?;
    for one in carried {
        let directory = settings.service_dir(&one.name);
        make_directory(&directory)?;
        write(&directory.join("ob_config"), &ob_config(&one.master))?;
    }
    let path = settings.directory.join("torrc");
    write(&path, &text)?;
    Ok(path)
}

/// Make a directory and those above it, for us alone.
fn make_directory(path: &Path) -> Result<(), DaemonError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| DaemonError::File { action: "make", path: path.to_owned(), source })
}

/// Write a file anew, whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), DaemonError> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|source| DaemonError::File { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
