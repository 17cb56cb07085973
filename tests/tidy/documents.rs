//! Documents: one title each, links that resolve, decisions that are listed, and no path that
//! exists only on somebody's own machine.

use crate::Findings;
use crate::tree::{File, Tree};

/// Beginnings of paths that mean nothing to a reader elsewhere. Written in two parts, so that this
/// file is no finding itself.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("shared/", "reference")];

/// Where the decisions stand, and their list.
const DECISIONS: &str = "docs/adr/";
const DECISION_LIST: &str = "docs/adr/README.md";

/// Everything that is wrong with the documents.
pub fn check(tree: &Tree) -> Findings {
    let mut findings = titles(tree);
    findings.extend(links(tree));
    findings.extend(mentions(tree));
    findings.extend(machine_paths(tree));
    findings.extend(decisions(tree));
    findings
}

/// Exactly one `# title` in each document.
fn titles(tree: &Tree) -> Findings {
    let with = |file: &File| prose(&file.text).filter(|(_, line)| line.starts_with("# ")).count();
    tree.markdown()
        .map(|file| (file, with(file)))
        .filter(|(_, titles)| *titles != 1)
        .map(|(file, titles)| {
            format!("{}: {titles} titles: write one `# title`, `##` below it", file.path)
        })
        .collect()
}

/// Links to files of the repository, and to headings of them.
fn links(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for file in tree.markdown() {
        for (line, target) in targets(&file.text) {
            let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
            let outside = target.contains("://") || target.starts_with("mailto:");
            if outside {
                continue;
            }
            let full = match path {
                "" => file.path.clone(),
                _ => join(&file.path, path),
            };
            let place = format!("{}:{line}", file.path);
            if !tree.has(&full) {
                findings.push(format!("{place}: `{target}` does not exist: mend the link"));
            } else if let Some(to) = tree.get(&full).filter(|_| !heading.is_empty())
                && !headings(&to.text).any(|slug| slug == heading)
            {
                findings.push(format!("{place}: {full} has no heading `#{heading}`"));
            }
        }
    }
    findings
}

/// Documents that a comment or a sentence names by their path.
fn mentions(tree: &Tree) -> Findings {
    let is_path = |byte: char| byte.is_ascii_alphanumeric() || "_-./:".contains(byte);
    let mut findings = Vec::new();
    // The checkers have examples of documents that do not exist.
    for file in tree.files().filter(|file| !file.path.starts_with("tests/tidy")) {
        for (index, line) in file.text.lines().enumerate() {
            for word in line.split(|byte: char| !is_path(byte)) {
                let word = word.trim_end_matches(['.', ':']);
                let is_document = word.ends_with(".md") && word.contains('/');
                if !is_document || word.contains("://") || word.starts_with('/') {
                    continue;
                }
                if !tree.has(word) && !tree.has(&join(&file.path, word)) {
                    findings.push(format!(
                        "{}:{}: `{word}` does not exist: name a document of this repository",
                        file.path,
                        index + 1
                    ));
                }
            }
        }
    }
    findings
}

/// Paths of somebody's own machine, in any text.
fn machine_paths(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for file in tree.files() {
        for path in MACHINE_PATHS {
            for (at, _) in file.text.match_indices(path) {
                findings.push(format!(
                    "{}: `{path}` exists only on one machine: say it without",
                    file.place(at)
                ));
            }
        }
    }
    findings
}

/// Each decision is in the list, and its number is used once.
fn decisions(tree: &Tree) -> Findings {
    let Some(list) = tree.get(DECISION_LIST) else {
        return vec![format!("{DECISION_LIST}: write the list of decisions")];
    };
    let listed: Vec<String> = targets(&list.text).map(|(_, target)| target).collect();
    let mut findings = Vec::new();
    let mut last = String::new();
    for file in tree.markdown().filter(|file| file.path.starts_with(DECISIONS)) {
        let name = &file.path[DECISIONS.len()..];
        if file.path == DECISION_LIST {
            continue;
        }
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            findings.push(format!("{}: begin its name with four digits", file.path));
        }
        if number == last {
            findings.push(format!("{}: number {number} is taken: use the next", file.path));
        }
        number.clone_into(&mut last);
        if !listed.iter().any(|target| target == name) {
            findings.push(format!("{}: list it in {DECISION_LIST}", file.path));
        }
    }
    findings
}

/// The lines outside of fenced blocks, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        (!fenced && !is_fence).then_some((index + 1, line))
    })
}

/// What the links of a document point to: `](target)` and `src="target"`, with the line.
fn targets(text: &str) -> impl Iterator<Item = (usize, String)> {
    prose(text).flat_map(|(number, line)| {
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let html = ["src=\"", "srcset=\"", "href=\""]
            .into_iter()
            .flat_map(move |open| line.split(open).skip(1).filter_map(|rest| rest.split_once('"')));
        let all = inline.chain(html).map(move |(target, _)| (number, target.trim().to_owned()));
        all.collect::<Vec<_>>()
    })
}

/// The anchors of a document's headings, as forges make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// A path that is relative to the folder of a file, as one from the root.
fn join(file: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::{MACHINE_PATHS, decisions, links, machine_paths, mentions, titles};
    use crate::tree::Tree;

    #[test]
    fn two_titles_or_none_are_found() {
        let tree = Tree::of(&[
            ("a.md", "# A\n```\n# a comment\n```\n## B\n"),
            ("b.md", "# A\n# B\n"),
            ("c.md", "## A\n"),
        ]);
        assert_eq!(titles(&tree).len(), 2);
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        let tree = Tree::of(&[
            ("docs/a.md", "# A\n[b](b.md) [c](../c.md#the-end) <img src=\"p/x.svg\">\n"),
            ("docs/b.md", "# B\n[no](nowhere.md) [no](../c.md#begin) [web](https://x.org/y.md)\n"),
            ("docs/p/x.svg", "<svg/>"),
            ("c.md", "# C\n## The end\n"),
        ]);
        assert_eq!(links(&tree).len(), 2, "{:?}", links(&tree));
    }

    #[test]
    fn a_document_that_is_named_and_does_not_exist_is_found() {
        let tree = Tree::of(&[
            ("docs/a.md", "# A\nSee docs/a.md, `docs/b.md`, and https://x.org/docs/b.md.\n"),
            ("src/a.rs", "//! See `docs/a.md` and docs/c.md.\n"),
        ]);
        assert_eq!(mentions(&tree).len(), 2, "{:?}", mentions(&tree));
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for path in MACHINE_PATHS {
            let tree = Tree::of(&[("src/a.rs", &format!("//! See {path}x.\n"))]);
            assert_eq!(machine_paths(&tree).len(), 1, "{path}");
        }
    }

    #[test]
    fn a_decision_that_is_not_listed_is_found() {
        let tree = Tree::of(&[
            ("docs/adr/0001-a.md", "# A\n"),
            ("docs/adr/0001-b.md", "# B\n"),
            ("docs/adr/README.md", "# List\n[a](0001-a.md)\n"),
        ]);
        assert_eq!(decisions(&tree).len(), 2, "{:?}", decisions(&tree));
        assert_eq!(decisions(&Tree::of(&[])).len(), 1);
    }
}
