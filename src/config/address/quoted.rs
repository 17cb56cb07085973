//! A text in quotes, as a torrc has it (C tor's `unescape_string`): C's escapes, less than all.

/// What is between the quotes that `text` begins and ends with.
///
/// # Errors
/// What is wrong, in words that follow "the quotes".
pub(super) fn unquote(text: &str) -> Result<Vec<u8>, &'static str> {
    const OPEN: &str = "do not end";
    const ESCAPE: &str =
        "hold an escape that is none of \\\\ \\\" \\' \\n \\r \\t, \\xHH and octal digits";
    let mut rest = text.strip_prefix('"').ok_or("are missing")?.as_bytes();
    let mut out = Vec::new();
    loop {
        let (byte, after) = rest.split_first().ok_or(OPEN)?;
        rest = after;
        match byte {
            b'"' if rest.is_empty() => return Ok(out),
            b'"' => return Err("end before the address does"),
            b'\n' => return Err(OPEN),
            b'\\' => {
                let (byte, after) = escaped(rest).ok_or(ESCAPE)?;
                out.push(byte);
                rest = after;
            }
            byte => out.push(*byte),
        }
    }
}

/// The byte that an escape stands for, and what comes after it. `text` begins after the backslash.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let digits = |text: &[u8], radix| {
        let text = std::str::from_utf8(text).ok()?;
        u8::from_str_radix(text, radix).ok()
    };
    let (first, after) = text.split_first()?;
    match first {
        b'x' | b'X' => {
            let (hex, after) = after.split_at_checked(2)?;
            let good = hex.iter().all(u8::is_ascii_hexdigit);
            Some((digits(hex, 16).filter(|_| good)?, after))
        }
        b'0'..=b'7' => {
            let octal = text.iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            let (octal, after) = text.split_at(octal);
            Some((digits(octal, 8)?, after))
        }
        b'n' => Some((b'\n', after)),
        b'r' => Some((b'\r', after)),
        b't' => Some((b'\t', after)),
        b'"' | b'\\' | b'\'' => Some((*first, after)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::unquote;

    #[test]
    fn escapes_are_those_of_a_torrc() {
        for (text, bytes) in [
            (r#""""#, b"".as_slice()),
            (r#""/run/a b""#, b"/run/a b"),
            (r#""\x2Frun\057a\n\r\t\"\'\\""#, b"/run/a\n\r\t\"'\\"),
            (r#""\7\0078\377\XfF""#, b"\x07\x078\xff\xff"),
            ("\"\u{e9}\"", "\u{e9}".as_bytes()),
        ] {
            assert_eq!(unquote(text).as_deref(), Ok(bytes), "{text}");
        }
        for text in [
            "/run/a",
            r#"""#,
            r#""/run/a"#,
            r#""/run/a" "#,
            r#""/run"/a"#,
            r#""a\""#,
            r#""\q""#,
            r#""\400""#,
            r#""\x1""#,
            r#""\x+1""#,
            "\"a\nb\"",
        ] {
            assert!(unquote(text).is_err(), "{text}");
        }
    }
}
