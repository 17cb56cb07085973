//! The style and the layers of this repository, as tests, so that neither can rot.
//!
//! Each checker reads a tree of files and returns its findings as sentences; every sentence says
//! what to write instead. Beside the test that holds the repository to a rule stands one that shows
//! the same checker a small bad example, so that no checker can fall silent. Only the standard
//! library is used, and nothing is built or run.
//!
//! `docs/ARCHITECTURE.md` explains the layers, `CONTRIBUTING.md` the style.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/fences.rs"]
mod fences;
#[path = "tidy/functions.rs"]
mod functions;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/logs.rs"]
mod logs;
#[path = "tidy/mask.rs"]
mod mask;
#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/scripts.rs"]
mod scripts;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/unsafety.rs"]
mod unsafety;
#[path = "tidy/words.rs"]
mod words;

use tree::Tree;

/// What a checker found: one sentence each, beginning with the place.
type Findings = Vec<String>;

/// Fail with every finding at once: a list is mended in one go.
fn expect_none(rule: &str, findings: Findings) {
    assert!(findings.is_empty(), "{rule}: {}\n  {}", findings.len(), findings.join("\n  "));
}

#[test]
fn areas_import_only_what_the_layer_table_allows() {
    expect_none("layers", layers::check(&Tree::of_this_repository()));
}

#[test]
fn external_crates_stay_behind_their_fences() {
    expect_none("fences", fences::check(&Tree::of_this_repository()));
}

#[test]
fn files_have_a_doc_and_are_of_a_size_to_read() {
    expect_none("shape", shape::check(&Tree::of_this_repository()));
}

#[test]
fn functions_are_of_a_size_to_read() {
    expect_none("functions", functions::check(&Tree::of_this_repository()));
}

#[test]
fn banned_words_have_a_replacement() {
    expect_none("words", words::check(&Tree::of_this_repository()));
}

#[test]
fn log_lines_at_info_and_above_name_nobody() {
    expect_none("logs", logs::check(&Tree::of_this_repository()));
}

#[test]
fn unsafe_code_stands_only_where_it_is_allowed() {
    expect_none("unsafe", unsafety::check(&Tree::of_this_repository()));
}

#[test]
fn documents_have_one_title_and_links_that_resolve() {
    expect_none("documents", documents::check(&Tree::of_this_repository()));
}

#[test]
fn scripts_stop_at_the_first_error_and_can_be_run() {
    expect_none("scripts", scripts::check(&Tree::of_this_repository()));
}

/// A walk that finds nothing would let every rule pass.
#[test]
fn the_walk_finds_the_repository() {
    let tree = Tree::of_this_repository();
    for path in ["src/lib.rs", "src/limits.rs", "tests/tidy.rs", "README.md", "Cargo.toml"] {
        assert!(tree.get(path).is_some(), "{path} was not found");
    }
    assert!(tree.rust().count() > 10, "only {} Rust files were found", tree.rust().count());
    let built = tree.files().find(|file| file.path.starts_with("target/"));
    assert!(built.is_none(), "build output was read: {built:?}");
}
