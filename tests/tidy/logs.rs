//! Log lines at info and above that name what identifies somebody: a second net beside the filter
//! of the binary's log, as an embedding program's log has none.

use crate::Findings;
use crate::tree::Tree;

/// Macros of lines that anybody may read.
const MACROS: &[&str] = &["tracing::info!(", "tracing::warn!(", "tracing::error!("];

/// Names of values that identify a service, a client or a relay.
const IDENTIFYING: &[&str] = &[
    "onion",
    "onion_address",
    "circuit",
    "circuit_id",
    "serial",
    "cookie",
    "fingerprint",
    "identity",
    "rsa_identity",
    "ed_identity",
    "relay",
    "hsdir",
    "peer",
    "client",
];

/// Names in such a line, as values or between the braces of its text.
pub fn check(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for file in tree.source() {
        for (at, name) in MACROS.iter().flat_map(|name| file.code.match_indices(name)) {
            let from = at + name.len();
            let to = from + length_to_end(&file.code[from..]);
            let in_text = |word: &str| {
                let text = &file.text[from..to];
                [format!("{{{word}}}"), format!("{{{word}:")].iter().any(|one| text.contains(one))
            };
            let as_value = |word: &str| {
                let words = file.code[from..to].split(|c: char| !c.is_alphanumeric() && c != '_');
                words.into_iter().any(|one| one == word)
            };
            if file.code[from..to].contains("redacted(") {
                continue;
            }
            for word in IDENTIFYING.iter().filter(|word| in_text(word) || as_value(word)) {
                findings.push(format!(
                    "{}: a line at info or above names `{word}`: wrap it in `redacted(..)`, or log \
                     it at debug",
                    file.place(at)
                ));
            }
        }
    }
    findings
}

/// Bytes to the parenthesis that ends what was opened just before.
fn length_to_end(code: &str) -> usize {
    let mut depth = 1;
    let end = code.find(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    end.unwrap_or(code.len())
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tree::Tree;

    #[test]
    fn a_line_that_names_somebody_is_found_and_any_other_is_not() {
        let findings = |text: &str| check(&Tree::of(&[("src/a.rs", text)])).len();
        for bad in [
            "tracing::info!(%onion, \"it comes\");",
            "tracing::warn!(circuit = %it.circuit_id, \"x\");",
            "tracing::error!(\"no answer of {peer}\");",
            "tracing::info!(\n    core,\n    \"at {relay:?}\",\n);",
        ] {
            assert_ne!(findings(bad), 0, "{bad}");
        }
        for good in [
            "tracing::debug!(%onion, \"it comes\");",
            "tracing::info!(\"the onion of {}\", redacted(onion));",
            "tracing::warn!(circuits = 3, \"circuits of a relay close\"); let onion = peer;",
        ] {
            assert_eq!(findings(good), 0, "{good}");
        }
    }
}
