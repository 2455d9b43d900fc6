//! Canary, fallthrough and shadow: what clients and applications see of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::{Semaphore, mpsc};
use twinspan::app::{AppError, Application, Response};
use twinspan::body::{self, Body};
use twinspan::config::Config;
use twinspan::config::rule::{
    CanaryConfig, FallthroughConfig, Percent, RuleConfig, RuleMatch, ShadowConfig, Sticky,
};
use twinspan::migrate::live::{Overlay, RuleOverlay};
use twinspan::migrate::observe::{Observations, Side};

use crate::support::{Fake, Server};

fn percent(text: &str) -> Percent {
    text.parse().unwrap()
}

/// A rule of `new` for everything, above the catch-all of `old`.
fn rule() -> RuleConfig {
    RuleConfig {
        name: "move".into(),
        ..RuleConfig::new("new", RuleMatch::path(""), "")
    }
}

fn canary(share: &str) -> CanaryConfig {
    CanaryConfig {
        percent: percent(share),
        sticky: Sticky::Header(http::HeaderName::from_static("x-user")),
        testers: Vec::new(),
        rollback: None,
    }
}

fn shadow(change: impl FnOnce(&mut ShadowConfig)) -> RuleConfig {
    let mut config = ShadowConfig::new(Percent::ALL);
    config.compare.noise = false;
    change(&mut config);
    RuleConfig {
        canary: Some(canary("0")),
        shadow: Some(config),
        ..rule()
    }
}

fn falls(change: impl FnOnce(&mut FallthroughConfig)) -> RuleConfig {
    let mut config =
        FallthroughConfig::new(vec![StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED]);
    change(&mut config);
    RuleConfig {
        fallthrough: Some(config),
        ..rule()
    }
}

fn server(new: Arc<dyn Application>, old: Arc<dyn Application>, rule: RuleConfig) -> Server {
    let rules = [rule, RuleConfig::new("old", RuleMatch::mount(""), "")];
    let apps = [("new", new), ("old", old)];
    Server::of(Config::default(), &apps, &rules, &Overlay::default(), None)
}

fn text(text: &'static str) -> Arc<Fake> {
    Fake::new(move |_| async move { Ok(Response::new(Body::from(text))) })
}

fn status(code: u16) -> Response {
    let mut response = Response::new(Body::from("dropped"));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn get(user: usize) -> String {
    format!("GET /items HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n")
}

// Canary

#[tokio::test]
async fn a_canary_divides_clients_and_counts_both_sides() {
    let rule = RuleConfig {
        canary: Some(canary("30")),
        ..rule()
    };
    let server = server(text("new"), text("old"), rule);
    let mut client = server.connect();
    let mut first = Vec::new();
    for user in 0..200 {
        first.push(client.ask(get(user)).await.text().to_owned());
    }
    let new = first.iter().filter(|answer| *answer == "new").count();
    assert!((30..90).contains(&new), "{new} of 200");
    for (user, answer) in first.iter().enumerate() {
        assert_eq!(client.ask(get(user)).await.text(), answer, "user {user}");
    }
    drop(client);
    let requests = |seen: &Observations, side: Side| -> u64 {
        let of_side = seen.canaries.iter().filter(|it| it.side == side);
        of_side.map(|it| it.tally.requests).sum()
    };
    let seen = server
        .observed(|seen| requests(seen, Side::New) + requests(seen, Side::Old) == 400)
        .await;
    assert_eq!(requests(&seen, Side::New), 2 * new as u64);
}

#[tokio::test]
async fn what_was_changed_counts_instead_of_the_configuration() {
    let rules = [
        RuleConfig {
            canary: Some(canary("100")),
            ..rule()
        },
        RuleConfig::new("old", RuleMatch::mount(""), ""),
    ];
    let apps: [(&str, Arc<dyn Application>); 2] = [("new", text("new")), ("old", text("old"))];
    let mut overlay = Overlay::default();
    let changed = RuleOverlay {
        canary: Some(Percent::NONE),
        ..RuleOverlay::default()
    };
    overlay.rules.insert("move".into(), changed);
    let server = Server::of(Config::default(), &apps, &rules, &overlay, None);
    assert_eq!(server.connect().ask(get(1)).await.text(), "old");
}

#[tokio::test]
async fn who_is_not_on_the_new_side_does_not_come_there_by_another_rule() {
    let rules = [
        RuleConfig {
            canary: Some(canary("0")),
            ..rule()
        },
        RuleConfig::new("new", RuleMatch::path("/items"), ""),
        RuleConfig::new("old", RuleMatch::mount(""), ""),
    ];
    let apps: [(&str, Arc<dyn Application>); 2] = [("new", text("new")), ("old", text("old"))];
    let server = Server::of(Config::default(), &apps, &rules, &Overlay::default(), None);
    assert_eq!(server.connect().ask(get(1)).await.text(), "old");
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_for_the_new_side_counts_against_it() {
    let rule = RuleConfig {
        canary: Some(canary("100")),
        ..rule()
    };
    let server = server(Fake::new(|_| std::future::pending()), text("old"), rule);
    for seconds in [0, 5] {
        let mut client = server.connect();
        client.send(get(1)).await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        drop(client);
    }
    let seen = server.observed(|seen| !seen.canaries.is_empty()).await;
    let [new] = seen.canaries.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (new.side, new.tally.requests, new.tally.errors),
        (Side::New, 1, 1)
    );
}

// Fallthrough

#[tokio::test]
async fn what_falls_through_is_not_held_against_the_rule_that_passed_it_on() {
    let rule = RuleConfig {
        canary: Some(canary("100")),
        ..falls(|_| {})
    };
    let new = Fake::new(|_| async { Ok(status(404)) });
    let old = Fake::new(|_| async { Ok(status(500)) });
    let server = server(new, old, rule);
    let answer = server.connect().ask(get(1)).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    let seen = server.observed(|seen| !seen.canaries.is_empty()).await;
    let told: Vec<_> = seen
        .canaries
        .iter()
        .map(|it| (it.side, it.tally.requests, it.tally.errors))
        .collect();
    assert_eq!(told, [(Side::New, 1, 0)]);
}

#[tokio::test]
async fn an_answer_that_counts_as_none_leaves_nothing_behind() {
    let (gone, mut told) = mpsc::unbounded_channel();
    let new = Fake::new(move |_| {
        let gone = gone.clone();
        async move {
            let (mut sender, receiver) = body::channel(1024);
            tokio::spawn(async move {
                std::future::poll_fn(|cx| sender.poll_disconnected(cx)).await;
                gone.send(()).unwrap();
            });
            let mut response = Response::new(receiver.into());
            *response.status_mut() = StatusCode::NOT_FOUND;
            let cookie = HeaderValue::from_static("session=new");
            response.headers_mut().insert(SET_COOKIE, cookie);
            Ok(response)
        }
    });
    let server = server(new, text("old"), falls(|_| {}));
    let answer = server.connect().ask(get(1)).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "old"));
    assert!(!answer.headers.contains_key(SET_COOKIE));
    told.recv().await.unwrap();
}

