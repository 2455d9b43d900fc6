//! Worker processes.
//!
//! A worker is a new program, never a fork: the supervisor has threads, and the interpreter in the
//! worker wants to begin with none. Its end of the channel is handed over as stdin.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::sync::{mpsc, oneshot};

use super::WorkerId;
use super::channel::{self, ChannelError, FromWorker, Receiver, Sender, Start, ToWorker};
use crate::listen::Listener;

/// What a worker has said before its exit is here at once. Its channel ends then too, unless processes
/// that it has forked keep it open; these are not waited for longer than this.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The command line of a worker.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// What one worker process lets its supervisor know, in the order in which it happened.
#[derive(Debug)]
pub(super) enum Notice {
    Said(FromWorker),
    /// Nothing can be heard or said any more; why, unless it just ended.
    ChannelClosed(Option<ChannelError>),
    /// The last notice.
    Exited(ExitStatus),
}

/// The processes that have been started and not yet waited for.
#[derive(Debug, Default)]
pub(super) struct Children {
    alive: HashMap<WorkerId, Child>,
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    orders: mpsc::UnboundedSender<ToWorker>,
    exited: oneshot::Sender<ExitStatus>,
}

impl Children {
    /// Starts a worker; what it says arrives at `notices`.
    pub(super) fn spawn(
        &mut self,
        id: WorkerId,
        command: &WorkerCommand,
        start: Start,
        listeners: Arc<[Listener]>,
        notices: mpsc::UnboundedSender<(WorkerId, Notice)>,
    ) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = tokio::net::UnixStream::from_std(ours)?;
        let child = Command::new(&command.program)
            .args(&command.args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        // Kept as a number: std's handle could wait for this child only, not for whatever has ended.
        let pid = Pid::from_child(&child);
        let (sender, receiver) = channel::split(ours);
        let (orders, queue) = mpsc::unbounded_channel();
        let (exited, exit) = oneshot::channel();
        tokio::spawn(speak(sender, start, listeners, queue));
        tokio::spawn(hear(id, receiver, exit, notices));
        self.alive.insert(
            id,
            Child {
                pid,
                orders,
                exited,
            },
        );
        Ok(())
    }

    /// Sends `message` when the worker gets round to reading; never waits for it.
    pub(super) fn tell(&self, id: WorkerId, message: ToWorker) {
        if let Some(child) = self.alive.get(&id) {
            // Without a reader the worker is on its way out, which it lets us know otherwise.
            let _ = child.orders.send(message);
        }
    }

    pub(super) fn kill(&self, id: WorkerId) {
        // Only what has not been waited for: the number of any other process may be somebody else's now.
        if let Some(child) = self.alive.get(&id)
            && let Err(error) =
                rustix::process::kill_process(child.pid, rustix::process::Signal::KILL)
        {
            tracing::error!(pid = child.pid.as_raw_pid(), %error, "a worker could not be killed");
        }
    }

    pub(super) fn pid(&self, id: WorkerId) -> Option<i32> {
        Some(self.alive.get(&id)?.pid.as_raw_pid())
    }

    /// Waits for the processes that have ended, without blocking.
    pub(super) fn reap(&mut self) {
        if rustix::process::getpid().is_init() {
            // In a container without an init, what workers leave behind becomes our child.
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                let id = self.alive.iter().find(|(_, child)| child.pid == pid);
                if let Some(id) = id.map(|(id, _)| *id) {
                    self.ended(id, status);
                }
            }
        } else {
            let ended: Vec<_> = self
                .alive
                .iter()
                .filter_map(|(id, child)| {
                    let waited = rustix::process::waitpid(Some(child.pid), WaitOptions::NOHANG);
                    Some((*id, waited.ok().flatten()?.1))
                })
                .collect();
            for (id, status) in ended {
                self.ended(id, status);
            }
        }
    }

    fn ended(&mut self, id: WorkerId, status: WaitStatus) {
        if let Some(child) = self.alive.remove(&id) {
            // Nobody listens when the supervisor itself is ending.
            let _ = child.exited.send(ExitStatus::from_raw(status.as_raw()));
        }
    }
}

/// The supervisor's side of the conversation. Its end, with the last order, ends the channel.
async fn speak(
    sender: Sender<ToWorker>,
    start: Start,
    listeners: Arc<[Listener]>,
    mut orders: mpsc::UnboundedReceiver<ToWorker>,
) {
    let mut result = sender.send_start(&start, &listeners).await;
    drop((start, listeners));
    while result.is_ok() {
        let Some(order) = orders.recv().await else {
            return;
        };
        result = sender.send(&order).await;
    }
    if let Err(error) = result {
        tracing::debug!(%error, "a worker does not read any more");
    }
}

/// The worker's side of the conversation, up to its exit.
async fn hear(
    id: WorkerId,
    mut receiver: Receiver<FromWorker>,
    mut exit: oneshot::Receiver<ExitStatus>,
    notices: mpsc::UnboundedSender<(WorkerId, Notice)>,
) {
    // A send fails only when the supervisor is ending, and then nobody wants to know.
    let notify = |notice| drop(notices.send((id, notice)));
    let status = loop {
        tokio::select! {
            biased;
            said = receiver.recv() => match said {
                Ok(Some(message)) => notify(Notice::Said(message)),
                end => {
                    notify(Notice::ChannelClosed(end.err()));
                    break exit.await;
                }
            },
            status = &mut exit => {
                let rest = async {
                    while let Ok(Some(message)) = receiver.recv().await {
                        notify(Notice::Said(message));
                    }
                };
                // Whatever it has said is taken in by then; the end of the channel is not needed.
                let _ = tokio::time::timeout(LAST_WORDS, rest).await;
                break status;
            }
        }
    };
    if let Ok(status) = status {
        notify(Notice::Exited(status));
    }
}
