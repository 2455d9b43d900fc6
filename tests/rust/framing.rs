//! HTTP/1: where requests and answers begin and end.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use twinspan::app::{AppError, Response};
use twinspan::body::{self, Body};
use twinspan::config::Config;

use crate::support::{Fake, Server};

const GET: &str = "GET /one HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn requests_follow_each_other_on_one_connection() {
    let server = Server::new(Fake::echo());
    let mut client = server.connect();
    let first = client.ask(GET).await;
    assert_eq!((first.status.as_u16(), first.text()), (200, "GET /one "));
    assert!(!first.closes());
    let post = "POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(client.ask(post).await.text(), "POST /two hi");
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_their_order() {
    let second_came = Arc::new(Notify::new());
    let notify = Arc::clone(&second_came);
    let server = Server::new(Fake::new(move |request| {
        let notify = Arc::clone(&notify);
        async move {
            if request.head.uri.path() == "/1" {
                // Takes its time: the second request is in the buffer meanwhile.
                tokio::task::yield_now().await;
            } else {
                notify.notify_one();
            }
            Ok(Response::new(Body::from(
                request.head.uri.path().to_owned(),
            )))
        }
    }));
    let mut client = server.connect();
    client
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "/1");
    second_came.notified().await;
    assert_eq!(client.answer().await.text(), "/2");
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_head_has_the_fields_of_get_and_no_body() {
    let server = Server::new(Fake::new(|_| async {
        Ok(Response::new(Body::from("hello")))
    }));
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.answer_to("HEAD").await.unwrap();
    assert_eq!(head.headers["content-length"], "5");
    // A body would stand where the next answer is looked for.
    assert_eq!(client.ask(GET).await.text(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_is_chunked_and_leaves_the_connection_open() {
    let (mut sender, receiver) = body::channel(1024);
    let server = Server::new(Fake::streams(receiver));
    let mut client = server.connect();
    client.send(GET).await;
    sender.push("hello ".into()).unwrap();
    sender.push("world".into()).unwrap();
    sender.finish();
    let answer = client.answer().await;
    assert_eq!(answer.headers["transfer-encoding"], "chunked");
    assert_eq!((answer.text(), answer.complete), ("hello world", true));
    assert!(client.is_open().await);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_for_http_1_0_ends_with_the_connection() {
    let (mut sender, receiver) = body::channel(1024);
    let server = Server::new(Fake::streams(receiver));
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    sender.push("hello".into()).unwrap();
    sender.finish();
    let answer = client.answer().await;
    assert!(!answer.headers.contains_key("transfer-encoding"));
    assert_eq!(answer.text(), "hello");
    assert!(!client.closed().await, "an orderly end, no reset");
}

const EXPECTS: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn the_client_may_go_on_when_the_body_is_asked_for() {
    let server = Server::new(Fake::echo());
    let mut client = server.connect();
    client.send(EXPECTS).await;
    let interim = client.answer_to("POST").await.unwrap();
    assert_eq!(interim.status, 100);
    assert_eq!(client.ask("hi").await.text(), "POST / hi");
}

#[tokio::test(start_paused = true)]
async fn bytes_behind_an_upgrade_are_not_read_as_a_request() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_app = Arc::clone(&seen);
    let server = Server::new(Fake::new(move |request| {
        let path = request.head.uri.path().to_owned();
        seen_by_app.lock().unwrap().push(path);
        async { Ok(Response::new(Body::empty())) }
    }));
    let mut client = server.connect();
    client
        .send(
            "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n\
             GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.status, 200);
    let refused = client.answer().await;
    assert_eq!(refused.status, 400);
    client.closed().await;
    assert_eq!(*seen.lock().unwrap(), ["/1"]);
}

#[tokio::test(start_paused = true)]
async fn requests_go_on_behind_an_upgrade_that_was_not_taken_up() {
    let server = Server::new(Fake::echo());
    let mut client = server.connect();
    let upgrade = "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
    for _ in 0..3 {
        assert_eq!(client.ask(upgrade).await.text(), "GET /1 ");
        assert_eq!(client.ask(GET).await.text(), "GET /one ");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_does_not_reach_the_next_request() {
    let server = Server::new(Fake::new(|request| async move {
        Ok(Response::new(Body::from(
            request.head.uri.path().to_owned(),
        )))
    }));
    let mut client = server.connect();
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = body.len();
    client
        .send(format!(
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}{GET}"
        ))
        .await;
    assert_eq!(client.answer().await.text(), "/1");
    assert_eq!(client.answer().await.text(), "/one");
    assert!(client.is_open().await);
}

fn reads_nothing() -> Server {
    Server::new(Fake::new(|request| async move {
        Ok(Response::new(Body::from(
            request.head.uri.path().to_owned(),
        )))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_after_its_answer_keeps_the_connection() {
    let server = reads_nothing();
    let mut client = server.connect();
    let block = "x".repeat(256 * 1024);
    let chunks = format!("40000\r\n{block}\r\n").repeat(4);
    for (framing, body) in [
        ("Content-Length: 262144", block),
        ("Transfer-Encoding: chunked", format!("{chunks}0\r\n\r\n")),
    ] {
        let head = format!("POST /1 HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        assert!(!client.ask(head).await.closes());
        client.send(body).await;
    }
    assert_eq!(client.ask(GET).await.text(), "/one");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_worth_reading_the_rest_is_said_to_close() {
    for head in [
        "Content-Length: 262145\r\n\r\n",
        "Content-Length: 99999999999\r\n\r\n",
        "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    ] {
        let server = reads_nothing();
        let mut client = server.connect();
        let answer = client
            .ask(format!("POST /1 HTTP/1.1\r\nHost: a\r\n{head}"))
            .await;
        assert_eq!(answer.text(), "/1", "{head}");
        assert!(answer.closes(), "{head}");
        client.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_may_come_in_many_chunks() {
    let server = reads_nothing();
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut client = server.connect();
        let chunks = "4\r\nbody\r\n".repeat(100);
        let answer = client
            .ask(format!(
                "POST /1 HTTP/1.1\r\nHost: a\r\n{expect}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.text(), "/1");
        // Nobody asked for it in the second case, and nobody will.
        if expect.is_empty() {
            assert_eq!(client.ask(GET).await.text(), "/one");
        } else {
            assert!(answer.closes());
            client.closed().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_beyond_the_limits_is_refused() {
    let mut config = Config::default();
    config.limits.head_bytes = 8192;
    config.limits.header_count = 10;
    let server = Server::with(config, Fake::echo(), None);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(10_000)
    );
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(10));
    for request in [long, many] {
        let mut client = server.connect();
        assert_eq!(client.ask(request).await.status, 431);
        client.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_that_cannot_answer_has_a_status() {
    for (error, status) in [
        (AppError::Failed("oops".into()), 500),
        (AppError::Overloaded { waiting: 100 }, 503),
        (AppError::Exhausted { abandoned: 9 }, 503),
        (AppError::Timeout(std::time::Duration::from_secs(1)), 504),
    ] {
        let error = Mutex::new(Some(error));
        let server = Server::new(Fake::new(move |_| {
            let error = error.lock().unwrap().take().unwrap();
            async move { Err(error) }
        }));
        let mut client = server.connect();
        let answer = client.ask(GET).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
        assert!(client.is_open().await, "the next request may fare better");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_and_requests_are_counted() {
    let server = Server::new(Fake::echo());
    let mut client = server.connect();
    client.ask(GET).await;
    client.ask("GET /\tHTTP/1.1\r\n\r\n").await;
    client.closed().await;
    let mut client = server.connect();
    client.ask("GET / HTTP/1.1\nHost: a\n\n").await;
    client.closed().await;
    let mut client = server.connect();
    client.ask("GET / HTTP/1.1\r\n\r\n").await;
    client.closed().await;
    let text = twinspan::metrics::export::prometheus(&server.snapshot());
    for line in [
        "twinspan_requests_total{app=\"fake\",status=\"200\"} 1\n",
        "twinspan_requests_in_flight{app=\"fake\"} 0\n",
        // The first is hyper's.
        "twinspan_requests_refused_total{reason=\"malformed\"} 2\n",
    ] {
        assert!(text.contains(line), "{line}\nnot in\n{text}");
    }
}
