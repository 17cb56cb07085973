//! A torrc for one instance, and the `ob_config` beside its keys: text from a value.
//!
//! Values that tor would read as something else are quoted, as its own writer does it
//! (`kv_line` of torrc: `"` begins a C string, `#` ends a value that is not one). Nothing secret
//! is in either file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::limits;

/// A torrc.
#[derive(Clone, Debug, Default)]
pub struct Torrc {
    /// What stands above everything, one line of comment each.
    pub comment: Vec<String>,
    /// Where tor keeps its own state; `None` where the system's defaults say it.
    pub data_directory: Option<PathBuf>,
    /// Further options, one line each, whose values need no quotes.
    pub options: Vec<(&'static str, String)>,
    /// Further options with a path.
    pub paths: Vec<(&'static str, PathBuf)>,
    /// Where notices go; `None` where the system's defaults say it.
    pub log_file: Option<PathBuf>,
    /// The unix socket of the control port; its cookie lies in the data directory.
    pub control_socket: Option<PathBuf>,
    /// Whether tor uploads the instances' own descriptors: for OnionBalance, which fetches them.
    pub publish: bool,
    /// The process with which tor shall end.
    pub owner: Option<u32>,
    /// The instances: one of each service.
    pub services: Vec<HiddenService>,
    /// The operator's own lines, which come last and so win.
    pub extra: String,
}

/// An instance: a hidden service of tor's that answers for a master address as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenService {
    /// Its keys and `ob_config`.
    pub directory: PathBuf,
    /// Where its streams go, by virtual port.
    pub ports: Vec<HiddenPort>,
    /// Introduction points that it keeps, where tor takes the number: it has a least one.
    pub intro_points: u8,
    /// The introduction points' DoS defence: INTRODUCE2 a second, and at once.
    pub intro_dos: Option<(u32, u32)>,
    /// Streams that one circuit may have open, and whether it closes at one more.
    pub streams_max: Option<(u32, bool)>,
}

/// Virtual ports that lead to one unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenPort {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// The socket.
    pub socket: PathBuf,
}

/// Why there is no torrc.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TorrcError {
    /// A path that a torrc cannot name.
    #[error("{path:?} is no UTF-8, which a torrc cannot name; choose another path")]
    NotText {
        /// The path.
        path: PathBuf,
    },
    /// A socket that the kernel cannot name.
    #[error(
        "the path of the socket {path} has {bytes} bytes and the system takes {bytes_max}; choose \
         a shorter directory",
        path = .path.display()
    )]
    SocketTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// What the kernel, or who listens there, takes.
        bytes_max: usize,
    },
}

impl Torrc {
    /// The file's text.
    ///
    /// # Errors
    /// [`TorrcError`].
    pub fn text(&self) -> Result<String, TorrcError> {
        let mut text = String::new();
        for line in &self.comment {
            let _ = writeln!(text, "# {line}");
        }
        if let Some(path) = &self.data_directory {
            let _ = writeln!(text, "DataDirectory {}", quoted(as_text(path)?));
        }
        for (option, path) in &self.paths {
            let _ = writeln!(text, "{option} {}", quoted(as_text(path)?));
        }
        for (option, value) in &self.options {
            let _ = writeln!(text, "{option} {value}");
        }
        if let Some(path) = &self.log_file {
            // Everything behind `file` is the path, quotes and all.
            let line = format!("notice file {}", as_text(path)?);
            let plain = is_plain(as_text(path)?);
            let _ = writeln!(text, "Log {}", if plain { line } else { c_string(&line) });
        }
        // A service needs no way in for local programs.
        text.push_str("SocksPort 0\n");
        if let Some(path) = &self.control_socket {
            // ControlSocket would split a path at its spaces.
            let _ = writeln!(text, "ControlPort {}", unix("", path)?);
            text.push_str("CookieAuthentication 1\n");
        }
        if !self.publish {
            text.push_str("PublishHidServDescriptors 0\n");
        }
        if let Some(pid) = self.owner {
            let _ = writeln!(text, "__OwningControllerProcess {pid}");
        }
        for service in &self.services {
            service.write(&mut text)?;
        }
        if !self.extra.trim().is_empty() {
            let _ = writeln!(text, "\n# The operator's own lines.\n{}", self.extra.trim_end());
        }
        Ok(text)
    }
}

