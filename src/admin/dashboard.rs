//! `/`: the migration as a page for people.
//!
//! What it shows comes from applications and from whoever sends requests, and it holds the token that changes
//! need. Its policy therefore lets the browser run the one script that is in the page, make no markup out of
//! text, and ask nothing but this server.

use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, HeaderMap, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

pub(super) const PAGE: &str = include_str!("dashboard.html");

/// The hashes are those of the texts of `<script>` and `<style>` in [`PAGE`] (CSP 3, §2.3.1); the tests of the
/// dashboard tell them after a change.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-VQe7dWI5X+oPycd+8pvygity+HRvl/N8ATWA+lmzqn8='; \
    style-src 'sha256-ZOItXh5jbXMplOwyJHOvCkwJppZFYVVmzoO/kFf95Gs='; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Sets what keeps a browser from doing more with the page than it is for.
pub(super) fn confine(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compare::Hint;

    #[test]
    fn the_page_has_words_for_every_hint() {
        for hint in [
            Hint::Validation,
            Hint::TrailingSlash,
            Hint::NullOrAbsent,
            Hint::NumberAsText,
            Hint::DateFormat,
            Hint::LetterCase,
            Hint::Order,
        ] {
            let name = serde_json::to_value(hint).unwrap();
            let line = format!("{}: \"{hint}\",\n", name.as_str().unwrap());
            assert!(PAGE.contains(&line), "{line}");
        }
    }
}
