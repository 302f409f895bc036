//! The mail process's end of the channel: asks the datapath process for what only root can do, and hears from it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use super::ipc::{self, Answer, Request, ToDatapath, ToMail};
use crate::config::Source;

/// How often the datapath process hears that we live; it is told stale after several of these.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(50);

type Outcome = Result<Answer, String>;

/// Asks. Clones share the channel.
#[derive(Clone)]
pub(super) struct Privileged {
    to: Arc<AsyncMutex<OwnedWriteHalf>>,
    /// Requests without an answer yet; each leaves within [`ANSWER_TIME`].
    pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Outcome>>>>,
    next: Arc<AtomicU64>,
}

/// What the datapath process says unasked.
#[derive(Debug)]
pub(super) enum Notice {
    /// A new configuration.
    Reloaded(Source),
    /// Finish and end; also when the datapath process is gone.
    Stop,
}

impl Privileged {
    /// Takes the channel over; notices come out of the receiver.
    pub(super) fn new(channel: UnixStream) -> (Self, mpsc::Receiver<Notice>) {
        let (from, to) = channel.into_split();
        let (notices, inbox) = mpsc::channel(8);
        let privileged = Self {
            to: Arc::new(AsyncMutex::new(to)),
            pending: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
        };
        tokio::spawn(listen(from, privileged.pending.clone(), notices));
        (privileged, inbox)
    }

    /// Asks and waits for the answer; an error is a text for the administrator.
    pub(super) async fn request(&self, request: Request) -> Outcome {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.pending).insert(id, sender);
        let asked = async {
            self.send(&ToDatapath::Request { id, request }).await.map_err(|error| error.to_string())?;
            receiver.await.map_err(|_| "the datapath process is gone".to_owned())?
        };
        let outcome = tokio::time::timeout(ANSWER_TIME, asked).await;
        lock(&self.pending).remove(&id);
        outcome.unwrap_or_else(|_| Err("the datapath process doesn't answer".to_owned()))
    }

    /// Says that we live, for as long as this runs and the channel holds.
    pub(super) async fn keep_alive(&self) {
        let mut ticks = tokio::time::interval(HEARTBEAT);
        while self.send(&ToDatapath::Heartbeat).await.is_ok() {
            ticks.tick().await;
        }
    }

    async fn send(&self, message: &ToDatapath) -> io::Result<()> {
        ipc::write_async(&mut *self.to.lock().await, message).await
    }
}

fn lock(
    pending: &Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(
    mut from: OwnedReadHalf,
    pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Outcome>>>>,
    notices: mpsc::Sender<Notice>,
) {
    while let Ok(message) = ipc::read_async(&mut from).await {
        let notice = match message {
            ToMail::Answer { id, result } => {
                if let Some(waiting) = lock(&pending).remove(&id) {
                    // Whoever asked may have given up.
                    let _ = waiting.send(result);
                }
                continue;
            }
            ToMail::Reloaded(source) => Notice::Reloaded(source),
            ToMail::Stop => Notice::Stop,
            // It came before this task began.
            ToMail::Start { .. } => continue,
        };
        if notices.send(notice).await.is_err() {
            return;
        }
    }
    lock(&pending).clear();
    let _ = notices.send(Notice::Stop).await;
}
