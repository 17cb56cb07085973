//! Scripts that people run: strict bash, a header that says what and for whom, and a `--help`.

use crate::Findings;
use crate::tree::Tree;

/// Lines in which the header must have begun.
const HEADER_LINES: usize = 3;

/// Files of helpers that scripts read in and nobody runs.
const READ_IN: &[&str] = &["scripts/lib.sh"];

/// Scripts that do not keep the rules.
pub fn check(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    let folders = ["scripts/", ".ci/"];
    for file in tree.files().filter(|file| folders.iter().any(|dir| file.path.starts_with(dir))) {
        let (path, text) = (&file.path, &file.text);
        let runs = !READ_IN.contains(&path.as_str());
        let mut missing = |holds: bool, what: &str| {
            if !holds {
                findings.push(format!("{path}: {what}"));
            }
        };
        let mut header = text.lines().skip(1).take(HEADER_LINES);
        missing(header.any(|line| line.starts_with("# ")), "say what it does and for whom");
        if runs {
            missing(text.starts_with("#!/usr/bin/env bash\n"), "begin with #!/usr/bin/env bash");
            missing(text.contains("\nset -euo pipefail\n"), "write `set -euo pipefail`");
            missing(file.executable, "make it executable: chmod +x");
        }
        if runs && path.starts_with("scripts/") {
            missing(text.contains("--help"), "answer --help");
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tree::Tree;

    #[test]
    fn a_careless_script_is_found() {
        let bad = Tree::of(&[("scripts/x", "#!/bin/sh\necho hello\n")]);
        assert_eq!(check(&bad).len(), 4, "{:?}", check(&bad));
        let good = "#!/usr/bin/env bash\n# Says hello, for a test. `--help` too.\n\
                    set -euo pipefail\necho hello\n";
        assert!(check(&Tree::of(&[("scripts/x", good)])).is_empty());
    }
}
