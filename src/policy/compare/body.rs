//! Two bodies: equal bytes are equal, else JSON as data, text by lines, and the rest by the first byte.
//!
//! Compression is undone first, for two servers never compress alike (a gzip header may carry the time). Of a
//! body longer than what is kept, its length and hash are known, and the beginning is looked at to say where the
//! difference is. A compressed one that long is compared as far as it was kept.

use std::borrow::Cow;
use std::io::{self, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header;
use serde_json::Value;

use super::head::{MediaType, text_of};
use super::{ABSENT, Captured, Category, Difference, Found, capture, json, redact};
use crate::config::rule::{CompareConfig, Glob};

/// A compressed body is looked at so far, in bytes; a bomb ends here.
const INFLATED: u64 = 1024 * 1024;

pub(super) fn compare(found: &mut Found, old: &Captured, new: &Captured, config: &CompareConfig) {
    if old.body.ended != new.body.ended {
        let shown = |ended| if ended { "complete" } else { "broken off" };
        let (old, new) = (shown(old.body.ended), shown(new.body.ended));
        found.add(Difference::new(Category::Bytes, "end", old, new));
        return;
    }
    let codings = [old, new].map(codings);
    let [coding_of_old, coding_of_new] = &codings;
    let is_one_coding = coding_of_old == coding_of_new;
    if is_one_coding && old.body.hash == new.body.hash && old.body.length == new.body.length {
        return;
    }
    match (
        Content::of(old, coding_of_old),
        Content::of(new, coding_of_new),
    ) {
        (Some(old_content), Some(new_content)) => {
            let types = [old, new].map(media_type);
            contents(found, &old_content, &new_content, &types, config);
        }
        // A coding that is not known here, or what does not keep to it.
        _ if is_one_coding => bytes(found, &Content::plain(old), &Content::plain(new)),
        _ => {
            let shown = |codings: &[String]| match codings {
                [] => "not encoded".to_owned(),
                codings => redact::shown(&codings.join(", "), 0),
            };
            found.add(Difference::new(
                Category::Bytes,
                header::CONTENT_ENCODING.as_str(),
                shown(coding_of_old),
                shown(coding_of_new),
            ));
        }
    }
}

fn contents(
    found: &mut Found,
    old: &Content<'_>,
    new: &Content<'_>,
    types: &[Option<MediaType>; 2],
    config: &CompareConfig,
) {
    if old.is_same(new) {
        return;
    }
    let is_json = |media: &Option<MediaType>| media.as_ref().is_some_and(MediaType::is_json);
    // Where one of both forgot the type, that is told already, and the data can still be compared.
    if types.iter().any(is_json)
        && let (Some(old), Some(new)) = (old.as_json(), new.as_json())
    {
        json::compare(found, &old, &new, config);
        return;
    }
    let is_text = |media: &Option<MediaType>| {
        media
            .as_ref()
            .is_some_and(|media| media.is_text() || media.is_json())
    };
    if types.iter().all(is_text) {
        text(found, old, new, config);
    } else {
        bytes(found, old, new);
    }
}

/// What a body says, without its coding.
#[derive(Debug)]
struct Content<'a> {
    /// All of it, or the beginning.
    bytes: Cow<'a, [u8]>,
    /// Length and hash of all of it, where they are known.
    all: Option<(u64, u128)>,
}

impl<'a> Content<'a> {
    fn plain(answer: &'a Captured) -> Self {
        Self {
            bytes: Cow::Borrowed(&answer.body.kept),
            all: Some((answer.body.length, answer.body.hash)),
        }
    }

    /// `None` for a coding that is not known, and for what does not keep to it.
    fn of(answer: &'a Captured, codings: &[String]) -> Option<Self> {
        let kept = answer.body.kept.as_slice();
        let inflated = match codings {
            [] => return Some(Self::plain(answer)),
            [coding] => match coding.as_str() {
                "gzip" | "x-gzip" => inflate(MultiGzDecoder::new(kept)),
                // Meant is zlib (RFC 9110 §8.4.1.2), and some send bare deflate.
                "deflate" => {
                    let zlib = inflate(ZlibDecoder::new(kept));
                    if zlib.bytes.is_empty() && zlib.is_broken {
                        inflate(DeflateDecoder::new(kept))
                    } else {
                        zlib
                    }
                }
                _ => return None,
            },
            _ => return None,
        };
        if inflated.is_broken && answer.body.is_whole() && answer.body.ended {
            return None;
        }
        let is_all = !inflated.is_broken && !inflated.is_cut && answer.body.is_whole();
        let all = is_all.then(|| (inflated.bytes.len() as u64, capture::hash(&inflated.bytes)));
        Some(Self {
            bytes: Cow::Owned(inflated.bytes),
            all,
        })
    }

