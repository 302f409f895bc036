//! The mail process's end of the channel: asks the datapath process for what only root can do, and hears from
//! it.

use std::collections::{BTreeSet, HashMap};
use std::mem::take;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use mailguard_core::names::NameStatus;
use mailguard_core::subscriber::Subscriber;
use nix::sys::socket::{MsgFlags, send};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};

use super::ipc::{self, Answer, Current, HandedListener, Request, ToDatapath, ToMail};
use crate::admin::{AdminError, ErrorKind, KernelAnswer, KernelSide};
use crate::bans::{self, BanError, KernelBans};
use crate::datapath::{BanStatus, DatapathStatus, RuleCount};
use crate::session::Limits;

/// How often the datapath process hears that we live; it is told stale after several of these.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Messages that wait to be written.
const MAX_WAITING_MESSAGES: usize = 64;
/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(50);

type Outcome = Result<Answer, AdminError>;

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
    /// A new configuration or other listeners.
    Changed {
        /// The configuration.
        current: Current,
        /// Listeners that came.
        opened: Vec<HandedListener>,
        /// Those that went.
        closed: Vec<u64>,
    },
    /// These clients are no longer banned.
    Lifted(Vec<Subscriber>),
    /// Finish and end; also when the datapath process is gone.
    Stop,
}

/// The notices that nobody has read yet, as one: whoever makes the channel's reader wait waits for answers in
/// vain. It grows with the listeners, of which the datapath process has few at a time, and the clients that
/// an administrator lets in.
#[derive(Default)]
pub(super) struct Notices {
    unread: Mutex<Unread>,
    news: Notify,
}

#[derive(Default)]
struct Unread {
    current: Option<Current>,
    opened: Vec<HandedListener>,
    closed: Vec<u64>,
    lifted: BTreeSet<Subscriber>,
    stop: bool,
}

impl Notices {
    /// The next one; a stop comes before everything else. For one reader.
    pub(super) async fn next(&self) -> Notice {
        loop {
            {
                let mut unread = lock(&self.unread);
                if unread.stop {
                    return Notice::Stop;
                }
                if let Some(current) = unread.current.take() {
                    let (opened, closed) = (take(&mut unread.opened), take(&mut unread.closed));
                    return Notice::Changed { current, opened, closed };
                }
                if !unread.lifted.is_empty() {
                    return Notice::Lifted(take(&mut unread.lifted).into_iter().collect());
                }
            }
            self.news.notified().await;
        }
    }

    fn change(&self, current: Current, opened: Vec<HandedListener>, closed: Vec<u64>) {
        let mut unread = lock(&self.unread);
        if unread.current.as_ref().is_none_or(|known| known.revision <= current.revision) {
            unread.current = Some(current);
        }
        unread.opened.extend(opened);
        unread.closed.extend(closed);
        drop(unread);
        self.news.notify_one();
    }

    fn lift(&self, clients: Vec<Subscriber>) {
        lock(&self.unread).lifted.extend(clients);
        self.news.notify_one();
    }

    fn stop(&self) {
        lock(&self.unread).stop = true;
        self.news.notify_one();
    }
}

impl Privileged {
    /// Takes the channel over; what comes unasked is noted.
    pub(super) fn new(channel: UnixStream) -> (Self, Arc<Notices>) {
        let (from, to) = channel.into_split();
        let notices = Arc::new(Notices::default());
        let (sender, messages) = mpsc::channel(MAX_WAITING_MESSAGES);
        tokio::spawn(talk(to, messages));
        let privileged = Self { to: sender, pending: Arc::default(), next: Arc::new(AtomicU64::new(1)) };
        tokio::spawn(listen(from, privileged.pending.clone(), notices.clone()));
        (privileged, notices)
    }

    /// Asks and waits for the answer.
    pub(super) async fn request(&self, request: Request) -> Outcome {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.pending).insert(id, sender);
        let asked = async {
            let gone = || unavailable("the datapath process is gone");
            self.to.send(ToDatapath::Request { id, request }).await.map_err(|_| gone())?;
            receiver.await.map_err(|_| gone())?
        };
        let outcome = tokio::time::timeout(ANSWER_TIME, asked).await;
        lock(&self.pending).remove(&id);
        outcome.unwrap_or_else(|_| Err(unavailable("the datapath process doesn't answer")))
    }

    /// Says what needs no answer; false when the datapath process is gone.
    pub(super) async fn say(&self, message: ToDatapath) -> bool {
        self.to.send(message).await.is_ok()
    }

    /// Says that we live, by `pulse`, and how old the oldest session is, for as long as this runs and the
    /// channel holds.
    pub(super) async fn keep_alive(&self, limits: &Limits, pulse: &StdStream) {
        let mut ticks = tokio::time::interval(HEARTBEAT);
        loop {
            ticks.tick().await;
            // One that finds no room isn't missed: others lie there unread.
            let _ = send(pulse.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
            let heartbeat = ToDatapath::Heartbeat { oldest_session: limits.oldest_session() };
            // What the datapath process has no time for holds no pulse up.
            if let Err(TrySendError::Closed(_)) = self.to.try_send(heartbeat) {
                return;
            }
        }
    }
}

fn unavailable(message: &str) -> AdminError {
    AdminError::new(ErrorKind::Unavailable, message)
}

