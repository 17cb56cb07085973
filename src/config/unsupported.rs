//! Keys of the contract that this version does not carry yet: refused, so that nobody believes
//! they work. When a feature arrives, its entry goes.

use super::problem::Problem;
use super::raw::RawConfig;
use super::reader::At;

/// What a feature that is missing is answered with.
fn not_yet<T>(place: &At<T>, what: &str, fix: &str) -> Problem {
    place.problem(format!("{what} is not yet supported in this version"), fix)
}

/// Everything in `raw` that this version cannot do.
pub(super) fn problems(raw: &RawConfig) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(listen) = raw.admin.listen.as_ref().filter(|listen| !listen.value.is_empty()) {
        let fix = "remove the key and use `rustbalance status` instead";
        found.push(not_yet(listen, "the HTTP side of the admin interface", fix));
    }
    found
}
