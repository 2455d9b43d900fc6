//! What of a value may be shown: differences are stored, and read by people who are not its owners.
//!
//! Hidden is what stands under a name that sounds like a secret, and what looks like one by itself. In doubt it
//! is hidden: a difference is still one without its values. What is shown is one short line.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters of a value that are shown, quotes and all.
pub(super) const WIDTH: usize = 120;

/// Whether what stands under this name is not for others: `password`, `X-CSRF-Token`, `accessToken`.
pub(super) fn is_secret_name(name: &str) -> bool {
    let mut plain = String::with_capacity(name.len());
    let mut words = vec![String::new()];
    let mut lower = false;
    for character in name.chars() {
        if !character.is_alphanumeric() || (lower && character.is_uppercase()) {
            words.push(String::new());
        }
        lower = character.is_lowercase();
        if character.is_alphanumeric() {
            plain.extend(character.to_lowercase());
            if let Some(word) = words.last_mut() {
                word.extend(character.to_lowercase());
            }
        }
    }
    PARTS.iter().any(|part| plain.contains(part))
        || words.iter().any(|word| {
            let singular = word.strip_suffix('s').unwrap_or(word);
            WORDS.contains(&word.as_str()) || WORDS.contains(&singular)
        })
}

/// Secret wherever they stand in a name, whatever divides its words.
const PARTS: [&str; 28] = [
    "accesskey",
    "accountnumber",
    "apikey",
    "authorization",
    "bankaccount",
    "bearer",
    "cardnumber",
    "cookie",
    "credential",
    "creditcard",
    "csrf",
    "encryptionkey",
    "jsessionid",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "phpsessid",
    "privatekey",
    "secret",
    "securitycode",
    "session",
    "sessid",
    "signature",
    "signingkey",
    "socialsecurity",
    "token",
    "xsrf",
];

/// Secret as a word of a name: `discard` is no `card`.
const WORDS: [&str; 16] = [
    "auth", "card", "cvc", "cvv", "iban", "jwt", "nonce", "otp", "pan", "pass", "passport", "pin",
    "pwd", "sid", "ssn", "totp",
];

/// What stands in place of a secret.
pub(super) fn hidden(secret: &str) -> String {
    format!("(redacted, {} characters)", secret.chars().count())
}

/// The text without what looks like a secret, in one line and not longer than [`WIDTH`]. With `around`, the
/// characters there are shown, if not all of them can be.
pub(super) fn shown(text: &str, around: usize) -> String {
    shorten(&escape(&scrub(text)), around, WIDTH)
}

/// The texts of two lines, shown where they begin to differ.
pub(super) fn shown_both(old: &str, new: &str) -> (String, String) {
    let (old, new) = (scrub(old), scrub(new));
    let (old, new) = (escape(&old), escape(&new));
    let same = old
        .chars()
        .zip(new.chars())
        .take_while(|(old, new)| old == new)
        .count();
    (shorten(&old, same, WIDTH), shorten(&new, same, WIDTH))
}

/// Without the middle or the ends, so that at most `width` characters are left and those at `around` among them.
pub(super) fn shorten(text: &str, around: usize, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(2);
    // A third of the line before the place, unless the line ends sooner.
    let start = around
        .saturating_sub(room / 3)
        .min(length.saturating_sub(room));
    let mut short = String::new();
    if start > 0 {
        short.push('…');
    }
    short.extend(text.chars().skip(start).take(room));
    if start + room < length {
        short.push('…');
    }
    short
}

