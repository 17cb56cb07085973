//! What a backend answers to an HTTP health check: the status of its final response, byte by byte.
//!
//! ```text
//!   status line --1xx but 101--> its head, line by line --empty line--> status line
//!        '-- any other status: the verdict; nothing after it is looked at
//! ```
//!
//! Headers are never judged: what a server writes there is for its clients to like or not. Lines
//! end with LF, with or without a CR before it, and bytes are taken one at a time, so that the
//! verdict cannot depend on how they were packed.

use crate::limits::{CHECK_HEAD_BYTES_MAX, CHECK_LINE_BYTES_KEPT};

/// Why there is no verdict and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    /// It is something else.
    #[error("not HTTP: the answer has no status line")]
    NotHttp,
    /// It is too long.
    #[error("no status within {CHECK_HEAD_BYTES_MAX} bytes of the answer")]
    TooLong,
}

/// An answer that is being read. Keeps part of one line.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Bytes so far.
    bytes: usize,
    /// The line so far, without its end, up to what is kept of one.
    line: Vec<u8>,
    /// Whether this is the head of an interim response.
    interim: bool,
}

impl Answer {
    /// Take what has come; the status, once it is known.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<u16>, AnswerError> {
        for byte in bytes {
            self.bytes += 1;
            if self.bytes > CHECK_HEAD_BYTES_MAX {
                return Err(AnswerError::TooLong);
            }
            if *byte == b'\n' {
                if let Some(status) = self.end_line()? {
                    return Ok(Some(status));
                }
                self.line.clear();
                continue;
            }
            if self.line.len() < CHECK_LINE_BYTES_KEPT {
                self.line.push(*byte);
            }
            let begins = self.line.iter().zip(b"HTTP/").all(|(one, other)| one == other);
            if !self.interim && self.line != b"\r" && !begins {
                return Err(AnswerError::NotHttp);
            }
        }
        Ok(None)
    }

    /// A line is whole: the status, if it says the final one.
    fn end_line(&mut self) -> Result<Option<u16>, AnswerError> {
        let empty = self.line.is_empty() || self.line == b"\r";
        if self.interim || empty {
            // An empty line in front of a status line does no harm.
            self.interim = self.interim && !empty;
            return Ok(None);
        }
        let status = status(&self.line).ok_or(AnswerError::NotHttp)?;
        // After 101 the connection would speak something else, which was not asked for.
        self.interim = (100..=199).contains(&status) && status != 101;
        Ok((!self.interim).then_some(status))
    }
}

/// The status that a status line begins with: `HTTP/version`, spaces, three digits, and then a
/// space or nothing (RFC 9112, section 4; the reason is for people).
fn status(line: &[u8]) -> Option<u16> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let version = words.next()?.strip_prefix(b"HTTP/")?;
    if !version.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    match words.next()? {
        [first @ b'1'..=b'9', second @ b'0'..=b'9', third @ b'0'..=b'9'] => {
            let digit = |byte: &u8| u16::from(*byte - b'0');
            Some(digit(first) * 100 + digit(second) * 10 + digit(third))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, AnswerError};
    use crate::limits::CHECK_HEAD_BYTES_MAX;

    /// What an answer leads to.
    type Verdict = Result<Option<u16>, AnswerError>;

    /// What pieces of this many bytes lead to.
    fn verdict(answer: &[u8], piece_bytes: usize) -> Verdict {
        let mut reader = Answer::default();
        for piece in answer.chunks(piece_bytes) {
            let found = reader.take(piece)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    #[test]
    fn the_final_status_line_decides_however_its_bytes_are_packed() {
        let ok = Ok(Some(200));
        let cases: [(&[u8], Verdict); 27] = [
            (b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n", ok),
            // What strict readers call malformed, after the verdict.
            (b"HTTP/1.1 200 OK\r\nServer : x\r\n\r\n", ok),
            (b"HTTP/1.1 200 OK\r\nX-Long: a\r\n folded\r\n\tagain\r\n\r\n", ok),
            (b"HTTP/1.1 200 OK\r\n<br />\n<b>Warning</b>: mysqli in /a.php\r\n\r\n", ok),
            (b"HTTP/1.1 200 OK\r\nX-Name: J\xf6rg \xff\x00\r\n\r\n", ok),
            (b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n", ok),
            (b"HTTP/1.1 200 Tr\xe8s bien\r\n\r\n", ok),
            // Forms of the status line.
            (b"HTTP/1.0 200 OK\r\n\r\n", ok),
            (b"HTTP/1.1 200\r\n\r\n", ok),
            (b"HTTP/1.1 200 \r\n\r\n", ok),
            (b"HTTP/1.1  200 OK\n\n", ok),
            (b"HTTP/2 200\n", ok),
            (b"\r\nHTTP/1.1 200 OK\r\n", ok),
            (b"HTTP/1.1 204 No Content\r\n", Ok(Some(204))),
            (b"HTTP/1.0 503\r\n\r\n", Ok(Some(503))),
            (b"HTTP/1.1 503 HTTP/1.1 200 OK\r\n", Ok(Some(503))),
            // Interim responses.
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", ok),
            (b"HTTP/1.1 103\nLink : </a>\n HTTP/1.1 500\n\xfc\n\nHTTP/1.1 200\n", ok),
            (
                b"HTTP/1.1 100 A\r\n\r\nHTTP/1.1 103 B\r\nLink: x\r\n\r\nHTTP/1.1 404 C\r\n",
                Ok(Some(404)),
            ),
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Ok(Some(101))),
            // Not yet.
            (b"HTTP/1.1 2", Ok(None)),
            (b"HTTP/1.1 200 OK", Ok(None)),
            (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n", Ok(None)),
            // Never.
            (b"SSH-2.0-OpenSSH_9.2\r\n", Err(AnswerError::NotHttp)),
            (b"<html>200 OK", Err(AnswerError::NotHttp)),
            (b"HTTP/1.1 20 OK\r\n", Err(AnswerError::NotHttp)),
            (b"HTTP/1.1 2000\r\n", Err(AnswerError::NotHttp)),
        ];
        for (answer, expected) in cases {
            for piece_bytes in [1, 2, 3, 7, answer.len()] {
                let text = String::from_utf8_lossy(answer);
                assert_eq!(verdict(answer, piece_bytes), expected, "{text:?} by {piece_bytes}");
            }
        }
    }

    #[test]
    fn an_answer_without_an_end_is_read_up_to_a_bound_and_not_kept() {
        let reason = [b"HTTP/1.1 200 ".as_slice(), &vec![b'x'; CHECK_HEAD_BYTES_MAX]].concat();
        assert_eq!(verdict(&reason, 1), Err(AnswerError::TooLong));
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000);
        assert_eq!(verdict(&hints, 1000), Err(AnswerError::TooLong));
        let mut reader = Answer::default();
        reader.take(&reason[..1000]).expect("it may still end");
        assert!(reader.line.len() <= crate::limits::CHECK_LINE_BYTES_KEPT);
        assert_eq!(reader.take(b"\r\n"), Ok(Some(200)));
    }
}
