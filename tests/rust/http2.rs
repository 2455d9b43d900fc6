//! HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3).

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use twinspan::app::Response;
use twinspan::body::{self, Body};

use crate::support::{Client, Fake, Server};

type Sent = http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>;

async fn handshake(client: Client) -> SendRequest<Sent> {
    let io = TokioIo::new(client.pipe);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(target: &str) -> Request<Sent> {
    let request = Request::get(target).version(Version::HTTP_2);
    request.body(Empty::new().boxed()).unwrap()
}

#[tokio::test]
async fn streams_of_one_connection_are_answered_beside_each_other() {
    let server = Server::new(Fake::echo());
    let mut sender = handshake(server.connect()).await;
    let post = Request::post("http://a/two")
        .body(Full::from("hi").boxed())
        .unwrap();
    let (first, second) = (
        sender.send_request(get("http://a/one")),
        sender.send_request(post),
    );
    let (second, first) = (second.await.unwrap(), first.await.unwrap());
    assert_eq!(first.version(), Version::HTTP_2);
    let first = first.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(first, "GET http://a/one ");
    let second = second.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(second, "POST http://a/two hi");
}

#[tokio::test]
async fn an_aborted_answer_resets_its_stream_and_no_other() {
    let (mut sender, receiver) = body::channel(1024);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let server = Server::new(Fake::new(move |_| {
        let body = receiver
            .lock()
            .unwrap()
            .take()
            .map_or(Body::from("whole"), Body::from);
        async { Ok(Response::new(body)) }
    }));
    let mut requests = handshake(server.connect()).await;
    sender.push("half".into()).unwrap();
    let answer = requests.send_request(get("http://a/")).await.unwrap();
    sender.abort("the application raised");
    let error = answer.into_body().collect().await.unwrap_err();
    assert!(
        !error.is_incomplete_message(),
        "a stream that is reset, not one that ends: {error}"
    );
    let answer = requests.send_request(get("http://a/")).await.unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "whole"
    );
}

#[tokio::test]
async fn a_field_that_http_2_forbids_is_left_out_of_the_answer() {
    let server = Server::new(Fake::new(|_| async {
        let mut response = Response::new(Body::empty());
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        Ok(response)
    }));
    let mut sender = handshake(server.connect()).await;
    let answer = sender.send_request(get("http://a/")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key(CONNECTION));
}

#[tokio::test]
async fn a_tunnel_is_refused() {
    let server = Server::new(Fake::echo());
    let mut sender = handshake(server.connect()).await;
    let mut request = get("a:443");
    *request.method_mut() = Method::CONNECT;
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_refused() {
    let server = Server::new(Fake::echo());
    let mut sender = handshake(server.connect()).await;
    let mut request = get("http://a/");
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("b"));
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_drain_answers_what_is_in_flight_and_takes_nothing_new() {
    let (mut body, receiver) = body::channel(1024);
    let server = Server::new(Fake::streams(receiver));
    let mut sender = handshake(server.connect()).await;
    let answer = sender.send_request(get("http://a/")).await.unwrap();
    server.drain.begin();
    body.push("done".into()).unwrap();
    body.finish();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "done"
    );
    while sender.ready().await.is_ok() {
        // Until the client has read the GOAWAY.
        tokio::task::yield_now().await;
    }
}
