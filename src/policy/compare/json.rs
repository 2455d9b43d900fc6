//! Two JSON documents as data: how they are written does not matter.
//!
//! Both are walked together, with the places that may differ (`ignore`) and the lists without order (`unordered`)
//! carried along as states of a small automaton, so that no path is built before there is something to tell.
//! Items of a list without order are paired by a digest first, which takes time in proportion to their number;
//! only what has no equal is compared with each other. A document is nested 127 levels deep at most, or it is
//! no JSON here (serde_json's limit), so the recursion is bounded.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};

use serde_json::{Map, Number, Value};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::{ABSENT, Category, Difference, Found, Hint, redact};
use crate::config::rule::{CompareConfig, JsonPath, JsonStep};

/// Pairs of items that are compared to find the nearest, in all lists of two documents together. A list that
/// would need more of them is paired in its order.
const PAIRS: usize = 2_500;
/// Keys by which an item of a list says which one it is.
const NAMES: [&str; 5] = ["id", "uuid", "key", "name", "slug"];
/// Characters of a key, and of a whole place, that are shown.
const KEY: usize = 40;
const PLACE: usize = 200;

pub(super) fn compare(found: &mut Found, old: &Value, new: &Value, config: &CompareConfig) {
    let rules = Rules {
        ignore: &config.ignore,
        unordered: &config.unordered,
        tolerance: config.tolerance,
        pairs: Cell::new(PAIRS),
    };
    let place = Place {
        parent: None,
        step: Step::Index(0),
        secret: false,
    };
    rules.walk(found, &place, &States::start(&rules), old, new);
}

/// What counts as a difference, see [`CompareConfig`].
struct Rules<'a> {
    ignore: &'a [JsonPath],
    unordered: &'a [JsonPath],
    tolerance: f64,
    /// That may still be compared, of [`PAIRS`].
    pairs: Cell<usize>,
}

/// Items of a list that have no partner yet, by their numbers.
type Rest<'v> = BTreeMap<usize, &'v Value>;

/// One step down, as it is taken.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
    /// Of a list without order: its number is shown, and is not the one that a path asks for.
    Item(usize),
}

/// Where the walk is. The root has no parent.
struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
    /// Whether a key on the way sounds like a secret.
    secret: bool,
}

/// How far each path has matched: the next step that it asks for.
#[derive(Debug, Clone, Default)]
struct States {
    ignore: Vec<(usize, usize)>,
    unordered: Vec<(usize, usize)>,
}

impl States {
    fn start(rules: &Rules<'_>) -> Self {
        let start = |paths: &[JsonPath]| (0..paths.len()).map(|path| (path, 0)).collect();
        Self {
            ignore: start(rules.ignore),
            unordered: start(rules.unordered),
        }
    }

    fn down(&self, rules: &Rules<'_>, step: Step<'_>) -> Self {
        Self {
            ignore: advance(&self.ignore, rules.ignore, step),
            unordered: advance(&self.unordered, rules.unordered, step),
        }
    }

    fn is_ignored(&self, rules: &Rules<'_>) -> bool {
        is_matched(&self.ignore, rules.ignore)
    }

    fn is_unordered(&self, rules: &Rules<'_>) -> bool {
        is_matched(&self.unordered, rules.unordered)
    }
}

fn advance(states: &[(usize, usize)], paths: &[JsonPath], step: Step<'_>) -> Vec<(usize, usize)> {
    let mut after = BTreeSet::new();
    for &(path, mut at) in states {
        let Some(steps) = paths.get(path).map(JsonPath::steps) else {
            continue;
        };
        while steps.get(at) == Some(&JsonStep::Deep) {
            after.insert((path, at));
            at += 1;
        }
        let takes = match (steps.get(at), step) {
            (Some(JsonStep::Any), _) => true,
            (Some(JsonStep::Key(asked)), Step::Key(key)) => asked == key,
            (Some(JsonStep::Index(asked)), Step::Index(index)) => *asked == index,
            _ => false,
        };
        if takes {
            after.insert((path, at + 1));
        }
    }
    after.into_iter().collect()
}