#[tokio::test]
async fn other_answers_and_other_methods_stay_with_the_first_application() {
    let new = Fake::new(|request| async move {
        Ok(status(match request.head.uri.path() {
            "/405" => 405,
            "/500" => 500,
            _ => 404,
        }))
    });
    let server = server(new, text("old"), falls(|_| {}));
    let mut client = server.connect();
    for (request, expected) in [
        ("GET /x", 200),
        ("GET /405", 200),
        ("GET /500", 500),
        ("POST /x", 404),
        ("DELETE /x", 404),
    ] {
        let request = format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            client.ask(&request).await.status.as_u16(),
            expected,
            "{request}"
        );
    }
}

#[tokio::test]
async fn a_body_is_sent_again_up_to_what_is_kept_of_it() {
    let new = Fake::new(|mut request| async move {
        while request.body.data().await.is_some() {}
        Ok(status(404))
    });
    let rule = falls(|config| {
        config.methods = vec![Method::POST];
        config.memory = 10;
        config.file = 100;
    });
    let server = server(new, Fake::echo(), rule);
    let mut client = server.connect();
    for length in [0, 10, 11, 110] {
        let body = "x".repeat(length);
        let request =
            format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
        let answer = client.ask(request).await;
        assert_eq!(answer.text(), format!("POST /up {body}"), "{length} bytes");
    }
    let long = "x".repeat(200);
    let request = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n{long}");
    assert_eq!(client.ask(request).await.status, StatusCode::NOT_FOUND);
    // The connection is at the beginning of its next request.
    let answer = client
        .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\ny")
        .await;
    assert_eq!(answer.text(), "POST / y");
}

#[tokio::test]
async fn an_application_that_reads_nothing_leaves_the_body_to_the_next() {
    let new = Fake::new(|_| async { Ok(status(404)) });
    let rule = falls(|config| config.methods = vec![Method::POST]);
    let server = server(new, Fake::echo(), rule);
    let body = "x".repeat(100_000);
    let request = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{body}");
    let mut client = server.connect();
    // More than the pipe holds: sending and reading have to go on side by side.
    client.send(&request).await;
    assert_eq!(client.answer().await.text(), format!("POST /up {body}"));
}

// Shadow

