//! What holds of the comparison of any two answers.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Map, Value, json};

use super::*;
use crate::config::rule::JsonPath;

const KEPT: usize = 2048;

fn settings(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

fn answer(media_type: &str, body: &[u8]) -> Captured {
    let mut capture = Capture::new(KEPT);
    for chunk in body.chunks(100) {
        capture.push(chunk);
    }
    let media_type = HeaderValue::from_str(media_type).unwrap();
    Captured {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(CONTENT_TYPE, media_type)]),
        body: capture.finish(),
    }
}

fn document(value: &Value) -> Captured {
    let mut answer = answer("application/json", b"");
    let text = value.to_string();
    let mut capture = Capture::new(text.len());
    capture.push(text.as_bytes());
    answer.body = capture.finish();
    answer
}

fn differences(old: &Captured, new: &Captured, config: &CompareConfig) -> Vec<Difference> {
    let asked = Asked {
        method: &Method::GET,
        host: Some("shop.example"),
        path: "/items/7",
    };
    compare(old, new, &asked, config)
}

fn paths(texts: &[&str]) -> Vec<JsonPath> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn unordered() -> CompareConfig {
    CompareConfig {
        unordered: paths(&["$", "$..*"]),
        ..CompareConfig::default()
    }
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..5u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ab]{0,3}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

/// Few keys and values, so that things that are nearly alike meet.
fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[abc]|id|at|a\\.b|.{1,8}", inner, 0..5)
                .prop_map(|object| Value::Object(object.into_iter().collect())),
        ]
    })
}

fn config() -> impl Strategy<Value = CompareConfig> {
    let path = || {
        select(vec![
            "$", "$.a", "$..at", "$[*]", "$..b", "$.a[0]", "$.*.c", "$..[1]",
        ])
    };
    let some = move || prop::collection::vec(path(), 0..3);
    (some(), some(), select(vec![0.0, 0.1, 1.0]), any::<bool>()).prop_map(
        |(ignore, unordered, tolerance, noise)| CompareConfig {
            headers: vec![SET_COOKIE, LOCATION],
            ignore: paths(&ignore),
            ignore_lines: Vec::new(),
            unordered: paths(&unordered),
            tolerance,
            noise,
        },
    )
}

fn media_type() -> impl Strategy<Value = &'static str> {
    select(vec![
        "application/json",
        "application/problem+json; charset=utf-8",
        "text/html",
        "image/png",
        ";;=",
        "",
    ])
}

fn coding() -> impl Strategy<Value = &'static str> {
    select(vec!["", "gzip", "deflate", "br", "gzip, gzip", "identity"])
}

/// Anything that an application may send.
fn any_answer() -> impl Strategy<Value = Captured> {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(select(b"{}[]\",:01.e-\n\\a ".to_vec()), 0..60),
        value().prop_map(|value| value.to_string().into_bytes()),
        any::<String>().prop_map(String::into_bytes),
        (0..4000usize).prop_map(|length| vec![b'['; length]),
    ];
    let field = prop::collection::vec(0x20..0x7fu8, 0..60);
    (
        100..600u16,
        media_type(),
        coding(),
        field.clone(),
        field,
        body,
    )
        .prop_map(|(status, media_type, coding, location, cookie, body)| {
            let mut answer = answer(media_type, &body);
            answer.status = StatusCode::from_u16(status).unwrap();
            let fields = [
                (CONTENT_ENCODING, coding.as_bytes()),
                (LOCATION, &location),
                (SET_COOKIE, &cookie),
            ];
            for (name, value) in fields {
                answer
                    .headers
                    .append(name, HeaderValue::from_bytes(value).unwrap());
            }
            answer
        })
}

/// With the keys of objects, and the items of lists, in the opposite order.
fn reversed(value: &Value, lists: bool) -> String {
    match value {
        Value::Object(object) => {
            let pairs: Vec<_> = object
                .iter()
                .rev()
                .map(|(key, value)| format!("{}:{}", json!(key), reversed(value, lists)))
                .collect();
            format!("{{{}}}", pairs.join(" ,"))
        }
        Value::Array(list) => {
            let mut items: Vec<_> = list.iter().map(|item| reversed(item, lists)).collect();
            if lists {
                items.reverse();
            }
            format!("[{}]", items.join(","))
        }
        leaf => leaf.to_string(),
    }
}

