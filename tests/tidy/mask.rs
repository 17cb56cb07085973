//! Rust text with comments and literals blanked out, so that a word in a sentence is no finding.
//!
//! Not a parser: it knows line and nested block comments, strings (raw, byte and C too), characters
//! and lifetimes. Blanked bytes become spaces; line ends stay, so offsets and lines are those of
//! the original.

/// The text with everything blanked that is no code.
pub fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment_end(bytes, at);
        match end {
            Some(end) => {
                blank(&mut out[at..end]);
                at = end;
            }
            // A whole word at once, so that the `r` of `for` never begins a raw string.
            None if is_word(bytes[at]) => {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
            }
            None => at += 1,
        }
    }
    String::from_utf8(out).expect("whole characters were blanked or kept")
}

/// Where the literal or comment that begins here ends; `None` when none begins here.
fn literal_or_comment_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(block_comment_end(bytes, at));
    }
    let prefix = [&b"br"[..], b"cr", b"r", b"b", b"c", b""]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix) && quote_follows(&rest[prefix.len()..], prefix))?;
    let open = at + prefix.len();
    if prefix.ends_with(b"r") {
        return Some(raw_string_end(bytes, open));
    }
    match bytes[open] {
        b'"' => Some(quoted_end(bytes, open + 1, b'"')),
        _ => char_end(bytes, open),
    }
}

/// Whether, after this prefix, a literal begins.
fn quote_follows(rest: &[u8], prefix: &[u8]) -> bool {
    if prefix.ends_with(b"r") {
        let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
        return rest.get(hashes) == Some(&b'"');
    }
    rest.first() == Some(&b'"') || (prefix != b"c" && rest.first() == Some(&b'\''))
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn raw_string_end(bytes: &[u8], open: usize) -> usize {
    let hashes = bytes[open..].iter().take_while(|byte| **byte == b'#').count();
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let body = open + hashes + 1;
    let found = bytes[body..].windows(close.len()).position(|window| window == close);
    found.map_or(bytes.len(), |length| body + length + close.len())
}

fn quoted_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a character literal, or `None` for a lifetime, which is code.
fn char_end(bytes: &[u8], open: usize) -> Option<usize> {
    let body = std::str::from_utf8(&bytes[open + 1..]).ok()?;
    let first = body.chars().next()?;
    if first == '\\' || body[first.len_utf8()..].starts_with('\'') {
        return Some(quoted_end(bytes, open + 1, b'\''));
    }
    None
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Whether the byte is part of an identifier. Bytes above ASCII count: they are rare in code.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Every place in the code where this text stands as a whole word, as far as its own first and last
/// bytes are word bytes: `unsafe` is not found in `unsafe_code`, `dbg!(` is found in `x=dbg!(1)`.
pub fn find_words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_none_or(|byte| !is_word(*byte));
    let word_bytes = word.as_bytes();
    let (first, last) = (word_bytes[0], word_bytes[word_bytes.len() - 1]);
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        (!is_word(first) || edge(at.checked_sub(1).and_then(|before| bytes.get(before))))
            && (!is_word(last) || edge(bytes.get(at + word.len())))
    })
}

#[test]
fn comments_and_literals_are_blanked_and_code_is_kept() {
    let text = "let a = \"x // y\"; // no
                let b = r#\"q\"w\"#; /* n /* m */ */ f('\\'', 'z', b'\"');";
    let code = code_only(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.lines().count(), 2);
    assert!(!code.contains("no") && !code.contains('q') && !code.contains('m'), "{code}");
    assert!(code.contains("let a =") && code.contains("let b =") && code.contains("f("), "{code}");
    assert!(code.trim_end().ends_with(");"), "{code}");
}

#[test]
fn lifetimes_and_words_that_end_in_r_are_code() {
    let code = code_only("fn f<'a>(x: &'a str) { for\"s\" in x {} let year = 'é'; keep }");
    assert!(code.contains("<'a>(x: &'a str)"), "{code}");
    assert!(code.contains("for") && code.contains("keep") && !code.contains('é'), "{code}");
}

#[test]
fn only_whole_words_are_found() {
    let found: Vec<usize> = find_words("unsafe_code unsafe {} x.unsafe", "unsafe").collect();
    assert_eq!(found, [12, 24]);
}
