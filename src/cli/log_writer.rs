//! The way of the log's lines to standard error or the journal: by a thread of its own, since
//! whoever reads may have stopped (a full pipe, a terminal with Ctrl-S, a journald that hangs), and
//! no core shall wait for that. What finds no room meanwhile is lost, and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::journal::{self, Journal};
use crate::limits;

/// What the thread is told.
enum Told {
    /// Write this.
    Lines(Vec<u8>),
    /// Say when everything before is written.
    Flush(SyncSender<()>),
}

/// See the module. Each write is one line, or several whole ones.
pub(super) struct LogWriter {
    /// To the thread.
    to_thread: SyncSender<Told>,
    /// Lines that found no room, since that was last said.
    lost: Arc<AtomicU64>,
}

/// How it is said that lines were lost, in the form of the others.
type SayLost = fn(&str) -> Vec<u8>;

/// As a line.
fn lost_line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// The process's.
static WRITER: OnceLock<LogWriter> = OnceLock::new();

impl LogWriter {
    /// Start the thread, which writes to `out`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        say_lost: SayLost,
    ) -> io::Result<LogWriter> {
        let (to_thread, told) = sync_channel(limits::LOG_LINES_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let (name, count) = ("log".to_owned(), Arc::clone(&lost));
        let thread = std::thread::Builder::new().name(name);
        thread.spawn(move || write_all(&told, (&count, say_lost), out))?;
        Ok(LogWriter { to_thread, lost })
    }

    /// The process's own, to the journal where one is given, else to standard error; started at
    /// the first call.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn of_process(journal: Option<Journal>) -> io::Result<&'static LogWriter> {
        if let Some(writer) = WRITER.get() {
            return Ok(writer);
        }
        let writer = match journal {
            Some(journal) => LogWriter::start(journal, journal::lost)?,
            None => LogWriter::start(io::stderr(), lost_line)?,
        };
        Ok(WRITER.get_or_init(|| writer))
    }

    /// Wait until all lines are written, but no longer than so.
    pub(super) fn flush_within(&self, patience: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.to_thread.try_send(Told::Flush(done)).is_ok() {
            // Nobody reads: the process ends without.
            let _ = is_done.recv_timeout(patience);
        }
    }
}

impl Write for &LogWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.to_thread.try_send(Told::Lines(lines.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Have words for people written among the log's lines.
pub(super) fn line(text: &dyn std::fmt::Display) {
    if let Some(mut writer) = WRITER.get() {
        // It never fails.
        let _ = writer.write_all(format!("rustbalance: {text}\n").as_bytes());
    }
}

/// Wait until what the process has logged is written, for at most
/// [`limits::LOG_FLUSH_MS_MAX`].
pub(super) fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush_within(Duration::from_millis(limits::LOG_FLUSH_MS_MAX));
    }
}

/// The thread. What cannot be written is nobody's loss: standard error has gone.
fn write_all(told: &Receiver<Told>, (lost, say_lost): (&AtomicU64, SayLost), mut out: impl Write) {
    for one in told {
        match one {
            Told::Lines(lines) => {
                let _ = out.write_all(&lines);
                let count = lost.swap(0, Ordering::Relaxed);
                if count > 0 {
                    let text =
                        format!("rustbalance: {count} lines of the log are lost: nobody read them");
                    let _ = out.write_all(&say_lost(&text));
                }
            }
            Told::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::time::{Duration, Instant};

    use super::{LogWriter, lost_line};
    use crate::limits;

    #[test]
    fn nobody_waits_for_a_reader_that_has_stopped_and_what_is_lost_is_counted() {
        let (reader, writer) = std::io::pipe().expect("descriptors are left");
        let log = LogWriter::start(writer, lost_line).expect("threads are left");
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        // More than a pipe and the queue have room for.
        let count = limits::LOG_LINES_WAITING_MAX + 200;
        let begun = Instant::now();
        for _ in 0..count {
            (&log).write_all(&line).expect("it never fails");
        }
        log.flush_within(Duration::from_millis(10));
        assert!(begun.elapsed() < Duration::from_secs(10));
        drop(log);
        let read: Vec<String> = BufReader::new(reader).lines().map_while(Result::ok).collect();
        let whole = read.iter().filter(|one| one.len() == line.len() - 1).count();
        let said = read.iter().find_map(|one| {
            one.strip_prefix("rustbalance: ")?.split(' ').next()?.parse::<usize>().ok()
        });
        assert_eq!(whole + said.expect("it is said"), count);
        assert_eq!(whole + 1, read.len(), "no line is torn");
    }
}
