//! Requests as data: `tests/corpus/http/{valid,invalid}/*.http`.
//!
//! Lines that begin with `#` say what the case is about and what is expected; the rest are the bytes of the
//! connection, with `\r`, `\n`, `\t`, `\0`, `\xff` and `\\` for themselves and the ends of lines left out.
//!
//! ```text
//! # Two requests behind each other.
//! # answers: 200 200
//! # sees: POST /a "hello"
//! # sees: GET /b
//! POST /a HTTP/1.1\r\n
//! ```
//!
//! `sees` are the requests that the application gets, in order: method, target and body (nothing where it is
//! empty, `broken` behind it where it does not come to its end). A request of `valid` leaves the connection open unless
//! there is a line `# closes`; one of `invalid` always ends it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use twinspan::app::Response;
use twinspan::body::Body;

use crate::support::{Fake, Server};

#[derive(Debug)]
struct Case {
    path: PathBuf,
    bytes: Vec<u8>,
    answers: Vec<u16>,
    sees: Vec<String>,
    closes: bool,
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let mut case = Self {
            closes: path.parent().unwrap().ends_with("invalid"),
            path,
            bytes: Vec::new(),
            answers: Vec::new(),
            sees: Vec::new(),
        };
        let is_comment = |line: &&str| line.starts_with('#');
        for line in text.lines().take_while(is_comment) {
            let line = line.trim_start_matches('#').trim();
            if let Some(statuses) = line.strip_prefix("answers:") {
                let statuses = statuses.split_ascii_whitespace();
                case.answers = statuses.map(|status| status.parse().unwrap()).collect();
            } else if let Some(request) = line.strip_prefix("sees:") {
                case.sees.push(request.trim().to_owned());
            } else if line == "closes" {
                case.closes = true;
            }
        }
        for line in text.lines().skip_while(is_comment) {
            unescape(line, &mut case.bytes);
        }
        assert!(
            !case.answers.is_empty(),
            "{}: no answers",
            case.path.display()
        );
        assert!(
            !case.bytes.is_empty(),
            "{}: no request",
            case.path.display()
        );
        case
    }

    /// What came instead of what was expected.
    async fn run(&self, bytewise: bool) -> Result<(), String> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = Server::new(recorder(&seen));
        let mut client = server.connect();
        if bytewise {
            client.send_bytewise(&self.bytes).await;
        } else {
            client.send(&self.bytes).await;
        }
        let mut answers = Vec::new();
        while answers.len() < self.answers.len() {
            match client.answer_to("GET").await {
                Some(answer) if answer.status.is_informational() => {}
                Some(answer) => answers.push(answer.status.as_u16()),
                None => break,
            }
        }
        let how = if bytewise { "byte by byte" } else { "at once" };
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        // Less than an idle connection may live.
        let closes = client.ends_within(Duration::from_secs(1)).await;
        if (&answers, &seen, closes) == (&self.answers, &self.sees, self.closes) {
            return Ok(());
        }
        let name = self.path.display();
        Err(format!(
            "{name} {how}: answers {answers:?}, sees {seen:?}, closes: {closes}"
        ))
    }
}

async fn run(kind: &str) {
    let mut failures = Vec::new();
    for case in cases(kind) {
        for bytewise in [false, true] {
            failures.extend(case.run(bytewise).await.err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Writes down what it gets, and answers 200.
fn recorder(seen: &Arc<Mutex<Vec<String>>>) -> Arc<Fake> {
    let seen = Arc::clone(seen);
    Fake::new(move |mut request| {
        let seen = Arc::clone(&seen);
        async move {
            let target = request.head.uri.path_and_query().unwrap().as_str();
            let mut line = format!("{} {target}", request.head.method);
            let mut body = Vec::new();
            let mut broken = false;
            while let Some(data) = request.body.data().await {
                match data {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(_) => broken = true,
                }
                if broken {
                    break;
                }
            }
            if !body.is_empty() {
                write!(line, " \"{}\"", body.escape_ascii()).unwrap();
            }
            if broken {
                line.push_str(" broken");
            }
            seen.lock().unwrap().push(line);
            Ok(Response::new(Body::from("seen\n")))
        }
    })
}

fn unescape(line: &str, bytes: &mut Vec<u8>) {
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match characters.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => b'\0',
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = characters.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            other => panic!("`\\{other:?}` is no escape"),
        });
    }
}

fn cases(kind: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus/http")
        .join(kind);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "http")
        })
        .collect();
    paths.sort();
    assert!(paths.len() >= 20, "the corpus was not found");
    paths.into_iter().map(Case::read).collect()
}

#[tokio::test(start_paused = true)]
async fn requests_that_the_standards_allow_reach_the_application() {
    run("valid").await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_could_be_misread_are_refused_and_end_the_connection() {
    run("invalid").await;
}