/// Control characters, and those that turn the direction of text, as `\n` or `\u{1b}`.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    let hostile = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if hostile(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// The text without what looks like a secret. All of it is hidden where it names one: there is no telling
/// whether the value stands before the name or after it (`<input value="..." name="csrf_token">`).
pub(super) fn scrub(text: &str) -> Cow<'_, str> {
    if names_a_secret(text) || has_account_number(text) {
        return Cow::Owned(hidden(text));
    }
    let mut scrubbed = String::new();
    let mut copied = 0;
    for (start, piece) in pieces(text, |character| {
        character.is_ascii_alphanumeric() || "+/=_-.@~%".contains(character)
    }) {
        if looks_secret(piece) {
            scrubbed.push_str(text.get(copied..start).unwrap_or_default());
            let _ = write!(scrubbed, "{}", hidden(piece));
            copied = start + piece.len();
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    scrubbed.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(scrubbed)
}

/// `password=`, `"token": `, `<secret>`, `name="csrf"`, `Bearer ...`: a name that has a value, rather than a
/// word of a sentence.
fn names_a_secret(text: &str) -> bool {
    let has_user = |rest: &str| {
        let authority = rest.split(['/', '?', ' ', '"']).next();
        authority.is_some_and(|authority| authority.contains('@'))
    };
    if text.split("://").skip(1).any(has_user) {
        return true;
    }
    pieces(text, |character| {
        character.is_alphanumeric() || "_-.".contains(character)
    })
    .any(|(start, word)| {
        let before = text.get(..start).and_then(|before| before.chars().last());
        let after = text.get(start + word.len()..).unwrap_or_default();
        let quote = |character| matches!(character, '"' | '\'' | '\\' | ']');
        let is_name = matches!(before, Some('"' | '\'' | '<'))
            || after
                .trim_start_matches(quote)
                .trim_start()
                .starts_with(['=', ':'])
            || after.starts_with("%3D")
            || after.starts_with("%3d");
        if is_name && is_secret_name(word) {
            return true;
        }
        let is_scheme = ["bearer", "basic", "digest"]
            .iter()
            .any(|scheme| word.eq_ignore_ascii_case(scheme));
        is_scheme
            && after.strip_prefix(' ').is_some_and(|rest| {
                rest.split([' ', '"', '\''])
                    .next()
                    .is_some_and(|value| value.len() >= 8)
            })
    })
}

/// Mail addresses, JWTs, keys and digests.
fn looks_secret(piece: &str) -> bool {
    is_mail_address(piece)
        || is_jwt(piece)
        || is_random(piece.trim_matches(['.', '-', '_', '/', '=']))
        || piece.split(['/', '.', '=', '~', '%']).any(is_random)
}

fn is_mail_address(piece: &str) -> bool {
    piece
        .replace("%40", "@")
        .split_once('@')
        .is_some_and(|(user, domain)| {
            !user.is_empty() && domain.trim_end_matches('.').contains('.')
        })
}

/// RFC 7519 §3: three parts in base64url, of which the first two are JSON objects.
fn is_jwt(piece: &str) -> bool {
    piece.contains("eyJ") && piece.matches('.').count() >= 2
}

/// 32 hexadecimal digits or more, or 20 characters of base64 with digits and letters of both cases.
fn is_random(piece: &str) -> bool {
    let count = |of: fn(&u8) -> bool| piece.as_bytes().iter().filter(|byte| of(byte)).count();
    let (digits, length) = (count(u8::is_ascii_digit), piece.len());
    if length < 20 || digits == 0 {
        return false;
    }
    let hexadecimal = count(u8::is_ascii_hexdigit) == length && length >= 32;
    let base64 = piece
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte));
    hexadecimal
        || (base64 && count(u8::is_ascii_lowercase) > 0 && count(u8::is_ascii_uppercase) > 0)
}

/// Numbers of credit cards (ISO/IEC 7812) and bank accounts (ISO 13616), grouped or not.
fn has_account_number(text: &str) -> bool {
    let mut before = ' ';
    for (start, character) in text.char_indices() {
        let begins = !before.is_ascii_alphanumeric();
        before = character;
        if !begins || !character.is_ascii_alphanumeric() {
            continue;
        }
        let rest = text.get(start..).unwrap_or_default();
        if (character.is_ascii_digit() && is_card_number(rest))
            || (character.is_ascii_alphabetic() && is_iban(rest))
        {
            return true;
        }
    }
    false
}

/// The alphanumeric characters at the beginning, over single spaces and hyphens.
fn grouped(text: &str, most: usize) -> Vec<u8> {
    let mut characters = Vec::new();
    let mut divided = false;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() && characters.len() < most {
            characters.push(byte);
            divided = false;
        } else if matches!(byte, b' ' | b'-') && !divided {
            divided = true;
        } else {
            break;
        }
    }
    characters
}

/// 13 to 19 digits, the first of a bank or a card company, with the check digit of Luhn.
fn is_card_number(text: &str) -> bool {
    let digits: Vec<u8> = grouped(text, 20)
        .iter()
        .map_while(|byte| byte.is_ascii_digit().then(|| byte - b'0'))
        .collect();
    if !digits.first().is_some_and(|first| (2..=6).contains(first)) {
        return false;
    }
    (13..=digits.len().min(19)).any(|length| {
        let sum: u32 = digits
            .iter()
            .take(length)
            .rev()
            .enumerate()
            .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
                (0, digit) => digit,
                (_, digit) if digit > 4 => 2 * digit - 9,
                (_, digit) => 2 * digit,
            })
            .sum();
        sum.is_multiple_of(10)
    })
}

