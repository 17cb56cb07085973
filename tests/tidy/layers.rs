//! Which area of `src/` may import which: arrows only downwards, and nobody imports `app`.

use crate::Findings;
use crate::paths;
use crate::tree::Tree;

/// An area and what it may import. Besides this, `config` and `cli` may import every
/// `<area>::config`, and `admin` every `<area>::status`: plain values that the area owns.
///
/// The table of `docs/ARCHITECTURE.md` says the same; change both.
const TABLE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["app", "admin", "config", "runtime", "vault", "base", "limits"]),
    (
        "app",
        &[
            "config", "admin", "cluster", "onion", "plane", "ctor", "tor", "vault", "runtime",
            "base", "limits",
        ],
    ),
    ("config", &["base", "limits"]),
    ("admin", &["runtime", "base", "limits"]),
    ("cluster", &["vault", "runtime", "base", "limits"]),
    ("onion", &["tor", "vault", "runtime", "base", "limits"]),
    ("circuit", &["runtime", "base", "limits"]),
    ("tor", &["runtime", "base", "limits"]),
    ("plane", &["runtime", "base", "limits"]),
    ("ctor", &["runtime", "base", "limits"]),
    ("vault", &["base", "limits"]),
    ("runtime", &["base", "limits"]),
    ("base", &["limits"]),
    ("limits", &[]),
];

/// An area and the module of every other area that it may import as well.
const SHARED_MODULES: &[(&str, &str)] =
    &[("config", "config"), ("cli", "config"), ("admin", "status")];

/// Imports that the table does not allow.
pub fn check(tree: &Tree) -> Findings {
    let mut findings = Vec::new();
    for file in tree.source().filter(|file| file.path != "src/lib.rs") {
        let module = paths::module_of(&file.path);
        let area = module.first().map_or("main", String::as_str);
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == area) else {
            findings.push(format!(
                "{}: `{area}` is in no layer: add it to the table of tests/tidy/layers.rs and of \
                 docs/ARCHITECTURE.md, or put the file into an area",
                file.path
            ));
            continue;
        };
        for named in paths::named(file, &["rustbalance"]) {
            let target = named.path.first().filter(|target| is_area(target));
            let Some(target) = target else { continue };
            let shared = SHARED_MODULES.iter().any(|(who, what)| {
                *who == area && named.path.get(1).is_some_and(|module| module == what)
            });
            let is_shared = shared && target != "app" && target != "cli";
            if target != area && !allowed.contains(&target.as_str()) && !is_shared {
                findings.push(format!(
                    "{}: `{area}` imports `{}`; it may import {}: put what both need into `base`, \
                     or join the two in `app`",
                    file.place(named.at),
                    named.path.join("::"),
                    allowed_text(area, allowed),
                ));
            }
        }
    }
    findings
}

/// What an area may import, for a message.
fn allowed_text(area: &str, allowed: &[&str]) -> String {
    let mut names: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
    let shared = SHARED_MODULES.iter().filter(|(who, _)| *who == area);
    names.extend(shared.map(|(_, module)| format!("`<area>::{module}`")));
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Whether a name at the root of the crate is an area, and not an item that `lib.rs` exports.
fn is_area(name: &str) -> bool {
    TABLE.iter().any(|(area, _)| *area == name)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tree::Tree;

    fn findings(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn an_import_of_a_sibling_or_of_app_is_found() {
        assert_eq!(findings("src/plane/stream.rs", "use crate::onion::session::Session;"), 1);
        assert_eq!(findings("src/plane/stream.rs", "use crate::{limits, tor::Stack};"), 1);
        assert_eq!(findings("src/tor/stack.rs", "fn f() { super::super::app::start() }"), 1);
        assert_eq!(findings("src/vault.rs", "fn f() { super::runtime::spawn() }"), 1);
        assert_eq!(findings("src/config/checked.rs", "use crate::app::config::X;"), 1);
        assert_eq!(findings("src/admin.rs", "use crate::onion::service::Service;"), 1);
        assert_eq!(findings("src/main.rs", "fn main() { rustbalance::app::start() }"), 1);
        assert_eq!(findings("src/new_area.rs", ""), 1);
    }

    #[test]
    fn what_the_table_allows_is_no_finding() {
        assert_eq!(findings("src/onion/intro.rs", "use crate::tor::Stack; use super::points;"), 0);
        assert_eq!(findings("src/config/checked.rs", "use crate::onion::config::Settings;"), 0);
        assert_eq!(findings("src/admin/socket.rs", "use crate::onion::status::Service;"), 0);
        assert_eq!(findings("src/app/start.rs", "use crate::{cluster, onion, plane};"), 0);
        assert_eq!(findings("src/vault.rs", "// crate::app is not for us\nuse crate::limits;"), 0);
        assert_eq!(findings("src/lib.rs", "pub use crate::app::Running;"), 0);
    }
}
