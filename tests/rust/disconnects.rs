//! A side that goes away: the other one notices, and half an answer never looks like a whole one.

use std::sync::Mutex;

use http::header::CONTENT_LENGTH;
use tokio::sync::{mpsc, oneshot};
use twinspan::app::Response;
use twinspan::body::{self, Body, BodyError};

use crate::support::{Fake, Server};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Tells when it is dropped.
struct Guard(Option<oneshot::Sender<()>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_the_call() {
    let (called, mut calls) = mpsc::unbounded_channel();
    let (dropped, gone) = oneshot::channel();
    let dropped = Mutex::new(Some(dropped));
    let server = Server::new(Fake::new(move |_| {
        let guard = Guard(dropped.lock().unwrap().take());
        let called = called.clone();
        async move {
            called.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(guard);
            unreachable!("nothing ends the wait")
        }
    }));
    let mut client = server.connect();
    client.send(GET).await;
    calls.recv().await.unwrap();
    client.vanish().await;
    gone.await.unwrap();
    let text = twinspan::metrics::export::prometheus(&server.snapshot());
    assert!(text.contains("status=\"499\"} 1\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_seen_by_who_streams_the_body() {
    let (mut sender, receiver) = body::channel(8);
    let server = Server::new(Fake::streams(receiver));
    let mut client = server.connect();
    client.send(GET).await;
    sender.push("some of it".into()).unwrap();
    client.wait_for("some of it").await;
    client.vanish().await;
    std::future::poll_fn(|cx| sender.poll_disconnected(cx)).await;
    assert!(sender.push("more".into()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_breaks_off_is_an_error_and_not_an_end() {
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let server = Server::new(Fake::new(move |mut request| {
            let ended = ended.clone();
            async move {
                let mut last = None;
                while let Some(data) = request.body.data().await {
                    let failed = data.is_err();
                    last = Some(data);
                    if failed {
                        break;
                    }
                }
                ended.send(last).unwrap();
                Ok(Response::new(Body::empty()))
            }
        }));
        let mut client = server.connect();
        client.send(request).await;
        client.finish().await;
        let last = ends.recv().await.unwrap();
        assert!(
            matches!(last, Some(Err(BodyError::Disconnected))),
            "{last:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_aborted_chunked_answer_has_no_end_and_is_reset() {
    let (mut sender, receiver) = body::channel(1024);
    let server = Server::new(Fake::streams(receiver));
    let mut client = server.connect();
    client.send(GET).await;
    sender.push("half".into()).unwrap();
    client.wait_for("half").await;
    sender.abort("the application raised");
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.complete), ("half", false));
    assert!(client.closed().await);
    let text = twinspan::metrics::export::prometheus(&server.snapshot());
    assert!(
        text.contains("twinspan_requests_aborted_total{app=\"fake\"} 1\n"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_aborted_answer_of_known_length_stays_short_and_is_reset() {
    let (mut sender, receiver) = body::channel(1024);
    let receiver = Mutex::new(Some(receiver));
    let server = Server::new(Fake::new(move |_| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        async move {
            let mut response = Response::new(Body::from(receiver));
            response.headers_mut().insert(CONTENT_LENGTH, 10.into());
            Ok(response)
        }
    }));
    let mut client = server.connect();
    client.send(GET).await;
    sender.push("half".into()).unwrap();
    client.wait_for("half").await;
    drop(sender);
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.complete), ("half", false));
    assert!(client.closed().await);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_answer_that_the_end_delimits_is_reset() {
    let (mut sender, receiver) = body::channel(1024);
    let server = Server::new(Fake::streams(receiver));
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    sender.push("half".into()).unwrap();
    client.wait_for("half").await;
    sender.abort("the application raised");
    assert_eq!(client.answer().await.text(), "half");
    assert!(
        client.closed().await,
        "without a reset it would look complete"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_aborted_before_its_first_byte_is_no_answer() {
    let (sender, receiver) = body::channel(1024);
    let server = Server::new(Fake::streams(receiver));
    let mut client = server.connect();
    sender.abort("the application raised");
    client.send(GET).await;
    let answer = client.answer_to("GET").await;
    assert!(answer.is_none_or(|answer| !answer.complete));
    assert!(client.closed().await);
}