/// An application that tells of the copies that it gets.
fn copied(
    answer: impl Fn() -> Result<Response, AppError> + Send + Sync + 'static,
) -> (Arc<Fake>, mpsc::UnboundedReceiver<String>) {
    let (send, told) = mpsc::unbounded_channel();
    let answer = Arc::new(answer);
    let app = Fake::new(move |mut request| {
        let (send, answer) = (send.clone(), Arc::clone(&answer));
        async move {
            let mut body = Vec::new();
            while let Some(Ok(data)) = request.body.data().await {
                body.extend_from_slice(&data);
            }
            let head = &request.head;
            let marked = head.headers.get("x-twinspan-shadow").is_some() && request.is_copy;
            let body = String::from_utf8(body).unwrap();
            send.send(format!("{} {} {marked} {body}", head.method, head.uri))
                .unwrap();
            answer()
        }
    });
    (app, told)
}

fn json(text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// `same, different, failed, shed` of all that was compared.
fn counts(seen: &Observations) -> [u64; 4] {
    let mut sums = [0; 4];
    for it in &seen.comparisons {
        for (sum, count) in sums
            .iter_mut()
            .zip([it.same, it.different, it.failed, it.shed])
        {
            *sum += count;
        }
    }
    sums
}

#[tokio::test]
async fn a_copy_goes_to_the_new_application_after_the_client_has_its_answer() {
    let (new, mut told) = copied(|| Ok(json(r#"{"a": 1.0}"#)));
    let (sender, receiver) = body::channel(1024);
    let receiver = Mutex::new(Some(receiver));
    let old = Fake::new(move |request| {
        assert!(!request.is_copy);
        assert!(!request.head.headers.contains_key("x-twinspan-shadow"));
        let body = receiver.lock().unwrap().take().expect("one request");
        async move {
            let mut response = json("");
            *response.body_mut() = Body::from(body);
            Ok(response)
        }
    });
    let server = server(new, old, shadow(|_| {}));
    let mut client = server.connect();
    let mut sender = sender;
    // Who claims to be a copy is none.
    client
        .send("GET /items?x=1 HTTP/1.1\r\nHost: a\r\nX-Twinspan-Shadow: 1\r\n\r\n")
        .await;
    sender.push(Bytes::from_static(b"{\"a\":")).unwrap();
    client.wait_for("{\"a\":").await;
    assert!(
        told.try_recv().is_err(),
        "the client's answer is not complete"
    );
    sender.push(Bytes::from_static(b" 1}")).unwrap();
    sender.finish();
    assert_eq!(client.answer().await.text(), "{\"a\": 1}");
    assert_eq!(told.recv().await.unwrap(), "GET /items?x=1 true ");
    let seen = server.observed(|seen| !seen.comparisons.is_empty()).await;
    assert_eq!(counts(&seen), [1, 0, 0, 0]);
}

#[tokio::test]
async fn a_difference_is_told_with_its_place() {
    let (new, _told) = copied(|| Ok(json(r#"{"price": 2}"#)));
    let old = Fake::new(|_| async { Ok(json(r#"{"price": 1}"#)) });
    let server = server(new, old, shadow(|_| {}));
    assert_eq!(server.connect().ask(get(1)).await.text(), r#"{"price": 1}"#);
    let seen = server.observed(|seen| !seen.comparisons.is_empty()).await;
    assert_eq!(counts(&seen), [0, 1, 0, 0]);
    let sample = &seen.samples[0];
    assert_eq!(
        (sample.path.as_str(), sample.rule.as_str()),
        ("/items", "move")
    );
    let places: Vec<_> = sample
        .differences
        .iter()
        .map(|it| it.place.as_str())
        .collect();
    assert_eq!(places, ["$.price"]);
}

#[tokio::test]
async fn what_the_old_application_answers_differently_itself_is_no_difference() {
    let (new, _told) = copied(|| Ok(json(r#"{"at": 3, "price": 1}"#)));
    let count = Mutex::new(0);
    let old = Fake::new(move |_| {
        *count.lock().unwrap() += 1;
        let first = *count.lock().unwrap() == 1;
        async move {
            Ok(json(if first {
                r#"{"at": 1, "price": 1}"#
            } else {
                r#"{"at": 2, "price": 1}"#
            }))
        }
    });
    let rule = shadow(|config| config.compare.noise = true);
    let server = server(new, old, rule);
    server.connect().ask(get(1)).await;
    let seen = server.observed(|seen| !seen.comparisons.is_empty()).await;
    assert_eq!(counts(&seen), [1, 0, 0, 0]);
}

#[tokio::test]
async fn a_copy_that_fails_or_hangs_changes_nothing_for_the_client() {
    let fails = Fake::new(|_| async { Err(AppError::Raised) });
    let hangs = Fake::new(|_| std::future::pending());
    let breaks = Fake::new(|_| async {
        let (mut sender, receiver) = body::channel(1024);
        sender.push(Bytes::from_static(b"ol")).unwrap();
        sender.abort("half-way");
        Ok(Response::new(receiver.into()))
    });
    for (new, place) in [(fails, 2), (hangs, 2), (breaks, 1)] {
        let rule = shadow(|config| config.timeout = std::time::Duration::from_millis(50));
        let server = server(new, text("old"), rule);
        let mut client = server.connect();
        for _ in 0..2 {
            assert_eq!(client.ask(get(1)).await.text(), "old");
        }
        let seen = server
            .observed(|seen| counts(seen).iter().sum::<u64>() == 2)
            .await;
        // Told as failed or as different, or not sent, as one of them may still run.
        let [same, rest @ ..] = counts(&seen);
        assert_eq!((same, rest.iter().sum::<u64>()), (0, 2), "{seen:?}");
        assert!(counts(&seen)[place] >= 1, "{seen:?}");
        assert_eq!(counts(&seen)[3 - place], 0, "{seen:?}");
    }
}

#[tokio::test]
async fn more_copies_than_may_run_are_not_sent() {
    let slots = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&slots);
    let new = Fake::new(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(Response::new(Body::from("old")))
        }
    });
    let rule = shadow(|config| config.concurrency = 1);
    let server = server(new, text("old"), rule);
    let mut client = server.connect();
    for _ in 0..3 {
        client.ask(get(1)).await;
    }
    let seen = server.observed(|seen| counts(seen)[3] == 2).await;
    slots.add_permits(1);
    assert_eq!(counts(&seen), [0, 0, 0, 2]);
    let seen = server.observed(|seen| counts(seen)[0] == 1).await;
    assert_eq!(counts(&seen), [1, 0, 0, 0]);
}

#[tokio::test]
async fn only_the_methods_that_are_named_are_copied_with_their_bodies() {
    let (new, mut told) = copied(|| Ok(Response::new(Body::from("POST /up hello"))));
    let rule = shadow(|config| config.methods = vec![Method::POST]);
    let server = server(new, Fake::echo(), rule);
    let mut client = server.connect();
    client.ask(get(1)).await;
    let request = "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(client.ask(request).await.text(), "POST /up hello");
    assert_eq!(told.recv().await.unwrap(), "POST /up true hello");
    let seen = server.observed(|seen| !seen.comparisons.is_empty()).await;
    assert_eq!(counts(&seen), [1, 0, 0, 0]);
    // A body that is too long to be kept is none that could be sent again.
    let rule = shadow(|config| {
        config.methods = vec![Method::POST];
        config.max_body = 3;
    });
    let (new, mut told) = copied(|| Ok(Response::new(Body::empty())));
    let server = self::server(new, Fake::echo(), rule);
    server.connect().ask(request).await;
    let seen = server.observed(|seen| !seen.comparisons.is_empty()).await;
    assert_eq!(counts(&seen), [0, 0, 0, 1]);
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn originals_on_their_way_are_watched_up_to_a_number() {
    let (new, _told) = copied(|| Ok(Response::new(Body::empty())));
    let (answered, mut answering) = mpsc::unbounded_channel();
    let old = Fake::new(move |_| {
        answered.send(()).unwrap();
        std::future::pending()
    });
    let server = server(new, old, shadow(|config| config.concurrency = 1));
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect();
        client.send(get(1)).await;
        answering.recv().await.unwrap();
        clients.push(client);
    }
    let seen = server.observed(|seen| counts(seen)[3] == 4).await;
    assert_eq!(counts(&seen), [0, 0, 0, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_late_keeps_its_place_for_a_while() {
    let new = Fake::new(|_| std::future::pending());
    let rule = shadow(|config| config.concurrency = 1);
    let server = server(new, text("old"), rule);
    for (later, expected) in [
        (6, [0, 0, 1, 0]),
        (0, [0, 0, 0, 1]),
        (60, [0, 0, 0, 0]),
        (6, [0, 0, 1, 0]),
    ] {
        if expected != [0; 4] {
            server.connect().ask(get(1)).await;
        }
        // Time stands still until nobody has anything to do.
        tokio::time::sleep(Duration::from_secs(later)).await;
        let seen = server.observed(|seen| counts(seen) == expected).await;
        assert_eq!(counts(&seen), expected);
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_copied() {
    let (new, mut told) = copied(|| Ok(Response::new(Body::empty())));
    let old = Fake::new(|_| async {
        let mut response = Response::new(Body::from("data: 1\n\n"));
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    });
    let server = server(new, old, shadow(|_| {}));
    server.connect().ask(get(1)).await;
    let seen = server.observed(|seen| !seen.traffic.is_empty()).await;
    assert!(seen.comparisons.is_empty());
    assert!(told.try_recv().is_err());
}
