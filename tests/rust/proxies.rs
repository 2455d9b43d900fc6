//! Requests through a proxy.

use std::sync::Arc;

use twinspan::app::Response;
use twinspan::body::Body;
use twinspan::config::Config;

use crate::support::{Fake, Server};

const FORWARDED: &str = "GET / HTTP/1.1\r\nHost: inner\r\n\
    X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: shop.example\r\nX-Forwarded-Prefix: /shop\r\n\r\n";

/// Answers with what it knows of the client.
fn who() -> Arc<Fake> {
    Fake::new(|request| async move {
        let client = request.origin.client.unwrap();
        let scheme = request.origin.scheme.as_str();
        let host = request.head.headers["host"].to_str().unwrap();
        let prefix = &request.at.root_path;
        Ok(Response::new(Body::from(format!(
            "{client} {scheme} {host} {prefix}"
        ))))
    })
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_client() {
    let server = Server::new(who());
    let mut client = server.connect_from("127.0.0.1:50000");
    let answer = client.ask(FORWARDED).await;
    assert_eq!(answer.text(), "1.2.3.4:0 https shop.example /shop");
}

#[tokio::test]
async fn anybody_else_speaks_for_himself() {
    let server = Server::new(who());
    let mut client = server.connect_from("10.0.0.1:50000");
    let answer = client.ask(FORWARDED).await;
    assert_eq!(answer.text(), "10.0.0.1:50000 http inner ");
}

#[tokio::test]
async fn networks_are_trusted_when_they_are_named() {
    let mut config = Config::default();
    config.forwarded.networks = vec!["10.0.0.0/8".parse().unwrap()];
    let server = Server::with(config, who(), None);
    let mut proxy = server.connect_from("10.0.0.1:50000");
    assert!(
        proxy
            .ask(FORWARDED)
            .await
            .text()
            .starts_with("1.2.3.4:0 https")
    );
    let mut local = server.connect_from("127.0.0.1:50000");
    assert!(
        local
            .ask(FORWARDED)
            .await
            .text()
            .starts_with("127.0.0.1:50000 http")
    );
}
