//! What a process writes to its standard output and error.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::Lab;

/// All lines so far, of both, in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Lab {
    /// Start a process that the caller waits for, whose words are kept, and which ends with the
    /// lab at the latest.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn_logged(&self, command: &mut Command) -> Result<(Child, Log)> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        self.keep(child.id())?;
        let log = Log::of(&mut child);
        Ok((child, log))
    }
}

impl Log {
    /// Read what this process writes, until it ends.
    fn of(child: &mut Child) -> Log {
        let log = Log::default();
        if let Some(out) = child.stdout.take() {
            log.read(out);
        }
        if let Some(err) = child.stderr.take() {
            log.read(err);
        }
        log
    }

    /// Read line by line, on a thread of its own.
    fn read(&self, from: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut text = log.0.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        });
    }

    /// What was written so far.
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
