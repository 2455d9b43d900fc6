//! Connections that wait too long, and those that the end of the server waits for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use twinspan::app::Response;
use twinspan::body::{self, Body};
use twinspan::config::Config;

use crate::support::{Fake, Server};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const HEADER_READ: Duration = Duration::from_secs(10);

fn server(application: Arc<Fake>) -> Server {
    let mut config = Config::default();
    config.timeouts.keep_alive = KEEP_ALIVE;
    config.timeouts.header_read = HEADER_READ;
    Server::with(config, application, None)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_say_enough_is_given_up() {
    let server = server(Fake::echo());
    for beginning in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\n",
    ] {
        let began = Instant::now();
        let mut client = server.connect();
        client.send(beginning).await;
        let end = timeout(HEADER_READ * 2, client.closed()).await;
        assert!(end.is_ok(), "{beginning:?} is held for ever");
        assert!(began.elapsed() >= HEADER_READ, "{beginning:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_drop_by_drop_is_given_up() {
    let server = server(Fake::echo());
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\n").await;
    for _ in 0..5 {
        tokio::time::advance(HEADER_READ / 4).await;
        if !client.is_open().await {
            return;
        }
        client.send("X: y\r\n").await;
    }
    panic!("still open");
}

#[tokio::test(start_paused = true)]
async fn a_second_head_has_the_same_time_as_the_first() {
    let server = server(Fake::echo());
    let mut client = server.connect();
    client.ask(GET).await;
    tokio::time::advance(KEEP_ALIVE / 2).await;
    client.send("GET / HTT").await;
    let began = Instant::now();
    client.closed().await;
    assert!(began.elapsed() <= HEADER_READ + KEEP_ALIVE);
    assert!(began.elapsed() + KEEP_ALIVE >= HEADER_READ);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_time() {
    let server = server(Fake::echo());
    let mut client = server.connect();
    client.ask(GET).await;
    let idle = Instant::now();
    client.closed().await;
    assert!(idle.elapsed() >= KEEP_ALIVE);
    assert!(idle.elapsed() <= KEEP_ALIVE * 2, "{:?}", idle.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_longer_than_an_idle_connection_may_live_arrives() {
    let server = server(Fake::new(|_| async {
        tokio::time::sleep(KEEP_ALIVE * 10).await;
        Ok(Response::new(Body::from("at last")))
    }));
    let mut client = server.connect();
    assert_eq!(client.ask(GET).await.text(), "at last");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_pauses_longer_than_an_idle_connection_may_live_arrives() {
    let (mut sender, receiver) = body::channel(1024);
    let server = server(Fake::streams(receiver));
    let mut client = server.connect();
    client.send(GET).await;
    sender.push("first ".into()).unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(KEEP_ALIVE * 10).await;
        sender.push("last".into()).unwrap();
        sender.finish();
    });
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.complete), ("first last", true));
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_the_request_in_flight_finish_and_says_that_it_is_the_last() {
    let go_on = Arc::new(Notify::new());
    let called = Arc::new(Notify::new());
    let (wait, tell) = (Arc::clone(&go_on), Arc::clone(&called));
    let server = server(Fake::new(move |_| {
        let (wait, tell) = (Arc::clone(&wait), Arc::clone(&tell));
        async move {
            tell.notify_one();
            wait.notified().await;
            Ok(Response::new(Body::from("done")))
        }
    }));
    let mut client = server.connect();
    client.send(GET).await;
    called.notified().await;
    server.drain.begin();
    go_on.notify_one();
    let answer = client.answer().await;
    assert_eq!((answer.text(), answer.closes()), ("done", true));
    assert!(!client.closed().await, "an orderly end, no reset");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_crosses_the_drain_on_its_way_is_answered() {
    let server = server(Fake::echo());
    let mut client = server.connect();
    client.ask(GET).await;
    server.drain.begin();
    assert!(client.is_open().await);
    let answer = client.ask(GET).await;
    assert_eq!((answer.text(), answer.closes()), ("GET / ", true));
    client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_does_not_hold_the_drain_up() {
    let server = server(Fake::echo());
    let mut idle = server.connect();
    idle.ask(GET).await;
    let silent = server.connect();
    let began = Instant::now();
    server.drain.begin();
    idle.closed().await;
    silent.closed().await;
    assert!(began.elapsed() < KEEP_ALIVE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_line_of_the_access_log_tells_about_every_request() {
    let (log, lines) = Lines::new();
    let server = Server::with(Config::default(), Fake::echo(), Some(Box::new(log)));
    let mut client = server.connect();
    client.ask("GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.ask("GET /z HTTP/1.1\r\n\r\n").await;
    client.closed().await;
    drop(server);
    let text = lines.lock().unwrap().clone();
    let text = String::from_utf8(text).unwrap();
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    assert!(
        first.contains(" 127.0.0.1:50000 \"GET /x?y HTTP/1.1\" 200 9B "),
        "{first}"
    );
    assert!(first.ends_with("ms app=fake rule=\"catch-all\""), "{first}");
    let second = lines.next().unwrap();
    assert!(second.contains("\"GET /z HTTP/1.1\" 400 "), "{second}");
}

/// What was written to a log.
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn new() -> (Self, Arc<Mutex<Vec<u8>>>) {
        let text = Arc::default();
        (Self(Arc::clone(&text)), text)
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
