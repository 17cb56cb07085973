//! The files that the checkers read: of this repository, or of an example in memory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::mask;

/// Folders that hold no text of ours.
const SKIPPED_FOLDERS: &[&str] = &["target", ".git", "corpus"];

/// Endings of files that are read.
const TEXT_ENDINGS: &[&str] = &["rs", "md", "toml", "sh", "yml", "yaml", "svg", "service", "conf"];

/// One file.
#[derive(Debug)]
pub struct File {
    /// Path below the root, with `/`.
    pub path: String,
    /// The text as it stands.
    pub text: String,
    /// The text with comments and literals blanked out, for Rust; else empty. Same length in bytes
    /// and same lines as `text`.
    pub code: String,
    /// Whether it may be executed.
    pub executable: bool,
}

impl File {
    /// The line, counted from 1, in which the byte stands.
    pub fn line_of(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// `path:line`, as editors understand it.
    pub fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.line_of(offset))
    }
}

/// Files by path.
#[derive(Debug, Default)]
pub struct Tree {
    /// By path, so that findings come in a stable order.
    files: BTreeMap<String, File>,
}

impl Tree {
    /// Every text of this repository.
    pub fn of_this_repository() -> Tree {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        let mut tree = Tree::default();
        tree.walk(Path::new(&root), "");
        tree
    }

    /// An example: paths with their text. Scripts in it count as executable.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.add(path, (*text).to_owned(), true);
        }
        tree
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values()
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files().filter(|file| file.path.ends_with(".rs"))
    }

    /// The Rust files of the library and the binary.
    pub fn source(&self) -> impl Iterator<Item = &File> {
        self.rust().filter(|file| file.path.starts_with("src/"))
    }

    /// The Markdown files.
    pub fn markdown(&self) -> impl Iterator<Item = &File> {
        self.files().filter(|file| file.path.ends_with(".md"))
    }

    /// The file of that path.
    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    /// Whether a file or a folder of that path was read.
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.contains_key(path) || self.files.keys().any(|other| other.starts_with(&folder))
    }

    fn add(&mut self, path: &str, text: String, executable: bool) {
        let code = if path.ends_with(".rs") { mask::code_only(&text) } else { String::new() };
        let file = File { path: path.to_owned(), text, code, executable };
        self.files.insert(path.to_owned(), file);
    }

    fn walk(&mut self, folder: &Path, prefix: &str) {
        let entries = fs::read_dir(folder).expect("folders of the repository can be read");
        for entry in entries {
            let entry = entry.expect("folders of the repository can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            // Another process may remove a file while we walk: that is no finding.
            let Ok(about) = fs::symlink_metadata(entry.path()) else { continue };
            if about.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                self.walk(&entry.path(), &format!("{path}/"));
            } else if about.is_file() {
                // What is no text is still listed, so that links to it resolve.
                let text = match is_text(&path) {
                    true => fs::read_to_string(entry.path()).unwrap_or_default(),
                    false => String::new(),
                };
                self.add(&path, text, about.permissions().mode() & 0o111 != 0);
            }
        }
    }
}

/// Files with a known ending, and scripts, which have none.
fn is_text(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((_, ending)) => TEXT_ENDINGS.contains(&ending),
        None => path.starts_with("scripts/") || path.starts_with(".ci/"),
    }
}
