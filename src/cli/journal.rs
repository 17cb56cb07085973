//! The log in the journal's own form: each event is one datagram of fields for journald
//! (systemd's "Native Journal Protocol"). Written by the log's thread ([`super::log_writer`]), as
//! journald may have stopped reading, and no core shall wait for it.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::log_writer::LogWriter;
use crate::base::redact::scrub;
use crate::limits;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Who we are.
const IDENTIFIER: &str = "rustbalance";

/// The way to journald. Each write is one datagram.
pub(super) struct Journal {
    /// Ours.
    socket: UnixDatagram,
    /// Where it listens.
    path: PathBuf,
}

impl Journal {
    /// Journald's own.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn open() -> io::Result<Journal> {
        Journal::at(Path::new(SOCKET))
    }

    /// One that listens there.
    ///
    /// # Errors
    /// See [`Journal::open`].
    fn at(path: &Path) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Journal { socket, path: path.to_owned() })
    }
}

impl Write for Journal {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        match self.socket.send(datagram) {
            // Another one may have taken its place.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.socket.connect(&self.path)?;
                self.socket.send(datagram)
            }
            sent => sent,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says that lines were lost.
pub(super) fn lost(text: &str) -> Vec<u8> {
    let mut fields = Fields::new(Level::WARN);
    fields.put("MESSAGE", text);
    fields.datagram
}

/// Sends events to journald.
pub(super) struct JournalLayer(&'static LogWriter);

impl JournalLayer {
    /// By this writer, which writes to a [`Journal`].
    pub(super) fn new(writer: &'static LogWriter) -> JournalLayer {
        JournalLayer(writer)
    }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::new(*metadata.level());
        fields.put("TARGET", metadata.target());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            fields.put("CODE_FILE", file);
            fields.put("CODE_LINE", &line.to_string());
        }
        event.record(&mut fields);
        let mut writer = self.0;
        // It never fails.
        let _ = writer.write_all(&fields.datagram);
    }
}

/// The fields of one event.
struct Fields {
    /// As journald reads them.
    datagram: Vec<u8>,
    /// Whether values that identify somebody may stand in it.
    is_debug: bool,
}

impl Fields {
    /// Those that every event has.
    fn new(level: Level) -> Fields {
        let mut fields = Fields { datagram: Vec::new(), is_debug: level > Level::INFO };
        // As syslog(3) counts them.
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "5",
            Level::DEBUG => "6",
            Level::TRACE => "7",
        };
        fields.put("PRIORITY", priority);
        fields.put("SYSLOG_IDENTIFIER", IDENTIFIER);
        fields
    }

    /// Add a field, in the form that takes any bytes: its name, its length, its value.
    fn put(&mut self, name: &str, value: &str) {
        let value = &value[..value.floor_char_boundary(limits::LOG_FIELD_BYTES_MAX)];
        self.datagram.extend_from_slice(name.as_bytes());
        self.datagram.push(b'\n');
        self.datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.datagram.extend_from_slice(value.as_bytes());
        self.datagram.push(b'\n');
    }

    /// Add a field of the event's own: `message`, or one that gets `F_` before its name, so that it
    /// never meets one of journald's.
    fn put_own(&mut self, name: &str, value: &str) {
        let value = match self.is_debug {
            true => value.into(),
            false => scrub(value),
        };
        if name == "message" {
            return self.put("MESSAGE", &value);
        }
        let letter = |letter: char| match letter.to_ascii_uppercase() {
            letter @ ('A'..='Z' | '0'..='9') => letter,
            _ => '_',
        };
        let name: String = "F_".chars().chain(name.chars().map(letter)).collect();
        // journald takes no longer ones.
        self.put(&name[..name.len().min(64)], &value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_own(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put_own(field.name(), &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::os::unix::net::UnixDatagram;
    use std::time::{Duration, Instant};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::{Journal, JournalLayer, lost};
    use crate::cli::log_writer::LogWriter;
    use crate::limits;

    /// The fields of a datagram, as journald reads them.
    fn fields(mut datagram: &[u8]) -> HashMap<String, String> {
        let mut fields = HashMap::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is UTF-8");
        while !datagram.is_empty() {
            let end = datagram.iter().position(|byte| *byte == b'\n').expect("a name ends");
            let (name, rest) = (text(&datagram[..end]), &datagram[end + 1..]);
            let length = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes"));
            let (value, rest) = rest[8..].split_at(usize::try_from(length).expect("it is short"));
            fields.insert(name, text(value));
            datagram = rest.strip_prefix(b"\n").expect("a field ends");
        }
        fields
    }

    /// A writer to this socket.
    fn writer(path: &std::path::Path) -> &'static LogWriter {
        let journal = Journal::at(path).expect("somebody listens");
        Box::leak(Box::new(LogWriter::start(journal, lost).expect("threads are left")))
    }

    #[test]
    fn a_journal_that_does_not_read_holds_nobody_up_and_what_is_lost_is_counted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("the path is free");
        let log = writer(&path);
        let subscriber = tracing_subscriber::registry().with(JournalLayer::new(log));
        // More than a socket and the queue have room for.
        let count = limits::LOG_LINES_WAITING_MAX + 2_000;
        let begun = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..count {
                tracing::info!(number, "{}", "x".repeat(1000));
            }
        });
        log.flush_within(Duration::from_millis(10));
        assert!(begun.elapsed() < Duration::from_secs(30));
        journald.set_read_timeout(Some(Duration::from_secs(2))).expect("not zero");
        let (mut whole, mut said, mut datagram) = (0, 0, vec![0; 65_536]);
        while whole + said < count {
            let length = journald.recv(&mut datagram).expect("the rest comes");
            let fields = fields(&datagram[..length]);
            match fields["MESSAGE"].strip_prefix("rustbalance: ") {
                Some(text) => {
                    let number = text.split(' ').next().expect("a number").parse::<usize>();
                    said += number.expect("a number");
                }
                None => whole += 1,
            }
        }
        assert!(whole + said == count && said > 0, "{whole} + {said} of {count}");
    }

    #[test]
    fn an_event_is_its_fields_and_names_nobody_below_debug() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("the path is free");
        let subscriber = tracing_subscriber::registry().with(JournalLayer::new(writer(&path)));
        let address = format!("{}.onion", "a".repeat(56));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(core = 3, at = %address, "two\nlines of {address}");
            tracing::debug!("it is {address}");
        });
        let mut datagram = vec![0; 65_536];
        let mut next = || {
            let length = journald.recv(&mut datagram).expect("it comes");
            fields(&datagram[..length])
        };
        let event = next();
        for (name, value) in [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "rustbalance"),
            ("MESSAGE", "two\nlines of [redacted].onion"),
            ("F_CORE", "3"),
            ("F_AT", "[redacted].onion"),
            ("TARGET", module_path!()),
        ] {
            assert_eq!(event[name], value, "{name}");
        }
        assert_eq!(next()["MESSAGE"], format!("it is {address}"));
    }
}
