//! The shape of a source file: a doc first, 600 lines and 100 columns at the most, no `mod.rs`.

use crate::Findings;
use crate::tree::Tree;

/// Lines of a file, tests included. Aim at half of it.
const FILE_LINES_MAX: usize = 600;

/// Characters of a line.
const LINE_COLUMNS_MAX: usize = 100;

/// Files that are longer, with the lines they have: they may shrink, never grow.
const LONG_FILES: &[(&str, usize)] = &[];

/// Files whose shape is wrong.
pub fn check(tree: &Tree) -> Findings {
    let mut findings = check_files(tree);
    for (path, lines) in LONG_FILES {
        let now = tree.get(path).map_or(0, |file| file.text.lines().count());
        if now < *lines {
            findings.push(format!("{path}: has {now} lines now: lower or remove its exception"));
        }
    }
    findings
}

fn check_files(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let path = &file.path;
        if path.ends_with("/mod.rs") {
            findings.push(format!("{path}: name it after its folder, `foo.rs` beside `foo/`"));
        }
        if !file.text.starts_with("//!") {
            findings.push(format!(
                "{path}:1: begin with `//!`: what it is, who calls it, what it never does"
            ));
        }
        let lines = file.text.lines().count();
        let known = LONG_FILES.iter().find(|(long, _)| long == path);
        let lines_max = known.map_or(FILE_LINES_MAX, |(_, lines)| *lines);
        if lines > lines_max {
            findings.push(format!(
                "{path}: {lines} lines, at most {lines_max}: move an idea, or the tests, into a \
                 file of its own"
            ));
        }
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX {
                findings.push(format!(
                    "{path}:{}: {columns} columns, at most {LINE_COLUMNS_MAX}: break the line",
                    index + 1
                ));
            }
            if line.ends_with([' ', '\t']) {
                findings.push(format!("{path}:{}: white space ends the line", index + 1));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check_files;
    use crate::tree::Tree;

    fn findings(path: &str, text: &str) -> usize {
        check_files(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn each_wrong_shape_is_found() {
        assert_eq!(findings("src/a/mod.rs", "//! A.\n"), 1);
        assert_eq!(findings("src/a.rs", "use std::fs;\n"), 1);
        assert_eq!(findings("src/a.rs", &format!("//! A.\n{}", "//\n".repeat(600))), 1);
        assert_eq!(findings("src/a.rs", &format!("//! {}\n", "ä".repeat(97))), 1);
        assert_eq!(findings("src/a.rs", "//! A. \n"), 1);
    }

    #[test]
    fn a_file_at_the_bounds_is_no_finding() {
        assert_eq!(findings("src/a.rs", &format!("//! A.\n{}", "//\n".repeat(599))), 0);
        assert_eq!(findings("src/a.rs", &format!("//! {}\n", "ä".repeat(96))), 0);
    }
}
