//! Banned words, each with its replacement.

use crate::Findings;
use crate::mask::find_words;
use crate::paths::inline_modules;
use crate::tree::{File, Tree};

/// A word, where it is banned, and what to write instead.
struct Ban {
    /// As code writes it.
    word: &'static str,
    /// Beginnings of the paths in which it is banned.
    banned_in: &'static [&'static str],
    /// Beginnings of the paths in which it is not.
    allowed_in: &'static [&'static str],
    /// What to write instead.
    instead: &'static str,
}

/// Everywhere that Rust stands.
const EVERYWHERE: &[&str] = &["src/", "tests/", "bench/", "examples/"];

/// The program itself.
const PROGRAM: &[&str] = &["src/"];

/// Who may print: the command line and the binary.
const MAY_PRINT: &[&str] = &["src/cli.rs", "src/cli/", "src/main.rs"];

/// Who may sleep in a test: the helpers that wait on a condition.
const MAY_POLL: &[&str] = &["tests/support/", "tests/support.rs"];

const BANS: &[Ban] = &[
    ban("todo!", EVERYWHERE, &[], "finish it, or leave it out and say so in the issue"),
    ban("unimplemented!", EVERYWHERE, &[], "return an error that says what is not supported"),
    ban("dbg!", EVERYWHERE, &[], "use `tracing::debug!`"),
    ban(".unwrap()", EVERYWHERE, &[], "use `?`, or `expect` with the invariant that holds"),
    ban("unbounded_channel", EVERYWHERE, &[], "use a bounded queue and count what it refuses"),
    ban("unbounded(", EVERYWHERE, &[], "use a bounded queue and count what it refuses"),
    ban("mpsc::channel()", EVERYWHERE, &[], "use `sync_channel`: the other has no bound"),
    ban("env::set_var", EVERYWHERE, &[], "pass the value, or `Command::env` for a child"),
    ban("env::remove_var", EVERYWHERE, &[], "pass the value, or `Command::env_remove`"),
    ban("#[ignore", EVERYWHERE, &[], "call a slow test's file tests/long_*.rs: it does run then"),
    ban("println!", PROGRAM, MAY_PRINT, "return the value to `cli`, or use `tracing`"),
    ban("print!", PROGRAM, MAY_PRINT, "return the value to `cli`, or use `tracing`"),
    ban("eprintln!", PROGRAM, MAY_PRINT, "use `tracing::warn!`"),
    ban("eprint!", PROGRAM, MAY_PRINT, "use `tracing::warn!`"),
    ban("process::exit", PROGRAM, MAY_PRINT, "return an error: a library never ends the process"),
    ban("#[allow(", PROGRAM, &[], "use `#[expect(.., reason = \"..\")]`: it ends with its cause"),
];

/// Sleeping is banned where tests stand, in files of their own or beside the code.
const BANNED_IN_TESTS: &[Ban] = &[
    ban("thread::sleep", EVERYWHERE, MAY_POLL, "wait on the condition itself"),
    ban("time::sleep(", EVERYWHERE, MAY_POLL, "wait on the condition itself"),
];

const fn ban(
    word: &'static str,
    banned_in: &'static [&'static str],
    allowed_in: &'static [&'static str],
    instead: &'static str,
) -> Ban {
    Ban { word, banned_in, allowed_in, instead }
}

/// Banned words in code; comments and literals may name them.
pub fn check(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let everywhere = BANS.iter().map(|ban| (ban, false));
        for (ban, tests_only) in everywhere.chain(BANNED_IN_TESTS.iter().map(|ban| (ban, true))) {
            let under = |paths: &[&str]| paths.iter().any(|path| file.path.starts_with(path));
            if !under(ban.banned_in) || under(ban.allowed_in) {
                continue;
            }
            for at in find_words(&file.code, ban.word) {
                if !tests_only || is_test(file, at) {
                    findings.push(format!("{}: `{}`: {}", file.place(at), ban.word, ban.instead));
                }
            }
        }
    }
    findings
}

/// Whether this place is part of a test: under `tests/`, in a `tests.rs`, or in a `mod tests`.
fn is_test(file: &File, at: usize) -> bool {
    let of_tests = file.path.starts_with("tests/") || file.path.ends_with("/tests.rs");
    of_tests || inline_modules(&file.code).iter().any(|(from, to)| (*from..*to).contains(&at))
}

#[cfg(test)]
mod tests {
    use super::{BANS, check};
    use crate::tree::Tree;

    fn findings(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn every_banned_word_is_found() {
        for ban in BANS {
            let path = format!("{}a.rs", ban.banned_in[0]);
            let text = format!("fn f() {{ x{} y }}", ban.word);
            let text = match ban.word.starts_with('.') {
                true => text,
                false => text.replacen('x', " ", 1),
            };
            assert_eq!(findings(&path, &text), 1, "{}", ban.word);
        }
    }

    #[test]
    fn a_test_that_sleeps_is_found() {
        let sleep = "std::thread::sleep(step);";
        assert_eq!(findings("tests/fetch.rs", sleep), 1);
        assert_eq!(findings("src/app/tests.rs", sleep), 1);
        assert_eq!(findings("src/app.rs", &format!("mod tests {{ fn f() {{ {sleep} }} }}")), 1);
        assert_eq!(findings("src/app.rs", &format!("fn f() {{ {sleep} }}")), 0);
    }

    #[test]
    fn a_word_in_a_comment_a_literal_or_an_allowed_file_is_no_finding() {
        assert_eq!(findings("src/a.rs", "// todo!\nlet a = \"dbg!(1)\";"), 0);
        assert_eq!(findings("src/cli/run.rs", "println!(\"ready\");"), 0);
        assert_eq!(findings("tests/support/wait.rs", "std::thread::sleep(step);"), 0);
        assert_eq!(findings("bench/lab/src/wait.rs", "std::thread::sleep(step);"), 0);
        assert_eq!(findings("src/a.rs", "a.unwrap_or_default(); my_todo!();"), 0);
    }
}
