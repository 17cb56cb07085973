//! External crates that only some files may name, so that each can be replaced in one place.

use crate::Findings;
use crate::mask::is_word;
use crate::tree::{File, Tree};

/// Crates, who may name them, and what the others do instead.
struct Fence {
    /// A crate's name as code writes it; with a `*` at the end, a beginning of it.
    crates: &'static [&'static str],
    /// Beginnings of the paths that may.
    inside: &'static [&'static str],
    /// What to do instead.
    instead: &'static str,
}

/// The fences. `tests/`, `bench/` and `examples/` are outside of the program: they are not held to
/// these, as an arti client is a fine peer for a test.
const FENCES: &[Fence] = &[
    Fence { crates: &["io_uring"], inside: &["src/runtime/ring"], instead: "call `runtime`" },
    Fence {
        crates: &["tor_*", "arti_client"],
        inside: &[
            "src/tor.rs",
            "src/tor/",
            "src/onion.rs",
            "src/onion/",
            "src/vault.rs",
            "src/vault/",
            "src/runtime/rtcompat",
            // A link's stream implements arti's `StreamOps`, and the thread-local driver keeps the
            // TLS provider that `rtcompat` gives out.
            "src/runtime/link_stream.rs",
            "src/runtime/core.rs",
        ],
        instead: "keep arti's types behind `tor`, `onion` or `vault`",
    },
    Fence {
        crates: &["openraft"],
        inside: &["src/cluster/raft"],
        instead: "call `cluster::engine`",
    },
    Fence {
        crates: &["anyhow"],
        inside: &["src/cli.rs", "src/cli/", "src/app.rs", "src/app/", "src/main.rs"],
        instead: "write a thiserror enum that names the action and the path",
    },
    Fence {
        crates: &["clap"],
        inside: &["src/cli.rs", "src/cli/", "src/main.rs"],
        instead: "take plain values; the library has no command line",
    },
];

/// Crates that are named outside of their fence.
pub fn check(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for file in tree.source() {
        for fence in FENCES {
            if fence.inside.iter().any(|inside| file.path.starts_with(inside)) {
                continue;
            }
            for name in fence.crates {
                for at in named_crate(file, name) {
                    findings.push(format!(
                        "{}: `{name}` is only for {}: {}",
                        file.place(at),
                        fence.inside.join(", "),
                        fence.instead
                    ));
                }
            }
        }
    }
    findings
}

/// Where a file names a crate: `name::` or `use name`.
fn named_crate<'a>(file: &'a File, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let code = file.code.as_str();
    let (stem, open_end) = match name.strip_suffix('*') {
        Some(stem) => (stem, true),
        None => (name, false),
    };
    let starts = code.match_indices(stem).map(|(at, _)| at);
    starts.filter(move |at| {
        let before = &code[..*at];
        let length = code[*at..].bytes().take_while(|byte| is_word(*byte)).count();
        let is_whole = open_end || length == stem.len();
        let is_start = !before.bytes().last().is_some_and(is_word);
        // `crate::tor_x` is ours; `::tor_x` is the crate.
        let is_root = !before.strip_suffix("::").is_some_and(|outer| {
            outer.bytes().last().is_some_and(|byte| is_word(byte) || byte == b'>')
        });
        let is_path = code[*at + length..].starts_with("::");
        let is_use = ["use", "extern crate"].iter().any(|word| before.trim_end().ends_with(word));
        is_start && is_whole && is_root && (is_path || is_use)
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tree::Tree;

    fn findings(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn a_crate_outside_of_its_fence_is_found() {
        assert_eq!(findings("src/plane/a.rs", "use tor_proto::stream::DataStream;"), 1);
        assert_eq!(findings("src/app.rs", "fn f(x: ::tor_netdir::NetDir) {}"), 1);
        assert_eq!(findings("src/app.rs", "use arti_client as arti;"), 1);
        assert_eq!(findings("src/onion/a.rs", "fn f() -> anyhow::Result<()> {}"), 1);
        assert_eq!(findings("src/runtime/net.rs", "io_uring::opcode::Read::new()"), 1);
        assert_eq!(findings("src/cluster/engine.rs", "use openraft;"), 1);
    }

    #[test]
    fn inside_the_fence_and_our_own_names_are_no_finding() {
        assert_eq!(findings("src/tor/stack.rs", "use tor_proto::stream::DataStream;"), 0);
        assert_eq!(findings("src/runtime/rtcompat/tls.rs", "use tor_rtcompat::Runtime;"), 0);
        assert_eq!(findings("src/config/a.rs", "let tor_network = 1; self.tor_x.y()"), 0);
        assert_eq!(findings("src/config/a.rs", "// tor_proto::x\nlet s = \"tor_proto::x\";"), 0);
        assert_eq!(findings("src/config/a.rs", "let actor_x = crate::tor_like::f();"), 0);
        assert_eq!(findings("src/cli/run.rs", "use anyhow::Context;"), 0);
    }
}
