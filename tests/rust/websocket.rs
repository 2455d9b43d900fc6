//! WebSockets from the first byte to the last, over HTTP/1.1 and HTTP/2.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::{HeaderValue, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message as Wire};
use tokio_util::sync::CancellationToken;
use twinspan::app::{
    AppError, Application, BoxFuture, ConnInfo, Description, Interface, LocalAddr, Response,
    Scheme, WebSocketApplication,
};
use twinspan::body::Body;
use twinspan::config::Config;
use twinspan::dispatch::Dispatcher;
use twinspan::drain::Drain;
use twinspan::http::serve_connection;
use twinspan::metrics::Metrics;
use twinspan::route::{App, Router, Rule};
use twinspan::ws::Handshake;

/// Does what the path says, and tells how it goes.
#[derive(Debug)]
struct Native {
    heard: mpsc::UnboundedSender<String>,
}

impl Application for Native {
    fn description(&self) -> Description {
        Description {
            interface: Interface::Native,
            threads: None,
        }
    }

    fn call(
        &self,
        request: Box<twinspan::app::Request>,
    ) -> BoxFuture<'static, Result<Response, AppError>> {
        let text = format!("{} over HTTP", request.head.uri.path());
        Box::pin(async { Ok(Response::new(Body::from(text))) })
    }

    fn websocket(&self) -> Option<&dyn WebSocketApplication> {
        Some(self)
    }
}

impl WebSocketApplication for Native {
    fn connect(&self, mut handshake: Handshake) -> BoxFuture<'static, Result<(), AppError>> {
        let says = self.heard.clone();
        Box::pin(async move {
            let path = handshake.request.head.uri.path().to_owned();
            let how = match path.as_str() {
                "/echo" => echo(handshake).await,
                "/deny" => {
                    let mut denial = Response::new(Body::from("not you\n"));
                    *denial.status_mut() = StatusCode::UNAUTHORIZED;
                    handshake.deny(denial).unwrap();
                    "denied".to_owned()
                }
                "/drop" => "dropped".to_owned(),
                _ => {
                    let _ = says.send("waiting".to_owned());
                    poll_fn(|cx| handshake.poll_gone(cx)).await;
                    let late = handshake.accept(None, HeaderMap::new());
                    late.unwrap_err().to_string()
                }
            };
            let _ = says.send(how);
            Ok(())
        })
    }
}

async fn echo(mut handshake: Handshake) -> String {
    let mut headers = HeaderMap::new();
    headers.append(SET_COOKIE, HeaderValue::from_static("a=1"));
    let offered = handshake.subprotocols().first().cloned();
    let accepted = handshake.accept(offered.as_deref(), headers);
    let (mut sender, mut receiver) = accepted.unwrap();
    loop {
        match poll_fn(|cx| receiver.poll_recv(cx)).await {
            Ok(message) => {
                let _ = sender.push(message);
            }
            Err(close) => return format!("{} {}", close.code, close.reason),
        }
    }
}

/// Much longer than anything takes.
const LONG: Duration = Duration::from_secs(30);

struct Server {
    dispatcher: Arc<Dispatcher>,
    drain: Drain,
    heard: mpsc::UnboundedReceiver<String>,
}

impl Server {
    fn start() -> Self {
        let (send, heard) = mpsc::unbounded_channel();
        let app = Arc::new(App {
            name: "native".into(),
            application: Arc::new(Native { heard: send }),
            metrics: Arc::clone(&Metrics::new(&["native".into()]).apps()[0]),
            traffic: None,
        });
        let drain = Drain::new(tokio::runtime::Handle::current(), CancellationToken::new());
        let dispatcher = Dispatcher::new(
            Arc::new(Config::default()),
            Router::new(vec![Rule::mount(app, "", None)], ""),
            Metrics::new(&["native".into()]),
            None,
            drain.clone(),
        );
        Self {
            dispatcher,
            drain,
            heard,
        }
    }

    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        let conn = ConnInfo {
            peer: None,
            peer_uid: None,
            local: LocalAddr::Unix("/run/twinspan.sock".into()),
            scheme: Scheme::Http,
        };
        let dispatcher = Arc::clone(&self.dispatcher);
        self.drain.spawn(serve_connection(dispatcher, ours, conn));
        theirs
    }

    async fn hears(&mut self) -> String {
        let heard = tokio::time::timeout(LONG, self.heard.recv()).await;
        heard.expect("the application says something").unwrap()
    }
}

type Client = WebSocketStream<DuplexStream>;

async fn upgrade(
    server: &Server,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<(Client, http::Response<Option<Vec<u8>>>), Error> {
    let mut request = format!("ws://localhost{path}")
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        request
            .headers_mut()
            .append(*name, HeaderValue::from_static(value));
    }
    tokio_tungstenite::client_async(request, server.connect()).await
}

/// The first lines of a handshake, for clients that go wrong after them.
const UPGRADE: &str = "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

async fn next<S>(client: &mut WebSocketStream<S>) -> Wire
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    client.next().await.unwrap().unwrap()
}

#[tokio::test]
async fn a_connection_is_accepted_echoes_and_closes() {
    let mut server = Server::start();
    let offers = [("sec-websocket-protocol", "v2, v1")];
    let (mut client, response) = upgrade(&server, "/echo", &offers).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "v2");
    assert_eq!(response.headers()["set-cookie"], "a=1");
    client.send(Wire::text("hello")).await.unwrap();
    assert_eq!(next(&mut client).await, Wire::text("hello"));
    client.close(None).await.unwrap();
    assert!(next(&mut client).await.is_close());
    assert!(client.next().await.is_none());
    assert_eq!(server.hears().await, "1005 ");
}