/// The two processes are of one program: it can't happen, and isn't taken for an answer if it does.
fn other_answer() -> AdminError {
    AdminError::new(ErrorKind::Failed, "the datapath process answered another question")
}

/// What it says of bans, in that room's words.
fn of_bans(AdminError { kind, message }: AdminError) -> BanError {
    match kind {
        ErrorKind::Refused => BanError::Refused(message),
        ErrorKind::Unavailable => BanError::Unavailable(message),
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Failed | ErrorKind::Other => {
            BanError::Failed(message)
        }
    }
}

impl KernelBans for Privileged {
    fn ban(&self, clients: Vec<(IpAddr, Duration)>) -> BoxFuture<'_, bans::Result<()>> {
        Box::pin(async move {
            match self.request(Request::Ban(clients)).await.map_err(of_bans)? {
                Answer::Done => Ok(()),
                _ => Err(of_bans(other_answer())),
            }
        })
    }

    fn banned(&self) -> BoxFuture<'_, bans::Result<Vec<BanStatus>>> {
        Box::pin(async move {
            match self.request(Request::Bans).await.map_err(of_bans)? {
                Answer::Bans(bans) => Ok(bans),
                _ => Err(of_bans(other_answer())),
            }
        })
    }

    fn forgotten(&self, clients: Vec<Subscriber>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Whoever is gone tells the next mail process again.
            let _ = self.say(ToDatapath::Forgotten(clients)).await;
        })
    }
}

impl KernelSide for Privileged {
    fn status(&self) -> KernelAnswer<'_, (DatapathStatus, Vec<String>)> {
        Box::pin(async move {
            match self.request(Request::Status).await? {
                Answer::Status { kernel, problems } => Ok((*kernel, problems)),
                _ => Err(other_answer()),
            }
        })
    }

    fn rule_counts(&self) -> KernelAnswer<'_, (Vec<RuleCount>, Vec<NameStatus>)> {
        Box::pin(async move {
            match self.request(Request::RuleCounts).await? {
                Answer::RuleCounts { rules, names } => Ok((rules, names)),
                _ => Err(other_answer()),
            }
        })
    }
}

fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
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
    notices: Arc<Notices>,
) {
    while let Ok(message) = ipc::read_async(&mut from).await {
        match message {
            ToMail::Answer { id, result } => {
                // Whoever asked may have given up.
                let _ = lock(&pending).remove(&id).map(|waiting| waiting.send(result));
            }
            ToMail::Changed { current, opened, closed } => notices.change(current, opened, closed),
            ToMail::Lifted(clients) => notices.lift(clients),
            ToMail::Stop => notices.stop(),
            // It came before this task began.
            ToMail::Start { .. } => {}
        }
    }
    lock(&pending).clear();
    notices.stop();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::intercept::{Family, Purpose, Role};

    fn current(revision: u64) -> Current {
        Current { source: Source::of_text("test.toml", String::new()), revision }
    }

    fn handed(id: u64) -> HandedListener {
        let purpose =
            Purpose { zone: "green".to_owned(), family: Family::V4, role: Role::Transparent { slot: 0 } };
        HandedListener { id, purpose }
    }

    #[tokio::test]
    async fn an_answer_keeps_its_kind_and_a_datapath_process_that_is_gone_is_unavailable() {
        let (channel, mut datapath) = UnixStream::pair().unwrap();
        let (privileged, _notices) = Privileged::new(channel);
        let refused = AdminError::new(ErrorKind::Refused, "192.0.2.1: on access.whitelist_clients");
        let answers = async {
            let asked: ToDatapath = ipc::read_async(&mut datapath).await.unwrap();
            let ToDatapath::Request { id, .. } = asked else { panic!("{asked:?}") };
            let answer = ToMail::Answer { id, result: Err(refused.clone()) };
            ipc::write_async(&mut datapath, &answer).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(privileged.request(Request::Ban(Vec::new())), answers);
        assert_eq!(outcome.unwrap_err(), refused);
        drop(datapath);
        let kind = privileged.request(Request::Status).await.unwrap_err().kind;
        assert_eq!(kind, ErrorKind::Unavailable, "it may be there again in a moment");
    }

    #[tokio::test]
    async fn unread_notices_are_one_and_hold_nobody_up() {
        let notices = Notices::default();
        for revision in [1, 3, 2] {
            notices.change(current(revision), vec![handed(revision)], vec![revision + 10]);
        }
        let Notice::Changed { current: latest, opened, closed } = notices.next().await else {
            panic!("a change")
        };
        assert_eq!(latest.revision, 3, "whichever way it came");
        assert_eq!(
            opened.iter().map(|listener| listener.id).collect::<Vec<_>>(),
            [1, 3, 2],
            "as they were sent"
        );
        assert_eq!(closed, [11, 13, 12]);
        let clients: Vec<Subscriber> =
            ["192.0.2.1", "192.0.2.2"].map(|client| client.parse().unwrap()).into();
        notices.lift(clients.clone());
        notices.lift(clients[..1].to_vec());
        assert!(matches!(notices.next().await, Notice::Lifted(lifted) if lifted == clients));
        notices.change(current(4), Vec::new(), Vec::new());
        notices.stop();
        assert!(matches!(notices.next().await, Notice::Stop));
    }
}
