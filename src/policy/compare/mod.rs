//! The difference of two answers to one request: what the application of today says, against what its successor says.
//!
//! Compared is what a client can tell apart and a program relies on; what differs between any two answers, or
//! between any two frameworks without a consequence, is not: the order of keys, `1` and `1.0`, a `charset` that
//! is the default, an absolute redirect to the own host, compression. What is left and still means nothing
//! (a time, a token) is known by asking the old application twice, see [`without_noise`].
//!
//! Differences are stored and shown to people, so values are short and secrets never get in, see `redact`. They
//! are also counted: the same difference in a thousand items of a list is one, with the number of its likes.

mod body;
mod capture;
mod head;
mod json;
mod redact;
#[cfg(test)]
mod properties;

use std::fmt;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::config::rule::CompareConfig;
pub use capture::{Capture, Captured, CapturedBody};

/// So many differences of two answers are told; what is beyond is only counted.
pub const MOST: usize = 20;
/// The place of the difference that counts the ones beyond [`MOST`].
pub const ELSEWHERE: &str = "elsewhere";
/// What stands in place of a value that is not there.
const ABSENT: &str = "absent";
/// What stands in place of the values at [`ELSEWHERE`].
const UNTOLD: &str = "not shown";

/// One thing in which two answers differ; values are redacted and short.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Difference {
    pub category: Category,
    /// Where: the name of a header field or cookie, a place in JSON (`$.items[3].price`), an offset in bytes or a line.
    pub place: String,
    pub old: String,
    pub new: String,
    /// Further places of the same form (`$.items[4].price`) that differ too; only the first one is told.
    #[serde(default)]
    pub alike: u32,
    /// What it may be, where that can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
}

impl Difference {
    pub fn new(
        category: Category,
        place: impl Into<String>,
        old: impl Into<String>,
        new: impl Into<String>,
    ) -> Self {
        Self {
            category,
            place: place.into(),
            old: old.into(),
            new: new.into(),
            alike: 0,
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<Option<Hint>>) -> Self {
        Self {
            hint: hint.into(),
            ..self
        }
    }

    /// The place without the numbers of items, which are alike: `$.items[*].price`.
    fn form(&self) -> String {
        let mut form = String::with_capacity(self.place.len());
        if self.category != Category::Json {
            form.push_str(&self.place);
            return form;
        }
        let mut rest = self.place.as_str();
        while let Some((before, after)) = rest.split_once('[') {
            form.push_str(before);
            match after.split_once(']') {
                Some((index, after)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                    form.push_str("[*]");
                    rest = after;
                }
                _ => {
                    form.push('[');
                    rest = after;
                }
            }
        }
        form.push_str(rest);
        form
    }
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    Status,
    Header,
    Cookie,
    Json,
    Text,
    Bytes,
}

/// What a difference may come from: the usual ones of a move from one framework to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// 400 or 422.
    Validation,
    TrailingSlash,
    NullOrAbsent,
    NumberAsText,
    DateFormat,
    LetterCase,
    Order,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Validation => {
                "frameworks answer a request that does not validate with 400 or with 422"
            }
            Self::TrailingSlash => "a slash at the end",
            Self::NullOrAbsent => "null in one, and no such key in the other",
            Self::NumberAsText => "a number in one, and the same as text in the other",
            Self::DateFormat => "dates in two formats",
            Self::LetterCase => "upper and lower case",
            Self::Order => "the same items in another order; `unordered` lets that pass",
        })
    }
}

/// What of the request matters to its answers.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a Method,
    /// `Host` or `:authority`: a redirect to it is one to the same place without it.
    pub host: Option<&'a str>,
    /// From the slash, without the query; what a relative redirect is relative to.
    pub path: &'a str,
}

/// In what `new` differs from `old`: nothing, or at most [`MOST`] differences and one at [`ELSEWHERE`].
pub fn compare(
    old: &Captured,
    new: &Captured,
    asked: &Asked<'_>,
    config: &CompareConfig,
) -> Vec<Difference> {
    let mut found = Found::default();
    if old.status != new.status {
        let validation = |status| {
            matches!(
                status,
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
            )
        };
        let hint = (validation(old.status) && validation(new.status)).then_some(Hint::Validation);
        found.add(
            Difference::new(
                Category::Status,
                "status",
                old.status.as_str(),
                new.status.as_str(),
            )
            .hint(hint),
        );
    }
    let content = has_content(old.status) && has_content(new.status);
    head::compare(&mut found, old, new, asked, config, content);
    if content && asked.method != Method::HEAD {
        body::compare(&mut found, old, new, config);
    }
    found.finish()
}

/// A text as it may be stored and shown: short, in one line, without what looks like a secret.
pub fn redacted(text: &str) -> String {
    redact::shown(text, 0)
}

/// Leaves out what also differs between two answers of the old application: `noise`, as [`compare`] finds it.
///
/// A difference is noise where one of the same category was at the same place; the numbers of items in JSON do
/// not count. Bytes that differ anywhere are noise everywhere, and so are the lines of a text from the first
/// difference on, where their number is not the same each time.
pub fn without_noise(mut differences: Vec<Difference>, noise: &[Difference]) -> Vec<Difference> {
    differences.retain(|difference| {
        !noise.iter().any(|noise| {
            noise.category == difference.category
                && (noise.form() == difference.form()
                    || body::covers(&noise.place, &difference.place))
        })
    });
    differences
}