impl HiddenService {
    /// Its lines.
    fn write(&self, text: &mut String) -> Result<(), TorrcError> {
        let _ = writeln!(text, "\nHiddenServiceDir {}", quoted(as_text(&self.directory)?));
        text.push_str("HiddenServiceVersion 3\n");
        for ports in &self.ports {
            for port in ports.first..=ports.last {
                let target = unix(&format!("{port} "), &ports.socket)?;
                let _ = writeln!(text, "HiddenServicePort {target}");
            }
        }
        text.push_str("HiddenServiceOnionBalanceInstance 1\n");
        text.push_str("HiddenServiceExportCircuitID haproxy\n");
        let points =
            self.intro_points.clamp(limits::CTOR_INTRO_POINTS_MIN, limits::INTRO_POINTS_MAX);
        let _ = writeln!(text, "HiddenServiceNumIntroductionPoints {points}");
        if let Some((rate, burst)) = self.intro_dos {
            let _ = writeln!(
                text,
                "HiddenServiceEnableIntroDoSDefense 1\n\
                 HiddenServiceEnableIntroDoSRatePerSec {rate}\n\
                 HiddenServiceEnableIntroDoSBurstPerSec {burst}"
            );
        }
        if let Some((streams, close)) = self.streams_max {
            // What tor's option takes at most.
            let streams = streams.min(u32::from(u16::MAX));
            let _ = writeln!(
                text,
                "HiddenServiceMaxStreams {streams}\nHiddenServiceMaxStreamsCloseCircuit {}",
                u8::from(close)
            );
        }
        Ok(())
    }
}

/// The file `ob_config` in the directory of an instance: for which addresses it answers as well
/// (tor's `hs_ob.c`). `master` has its `.onion`.
pub fn ob_config(master: &str) -> String {
    format!("MasterOnionAddress {master}\n")
}

/// A path as text.
fn as_text(path: &Path) -> Result<&str, TorrcError> {
    path.to_str().ok_or_else(|| TorrcError::NotText { path: path.to_owned() })
}

/// Refuse a socket's path that is too long for somebody.
///
/// # Errors
/// [`TorrcError::SocketTooLong`].
pub fn check_socket(path: &Path, bytes_max: usize) -> Result<(), TorrcError> {
    let bytes = path.as_os_str().len();
    match bytes > bytes_max {
        true => Err(TorrcError::SocketTooLong { path: path.to_owned(), bytes, bytes_max }),
        false => Ok(()),
    }
}

/// A unix socket as part of a value, after `before`.
fn unix(before: &str, path: &Path) -> Result<String, TorrcError> {
    check_socket(path, limits::UNIX_SOCKET_PATH_BYTES_MAX)?;
    let path = as_text(path)?;
    Ok(match is_plain(path) {
        true => format!("{before}unix:{path}"),
        // Twice: the socket's own form has quotes, and so has a value with those in it.
        false => c_string(&format!("{before}unix:{}", c_string(path))),
    })
}

/// A value: as it is where tor reads it so, else as a C string.
fn quoted(value: &str) -> String {
    if is_plain(value) { value.to_owned() } else { c_string(value) }
}

/// Whether tor reads a value as it stands there.
fn is_plain(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '#' | '\\');
    !value.is_empty() && value.chars().all(plain)
}

