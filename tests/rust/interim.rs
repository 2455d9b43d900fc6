//! Early hints: before their own final response, and nowhere else.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue};
use tokio::sync::Notify;
use twinspan::app::Response;
use twinspan::body::Body;
use twinspan::http::Interim;

use crate::support::{Client, Fake, Server};

fn hints(target: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.append("link", HeaderValue::from_str(target).unwrap());
    headers.append("link", HeaderValue::from_static("</all>"));
    headers.append("x-app", HeaderValue::from_static("1"));
    headers
}

fn send(interim: Option<&Interim>, target: &str) {
    interim.unwrap().early_hints(&hints(target));
}

/// The next answer: its status, its `Link` fields and its body.
async fn next(client: &mut Client) -> (u16, Vec<String>, String) {
    let answer = client.answer_to("GET").await.unwrap();
    let links = answer.headers.get_all("link").iter();
    let links = links
        .map(|link| link.to_str().unwrap().to_owned())
        .collect();
    (answer.status.as_u16(), links, answer.text().to_owned())
}

fn early(target: &str) -> (u16, Vec<String>, String) {
    (103, vec![target.into(), "</all>".into()], String::new())
}

#[tokio::test(start_paused = true)]
async fn hints_are_sent_at_once_and_as_often_as_they_come() {
    let go_on = Arc::new(Notify::new());
    let notify = Arc::clone(&go_on);
    let server = Server::new(Fake::new(move |request| {
        let notify = Arc::clone(&notify);
        async move {
            send(request.interim.as_ref(), "</first>");
            notify.notified().await;
            send(request.interim.as_ref(), "</second>");
            send(request.interim.as_ref(), "</third>");
            Ok(Response::new(Body::from("final")))
        }
    }));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let first = client.answer_to("GET").await.unwrap();
    assert_eq!(first.headers, hints("</first>"));
    go_on.notify_one();
    assert_eq!(next(&mut client).await, early("</second>"));
    assert_eq!(next(&mut client).await, early("</third>"));
    assert_eq!(next(&mut client).await, (200, vec![], "final".into()));
}

#[tokio::test(start_paused = true)]
async fn hints_from_another_thread_wake_the_connection() {
    let handle: Arc<Mutex<Option<Interim>>> = Arc::default();
    let go_on = Arc::new(Notify::new());
    let (kept, notify) = (Arc::clone(&handle), Arc::clone(&go_on));
    let server = Server::new(Fake::new(move |mut request| {
        *kept.lock().unwrap() = request.interim.take();
        let notify = Arc::clone(&notify);
        async move {
            notify.notified().await;
            Ok(Response::new(Body::from("final")))
        }
    }));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.is_open().await);
    let interim = handle.lock().unwrap().take();
    std::thread::spawn(move || send(interim.as_ref(), "</late>"))
        .join()
        .unwrap();
    assert_eq!(next(&mut client).await, early("</late>"));
    go_on.notify_one();
    assert_eq!(next(&mut client).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_keep_their_hints_apart() {
    let server = Server::new(Fake::new(|request| async move {
        let path = request.head.uri.path().to_owned();
        send(request.interim.as_ref(), &path);
        tokio::task::yield_now().await;
        send(request.interim.as_ref(), &path);
        Ok(Response::new(Body::from(path)))
    }));
    let mut client = server.connect();
    let request = |target| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    client
        .send(request("/1") + &request("/2") + &request("/3"))
        .await;
    for target in ["/1", "/2", "/3"] {
        assert_eq!(next(&mut client).await, early(target));
        assert_eq!(next(&mut client).await, early(target));
        assert_eq!(next(&mut client).await, (200, vec![], target.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn hints_that_come_after_their_response_are_dropped() {
    let earlier: Arc<Mutex<Option<Interim>>> = Arc::default();
    let kept = Arc::clone(&earlier);
    let server = Server::new(Fake::new(move |mut request| {
        let mut kept = kept.lock().unwrap();
        if kept.is_some() {
            send(kept.as_ref(), "</earlier>");
            send(request.interim.as_ref(), "</own>");
            send(kept.as_ref(), "</earlier>");
        } else {
            *kept = request.interim.take();
        }
        async { Ok(Response::new(Body::from("final"))) }
    }));
    let mut client = server.connect();
    client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    send(earlier.lock().unwrap().as_ref(), "</earlier>");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(next(&mut client).await, early("</own>"));
    assert_eq!(next(&mut client).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn hints_and_continue_do_not_mix() {
    let server = Server::new(Fake::new(|mut request| async move {
        send(request.interim.as_ref(), "</before>");
        let data = request.body.data().await.unwrap().unwrap();
        send(request.interim.as_ref(), "</after>");
        Ok(Response::new(Body::from(data)))
    }));
    let mut client = server.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    let mut statuses = [next(&mut client).await.0, next(&mut client).await.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [100, 103]);
    client.send("hi").await;
    assert_eq!(next(&mut client).await, early("</after>"));
    assert_eq!(next(&mut client).await, (200, vec![], "hi".into()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_costs_hints_and_no_memory() {
    let server = Server::new(Fake::new(|request| async move {
        for _ in 0..10_000 {
            send(request.interim.as_ref(), &"x".repeat(1000));
        }
        Ok(Response::new(Body::from("final")))
    }));
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut early = 0;
    while let (103, ..) = next(&mut client).await {
        early += 1;
    }
    assert!((60..70).contains(&early), "{early}");
}

#[tokio::test(start_paused = true)]
async fn http_1_0_gets_none() {
    let server = Server::new(Fake::new(|request| async move {
        Ok(Response::new(Body::from(format!(
            "{}",
            request.interim.is_none()
        ))))
    }));
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(next(&mut client).await, (200, vec![], "true".into()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_within_an_interim_response() {
    // Two of them are more than the pipe holds: the second one is half written when hyper says 100.
    let long = "x".repeat(60_000);
    let value = long.clone();
    let server = Server::new(Fake::new(move |mut request| {
        let value = value.clone();
        async move {
            for _ in 0..2 {
                send(request.interim.as_ref(), &value);
                tokio::task::yield_now().await;
            }
            let data = request.body.data().await.unwrap().unwrap();
            Ok(Response::new(Body::from(data)))
        }
    }));
    let mut client = server.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert!(client.is_open().await);
    assert_eq!(next(&mut client).await, early(&long));
    assert_eq!(next(&mut client).await, early(&long));
    assert_eq!(next(&mut client).await.0, 100);
    client.send("hi").await;
    assert_eq!(next(&mut client).await, (200, vec![], "hi".into()));
}