    fn is_whole(&self) -> bool {
        self.all
            .is_some_and(|(length, _)| length == self.bytes.len() as u64)
    }

    /// The number of bytes from the first that may differ; equal lengths where nothing does.
    fn first_difference(&self, other: &Self) -> usize {
        self.bytes
            .iter()
            .zip(other.bytes.iter())
            .take_while(|(old, new)| old == new)
            .count()
    }

    /// Equal in all that is known of both.
    fn is_same(&self, other: &Self) -> bool {
        if let (Some(old), Some(new)) = (self.all, other.all) {
            return old == new;
        }
        let same = self.first_difference(other);
        let ends_sooner = |content: &Self, other: &Self| {
            content.is_whole() && same == content.bytes.len() && same < other.bytes.len()
        };
        same == self.bytes.len().min(other.bytes.len())
            && !ends_sooner(self, other)
            && !ends_sooner(other, self)
    }

    fn as_json(&self) -> Option<Value> {
        self.is_whole()
            .then(|| serde_json::from_slice(&self.bytes).ok())?
    }

    /// `12 bytes`, or how many at least.
    fn length(&self) -> String {
        match self.all {
            Some((length, _)) => format!("{length} bytes"),
            None => format!("more than {} bytes", self.bytes.len()),
        }
    }
}

struct Inflated {
    bytes: Vec<u8>,
    /// It does not keep to its coding, or ends too soon.
    is_broken: bool,
    is_cut: bool,
}

fn inflate(decoder: impl Read) -> Inflated {
    let mut bytes = Vec::new();
    let read: io::Result<usize> = decoder.take(INFLATED + 1).read_to_end(&mut bytes);
    let is_cut = bytes.len() as u64 > INFLATED;
    bytes.truncate(usize::try_from(INFLATED).unwrap_or(usize::MAX));
    Inflated {
        bytes,
        is_broken: read.is_err(),
        is_cut,
    }
}

