//! Values that logs below debug level must not show: onion addresses, client circuits, relays.
//!
//! `tracing::info!("published {}", redacted(&address))` prints `published [redacted]`. At debug
//! level the value itself is logged, as arti's `safelog` does it. What comes as text from elsewhere
//! (an error, a line of tor's) goes through [`scrub`], as does every line of the binary's log at
//! info and above: whoever writes one may have overlooked what is in it.

use std::borrow::Cow;
use std::fmt;

/// What is printed in place of a value.
pub const REDACTED: &str = "[redacted]";

/// A value that prints as `[redacted]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Redacted<T>(T);

/// Wrap `value` for a log line.
pub fn redacted<T>(value: T) -> Redacted<T> {
    Redacted(value)
}

impl<T> Redacted<T> {
    /// The value, for a debug line or for work.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

/// Characters of an onion address without its end (rend-spec-v3, "Encoding onion addresses").
const ONION_CHARS: usize = 56;
/// Hexadecimal digits of a relay's RSA identity.
const RSA_IDENTITY_CHARS: usize = 40;
/// Characters of a relay's Ed25519 identity, in base64.
const ED_IDENTITY_CHARS: usize = 43;
/// How the address begins that stands for a client's circuit in a PROXY header.
const CIRCUIT_PREFIX: &str = "fc00:dead:beef:4dad:";

/// `text` without what identifies somebody: `[redacted]` in place of each onion address, of each
/// relay's identity (with the nickname behind it, and its address after `at`), and of each address
/// that stands for a client's circuit.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let (mut out, mut rest) = (String::new(), text);
    let mut is_scrubbed = false;
    while let Some(first) = rest.chars().next() {
        let in_word = |c: char| c.is_ascii_alphanumeric();
        let word = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        if let Some(length) = identifying(rest, word) {
            is_scrubbed = true;
            out.push_str(REDACTED);
            rest = &rest[length..];
            continue;
        }
        let length = if word > 0 { word } else { first.len_utf8() };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    if is_scrubbed { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// How much of `rest`, which begins with a word of so many bytes, identifies somebody.
fn identifying(rest: &str, word: usize) -> Option<usize> {
    let of = |text: &str, allowed: fn(char) -> bool| {
        text.find(|c: char| !allowed(c)).unwrap_or(text.len())
    };
    let is_base32 = |c: char| c.is_ascii_alphabetic() || ('2'..='7').contains(&c);
    if word == ONION_CHARS && rest[..word].chars().all(is_base32) {
        return Some(word);
    }
    if let Some(start) = rest.get(..CIRCUIT_PREFIX.len())
        && start.eq_ignore_ascii_case(CIRCUIT_PREFIX)
    {
        return Some(of(rest, |c| c.is_ascii_hexdigit() || c == ':'));
    }
    if let Some(identity) = rest.strip_prefix("ed25519:") {
        let length = of(identity, |c| c.is_ascii_alphanumeric() || c == '+' || c == '/');
        return (length == ED_IDENTITY_CHARS).then_some(rest.len() - identity.len() + length);
    }
    let digits = rest.strip_prefix('$').unwrap_or(rest);
    let skipped = rest.len() - digits.len();
    if of(digits, |c| c.is_ascii_alphanumeric()) != RSA_IDENTITY_CHARS
        || of(digits, |c| c.is_ascii_hexdigit()) != RSA_IDENTITY_CHARS
    {
        return None;
    }
    let mut length = skipped + RSA_IDENTITY_CHARS;
    // tor's `$IDENTITY~nickname [ed25519] at address`.
    if rest[length..].starts_with(['~', '=']) {
        length += 1 + of(&rest[length + 1..], |c| c.is_ascii_alphanumeric());
    }
    if let Some(inner) = rest[length..].strip_prefix(" [")
        && inner.find(']') == Some(ED_IDENTITY_CHARS)
    {
        length += " []".len() + ED_IDENTITY_CHARS;
    }
    if let Some(address) = rest[length..].strip_prefix(" at ") {
        length += " at ".len() + of(address, |c| !c.is_whitespace());
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{redacted, scrub};

    #[test]
    fn prints_nothing_of_its_value() {
        let wrapped = redacted("abc.onion");
        assert_eq!(format!("{wrapped} {wrapped:?}"), "[redacted] [redacted]");
        assert_eq!(*wrapped.reveal(), "abc.onion");
    }

    #[test]
    fn what_identifies_somebody_goes_and_everything_else_stays() {
        let onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd";
        let hex = "23061d3f4c1a7b8f23061D3F4C1A7B8F23061d3f";
        let ed = "iwpE9XjMO1n2S8Uz9sQm2nsbGgSN0SCQWzRQ8fWl3W8";
        for (text, scrubbed) in [
            (format!("http://www.{onion}.onion:80/x"), "http://www.[redacted].onion:80/x"),
            (format!("({})", onion.to_uppercase()), "([redacted])"),
            (format!("Guard ${hex}~moria1 [{ed}] at 192.0.2.1 fails"), "Guard [redacted] fails"),
            (format!("ed25519:{ed}, {hex}."), "[redacted], [redacted]."),
            ("from fc00:DEAD:beef:4dad:0:1:0:29a it".to_owned(), "from [redacted] it"),
        ] {
            assert_eq!(scrub(&text), scrubbed);
        }
        for text in [
            "127.0.0.1:8080 and [::1]:80, unix:/run/app.sock, app.internal: é",
            "/etc/rustbalance/site/keys/of/the/other/machine/main.key",
            &onion[1..],
            &hex[1..],
            "ed25519:short",
            "",
        ] {
            assert!(matches!(scrub(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