/// Places of all leaves, empty lists and objects included.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, value) in list.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), found);
            }
        }
        _ => found.push(at.to_owned()),
    }
}

proptest! {
    #![proptest_config(settings(100))]

    #[test]
    fn an_answer_equals_itself(answer in any_answer(), config in config()) {
        prop_assert_eq!(differences(&answer, &answer.clone(), &config), []);
    }

    #[test]
    fn neither_side_is_preferred(old in any_answer(), new in any_answer(), config in config()) {
        let config = CompareConfig { unordered: Vec::new(), ..config };
        let swapped: Vec<_> = differences(&new, &old, &config)
            .into_iter()
            .map(|difference| Difference {
                old: difference.new,
                new: difference.old,
                ..difference
            })
            .collect();
        prop_assert_eq!(differences(&old, &new, &config), swapped);
    }

    #[test]
    fn neither_document_is_preferred(old in value(), new in value(), config in config()) {
        let (old, new) = (document(&old), document(&new));
        let forms = |differences: Vec<Difference>| {
            let mut forms: Vec<_> = differences
                .iter()
                .map(|difference| (difference.form(), difference.alike))
                .collect();
            forms.sort();
            forms
        };
        prop_assert_eq!(
            forms(differences(&old, &new, &config)),
            forms(differences(&new, &old, &config))
        );
    }

    #[test]
    fn what_is_told_is_bounded_and_in_one_line(
        old in any_answer(),
        new in any_answer(),
        config in config(),
    ) {
        let found = differences(&old, &new, &config);
        prop_assert!(found.len() <= MOST + 1);
        for Difference { place, old, new, .. } in &found {
            prop_assert!(place.chars().count() <= 200, "{}", place);
            for shown in [old, new] {
                prop_assert!(shown.chars().count() <= 160, "{}", shown);
            }
            prop_assert!(![place, old, new].iter().any(|text| text.contains(char::is_control)));
        }
        prop_assert_eq!(without_noise(found.clone(), &found), []);
        prop_assert_eq!(without_noise(found.clone(), &[]), found);
    }

    #[test]
    fn the_order_of_keys_does_not_matter(value in value()) {
        let new = answer("application/json", reversed(&value, false).as_bytes());
        let new = Captured { body: whole(&reversed(&value, false)), ..new };
        prop_assert_eq!(differences(&document(&value), &new, &CompareConfig::default()), []);
    }

    #[test]
    fn the_order_of_lists_without_order_does_not_matter(value in value()) {
        let new = Captured { body: whole(&reversed(&value, true)), ..document(&value) };
        prop_assert_eq!(differences(&document(&value), &new, &unordered()), []);
    }

    #[test]
    fn one_leaf_that_changes_is_the_one_that_is_told(
        value in value(),
        chosen in any::<prop::sample::Index>(),
        lists in any::<bool>(),
    ) {
        let mut leaves = Vec::new();
        pointers(&value, "", &mut leaves);
        let pointer = chosen.get(&leaves);
        let mut changed = value.clone();
        *changed.pointer_mut(pointer).unwrap() = json!("changed to what it was not");
        let config = if lists { unordered() } else { CompareConfig::default() };
        let found = differences(&document(&value), &document(&changed), &config);
        prop_assert_eq!(found.len(), 1, "{:?}", found);
        prop_assert_eq!(found[0].category, Category::Json);
        prop_assert_eq!(found[0].alike, 0);
        prop_assert_ne!(&found[0].old, ABSENT);

        let everywhere = CompareConfig { ignore: paths(&["$"]), ..config };
        prop_assert_eq!(differences(&document(&value), &document(&changed), &everywhere), []);
    }

    #[test]
    fn a_secret_is_never_told(
        secret in "[a-z]{4}zq[a-z0-9]{2,60}",
        value in value(),
        name in select(vec!["password", "X-CSRF-Token", "apiKey", "session_id", "card", "set-cookie"]),
    ) {
        let hidden = json!({"a": [{name: {"deep": [value, &secret], &secret: 1}}]});
        let (old, new) = (document(&hidden), document(&json!({"a": [{name: {"deep": [null, 7]}}]})));
        let mut pairs = vec![(old, new)];
        for (media_type, text) in [
            ("text/plain", format!("x\n{name}={secret}")),
            ("text/plain", format!("x {name}: {secret} y")),
            ("text/html", format!("<a>\n<input value=\"{secret}\" name=\"{name}\">")),
            ("application/xml", format!("<{name}>{secret}</{name}>")),
            ("application/json", format!("{{\"a\": NaN, \"{name}\": \"{secret}\"}}")),
            ("application/json", json!({"next": format!("/?x=1&{name}={secret}")}).to_string()),
            ("text/plain", format!("Bearer {secret}")),
            ("text/plain", format!("by {secret}@example.org")),
            ("text/plain", format!("redis://me:{secret}@host/1")),
        ] {
            pairs.push((answer(media_type, text.as_bytes()), answer(media_type, b"x\ny")));
        }
        let with = |name, value: String| {
            let mut answer = answer("text/plain", b"");
            answer.headers.insert(name, HeaderValue::from_str(&value).unwrap());
            answer
        };
        for answer in [
            with(LOCATION, format!("/a?{name}={secret}")),
            with(LOCATION, format!("https://me:{secret}@host/")),
            with(SET_COOKIE, format!("{name}={secret}; Path=/")),
            with("x-auth-token".parse().unwrap(), secret.clone()),
        ] {
            pairs.push((answer, with(LOCATION, "/b".into())));
        }
        let config = CompareConfig {
            headers: vec!["x-auth-token".parse().unwrap()],
            ..CompareConfig::default()
        };
        for (old, new) in pairs {
            for (old, new) in [(&old, &new), (&new, &old)] {
                let found = differences(old, new, &config);
                prop_assert!(!found.is_empty());
                let told = serde_json::to_string(&found).unwrap();
                prop_assert!(!told.contains(&secret), "{}", told);
            }
        }
    }
}

