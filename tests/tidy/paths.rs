//! The paths that a file names: `crate::`, `self::` and `super::` resolved to full ones, groups in
//! braces unfolded.
//!
//! `use crate::{limits, tor::stack::Stack}` names `limits` and `tor::stack::Stack`.

use crate::mask::is_word;
use crate::tree::File;

/// A path from the root of the crate and where it is named.
#[derive(Debug, PartialEq)]
pub struct Named {
    /// `["tor", "stack", "Stack"]`.
    pub path: Vec<String>,
    /// Byte in the file.
    pub at: usize,
}

/// The module that a file is: `["tor", "stack"]` for `src/tor/stack.rs`, nothing for `src/lib.rs`.
pub fn module_of(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    if inner == "lib" || inner == "main" {
        return Vec::new();
    }
    inner.split('/').map(str::to_owned).collect()
}

/// Every path of our own crate that the file names, with `roots` as further names of the crate
/// (`rustbalance`, for the binary).
pub fn named(file: &File, roots: &[&str]) -> Vec<Named> {
    let code = file.code.as_str();
    let bytes = code.as_bytes();
    let module = module_of(&file.path);
    let modules = inline_modules(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((word, end)) = word_at(code, at) else {
            at += 1;
            continue;
        };
        let is_head = !code[..at].trim_end().ends_with("::")
            && code[skip_space(code, end)..].starts_with("::");
        let depth = modules.iter().filter(|(from, to)| (*from..*to).contains(&at)).count();
        let base = match word {
            "crate" => Some(Vec::new()),
            root if roots.contains(&root) => Some(Vec::new()),
            "super" | "self" => own_module(&module, depth),
            _ => None,
        };
        if let (true, Some(mut base)) = (is_head, base) {
            if word == "super" {
                base.pop();
            }
            follow(code, end, &base, at, &mut found);
        }
        at = end;
    }
    found
}

/// The module at a place `depth` inline modules deep. Their names do not matter: only `super` can
/// climb out of them.
fn own_module(module: &[String], depth: usize) -> Option<Vec<String>> {
    let inline = std::iter::repeat_n("(inline)".to_owned(), depth);
    let whole: Vec<String> = module.iter().cloned().chain(inline).collect();
    (!whole.is_empty()).then_some(whole)
}

/// Read what follows a path's head: `::name`, `::super`, `::{group}`.
fn follow(code: &str, mut at: usize, base: &[String], head: usize, found: &mut Vec<Named>) {
    let mut path = base.to_vec();
    loop {
        at = skip_space(code, at);
        if !code[at..].starts_with("::") {
            break;
        }
        at = skip_space(code, at + 2);
        if code[at..].starts_with('{') {
            for member in group_members(code, at) {
                let Some((word, end)) = word_at(code, member) else { continue };
                let mut inner = path.clone();
                match word {
                    "self" => {}
                    "super" => drop(inner.pop()),
                    _ => inner.push(word.to_owned()),
                }
                follow(code, end, &inner, member, found);
            }
            return;
        }
        let Some((word, end)) = word_at(code, at) else { break };
        match word {
            "super" => drop(path.pop()),
            _ => path.push(word.to_owned()),
        }
        at = end;
    }
    found.push(Named { path, at: head });
}

/// Where each member of the group begins that opens at `open`.
fn group_members(code: &str, open: usize) -> Vec<usize> {
    let close = block_end(code, open);
    let mut members = vec![skip_space(code, open + 1)];
    let mut depth = 0_usize;
    for (offset, byte) in code[open..close].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 1 => members.push(skip_space(code, open + offset + 1)),
            _ => {}
        }
    }
    members
}

/// From the opening to the closing brace of each `mod name { ... }` in the file.
pub fn inline_modules(code: &str) -> Vec<(usize, usize)> {
    let mut modules = Vec::new();
    for at in crate::mask::find_words(code, "mod") {
        let Some((_, end)) = word_at(code, skip_space(code, at + 3)) else { continue };
        let open = skip_space(code, end);
        if code[open..].starts_with('{') {
            modules.push((open, block_end(code, open)));
        }
    }
    modules
}

/// The byte after the brace that closes the block which opens at `open`.
pub fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code[open..].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// The word that begins here, and where it ends.
pub fn word_at(code: &str, at: usize) -> Option<(&str, usize)> {
    let length = code[at..].bytes().take_while(|byte| is_word(*byte)).count();
    (length > 0).then(|| (&code[at..at + length], at + length))
}

/// The next byte that is no white space.
pub fn skip_space(code: &str, at: usize) -> usize {
    at + code[at..].bytes().take_while(u8::is_ascii_whitespace).count()
}

#[cfg(test)]
mod tests {
    use super::{module_of, named};
    use crate::tree::Tree;

    fn names(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::of(&[(path, text)]);
        let file = tree.get(path).expect("it was just put there");
        named(file, &["rustbalance"]).iter().map(|named| named.path.join("::")).collect()
    }

    #[test]
    fn groups_are_unfolded() {
        let found = names("src/onion/a.rs", "use crate::{limits, tor::{stack::Stack, self}};");
        assert_eq!(found, ["limits", "tor::stack::Stack", "tor"]);
    }

    #[test]
    fn super_and_self_are_resolved_also_from_inline_modules() {
        let path = "src/onion/publisher/round.rs";
        let found = names(path, "use super::super::x::Y; fn f() { super::super::super::tor::g() }");
        assert_eq!(found, ["onion::x::Y", "tor::g"]);
        let found = names(path, "mod tests { use super::super::Pacing; use super::own; }");
        assert_eq!(found, ["onion::publisher::Pacing", "onion::publisher::round::own"]);
        assert_eq!(
            names(path, "fn f(&self) { self.x(); self::g() }"),
            ["onion::publisher::round::g"]
        );
    }

    #[test]
    fn the_binary_names_the_library() {
        assert_eq!(names("src/main.rs", "fn main() { rustbalance::cli::main() }"), ["cli::main"]);
        assert_eq!(module_of("src/lib.rs"), Vec::<String>::new());
        assert_eq!(module_of("src/tor/stack.rs"), ["tor", "stack"]);
    }
}
