//! Whatever is refused is named: by its line, and by its key and not only by its value.

use super::{MINIMAL, problems, read};
use crate::config::schema::{TABLES, TOP, Table};

/// From C tor's own tests.
const ONION: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";

/// What is the right value of no key, or of few.
const VALUES: [&str; 13] = [
    "-1",
    "0",
    "99999999999999",
    "1.5",
    "true",
    "\"\"",
    "\"no such thing\"",
    "\"\\u0001\"",
    "[]",
    "[\"\"]",
    "[-1]",
    "{}",
    "1979-05-27",
];

/// A file in which `line` sets `key` of a table, and everything else is right.
fn with(table: &Table, key: &str, line: &str) -> String {
    let unless = |other: &str, text: &str| match key == other {
        true => String::new(),
        false => format!("{text}\n"),
    };
    let head = table.heading;
    match head {
        "" => format!("{line}\n{MINIMAL}"),
        "[[service]]" => format!("{head}\n{line}\n{}", &MINIMAL[12..]),
        "[[service.port]]" => format!(
            "[[service]]\n{head}\n{line}\n{}{}",
            unless("virtual", "virtual = 80"),
            unless("backends", "backends = [\"127.0.0.1:80\"]")
        ),
        "backends" => {
            let address = unless("address", ", address = \"127.0.0.1:80\"");
            let backend = format!("backends = [{{ {line}{} }}]", address.trim_end());
            format!("[[service]]\n[[service.port]]\nvirtual = 80\n{backend}\n")
        }
        "[[service.remote]]" => {
            format!(
                "{MINIMAL}{head}\n{line}\n{}",
                unless("address", &format!("address = \"{ONION}\""))
            )
        }
        "[[listen]]" => format!(
            "{MINIMAL}{head}\n{line}\n{}{}",
            unless("address", "address = \"127.0.0.1:90\""),
            unless("virtual", "virtual = 80")
        ),
        _ => format!("{MINIMAL}{head}\n{line}\n"),
    }
}

/// Proves for every key that what is refused of it says where it stands and which key it is.
#[test]
fn every_refusal_names_the_line_and_the_key() {
    let mut refused = 0;
    for table in [&TOP].iter().chain(TABLES) {
        // Tables that these files have already.
        let keys = table.keys.iter().filter(|key| !["service", "port"].contains(key));
        for (key, value) in keys.flat_map(|key| VALUES.map(|value| (key, value))) {
            let text = with(table, key, &format!("{key} = {value}"));
            let Err(error) = read(&text) else { continue };
            refused += 1;
            let typed = text.lines().position(|line| line.contains(&format!("{key} = {value}")));
            let typed = typed.map(|line| line + 1);
            for problem in error.problems() {
                assert!(problem.line.is_some() && !problem.key.is_empty(), "{text}\n{error}");
                let fix_is_whole = !problem.fix.is_empty() && !problem.reason.is_empty();
                assert!(fix_is_whole && problem.fix != "correct it", "{text}\n{error}");
            }
            // What is wrong may be that another key does not go with it.
            let named = error.problems().iter().any(|problem| {
                let last = problem.key.rsplit('.').next().unwrap_or_default();
                problem.line == typed && last.split('[').next() == Some(key)
            });
            assert!(named || ["hello", "backup"].contains(key), "{text}\n{error}");
        }
    }
    // Most of them: each key takes one type, and few of the texts.
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_line_that_is_no_toml_is_named_with_its_key_and_without_its_value() {
    for (line, words) in [
        ("virtual = 80", "duplicate key, at virtual)"),
        ("queue_max = 8o", ", at queue_max)"),
        ("balance = \"random_two", ", at balance)"),
        ("[service.port.check", ", at [service.port.check)"),
    ] {
        let found = problems(&format!("{MINIMAL}{line}\n"));
        assert_eq!(found[0].line, Some(5), "{found:?}");
        assert!(found[0].reason.contains(words), "{found:?}");
        assert!(!found[0].reason.contains("8o"), "{found:?}");
    }
}

/// Proves that a fix may hold "; " and a reason may, and that neither is cut there.
#[test]
fn reasons_and_fixes_are_made_apart() {
    let text = MINIMAL.replace("127.0.0.1:80", "/run/a; b");
    let found = problems(&text);
    assert_eq!(found[0].reason, "\"/run/a; b\": this is a path");
    assert_eq!(found[0].fix, "write unix:/run/a; b");
    let long = format!("state_dir = \"/{}\"\n{MINIMAL}", "x".repeat(107));
    let found = problems(&long);
    assert_eq!((found[0].key.as_str(), found[0].line), ("admin.socket", None));
    assert!(!found[0].reason.contains(';'), "{found:?}");
}