fn is_matched(states: &[(usize, usize)], paths: &[JsonPath]) -> bool {
    states
        .iter()
        .any(|&(path, at)| paths.get(path).is_some_and(|path| path.steps().len() == at))
}

impl Rules<'_> {
    fn walk(
        &self,
        found: &mut Found,
        place: &Place<'_>,
        states: &States,
        old: &Value,
        new: &Value,
    ) {
        if states.is_ignored(self) {
            return;
        }
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                self.objects(found, place, states, old, new);
            }
            (Value::Array(old), Value::Array(new)) if states.is_unordered(self) => {
                self.unordered(found, place, states, old, new);
            }
            (Value::Array(old), Value::Array(new)) => {
                self.lists(found, place, states, old, new);
            }
            (Value::Number(old), Value::Number(new)) if self.near(old, new) => {}
            (old, new) if old == new => {}
            (old, new) => found.add(place.difference(Some(old), Some(new))),
        }
    }

    fn objects(
        &self,
        found: &mut Found,
        place: &Place<'_>,
        states: &States,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
    ) {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            self.either(
                found,
                place,
                states,
                Step::Key(key),
                old.get(key),
                new.get(key),
            );
        }
    }

    fn lists(
        &self,
        found: &mut Found,
        place: &Place<'_>,
        states: &States,
        old: &[Value],
        new: &[Value],
    ) {
        let mut differences = Found::default();
        for index in 0..old.len().max(new.len()) {
            let (old, new) = (old.get(index), new.get(index));
            self.either(
                &mut differences,
                place,
                states,
                Step::Index(index),
                old,
                new,
            );
        }
        if differences.is_empty() {
            return;
        }
        if old.len() == new.len() && old.len() > 1 {
            let sorted = |list: &[Value]| {
                let mut digests = self.digests(list, states);
                digests.sort_unstable();
                digests
            };
            if sorted(old) == sorted(new) {
                let count = old.len();
                found.add(
                    Difference::new(
                        Category::Json,
                        place.text(),
                        format!("{count} items"),
                        format!("the same {count} items in another order"),
                    )
                    .hint(Hint::Order),
                );
                return;
            }
        }
        found.extend(differences);
    }

    fn unordered(
        &self,
        found: &mut Found,
        place: &Place<'_>,
        states: &States,
        old: &[Value],
        new: &[Value],
    ) {
        let (mut rest_of_old, mut rest_of_new) = self.unequal(states, old, new);
        let mut pairs = of_one_name(&rest_of_old, &rest_of_new);
        for (old, new) in &pairs {
            rest_of_old.remove(old);
            rest_of_new.remove(new);
        }
        for (old, new) in self.nearest(states, &rest_of_old, &rest_of_new) {
            rest_of_old.remove(&old);
            rest_of_new.remove(&new);
            pairs.push((old, new));
        }
        pairs.sort_unstable_by_key(|&(old, new)| (old.max(new), old.min(new)));
        for (index, index_of_new) in pairs {
            let (old, new) = (old.get(index), new.get(index_of_new));
            self.either(found, place, states, Step::Item(index), old, new);
        }
        for (index, old) in rest_of_old {
            self.either(found, place, states, Step::Item(index), Some(old), None);
        }
        for (index, new) in rest_of_new {
            self.either(found, place, states, Step::Item(index), None, Some(new));
        }
    }

    /// The items that have no equal in the other list.
    fn unequal<'v>(
        &self,
        states: &States,
        old: &'v [Value],
        new: &'v [Value],
    ) -> (Rest<'v>, Rest<'v>) {
        let mut equals: HashMap<u128, Vec<usize>> = HashMap::new();
        for (index, digest) in self.digests(new, states).into_iter().enumerate().rev() {
            equals.entry(digest).or_default().push(index);
        }
        let mut rest_of_old: Rest<'v> = old.iter().enumerate().collect();
        let mut rest_of_new: Rest<'v> = new.iter().enumerate().collect();
        for (index, digest) in self.digests(old, states).into_iter().enumerate() {
            if let Some(equal) = equals.get_mut(&digest).and_then(Vec::pop) {
                rest_of_old.remove(&index);
                rest_of_new.remove(&equal);
            }
        }
        (rest_of_old, rest_of_new)
    }

    /// Pairs with the fewest differences first. Of equally near ones the first, whichever list comes first.
    fn nearest(&self, states: &States, old: &Rest<'_>, new: &Rest<'_>) -> Vec<(usize, usize)> {
        let Some(pairs) = self
            .pairs
            .get()
            .checked_sub(old.len().saturating_mul(new.len()))
        else {
            return old.keys().copied().zip(new.keys().copied()).collect();
        };
        self.pairs.set(pairs);
        let nowhere = Place {
            parent: None,
            step: Step::Index(0),
            secret: true,
        };
        let mut candidates = Vec::with_capacity(old.len() * new.len());
        for (&index, old) in old {
            let states = states.down(self, Step::Item(index));
            for (&index_of_new, new) in new {
                let mut found = Found::default();
                self.walk(&mut found, &nowhere, &states, old, new);
                let order = (
                    found.count(),
                    index.max(index_of_new),
                    index.min(index_of_new),
                );
                candidates.push((order, index, index_of_new));
            }
        }
        candidates.sort_unstable();
        let (mut taken_of_old, mut taken_of_new) = (BTreeSet::new(), BTreeSet::new());
        let mut nearest = Vec::new();
        for (_, old, new) in candidates {
            if !taken_of_old.contains(&old) && !taken_of_new.contains(&new) {
                taken_of_old.insert(old);
                taken_of_new.insert(new);
                nearest.push((old, new));
            }
        }
        nearest
    }

    /// One step down, where one of both may have nothing.
    fn either(
        &self,
        found: &mut Found,
        parent: &Place<'_>,
        states: &States,
        step: Step<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) {
        let place = Place {
            parent: Some(parent),
            step,
            secret: parent.secret || matches!(step, Step::Key(key) if redact::is_secret_name(key)),
        };
        let states = states.down(self, step);
        match (old, new) {
            (Some(old), Some(new)) => self.walk(found, &place, &states, old, new),
            _ if states.is_ignored(self) => {}
            (old, new) => found.add(place.difference(old, new)),
        }
    }

    /// Whether two numbers are one, or near enough.
    fn near(&self, old: &Number, new: &Number) -> bool {
        if let (Some(old), Some(new)) = (whole(old), whole(new))
            && old == new
        {
            return true;
        }
        let (Some(a), Some(b)) = (old.as_f64(), new.as_f64()) else {
            return old == new;
        };
        if self.tolerance > 0.0 {
            (a - b).abs() <= self.tolerance * a.abs().max(b.abs())
        } else {
            // Whole numbers that only rounding makes equal are not.
            whole(old).is_none() && whole(new).is_none() && a.total_cmp(&b).is_eq()
        }
    }

    /// Of each item: equal where the walk finds no difference, as far as nothing is only near.
    fn digests(&self, list: &[Value], states: &States) -> Vec<u128> {
        let step = if states.is_unordered(self) {
            Step::Item
        } else {
            Step::Index
        };
        list.iter()
            .enumerate()
            .map(|(index, value)| self.digest(value, &states.down(self, step(index))))
            .collect()
    }

    fn digest(&self, value: &Value, states: &States) -> u128 {
        let mut hasher = SipHasher13::new();
        if states.is_ignored(self) {
            return hasher.finish128().into();
        }
        std::mem::discriminant(value).hash(&mut hasher);
        match value {
            Value::Null => {}
            Value::Bool(value) => value.hash(&mut hasher),
            Value::String(value) => value.hash(&mut hasher),
            Value::Number(value) => match whole(value) {
                Some(value) => value.hash(&mut hasher),
                None => value.as_f64().map(f64::to_bits).hash(&mut hasher),
            },
            Value::Array(list) => {
                let mut digests = self.digests(list, states);
                if states.is_unordered(self) {
                    digests.sort_unstable();
                }
                digests.hash(&mut hasher);
            }
            Value::Object(object) => {
                let keys: BTreeMap<&String, &Value> = object.iter().collect();
                for (key, value) in keys {
                    let states = states.down(self, Step::Key(key));
                    if !states.is_ignored(self) {
                        key.hash(&mut hasher);
                        hasher.write_u128(self.digest(value, &states));
                    }
                }
            }
        }
        hasher.finish128().into()
    }
}