/// Two letters, two check digits modulo 97, and 11 to 30 characters.
fn is_iban(text: &str) -> bool {
    let characters = grouped(text, 34);
    let (Some([a, b, c, d]), Some(account)) = (characters.first_chunk(), characters.get(4..))
    else {
        return false;
    };
    if ![a, b].iter().all(|byte| byte.is_ascii_alphabetic())
        || ![c, d].iter().all(|byte| byte.is_ascii_digit())
    {
        return false;
    }
    let modulo = |rest: u32, byte: &u8| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte.to_ascii_uppercase() - b'A') + 10) % 97,
    };
    (11..=account.len()).any(|length| {
        account
            .iter()
            .take(length)
            .chain([a, b, c, d])
            .fold(0, modulo)
            == 1
    })
}

/// The runs of characters that belong, with the place of each.
fn pieces(text: &str, belongs: impl Fn(char) -> bool) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = rest.find(&belongs)?;
        let found = rest.get(start..)?;
        let end = found
            .find(|character| !belongs(character))
            .unwrap_or(found.len());
        let (piece, after) = found.split_at_checked(end)?;
        let place = at + start;
        at = place + end;
        rest = after;
        Some((place, piece))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_sound_like_secrets_are_known_in_every_spelling() {
        for name in [
            "password",
            "user_passwd",
            "newPassword",
            "X-CSRF-Token",
            "csrftoken",
            "api_key",
            "API-KEY",
            "apiKey",
            "Authorization",
            "Set-Cookie",
            "session",
            "sessionId",
            "ssn",
            "card",
            "cards",
            "cardNumber",
            "IBAN",
            "pin",
            "client_secret",
            "jwt",
            "auth",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "name",
            "id",
            "discard",
            "pinned",
            "author",
            "authority",
            "price",
            "key",
            "compass",
            "",
            "span",
            "panel",
            "side",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_and_the_rest_is_not() {
        for (text, expected) in [
            ("plain text, 12.50 EUR", "plain text, 12.50 EUR"),
            ("Invalid password", "Invalid password"),
            ("<label>Password</label>", "<label>Password</label>"),
            ("2026-11-21T17:22:50.123456Z", "2026-11-21T17:22:50.123456Z"),
            (
                "Sat, 21 Nov 2026 17:22:50 GMT",
                "Sat, 21 Nov 2026 17:22:50 GMT",
            ),
            ("1763745770123", "1763745770123"),
            (
                "f47ac10b-58cc-4372-a567-0e02b2c3d479",
                "f47ac10b-58cc-4372-a567-0e02b2c3d479",
            ),
            ("/items/17?page=2", "/items/17?page=2"),
            ("by ann@example.org.", "by (redacted, 16 characters)"),
            (
                "d41d8cd98f00b204e9800998ecf8427e",
                "(redacted, 32 characters)",
            ),
            (
                "id Zm9vYmFyYmF6cXV4MTIzNDU2 x",
                "id (redacted, 24 characters) x",
            ),
            (
                "/reset/Zm9vYmFyYmF6cXV4MTIzNDU2",
                "(redacted, 31 characters)",
            ),
            ("eyJhbGciOi.eyJzdWIi.c2ln", "(redacted, 24 characters)"),
            ("postgres://shop:x@db/shop", "(redacted, 25 characters)"),
            ("Bearer abcdefghij", "(redacted, 17 characters)"),
            ("user=1&password=x", "(redacted, 17 characters)"),
            ("{\"token\": \"x\"}", "(redacted, 14 characters)"),
            ("<password>x</password>", "(redacted, 22 characters)"),
            (
                "<input value=x name=\"csrf_token\">",
                "(redacted, 33 characters)",
            ),
            ("4111 1111 1111 1111", "(redacted, 19 characters)"),
            ("4111 1111 1111 1112", "4111 1111 1111 1112"),
            (
                "paid with 5555-5555-5555-4444.",
                "(redacted, 30 characters)",
            ),
            ("DE89 3704 0044 0532 0130 00", "(redacted, 27 characters)"),
            ("GB82WEST12345698765432", "(redacted, 22 characters)"),
            ("DE85 3704 0044 0532 0130 00", "DE85 3704 0044 0532 0130 00"),
        ] {
            assert_eq!(shown(text, 0), expected, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        assert_eq!(
            shown("a\n\u{1b}[31m\u{202e}b", 0),
            "a\\n\\u{1b}[31m\\u{202e}b"
        );
        let long = "x ".repeat(200);
        assert_eq!(shown(&long, 0).chars().count(), WIDTH - 1);
        let (old, new) = shown_both(&format!("{long}old"), &format!("{long}new"));
        assert!(old.starts_with('…') && old.ends_with("old"), "{old}");
        assert!(new.ends_with("new"), "{new}");
        for around in [0, 10, 100, 300, 399, 1000] {
            assert!(shorten(&long, around, WIDTH).chars().count() <= WIDTH);
        }
    }
}
