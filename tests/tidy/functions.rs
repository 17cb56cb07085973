//! Functions of a size to read. A ratchet: what is longer stands in a list, and the list may only
//! get shorter.

use crate::Findings;
use crate::mask::find_words;
use crate::paths::{block_end, skip_space, word_at};
use crate::tree::{File, Tree};

/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer, with their lines and the reason: they may shrink, never grow.
const LONG_FUNCTIONS: &[(&str, &str, usize, &str)] = &[];

/// A function with a body.
struct Function<'a> {
    name: &'a str,
    at: usize,
    lines: usize,
}

/// Functions that are too long, and exceptions that nobody needs any more.
pub fn check(tree: &Tree) -> Findings {
    check_with(tree, LONG_FUNCTIONS)
}

fn check_with(tree: &Tree, exceptions: &[(&str, &str, usize, &str)]) -> Findings {
    let mut findings = Vec::new();
    let mut used = vec![false; exceptions.len()];
    for file in tree.rust() {
        for function in functions(file) {
            let known = exceptions
                .iter()
                .position(|(path, name, ..)| *path == file.path && *name == function.name);
            let lines_max = known.map_or(FUNCTION_LINES_MAX, |index| exceptions[index].2);
            if let Some(index) = known {
                used[index] |= function.lines == lines_max;
            }
            if function.lines > lines_max {
                findings.push(format!(
                    "{}: `{}` has {} lines, at most {lines_max}: give a part of it a name",
                    file.place(function.at),
                    function.name,
                    function.lines
                ));
            }
        }
    }
    for ((path, name, lines, _), used) in exceptions.iter().zip(used) {
        if !used {
            findings.push(format!(
                "{path}: `{name}` no longer has {lines} lines: lower or remove its exception"
            ));
        }
    }
    findings
}

fn functions(file: &File) -> Vec<Function<'_>> {
    let code = file.code.as_str();
    let mut found = Vec::new();
    for at in find_words(code, "fn") {
        // `fn(u8) -> u8` is a type and has no name.
        let Some((name, end)) = word_at(code, skip_space(code, at + 2)) else { continue };
        let Some(open) = body_start(code, end) else { continue };
        let lines = file.line_of(block_end(code, open) - 1) - file.line_of(at) + 1;
        found.push(Function { name, at, lines });
    }
    found
}

/// The brace that opens the body; `None` for a signature without one.
fn body_start(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, byte) in code[from..].bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(from + offset),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::check_with;
    use crate::tree::Tree;

    fn function(lines: usize) -> String {
        format!("fn f(a: [u8; 3]) -> X\nwhere\n    T: U,\n{{\n{}}}\n", "x();\n".repeat(lines - 5))
    }

    #[test]
    fn a_long_function_is_found_and_one_at_the_bound_is_not() {
        let count = |lines| check_with(&Tree::of(&[("src/a.rs", &function(lines))]), &[]).len();
        assert_eq!(count(71), 1);
        assert_eq!(count(70), 0);
    }

    #[test]
    fn an_exception_holds_at_its_length_and_falls_with_it() {
        let exceptions = [("src/a.rs", "f", 80, "an example")];
        let count =
            |lines| check_with(&Tree::of(&[("src/a.rs", &function(lines))]), &exceptions).len();
        assert_eq!(count(80), 0);
        assert_eq!(count(81), 2, "longer than its exception, which is stale then");
        assert_eq!(count(75), 1, "the exception is higher than it needs to be");
    }

    #[test]
    fn types_and_signatures_are_no_functions() {
        let text = format!("trait T {{ fn g(f: fn(u8) -> u8); {} }}", "\n".repeat(100));
        assert!(check_with(&Tree::of(&[("src/a.rs", &text)]), &[]).is_empty());
    }
}
