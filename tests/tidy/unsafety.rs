//! `unsafe` stands in few files, each with a reason, and each block proves what it relies on.

use crate::Findings;
use crate::mask::find_words;
use crate::tree::Tree;

/// Beginnings of paths that may use `unsafe`, and why safe code would not do.
const ALLOWED: &[(&str, &str)] = &[
    ("src/runtime/ring", "the kernel borrows memory for as long as an operation runs"),
    ("src/runtime/buffers", "buffers that are shared with the kernel"),
    ("src/cli/allocator", "memory of the whole process, by the calls of mimalloc"),
    ("src/cli/passed", "descriptors that are nobody's yet, and the environment of the process"),
    ("src/vault/memory", "locked and guarded pages for keys"),
];

/// `unsafe` where it may not stand, and blocks without a proof.
pub fn check(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let allowed = ALLOWED.iter().any(|(path, _)| file.path.starts_with(path));
        for at in find_words(&file.code, "unsafe") {
            if !allowed {
                findings.push(format!(
                    "{}: `unsafe` is only for {}: use a safe wrapper (`nix`, `core_affinity`), or \
                     add the file with its reason to tests/tidy/unsafety.rs",
                    file.place(at),
                    allowed_paths()
                ));
            } else if !proven(&file.text, file.line_of(at)) {
                findings.push(format!(
                    "{}: write `SAFETY:` above it, with a proof of every precondition",
                    file.place(at)
                ));
            }
        }
    }
    findings
}

/// Names of the allowed paths, for a message.
fn allowed_paths() -> String {
    ALLOWED.iter().map(|(path, _)| *path).collect::<Vec<_>>().join(", ")
}

/// Whether the comment directly above this line, or the line itself, has the proof. For an
/// `unsafe fn` the proof of its caller is asked for in a section `# Safety`.
fn proven(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let has = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    let above = lines[..line - 1].iter().rev();
    has(lines[line - 1])
        || above
            .take_while(|line| {
                let line = line.trim_start();
                line.starts_with("//") || line.starts_with("#[")
            })
            .any(|line| has(line))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tree::Tree;

    fn findings(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn unsafe_in_a_wrong_place_or_without_a_proof_is_found() {
        let proven = "// SAFETY: `p` is valid, it was just made.\nunsafe { *p };";
        assert_eq!(findings("src/onion/a.rs", proven), 1);
        assert_eq!(findings("src/runtime/ring/op.rs", "f();\nunsafe { *p };"), 1);
        assert_eq!(findings("src/runtime/ring/op.rs", proven), 0);
        assert_eq!(findings("src/onion/a.rs", "#![forbid(unsafe_code)] // unsafe"), 0);
    }
}
