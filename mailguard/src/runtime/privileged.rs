//! The mail process's end of the channel: asks the datapath process for what only root can do, and hears from it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::ipc::{self, Answer, Current, HandedListener, Request, ToDatapath, ToMail};
use crate::session::Limits;

/// How often the datapath process hears that we live; it is told stale after several of these.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Messages that wait to be written.
const MAX_WAITING_MESSAGES: usize = 64;
/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(50);

type Outcome = Result<Answer, String>;

/// Asks. Clones share the channel.
#[derive(Clone)]
pub(super) struct Privileged {
    /// To the one task that writes: a request that is given up never leaves half a frame.
    to: mpsc::Sender<ToDatapath>,
    /// Requests without an answer yet; each leaves within [`ANSWER_TIME`].
    pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Outcome>>>>,
    next: Arc<AtomicU64>,
}

/// What the datapath process says unasked.
#[derive(Debug)]
pub(super) enum Notice {
    /// A new configuration or other listeners, or a configuration that somebody asked for and no longer waits for.
    Changed {
        /// The configuration.
        current: Current,
        /// Listeners that came.
        opened: Vec<HandedListener>,
        /// Those that went.
        closed: Vec<u64>,
    },
    /// Finish and end; also when the datapath process is gone.
    Stop,
}

impl Privileged {
    /// Takes the channel over; notices come out of the receiver.
    pub(super) fn new(channel: UnixStream) -> (Self, mpsc::Receiver<Notice>) {
        let (from, to) = channel.into_split();
        let (notices, inbox) = mpsc::channel(8);
        let (sender, messages) = mpsc::channel(MAX_WAITING_MESSAGES);
        tokio::spawn(talk(to, messages));
        let privileged = Self { to: sender, pending: Arc::default(), next: Arc::new(AtomicU64::new(1)) };
        tokio::spawn(listen(from, privileged.pending.clone(), notices));
        (privileged, inbox)
    }

    /// Asks and waits for the answer; an error is a text for the administrator.
    pub(super) async fn request(&self, request: Request) -> Outcome {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.pending).insert(id, sender);
        let asked = async {
            let gone = "the datapath process is gone";
            self.to.send(ToDatapath::Request { id, request }).await.map_err(|_| gone.to_owned())?;
            receiver.await.map_err(|_| gone.to_owned())?
        };
        let outcome = tokio::time::timeout(ANSWER_TIME, asked).await;
        lock(&self.pending).remove(&id);
        outcome.unwrap_or_else(|_| Err("the datapath process doesn't answer".to_owned()))
    }

    /// Says that we live, and how old the oldest session is, for as long as this runs and the channel holds.
    pub(super) async fn keep_alive(&self, limits: &Limits) {
        let mut ticks = tokio::time::interval(HEARTBEAT);
        while self.to.send(ToDatapath::Heartbeat { oldest_session: limits.oldest_session() }).await.is_ok() {
            ticks.tick().await;
        }
    }
}

fn lock(
    pending: &Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what is handed in, until the datapath process is gone.
async fn talk(mut to: OwnedWriteHalf, mut messages: mpsc::Receiver<ToDatapath>) {
    while let Some(message) = messages.recv().await {
        if ipc::write_async(&mut to, &message).await.is_err() {
            return;
        }
    }
}

async fn listen(
    mut from: OwnedReadHalf,
    pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Outcome>>>>,
    notices: mpsc::Sender<Notice>,
) {
    while let Ok(message) = ipc::read_async(&mut from).await {
        let notice = match message {
            ToMail::Answer { id, result } => {
                let waiting = lock(&pending).remove(&id);
                let unheard = match waiting {
                    Some(waiting) => waiting.send(result).err(),
                    None => Some(result),
                };
                // Whoever asked has given up, but the change was made.
                let Some(Ok(Answer::Current { current, .. })) = unheard else { continue };
                Notice::Changed { current, opened: Vec::new(), closed: Vec::new() }
            }
            ToMail::Changed { current, opened, closed } => Notice::Changed { current, opened, closed },
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
