//! The CSV file: a row for each request, written as it ends.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use rustbalance_load::Sample;

/// The first line.
const HEAD: &str =
    "intended_s,start_s,connected_s,first_byte_s,last_byte_s,bytes,outcome,ended_s,client";

/// A file that is being written. The first error is kept for the end, as a run is worth more than
/// its rows.
pub struct Csv {
    file: BufWriter<File>,
    error: Option<io::Error>,
}

impl Csv {
    /// Make the file, with its first line.
    ///
    /// # Errors
    /// When it exists or cannot be made.
    pub fn create(path: &Path) -> io::Result<Csv> {
        let mut file = BufWriter::new(File::create_new(path)?);
        writeln!(file, "{HEAD}")?;
        Ok(Csv { file, error: None })
    }

    /// Write a row.
    pub fn add(&mut self, sample: &Sample) {
        if self.error.is_none() {
            self.error = writeln!(self.file, "{}", row(sample)).err();
        }
    }

    /// Write what is left.
    ///
    /// # Errors
    /// The first that happened.
    pub fn finish(mut self) -> io::Result<()> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.file.flush(),
        }
    }
}

/// A row, without a line break.
fn row(sample: &Sample) -> String {
    let time = |time: Duration| format!("{:.6}", time.as_secs_f64());
    let maybe = |at: Option<Duration>| at.map(time).unwrap_or_default();
    let outcome = sample.outcome.map_or_else(|failure| failure.code(), |()| "ok".to_owned());
    [
        time(sample.intended),
        time(sample.start),
        maybe(sample.connected),
        maybe(sample.first_byte),
        maybe(sample.last_byte),
        sample.bytes.to_string(),
        outcome,
        time(sample.ended),
        sample.client.to_string(),
    ]
    .join(",")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustbalance_load::{Failure, Sample};

    use super::{Csv, HEAD, row};

    fn sample() -> Sample {
        Sample {
            client: 3,
            intended: Duration::from_millis(1500),
            start: Duration::from_millis(1501),
            connected: None,
            first_byte: Some(Duration::from_millis(1700)),
            last_byte: Some(Duration::from_micros(1_800_001)),
            ended: Duration::from_micros(1_800_002),
            bytes: 11,
            connections: 0,
            new_circuit: false,
            resent: false,
            outcome: Ok(()),
        }
    }

    #[test]
    fn a_row_has_a_field_for_each_name() {
        let text = "1.500000,1.501000,,1.700000,1.800001,11,ok,1.800002,3";
        assert_eq!(row(&sample()), text);
        assert_eq!(text.split(',').count(), HEAD.split(',').count());
        let failed = Sample { outcome: Err(Failure::SocksReply(0xF2)), ..sample() };
        assert!(row(&failed).contains(",socks-0xF2,"));
    }

    #[test]
    fn an_existing_file_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.csv");
        std::fs::write(&path, "mine").expect("a file");
        assert!(Csv::create(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "mine");
    }
}