#[tokio::test]
async fn bytes_behind_the_answer_are_frames_whatever_they_look_like() {
    let server = Server::start();
    let mut client = server.connect();
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
    client.write_all(b"\x82\x83\0\0\0\0\r\n\n").await.unwrap();
    let mut echoed = [0; 5];
    client.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"\x82\x03\r\n\n");
}

// A client has to wait for the answer (RFC 6455 §4.1): what it sends before could be a request or frames.
#[tokio::test]
async fn bytes_before_the_answer_end_the_connection() {
    let server = Server::start();
    let mut client = server.connect();
    let eager = [UPGRADE.as_bytes(), b"\x82\x81\0\0\0\0x"].concat();
    client.write_all(&eager).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.ends_with(b"\x82\x01x"), "no echo");
}

#[tokio::test]
async fn a_denial_is_an_ordinary_response_and_the_connection_lives_on() {
    let mut server = Server::start();
    let mut client = server.connect();
    let denied = UPGRADE.replace("/echo", "/deny");
    let plain = "GET /after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(denied.as_bytes()).await.unwrap();
    assert_eq!(server.hears().await, "denied");
    client.write_all(plain.as_bytes()).await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert!(
        answers.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
        "{answers}"
    );
    assert!(
        answers.contains("not you\nHTTP/1.1 200 OK\r\n"),
        "{answers}"
    );
    assert!(answers.ends_with("/after over HTTP"), "{answers}");
}

#[tokio::test]
async fn a_handshake_that_nobody_answers_is_500() {
    let server = Server::start();
    match upgrade(&server, "/drop", &[]).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 500),
        other => panic!("accepted: {:?}", other.map(|(_, response)| response)),
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_noticed() {
    let mut server = Server::start();
    let mut client = server.connect();
    let waiting = UPGRADE.replace("/echo", "/wait");
    client.write_all(waiting.as_bytes()).await.unwrap();
    assert_eq!(server.hears().await, "waiting");
    drop(client);
    assert_eq!(server.hears().await, "the client has disconnected");
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_1006() {
    let mut server = Server::start();
    let (client, _) = upgrade(&server, "/echo", &[]).await.unwrap();
    drop(client);
    assert_eq!(server.hears().await, "1006 ");
}

#[tokio::test]
async fn a_drain_closes_with_1012_and_waits_until_all_have_closed() {
    let mut server = Server::start();
    let (mut client, _) = upgrade(&server, "/echo", &[]).await.unwrap();
    server.drain.begin();
    match next(&mut client).await {
        Wire::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
        other => panic!("no close frame but {other:?}"),
    }
    assert!(client.next().await.is_none());
    assert_eq!(server.hears().await, "1012 the server is shutting down");
    let left = server.drain.finish(Duration::from_secs(10)).await;
    assert_eq!(left, 0);
}

/// An HTTP/2 connection that knows the server's settings.
async fn http2(server: &Server) -> hyper::client::conn::http2::SendRequest<Empty<bytes::Bytes>> {
    let io = TokioIo::new(server.connect());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(over_http2(Method::GET, "/first")).await;
    assert_eq!(response.unwrap().status(), 200);
    sender
}

fn over_http2(method: Method, path: &str) -> Request<Empty<bytes::Bytes>> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .body(Empty::new());
    request.unwrap()
}

fn connect_over_http2(path: &str) -> Request<Empty<bytes::Bytes>> {
    let mut request = over_http2(Method::CONNECT, path);
    let websocket = Protocol::from_static("websocket");
    request.extensions_mut().insert(websocket);
    let headers = request.headers_mut();
    headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
    headers.insert("sec-websocket-protocol", HeaderValue::from_static("v2, v1"));
    request
}

#[tokio::test]
async fn http2_carries_a_websocket_beside_requests() {
    let mut server = Server::start();
    let mut sender = http2(&server).await;
    let connect = connect_over_http2("/echo");
    let response = sender.send_request(connect).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "v2");
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut client = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
    client.send(Wire::text("hello")).await.unwrap();
    assert_eq!(next(&mut client).await, Wire::text("hello"));
    let beside = sender.send_request(over_http2(Method::GET, "/beside"));
    assert_eq!(beside.await.unwrap().status(), 200);
    client.close(None).await.unwrap();
    assert!(next(&mut client).await.is_close());
    assert_eq!(server.hears().await, "1005 ");
}

#[tokio::test]
async fn http2_denies_and_refuses_like_http1() {
    let mut server = Server::start();
    let mut sender = http2(&server).await;
    let denied = sender.send_request(connect_over_http2("/deny")).await;
    assert_eq!(denied.unwrap().status(), 401);
    assert_eq!(server.hears().await, "denied");
    let mut old = connect_over_http2("/echo");
    let version = HeaderValue::from_static("8");
    old.headers_mut().insert("sec-websocket-version", version);
    let refused = sender.send_request(old).await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.headers()["sec-websocket-version"], "13");
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_is_not_idle_while_it_carries_a_websocket() {
    let server = Server::start();
    let mut sender = http2(&server).await;
    let connect = connect_over_http2("/echo");
    let response = sender.send_request(connect).await.unwrap();
    let _open = hyper::upgrade::on(response).await.unwrap();
    tokio::time::sleep(Duration::from_secs(17)).await;
    let after = sender.send_request(over_http2(Method::GET, "/after")).await;
    assert_eq!(after.unwrap().status(), 200);
}