fn codings(answer: &Captured) -> Vec<String> {
    let text = text_of(&answer.headers, &header::CONTENT_ENCODING).unwrap_or_default();
    text.split(',')
        .map(|coding| coding.trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect()
}

fn media_type(answer: &Captured) -> Option<MediaType> {
    text_of(&answer.headers, &header::CONTENT_TYPE)
        .as_deref()
        .map(MediaType::parse)
}

/// Every line that differs, where both have the same number of them; else the first, for those below it may be
/// the same ones in other places.
fn text(found: &mut Found, old: &Content<'_>, new: &Content<'_>, config: &CompareConfig) {
    let at = old.first_difference(new);
    if at == old.bytes.len().min(new.bytes.len()) && !(old.is_whole() && new.is_whole()) {
        return bytes(found, old, new);
    }
    let lines = |content: &Content<'_>| memchr::memchr_iter(b'\n', &content.bytes).count();
    let shown = |old: Option<&[u8]>, new: Option<&[u8]>| {
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        match (old.map(text), new.map(text)) {
            (Some(old), Some(new)) => redact::shown_both(&old, &new),
            (old, new) => {
                let one = |line: Option<String>| {
                    line.map_or(ABSENT.to_owned(), |line| redact::shown(&line, 0))
                };
                (one(old), one(new))
            }
        }
    };
    let alike = |old: &[u8], new: &[u8]| {
        let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
        let may_differ = |glob: &Glob| glob.matches(old.trim()) && glob.matches(new.trim());
        old == new || config.ignore_lines.iter().any(may_differ)
    };
    let is_newline = |byte: &u8| *byte == b'\n';
    let (mut lines_of_old, mut lines_of_new) =
        (old.bytes.split(is_newline), new.bytes.split(is_newline));
    if old.is_whole() && new.is_whole() && lines(old) == lines(new) {
        for (number, (old, new)) in lines_of_old.zip(lines_of_new).enumerate() {
            if !alike(old, new) {
                let (old, new) = shown(Some(old), Some(new));
                let place = format!("{LINE}{}", number + 1);
                found.add(Difference::new(Category::Text, place, old, new));
            }
        }
        return;
    }
    let same = lines_of_old
        .clone()
        .zip(lines_of_new.clone())
        .take_while(|(old, new)| alike(old, new))
        .count();
    let (old, new) = shown(lines_of_old.nth(same), lines_of_new.nth(same));
    let place = format!("{FROM_LINE}{}", same + 1);
    found.add(Difference::new(Category::Text, place, old, new));
}

const LINE: &str = "line ";
const FROM_LINE: &str = "from line ";
const BYTE: &str = "byte ";

/// Whether noise at one place of a text or of bytes is noise at the other: there is no telling what belongs
/// together behind the first difference of bytes, or of texts that have not the same number of lines.
pub(super) fn covers(place: &str, other: &str) -> bool {
    if place.starts_with(BYTE) && other.starts_with(BYTE) {
        return true;
    }
    let number = |text: &str| text.parse::<usize>().ok();
    let first = place.strip_prefix(FROM_LINE).and_then(number);
    let line = other
        .strip_prefix(FROM_LINE)
        .or_else(|| other.strip_prefix(LINE))
        .and_then(number);
    matches!((first, line), (Some(first), Some(line)) if first <= line)
}

fn bytes(found: &mut Found, old: &Content<'_>, new: &Content<'_>) {
    let at = old.first_difference(new);
    let shown = |content: &Content<'_>| {
        let length = content.length();
        match content.bytes.get(at) {
            Some(byte) => format!("{length}, here {byte:#04x}"),
            None if content.is_whole() => format!("{length}, ends here"),
            None => format!("{length}, further than was kept"),
        }
    };
    let place = format!("{BYTE}{at}");
    found.add(Difference::new(
        Category::Bytes,
        place,
        shown(old),
        shown(new),
    ));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;
    use crate::policy::compare::Capture;

    const LIMIT: usize = 4096;

    /// `text/plain`, `gzip text/plain`
    fn answer(media_type: &str, body: &[u8]) -> Captured {
        let (coding, media_type) = media_type.split_once(' ').unwrap_or(("", media_type));
        let level = Compression::default();
        let body = match coding {
            "gzip" => {
                let mut encoder = flate2::GzBuilder::new().mtime(7).write(Vec::new(), level);
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "x-gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "deflate" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "Deflate" => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            _ => body.to_vec(),
        };
        let mut headers = HeaderMap::new();
        if !coding.is_empty() {
            let coding = coding.trim_start_matches("broken-");
            headers.insert("content-encoding", HeaderValue::from_str(coding).unwrap());
        }
        if !media_type.is_empty() {
            headers.insert("content-type", HeaderValue::from_str(media_type).unwrap());
        }
        let mut capture = Capture::new(LIMIT);
        capture.push(&body);
        Captured {
            status: StatusCode::OK,
            headers,
            body: capture.finish(),
        }
    }

    /// `category place: old -> new` of each difference.
    fn differences(old: &Captured, new: &Captured) -> Vec<String> {
        let mut found = Found::default();
        compare(&mut found, old, new, &CompareConfig::default());
        let told = found.finish().into_iter();
        told.map(|difference| {
            let Difference {
                category,
                place,
                old,
                new,
                ..
            } = difference;
            format!("{category:?} {place}: {old} -> {new}")
        })
        .collect()
    }

    #[test]
    fn a_body_is_compared_as_what_both_say_that_it_is() {
        for (old_type, old, new_type, new, expected) in [
            (
                "application/json",
                "{\"a\": 1}",
                "application/json",
                "{\"a\":1.0}",
                &[][..],
            ),
            (
                "application/a+json",
                "[1]",
                "application/json",
                "[2]",
                &["Json $[0]: 1 -> 2"],
            ),
            (
                "text/html",
                "{\"a\":1}",
                "application/json",
                "{ \"a\":1}",
                &[],
            ),
            ("", "{\"a\":1}", "application/json", "{ \"a\":1}", &[]),
            (
                "text/html",
                "[1]",
                "text/html",
                "[ 1]",
                &["Text line 1: [1] -> [ 1]"],
            ),
            (
                "application/json",
                "[NaN]",
                "application/json",
                "[null]",
                &["Text line 1: [NaN] -> [null]"],
            ),
            (
                "text/plain",
                "a\nb\nc",
                "text/css",
                "a\nx\nz",
                &["Text line 2: b -> x", "Text line 3: c -> z"],
            ),
            (
                "text/plain",
                "a\nb\n",
                "text/plain",
                "a\nx\nb\n",
                &["Text from line 2: b -> x"],
            ),
            (
                "text/plain",
                "a",
                "text/plain",
                "a\nb",
                &["Text from line 2: absent -> b"],
            ),
            (
                "text/plain",
                "a\r\n",
                "text/plain",
                "a\n",
                &["Text line 1: a\\r -> a"],
            ),
            (
                "image/png",
                "abc",
                "image/png",
                "abd",
                &["Bytes byte 2: 3 bytes, here 0x63 -> 3 bytes, here 0x64"],
            ),
            (
                "image/png",
                "abc",
                "text/plain",
                "ab",
                &["Bytes byte 2: 3 bytes, here 0x63 -> 2 bytes, ends here"],
            ),
            ("", "", "", "", &[]),
        ] {
            let found = differences(
                &answer(old_type, old.as_bytes()),
                &answer(new_type, new.as_bytes()),
            );
            assert_eq!(found, expected, "{old_type} {old} {new_type} {new}");
        }
    }

    #[test]
    fn compression_does_not_matter() {
        let types = [
            "text/plain",
            "gzip text/plain",
            "x-gzip text/plain",
            "deflate text/plain",
            "Deflate text/plain",
            "identity text/plain",
        ];
        for old_type in types {
            for new_type in types {
                let old = answer(old_type, b"one\ntwo");
                assert!(differences(&old, &answer(new_type, b"one\ntwo")).is_empty());
                assert_eq!(
                    differences(&old, &answer(new_type, b"one\nthree")),
                    ["Text line 2: two -> three"],
                    "{old_type} {new_type}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_inflated_is_compared_as_it_is() {
        for (old_type, new_type, expected) in [
            (
                "br text/plain",
                "br text/plain",
                "Bytes byte 0: 1 bytes, here 0x61 -> 1 bytes, here 0x62",
            ),
            (
                "broken-gzip text/plain",
                "broken-gzip text/plain",
                "Bytes byte 0: 1 bytes, here 0x61 -> 1 bytes, here 0x62",
            ),
            (
                "br text/plain",
                "text/plain",
                "Bytes content-encoding: br -> not encoded",
            ),
            (
                "broken-gzip text/plain",
                "text/plain",
                "Bytes content-encoding: gzip -> not encoded",
            ),
        ] {
            let found = differences(&answer(old_type, b"a"), &answer(new_type, b"b"));
            assert_eq!(found, [expected], "{old_type} {new_type}");
        }
    }

    #[test]
    fn a_bomb_is_inflated_up_to_the_limit() {
        let zeros = |length: u64| {
            answer(
                "gzip text/plain",
                &vec![0; usize::try_from(length).unwrap()],
            )
        };
        let mut bomb = zeros(3 * INFLATED);
        // The end is never read, so nobody sees that it is wrong.
        *bomb.body.kept.last_mut().unwrap() ^= 1;
        assert!(bomb.body.is_whole(), "small before it is inflated");
        let content = Content::of(&bomb, &codings(&bomb)).unwrap();
        assert_eq!((content.bytes.len() as u64, content.all), (INFLATED, None));
        assert_eq!(
            differences(&zeros(INFLATED), &answer("text/plain", b"a")).len(),
            1
        );
        assert_eq!(
            differences(&bomb, &zeros(10)),
            ["Bytes byte 10: more than 1048576 bytes, here 0x00 -> 10 bytes, ends here"]
        );
    }

    #[test]
    fn beyond_what_is_kept_length_and_hash_count() {
        let long = |end: &str| {
            let body = format!("{}{end}", "x".repeat(LIMIT + 10));
            answer("application/json", body.as_bytes())
        };
        assert!(differences(&long("a"), &long("a")).is_empty());
        assert_eq!(
            differences(&long("a"), &long("bc")),
            [
                "Bytes byte 4096: 4107 bytes, further than was kept -> 4108 bytes, further than was kept"
            ]
        );
        assert_eq!(
            differences(&answer("text/plain", b"x\ny"), &long("")),
            ["Text from line 1: x -> ".to_owned() + &"x".repeat(118) + "…"],
        );
    }

    #[test]
    fn a_body_that_broke_off_is_told_from_one_that_did_not() {
        let whole = answer("text/plain", b"abc");
        let mut broken = answer("text/plain", b"ab");
        broken.body.ended = false;
        assert!(differences(&broken, &broken).is_empty());
        assert_eq!(
            differences(&whole, &broken),
            ["Bytes end: complete -> broken off"]
        );
    }

    #[test]
    fn lines_that_may_differ_are_passed_over_where_both_match() {
        let config = CompareConfig {
            ignore_lines: vec!["<input name=\"csrf\"*".parse().unwrap()],
            ..CompareConfig::default()
        };
        let page = |token: &str, price: &str| {
            let page =
                format!("<form>\n  <input name=\"csrf\" value=\"{token}\">\n<p>{price}</p>\n");
            answer("text/html", page.as_bytes())
        };
        let places = |old: &Captured, new: &Captured| {
            let mut found = Found::default();
            compare(&mut found, old, new, &config);
            let told = found.finish().into_iter();
            told.map(|it| it.place).collect::<Vec<_>>()
        };
        assert_eq!(places(&page("a", "1"), &page("b", "1")), [""; 0]);
        assert_eq!(places(&page("a", "1"), &page("b", "2")), ["line 3"]);
        let other = answer("text/html", b"<form>\n<b>\n<p>1</p>\n");
        assert_eq!(places(&page("a", "1"), &other), ["line 2"]);
    }
}
