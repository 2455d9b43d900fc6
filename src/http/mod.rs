//! HTTP connections: sniffing, strictness, limits, and hyper between a stream and [`crate::app`].
//!
//! hyper's own automatic builder is not used: it waits for ever for a client that sends nothing
//! (hyper issues 3756, 3962) and lacks half of the limits. Nor are hyper's timers: one coarse timer
//! per connection looks at what the connection is doing, which costs nothing per request.

pub mod forwarded;
mod interim;
pub mod strict;
pub mod trailers;
mod wire;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;
use tracing::debug;

pub use self::interim::Interim;
use self::strict::Tracker;
pub use self::wire::{Control, Stream};
use self::wire::{Phase, Version, Wire, sniff};
use crate::app::ConnInfo;
use crate::dispatch::Dispatcher;
use crate::drain::{Drain, seldom};
use crate::metrics::RefusedBy;

/// Streams of one HTTP/2 connection at a time.
const H2_STREAMS: u32 = 256;
/// How long an idle keep-alive connection lives on after a drain began, so that a request that is
/// already on its way is answered.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Serves one connection until either side ends it.
pub async fn serve_connection<S: Stream>(
    dispatcher: Arc<Dispatcher>,
    mut stream: S,
    conn: ConnInfo,
) {
    let timeouts = dispatcher.timeouts();
    let drain = dispatcher.drain().clone();
    let sniffed = tokio::select! {
        sniffed = tokio::time::timeout(timeouts.header_read, sniff(&mut stream)) => sniffed,
        // A client that has not said a word loses nothing.
        () = drained_and_idle(&drain) => return,
    };
    let (version, rewound) = match sniffed {
        Ok(Ok(Some(sniffed))) => sniffed,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return debug!(%error, "a connection failed before its first request"),
        Err(_) => return debug!("a connection sent no request in time"),
    };
    match version {
        Version::Http1 => serve_http1(dispatcher, stream, rewound, conn).await,
        Version::Http2 => serve_http2(dispatcher, stream, rewound, conn).await,
    }
}

async fn serve_http1<S: Stream>(
    dispatcher: Arc<Dispatcher>,
    stream: S,
    rewound: bytes::Bytes,
    conn: ConnInfo,
) {
    let control = Control::new();
    let wire = Wire::new(
        stream,
        rewound,
        Some(Tracker::default()),
        Arc::clone(&control),
    );
    let conn = Arc::new(conn);
    let limits = dispatcher.limits();
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(limits.head_bytes.max(8192))
        .auto_date_header(dispatcher.date_header());
    if limits.header_count != 100 {
        // hyper's own default of 100 is kept on the stack; any other number costs an allocation per request.
        builder.max_headers(limits.header_count);
    }
    let service = {
        let (dispatcher, control) = (Arc::clone(&dispatcher), Arc::clone(&control));
        service_fn(move |request| {
            let dispatcher = Arc::clone(&dispatcher);
            let (conn, control) = (Arc::clone(&conn), Arc::clone(&control));
            async move { Ok::<_, Infallible>(dispatcher.http(request, conn, control).await) }
        })
    };
    let mut connection = pin!(
        builder
            .serve_connection(TokioIo::new(wire), service)
            .with_upgrades()
    );
    let mut expired = pin!(seldom(expired(&dispatcher, &control)));
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        _ = expired.next() => {
            connection.as_mut().graceful_shutdown();
            if matches!(control.phase(), Phase::Head(_)) {
                // hyper would wait for the rest of the head.
                return debug!("a request head was not complete in time");
            }
            connection.await
        }
    };
    if let Some(reason) = control.refused() {
        dispatcher.refused(RefusedBy::Malformed, reason);
    } else if let Err(error) = result {
        debug!(%error, "a connection ended early");
    }
}

async fn serve_http2<S: Stream>(
    dispatcher: Arc<Dispatcher>,
    stream: S,
    rewound: bytes::Bytes,
    conn: ConnInfo,
) {
    let control = Control::new();
    let wire = Wire::new(stream, rewound, None, Arc::clone(&control));
    let conn = Arc::new(conn);
    let limits = dispatcher.limits();
    let mut builder = http2::Builder::new(OnHandle(dispatcher.drain().clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .auto_date_header(dispatcher.date_header())
        .enable_connect_protocol();
    let service = {
        let (dispatcher, control) = (Arc::clone(&dispatcher), Arc::clone(&control));
        service_fn(move |request| {
            let dispatcher = Arc::clone(&dispatcher);
            let (conn, control) = (Arc::clone(&conn), Arc::clone(&control));
            async move { Ok::<_, Infallible>(dispatcher.http(request, conn, control).await) }
        })
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
    let ending = async {
        tokio::select! {
            () = expired(&dispatcher, &control) => {}
            // GOAWAY tells the client which requests were seen: nothing races.
            () = dispatcher.drain().begun() => {}
        }
    };
    let mut ending = pin!(seldom(ending));
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        _ = ending.next() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection ended early");
    }
}

/// Returns when the connection should end: idle for too long, a head that does not come to its end,
/// or idle while the server stops.
async fn expired(dispatcher: &Dispatcher, control: &Control) {
    let timeouts = dispatcher.timeouts();
    let drain = dispatcher.drain();
    let mut draining = false;
    loop {
        let idle = if draining {
            DRAIN_GRACE.min(timeouts.keep_alive)
        } else {
            timeouts.keep_alive
        };
        let now = Instant::now();
        let deadline = match control.phase() {
            Phase::Idle(since) => since + idle,
            Phase::Head(since) => since + timeouts.header_read,
            // The end of a request is not announced: look again as soon as it could matter.
            Phase::Busy => now + idle,
        };
        if deadline <= now {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {}
            () = drain.begun(), if !draining => draining = true,
        }
    }
}

async fn drained_and_idle(drain: &Drain) {
    drain.begun().await;
    tokio::time::sleep(DRAIN_GRACE).await;
}

/// hyper's executor over the one handle that spawns.
#[derive(Debug, Clone)]
struct OnHandle(Drain);

impl<F> Executor<F> for OnHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
