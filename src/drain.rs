//! Stopping without losing a request: tell everyone, then know when all have finished.

use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One handle on which connections and background tasks are spawned, and which stops them.
///
/// Everything that a worker runs goes through [`Drain::spawn`], so that a connection may live on any
/// thread that drives the runtime behind `handle`.
#[derive(Debug, Clone)]
pub struct Drain {
    handle: tokio::runtime::Handle,
    began: CancellationToken,
    expired: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// `stop` begins the drain, whoever cancels it.
    pub fn new(handle: tokio::runtime::Handle, stop: CancellationToken) -> Self {
        Self {
            handle,
            began: stop,
            expired: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Runs a task that the end of the server waits for. It is dropped when the drain's time is over.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut expired = seldom(self.expired.clone().cancelled_owned());
        let task = async move {
            tokio::select! {
                biased;
                () = future => {}
                _ = expired.next() => {}
            }
        };
        self.handle.spawn(self.tasks.track_future(task));
    }

    /// No new connections; those that are open finish what they do.
    pub fn begin(&self) {
        self.began.cancel();
    }

    pub fn has_begun(&self) -> bool {
        self.began.is_cancelled()
    }

    /// Waits for [`Drain::begin`].
    pub async fn begun(&self) {
        self.began.cancelled().await;
    }

    /// Waits until every task has finished; those that have not after `limit` are dropped.
    ///
    /// Returns how many were dropped.
    pub async fn finish(&self, limit: std::time::Duration) -> usize {
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let dropped = self.tasks.len();
        self.expired.cancel();
        self.tasks.wait().await;
        dropped
    }
}

/// A future to wait for beside a busy one: it is looked at only when it has something to say, not each
/// time that the other one is.
pub(crate) fn seldom<F: Future>(future: F) -> FuturesUnordered<F> {
    std::iter::once(future).collect()
}