fn whole(text: &str) -> CapturedBody {
    let mut capture = Capture::new(text.len());
    capture.push(text.as_bytes());
    capture.finish()
}

#[test]
fn a_document_nested_without_end_is_text() {
    let nested = |depth: usize| {
        let text = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        Captured {
            body: whole(&text),
            ..answer("application/json", b"")
        }
    };
    let config = unordered();
    let deep = differences(&nested(126), &nested(127), &config);
    assert_eq!(deep[0].category, Category::Json);
    let deeper = differences(&nested(100_000), &nested(100_001), &config);
    assert_eq!(deeper[0].category, Category::Text);
}

#[test]
fn answers_without_content_have_none_to_compare() {
    let old = answer("text/plain", b"a");
    let new = answer("application/json", b"[]");
    let config = CompareConfig::default();
    let asked = Asked {
        method: &Method::HEAD,
        host: None,
        path: "/",
    };
    let found = compare(&old, &new, &asked, &config);
    let places: Vec<_> = found.iter().map(|found| found.place.as_str()).collect();
    assert_eq!(places, ["content-type"]);
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let without = |answer: &Captured| Captured {
            status,
            ..answer.clone()
        };
        assert_eq!(differences(&without(&old), &without(&new), &config), []);
    }
}

#[test]
fn a_status_is_told_with_what_may_be_behind() {
    let of = |status| Captured {
        status: StatusCode::from_u16(status).unwrap(),
        ..document(&Value::Object(Map::new()))
    };
    for (old, new, hint) in [
        (200, 404, None),
        (400, 422, Some(Hint::Validation)),
        (200, 422, None),
    ] {
        let found = differences(&of(old), &of(new), &CompareConfig::default());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].category, Category::Status);
        assert_eq!(
            (&*found[0].old, &*found[0].new),
            (&*old.to_string(), &*new.to_string())
        );
        assert_eq!(found[0].hint, hint);
    }
}