/// Whether a body means anything to the client: not by RFC 9110 §6.4.1, nor where it goes on to another place,
/// for which some frameworks have a page that nobody sees.
fn has_content(status: StatusCode) -> bool {
    !matches!(status.as_u16(), 100..=199 | 204 | 301..=303 | 307 | 308 | 304)
}

/// Differences as they are found, one of each form.
#[derive(Debug, Default)]
struct Found {
    differences: Vec<(String, Difference)>,
    elsewhere: Option<Difference>,
}

impl Found {
    fn add(&mut self, difference: Difference) {
        let form = difference.form();
        self.merge(form, difference);
    }

    /// All that others have found.
    fn extend(&mut self, others: Self) {
        for (form, difference) in others.differences {
            self.merge(form, difference);
        }
        if let Some(difference) = others.elsewhere {
            self.beyond(difference);
        }
    }

    fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }

    /// Places that differ.
    fn count(&self) -> u64 {
        let told = self.differences.iter().map(|(_, difference)| difference);
        told.chain(&self.elsewhere)
            .map(|difference| 1 + u64::from(difference.alike))
            .sum()
    }

    fn merge(&mut self, form: String, difference: Difference) {
        let known = self
            .differences
            .iter_mut()
            .find(|(known, first)| *known == form && first.category == difference.category);
        if let Some((_, first)) = known {
            first.alike = first.alike.saturating_add(1 + difference.alike);
        } else if self.differences.len() < MOST {
            self.differences.push((form, difference));
        } else {
            self.beyond(Difference {
                place: ELSEWHERE.into(),
                old: UNTOLD.into(),
                new: UNTOLD.into(),
                hint: None,
                ..difference
            });
        }
    }

    fn beyond(&mut self, difference: Difference) {
        match &mut self.elsewhere {
            Some(first) => first.alike = first.alike.saturating_add(1 + difference.alike),
            none => *none = Some(difference),
        }
    }

    fn finish(self) -> Vec<Difference> {
        let told = self
            .differences
            .into_iter()
            .map(|(_, difference)| difference);
        told.chain(self.elsewhere).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(place: &str) -> Difference {
        Difference::new(Category::Json, place, "1", "2")
    }

    #[test]
    fn what_no_client_reads_is_not_compared() {
        for (status, compared) in [
            (200, true),
            (404, true),
            (302, false),
            (304, false),
            (204, false),
        ] {
            let answer = |page: &[u8]| {
                let mut capture = Capture::new(100);
                capture.push(page);
                Captured {
                    status: StatusCode::from_u16(status).unwrap(),
                    headers: http::HeaderMap::new(),
                    body: capture.finish(),
                }
            };
            let asked = Asked {
                method: &Method::GET,
                host: None,
                path: "/",
            };
            let config = CompareConfig::default();
            let found = compare(&answer(b"one"), &answer(b"two"), &asked, &config);
            assert_eq!(!found.is_empty(), compared, "{status}");
        }
    }

    #[test]
    fn what_the_old_application_does_not_repeat_either_is_noise() {
        for (noise, place, is_noise) in [
            ("$.items[0].at", "$.items[3].at", true),
            ("$.items[0].at", "$.items[3].by", false),
            ("$.items[0].at", "$.items.at", false),
            ("$.a", "$.a", true),
            ("$.a", "$.a.b", false),
            ("$[0][1]", "$[7][2]", true),
            ("$[\"a[0]\"]", "$[\"a[0]\"]", true),
            ("$[\"x\"]", "$[\"y\"]", false),
        ] {
            let left = without_noise(vec![json(place)], &[json(noise)]);
            assert_eq!(left.is_empty(), is_noise, "{noise} {place}");
        }
        for (noise, place, is_noise) in [
            ("line 3", "line 3", true),
            ("line 3", "line 4", false),
            ("from line 3", "line 4", true),
            ("from line 3", "from line 3", true),
            ("from line 3", "line 2", false),
            ("line 3", "from line 4", false),
        ] {
            let at = |place: &str| Difference::new(Category::Text, place, "a", "b");
            let left = without_noise(vec![at(place)], &[at(noise)]);
            assert_eq!(left.is_empty(), is_noise, "{noise} {place}");
        }
        let at = |place: &str| Difference::new(Category::Bytes, place, "a", "b");
        assert!(without_noise(vec![at("byte 3")], &[at("byte 8")]).is_empty());
        assert_eq!(without_noise(vec![at("end")], &[at("byte 8")]), [at("end")]);
        let header = Difference::new(Category::Header, "$.a", "1", "2");
        assert_eq!(without_noise(vec![json("$.a")], &[header]), [json("$.a")]);
    }

    #[test]
    fn differences_of_one_form_are_one_and_others_are_told_first() {
        let mut found = Found::default();
        for item in 0..50 {
            found.add(json(&format!("$.items[{item}].price")));
        }
        for key in 0..MOST + 2 {
            found.add(json(&format!("$.k{key}")));
        }
        let found = found.finish();
        assert_eq!(found.len(), MOST + 1);
        assert_eq!(found[0].place, "$.items[0].price");
        assert_eq!(found[0].alike, 49);
        assert_eq!(found[MOST].place, ELSEWHERE);
        assert_eq!(found[MOST].alike, 2);
    }

    #[test]
    fn a_difference_keeps_its_form_in_storage() {
        let difference = json("$.a").hint(Hint::DateFormat);
        let text = serde_json::to_string(&difference).unwrap();
        assert_eq!(
            text,
            r#"{"category":"json","place":"$.a","old":"1","new":"2","alike":0,"hint":"date_format"}"#
        );
        assert_eq!(
            serde_json::from_str::<Difference>(&text).unwrap(),
            difference
        );
    }
}
