//! Lines from another process, none longer than a bound: of its control port, and of its log.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Reads lines. A call that is dropped loses nothing: what it read is there for the next one.
#[derive(Debug)]
pub(super) struct Lines<R> {
    /// Where they come from.
    reader: R,
    /// The beginning of the next one.
    partial: Vec<u8>,
    /// Bytes of a line at most.
    bytes_max: usize,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Lines of at most so many bytes.
    pub(super) fn new(reader: R, bytes_max: usize) -> Lines<R> {
        Lines { reader, partial: Vec::new(), bytes_max }
    }

    /// Where they come from, to write there.
    pub(super) fn reader_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The next line without its end; `None` at the end of all.
    pub(super) async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let room = self.reader.fill_buf().await?;
            if room.is_empty() {
                return Ok(None);
            }
            let end = room.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(room.len(), |end| end + 1);
            if self.partial.len() + taken > self.bytes_max {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            self.partial.extend_from_slice(&room[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                let line = std::mem::take(&mut self.partial);
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncWriteExt as _, BufReader};

    use super::Lines;

    #[test]
    fn a_call_that_is_dropped_loses_nothing_and_a_long_line_is_an_error() {
        let (mut there, here) = tokio::io::duplex(64);
        let mut lines = Lines::new(BufReader::new(here), 12);
        let mut write = |text: &str| {
            there.write_all(text.as_bytes()).now_or_never().expect("there is room").expect("open");
        };
        write("250 ");
        assert!(lines.next().now_or_never().is_none(), "the line has no end yet");
        write("OK\r\n650");
        let line = lines.next().now_or_never().expect("it is whole").expect("it is short");
        assert_eq!(line.as_deref(), Some("250 OK"));
        write(" twelve bytes");
        assert!(lines.next().now_or_never().expect("it is too long").is_err());
    }
}