/// Pairs of items that say that they are the same.
fn of_one_name(old: &Rest<'_>, new: &Rest<'_>) -> Vec<(usize, usize)> {
    let name = |item: &Value| {
        NAMES
            .iter()
            .find_map(|key| item.get(key))
            .map(Value::to_string)
    };
    let mut named: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, item) in new.iter().rev() {
        if let Some(name) = name(item) {
            named.entry(name).or_default().push(*index);
        }
    }
    old.iter()
        .filter_map(|(index, item)| {
            let partner = named.get_mut(&name(item)?)?.pop()?;
            Some((*index, partner))
        })
        .collect()
}

/// The number, where it has no fraction: `1`, `1.0` and `1e0` are one. Exact for whatever JSON parses to.
fn whole(number: &Number) -> Option<i128> {
    if let Some(whole) = number.as_i128() {
        return Some(whole);
    }
    let float = number.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within the range of i128, and whole"
    )]
    (float.fract() == 0.0 && float.abs() < 1e38).then_some(float as i128)
}

impl Place<'_> {
    /// As `ignore` takes it: `$.items[3]["a.b"]`. Keys below a secret one may be secrets too, and are hidden.
    fn text(&self) -> String {
        let mut way = vec![self];
        while let Some(parent) = way.last().and_then(|place| place.parent) {
            way.push(parent);
        }
        let mut text = String::from("$");
        for place in way.iter().rev().skip(1) {
            let below_secret = place.parent.is_some_and(|parent| parent.secret);
            let _ = match place.step {
                Step::Index(index) | Step::Item(index) => write!(text, "[{index}]"),
                Step::Key(key) if below_secret => write!(text, "[\"{}\"]", redact::hidden(key)),
                Step::Key(key) => {
                    let key = redact::shorten(&redact::escape(&redact::scrub(key)), 0, KEY);
                    if key.is_empty() || key.contains(['.', '[', ']', '(', '*']) {
                        write!(text, "[\"{key}\"]")
                    } else {
                        write!(text, ".{key}")
                    }
                }
            };
        }
        // The end says more than the beginning.
        redact::shorten(&text, usize::MAX, PLACE)
    }

    fn difference(&self, old: Option<&Value>, new: Option<&Value>) -> Difference {
        let (old_text, new_text) = match (old, new) {
            (Some(Value::String(old)), Some(Value::String(new))) if !self.secret => {
                redact::shown_both(&quoted(old), &quoted(new))
            }
            (old, new) => (self.shown(old), self.shown(new)),
        };
        Difference::new(Category::Json, self.text(), old_text, new_text).hint(hint(old, new))
    }

    /// The kind stays visible where the value does not.
    fn shown(&self, value: Option<&Value>) -> String {
        match value {
            None => ABSENT.to_owned(),
            Some(Value::Null) => "null".to_owned(),
            Some(Value::Array(list)) => format!("list of {}", list.len()),
            Some(Value::Object(object)) => format!("object of {}", object.len()),
            Some(Value::String(text)) if self.secret => format!("string {}", redact::hidden(text)),
            Some(Value::String(text)) => redact::shown(&quoted(text), 0),
            Some(Value::Number(_)) if self.secret => "number (redacted)".to_owned(),
            Some(Value::Number(number)) => redact::shown(&number.to_string(), 0),
            Some(Value::Bool(_)) if self.secret => "boolean (redacted)".to_owned(),
            Some(Value::Bool(value)) => value.to_string(),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn hint(old: Option<&Value>, new: Option<&Value>) -> Option<Hint> {
    match (old, new) {
        (None, Some(Value::Null)) | (Some(Value::Null), None) => Some(Hint::NullOrAbsent),
        (Some(Value::Number(number)), Some(Value::String(text)))
        | (Some(Value::String(text)), Some(Value::Number(number))) => {
            let same = text.parse::<f64>().ok() == number.as_f64();
            same.then_some(Hint::NumberAsText)
        }
        (Some(Value::String(old)), Some(Value::String(new))) => {
            let two_formats = match (is_iso_date(old), is_iso_date(new)) {
                (true, true) => {
                    old.get(11..19) == new.get(11..19) && old.get(..10) == new.get(..10)
                }
                (true, false) => is_http_date(new),
                (false, true) => is_http_date(old),
                (false, false) => false,
            };
            if two_formats {
                Some(Hint::DateFormat)
            } else if old.to_lowercase() == new.to_lowercase() {
                Some(Hint::LetterCase)
            } else {
                (old.strip_suffix('/').unwrap_or(old) == new.strip_suffix('/').unwrap_or(new))
                    .then_some(Hint::TrailingSlash)
            }
        }
        _ => None,
    }
}

/// `Sat, 21 Nov 2026 17:22:50 GMT` (RFC 9110 §5.6.7), as Flask writes dates in JSON.
fn is_http_date(text: &str) -> bool {
    has_form(text, "aaa, 00 aaa 0000 00:00:00 ")
}

/// `2026-11-21T17:22:50` (ISO 8601), as Python's `isoformat`, pydantic and FastAPI write them.
fn is_iso_date(text: &str) -> bool {
    has_form(text, "0000-00-00T00:00:00") || has_form(text, "0000-00-00 00:00:00")
}

/// Whether the text begins with letters where `a` stands, digits where `0`, and else the same.
fn has_form(text: &str, form: &str) -> bool {
    text.len() >= form.len()
        && text
            .bytes()
            .zip(form.bytes())
            .all(|(byte, form)| match form {
                b'a' => byte.is_ascii_alphabetic(),
                b'0' => byte.is_ascii_digit(),
                form => byte == form,
            })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(ignore: &[&str], unordered: &[&str], tolerance: f64) -> CompareConfig {
        let paths = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        CompareConfig {
            ignore: paths(ignore),
            unordered: paths(unordered),
            tolerance,
            ..CompareConfig::default()
        }
    }

    /// `place: old -> new` of each difference.
    fn differences(old: &str, new: &str, config: &CompareConfig) -> Vec<String> {
        let parse = |text| serde_json::from_str(text).unwrap();
        let mut found = Found::default();
        compare(&mut found, &parse(old), &parse(new), config);
        found
            .finish()
            .into_iter()
            .map(|difference| {
                let Difference {
                    place, old, new, ..
                } = difference;
                format!("{place}: {old} -> {new}")
            })
            .collect()
    }

    #[test]
    fn how_data_is_written_does_not_matter_and_what_it_says_does() {
        for (old, new, expected) in [
            (r#"{"a":1,"b":2}"#, r#"{ "b": 2, "a": 1 }"#, &[][..]),
            (r#"{"a":1}"#, r#"{"a":1.0}"#, &[]),
            ("1e2", "100", &[]),
            ("-0.0", "0", &[]),
            (r#""\u00e9""#, "\"é\"", &[]),
            (
                "9007199254740993",
                "9007199254740992.0",
                &["$: 9007199254740993 -> 9007199254740992.0"],
            ),
            (
                "18446744073709551615",
                "18446744073709551614",
                &["$: 18446744073709551615 -> 18446744073709551614"],
            ),
            (r#"{"a":null}"#, "{}", &["$.a: null -> absent"]),
            (r#"{"a":1}"#, r#"{"a":"1"}"#, &["$.a: 1 -> \"1\""]),
            (
                r#"{"a":[]}"#,
                r#"{"a":{}}"#,
                &["$.a: list of 0 -> object of 0"],
            ),
            (r#"{"a":[1,2]}"#, r#"{"a":[1,3,4]}"#, &["$.a[1]: 2 -> 3"]),
            (
                r#"{"a":[1,2,3]}"#,
                r#"{"a":[3,1,2]}"#,
                &["$.a: 3 items -> the same 3 items in another order"],
            ),
            (
                r#"{"a.b":{"c":1}}"#,
                r#"{"a.b":{"c":2}}"#,
                &["$[\"a.b\"].c: 1 -> 2"],
            ),
            (
                r#"[{"a":1,"b":1},{"a":1}]"#,
                r#"[{"a":2,"b":2},{"a":3}]"#,
                &["$[0].a: 1 -> 2", "$[0].b: 1 -> 2"],
            ),
            (r#"{"a":true}"#, r#"{"a":false}"#, &["$.a: true -> false"]),
            (
                r#"{"at":"Sat, 21 Nov 2026 17:22:50 GMT"}"#,
                r#"{"at":"2026-11-21T17:22:50"}"#,
                &["$.at: \"Sat, 21 Nov 2026 17:22:50 GMT\" -> \"2026-11-21T17:22:50\""],
            ),
        ] {
            assert_eq!(
                differences(old, new, &config(&[], &[], 0.0)),
                expected,
                "{old} {new}"
            );
        }
    }

    #[test]
    fn places_that_are_ignored_may_differ_or_be_absent() {
        let old = r#"{"at":1,"items":[{"at":1,"id":1},{"at":2,"id":2}],"deep":{"x":{"at":[1,{"at":1}]}}}"#;
        let new = r#"{"at":2,"items":[{"at":3,"id":1},{"id":3}],"deep":{"x":{"at":[2,{"at":2}]}}}"#;
        for (ignore, expected) in [
            (&["$..at", "$.items[1].id"][..], &[][..]),
            (&["$"], &[]),
            (&["$.at", "$.items", "$.deep.*"], &[]),
            (&["$..at"], &["$.items[1].id"]),
            (
                &["$.at", "$..id", "$.items[*].at"],
                &["$.deep.x.at[0]", "$.deep.x.at[1].at"],
            ),
            (
                &["$.at", "$..id", "$.deep", "$.items[0].at"],
                &["$.items[1].at"],
            ),
            (&["$.at", "$.items", "$..x..at"], &[]),
            (&["$.at", "$.items", "$.deep..[1].at"], &["$.deep.x.at[0]"]),
        ] {
            let places: Vec<_> = differences(old, new, &config(ignore, &[], 0.0))
                .into_iter()
                .filter_map(|text| Some(text.split_once(": ")?.0.to_owned()))
                .collect();
            assert_eq!(places, expected, "{ignore:?}");
        }
    }

    #[test]
    fn lists_without_order_are_compared_as_multisets() {
        for (old, new, expected) in [
            ("[1,2,3]", "[3,1,2]", &[][..]),
            ("[1,1,2]", "[2,1,2]", &["$[1]: 1 -> 2"]),
            ("[[1,2],[3]]", "[[3],[2,1]]", &[]),
            ("[1,2]", "[2]", &["$[0]: 1 -> absent"]),
            ("[2]", "[1,2]", &["$[0]: absent -> 1"]),
            (
                r#"[{"id":1,"a":1,"b":1},{"id":2,"a":2,"b":2}]"#,
                r#"[{"id":2,"a":2,"b":3},{"id":1,"a":1,"b":1}]"#,
                &["$[1].b: 2 -> 3"],
            ),
            (
                r#"[{"id":1,"a":1,"b":1},{"id":2,"a":9,"b":9}]"#,
                r#"[{"id":2,"a":1,"b":1},{"id":1,"a":9,"b":1}]"#,
                &["$[0].a: 1 -> 9", "$[1].b: 9 -> 1"],
            ),
        ] {
            let config = config(&[], &["$", "$[*]"], 0.0);
            assert_eq!(differences(old, new, &config), expected, "{old} {new}");
        }
    }

    #[test]
    fn numbers_may_differ_by_the_tolerance() {
        for (old, new, tolerance, same) in [
            ("100", "101", 0.01, true),
            ("100", "101.5", 0.01, false),
            ("-100", "-101", 0.01, true),
            ("-100", "100", 0.5, false),
            ("0", "0.0001", 0.5, false),
            ("0.1", "0.30000000000000004", 0.0, false),
            ("0.3", "0.30000000000000004", 1e-9, true),
            ("[1,2]", "[2.001,1]", 0.01, false),
        ] {
            let found = differences(old, new, &config(&[], &[], tolerance));
            assert_eq!(found.is_empty(), same, "{old} {new}");
        }
        let unordered = config(&[], &["$"], 0.01);
        assert!(differences("[1,2]", "[2.001,1]", &unordered).is_empty());
    }

    #[test]
    fn a_long_list_without_order_takes_no_longer_than_its_length() {
        let list = |from: usize| {
            let numbers: Vec<_> = (from..from + 6_000).map(|n| n.to_string()).collect();
            format!("[{}]", numbers.join(","))
        };
        let unordered = config(&[], &["$"], 0.0);
        let found = differences(&list(0), &list(3_000), &unordered);
        assert_eq!(found, ["$[0]: 0 -> 6000"]);

        let pairs = |swapped: bool| {
            let pair = |n: u32| {
                if swapped {
                    json!([n, 0])
                } else {
                    json!([0, n])
                }
            };
            let mut pairs: Vec<_> = (1..100).map(pair).collect();
            if swapped {
                pairs.reverse();
            }
            Value::from(pairs).to_string()
        };
        let unordered = config(&[], &["$", "$[*]"], 0.0);
        assert!(differences(&pairs(false), &pairs(true), &unordered).is_empty());
    }

    #[test]
    fn secrets_are_hidden_with_all_below_them() {
        for (old, new, expected) in [
            (
                r#"{"password":"a"}"#,
                r#"{"password":"bc"}"#,
                "$.password: string (redacted, 1 characters) -> string (redacted, 2 characters)",
            ),
            (
                r#"{"pin":1}"#,
                r#"{"pin":2}"#,
                "$.pin: number (redacted) -> number (redacted)",
            ),
            (
                r#"{"tokens":{"zq":[1]}}"#,
                r#"{"tokens":{"zq":[true]}}"#,
                "$.tokens[\"(redacted, 2 characters)\"][0]: number (redacted) -> boolean (redacted)",
            ),
            (
                r#"{"ann@example.org":1}"#,
                r#"{"ann@example.org":null}"#,
                "$[\"(redacted, 15 characters)\"]: 1 -> null",
            ),
            (
                r#"{"a":"ann@example.org"}"#,
                "{}",
                "$.a: \"(redacted, 15 characters)\" -> absent",
            ),
            (
                r#"{"a":4111111111111111}"#,
                "{}",
                "$.a: (redacted, 16 characters) -> absent",
            ),
        ] {
            assert_eq!(differences(old, new, &config(&[], &[], 0.0)), [expected]);
        }
    }

    #[test]
    fn usual_differences_of_frameworks_are_named() {
        let parse = |text| serde_json::from_str::<Value>(text).ok();
        for (old, new, expected) in [
            ("null", "", Some(Hint::NullOrAbsent)),
            ("1.50", "\"1.5\"", Some(Hint::NumberAsText)),
            (
                "\"Sat, 21 Nov 2026 17:22:50 GMT\"",
                "\"2026-11-21T17:22:50\"",
                Some(Hint::DateFormat),
            ),
            (
                "\"2026-11-21T17:22:50Z\"",
                "\"2026-11-21T17:22:50+00:00\"",
                Some(Hint::DateFormat),
            ),
            ("\"2026-11-21T17:22:50Z\"", "\"2026-11-21T17:22:51Z\"", None),
            ("\"Open\"", "\"OPEN\"", Some(Hint::LetterCase)),
            ("\"/a/\"", "\"/a\"", Some(Hint::TrailingSlash)),
            ("\"a\"", "\"b\"", None),
            ("1", "null", None),
        ] {
            assert_eq!(
                hint(parse(old).as_ref(), parse(new).as_ref()),
                expected,
                "{old} {new}"
            );
            assert_eq!(
                hint(parse(new).as_ref(), parse(old).as_ref()),
                expected,
                "{new} {old}"
            );
        }
    }
}