/// A C string, of the escapes that tor's `unescape_string` knows.
fn c_string(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(text, "\\{:03o}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{HiddenPort, HiddenService, Torrc, TorrcError, ob_config, quoted};

    /// One service, below this directory.
    fn torrc(directory: &Path) -> Torrc {
        Torrc {
            comment: vec!["A test.".to_owned()],
            data_directory: Some(directory.join("data")),
            log_file: Some(directory.join("data/log")),
            control_socket: Some(directory.join("control")),
            services: vec![HiddenService {
                directory: directory.join("service"),
                ports: vec![HiddenPort {
                    first: 80,
                    last: 81,
                    socket: directory.join("front.sock"),
                }],
                // Fewer than tor takes.
                intro_points: 1,
                intro_dos: Some((25, 200)),
                streams_max: Some((100, true)),
            }],
            extra: "HeartbeatPeriod 1 hour".to_owned(),
            ..Torrc::default()
        }
    }

    #[test]
    fn a_torrc_says_all_that_an_instance_needs() {
        let text = torrc(Path::new("/a")).text().expect("it can be written");
        assert_eq!(
            text,
            "# A test.\nDataDirectory /a/data\nLog notice file /a/data/log\n\
             SocksPort 0\nControlPort unix:/a/control\n\
             CookieAuthentication 1\nPublishHidServDescriptors 0\n\n\
             HiddenServiceDir /a/service\nHiddenServiceVersion 3\n\
             HiddenServicePort 80 unix:/a/front.sock\n\
             HiddenServicePort 81 unix:/a/front.sock\n\
             HiddenServiceOnionBalanceInstance 1\nHiddenServiceExportCircuitID haproxy\n\
             HiddenServiceNumIntroductionPoints 3\nHiddenServiceEnableIntroDoSDefense 1\n\
             HiddenServiceEnableIntroDoSRatePerSec 25\n\
             HiddenServiceEnableIntroDoSBurstPerSec 200\nHiddenServiceMaxStreams 100\n\
             HiddenServiceMaxStreamsCloseCircuit 1\n\n\
             # The operator's own lines.\nHeartbeatPeriod 1 hour\n"
        );
    }

    #[test]
    fn values_that_tor_would_misread_are_quoted() {
        assert_eq!(quoted("/var/lib/tor"), "/var/lib/tor");
        assert_eq!(quoted("/a b"), "\"/a b\"");
        assert_eq!(quoted("/a#b"), "\"/a#b\"");
        assert_eq!(quoted("/a\"\\\n\u{1}"), "\"/a\\\"\\\\\\n\\001\"");
        assert_eq!(quoted(""), "\"\"");
    }

    #[test]
    fn a_path_that_cannot_be_named_is_refused() {
        let long = PathBuf::from(format!("/{}", "x".repeat(100)));
        let error = torrc(&long).text().expect_err("the socket's path is too long");
        assert!(matches!(error, TorrcError::SocketTooLong { bytes: 109, .. }), "{error}");
        use std::os::unix::ffi::OsStrExt as _;
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/\xff"));
        assert!(matches!(torrc(odd).text(), Err(TorrcError::NotText { .. })));
    }

    /// Somebody's address, as tor looks at the checksum.
    const MASTER: &str = "4a2zwxetkje5lwvahfv75arzrctn6bznkwmosvfyobmyv2fc3idbpwyd.onion";

    /// tor itself reads it, with a directory whose name has all that needs quotes in it.
    #[test]
    fn tor_takes_it() {
        use std::os::unix::fs::DirBuilderExt as _;
        let root = tempfile::tempdir().expect("a temporary directory");
        let odd = root.path().join("a \"b\" #c\\d ä");
        for name in ["data", "service"] {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(odd.join(name)).expect("a directory");
        }
        std::fs::write(odd.join("service/ob_config"), ob_config(MASTER)).expect("a file");
        let file = root.path().join("torrc");
        std::fs::write(&file, torrc(&odd).text().expect("a torrc")).expect("a file");
        let tor = std::process::Command::new("tor")
            .args(["--defaults-torrc", "/dev/null", "--verify-config", "-f"])
            .arg(&file)
            .output();
        // A machine without tor has nothing to say about this.
        let Ok(tor) = tor else { return };
        let said = String::from_utf8_lossy(&tor.stdout);
        assert!(tor.status.success(), "{said}");
        assert!(!said.contains("[warn]") || said.contains("running Tor as root"), "{said}");
    }
}
