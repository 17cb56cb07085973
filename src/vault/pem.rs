//! The private key of a PEM file as people have it: with what openssl writes around it.
//!
//! RFC 7468 wants nothing but the lines of one section. `openssl pkcs12` writes "Bag Attributes"
//! before each, editors put a byte order mark, spaces and indentation in, and certificates stand in
//! the same file. [`private_key`] takes the lines of the one private key out and writes them as the
//! RFC has them, into memory that is wiped; decoding is the `pkcs8` crate's, which is strict and
//! wipes what it made. (Crates that read loosely decode into buffers that they do not wipe.)

use zeroize::Zeroizing;

use super::error::KeyFormatError;

/// The beginning of a section's first line.
const BEGIN: &[u8] = b"-----BEGIN ";

/// The beginning of its last line.
const END: &[u8] = b"-----END ";

/// The end of both.
const DASHES: &[u8] = b"-----";

/// The label of a private key in PKCS#8.
const LABEL: &str = "PRIVATE KEY";

/// A section: its label, and its lines without spaces around them.
type Section<'a> = (&'a str, Vec<&'a [u8]>);

/// Whether there is a section, or the beginning of one.
pub(super) fn is_pem(bytes: &[u8]) -> bool {
    lines(bytes).any(|line| line.starts_with(b"-----BEGIN"))
}

/// The one private key of the file, as RFC 7468 has it.
pub(super) fn private_key(bytes: &[u8]) -> Result<Zeroizing<String>, KeyFormatError> {
    let refused = |reason: String| KeyFormatError::Pem { reason };
    let sections = sections(bytes)?;
    let is_key = |label: &str| label.ends_with(LABEL);
    let mut keys = sections.iter().filter(|(label, _)| is_key(label));
    let (label, body) = match (keys.next(), keys.next()) {
        (Some(key), None) => key,
        (Some(_), Some(_)) => {
            let reason = "there are several private keys in it; leave one".to_owned();
            return Err(refused(reason));
        }
        (None, _) => {
            let labels: Vec<_> = sections.iter().map(|(label, _)| format!("`{label}`")).collect();
            return Err(refused(format!("its label is {}", labels.join(" and "))));
        }
    };
    // PKCS#8's own encryption has a label; the older one has header lines, with a colon.
    if label.starts_with("ENCRYPTED") || body.iter().any(|line| line.starts_with(b"Proc-Type:")) {
        return Err(KeyFormatError::Encrypted);
    }
    if *label != LABEL {
        return Err(refused(format!("its label is `{label}`")));
    }
    // As long as the file at most: the buffer does not grow, so no copy of it stays behind.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() + 2 * LABEL.len() + 64));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    // Lines of any length: the RFC's have 64 characters.
    for (index, byte) in body.iter().copied().flatten().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        // What is not ASCII is no base64, and is refused as such.
        text.push(if byte.is_ascii() { char::from(*byte) } else { '!' });
    }
    text.push_str("\n-----END PRIVATE KEY-----\n");
    Ok(text)
}

/// Lines without the spaces around them, the first without a byte order mark.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.split(|byte| [b'\n', b'\r'].contains(byte)).map(<[u8]>::trim_ascii)
}

/// The label of a line that begins or ends a section.
fn label<'a>(line: &'a [u8], beginning: &[u8]) -> Option<&'a str> {
    let label = line.strip_prefix(beginning)?.strip_suffix(DASHES)?;
    str::from_utf8(label).ok()
}

/// Every section of the file; what stands between them is passed over.
fn sections(bytes: &[u8]) -> Result<Vec<Section<'_>>, KeyFormatError> {
    let damaged = || KeyFormatError::Pem { reason: "the PEM lines are damaged".to_owned() };
    let (mut done, mut open) = (Vec::new(), None::<Section<'_>>);
    for line in lines(bytes) {
        match &mut open {
            Some((label_open, _)) if line.starts_with(END) => {
                if label(line, END) != Some(*label_open) {
                    return Err(damaged());
                }
                done.extend(open.take());
            }
            Some(_) if line.starts_with(BEGIN) => return Err(damaged()),
            Some((_, body)) if !line.is_empty() => body.push(line),
            Some(_) => {}
            None if line.starts_with(BEGIN) => {
                open = Some((label(line, BEGIN).ok_or_else(damaged)?, Vec::new()));
            }
            None => {}
        }
    }
    if open.is_some() || done.is_empty() { Err(damaged()) } else { Ok(done) }
}
