//! The loop around `smtp::server`: read, perform, write, keep time (RFC 5321 §4.5.3.2 for the timeouts).
//!
//! Nothing is read while there is something to do, so a session holds one read and one unfinished command
//! line besides its message. All replies to what one read brought leave in one write.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use mailguard_core::config::model::ZoneKind;
use mailguard_core::smtp::Reply;
use mailguard_core::smtp::server::{Action, CloseReason, Question, Server};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};

use super::limits::{Admission, LimitReached};
use super::transaction::Transactions;
use super::{Peer, SessionContext, SessionLog, Sink, now};
use crate::tls::Stream;

/// Most octets of one read. They lie on the stack until the session has taken them.
const READ_OCTETS: usize = 32 * 1024;

/// How long a client may take to introduce itself while sessions are scarce; otherwise it has the command
/// timeout.
const FIRST_COMMAND_TIME: Duration = Duration::from_secs(10);

/// How long a client may take to read a last reply before the connection is closed over it.
const LINGER: Duration = Duration::from_secs(2);

/// Most octets that are thrown away while waiting for that.
const LINGER_OCTETS: usize = 256 * 1024;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// From our side.
    Closed(CloseReason),
    /// The client closed the connection.
    HungUp,
    /// The zone is gone from the configuration.
    NoZone,
    /// Sessions are scarce, and the client said nothing.
    MadeRoom,
}

impl End {
    /// As the log says it.
    const fn word(self) -> &'static str {
        match self {
            End::Closed(CloseReason::Quit) => "quit",
            End::Closed(CloseReason::EarlyTalker) => "early-talker",
            End::Closed(CloseReason::Unsynchronised) => "unsynchronised",
            End::Closed(CloseReason::BadChunk) => "bad-chunk",
            End::Closed(CloseReason::TooManyErrors) => "too-many-errors",
            End::Closed(CloseReason::Timeout) => "timeout",
            End::Closed(CloseReason::ShutDown) => "shutdown",
            End::HungUp => "hung-up",
            End::NoZone => "no-zone",
            End::MadeRoom => "made-room",
        }
    }
}

/// Serves an admitted client.
pub(super) async fn run<S: Sink>(
    stream: TcpStream,
    peer: Peer,
    context: SessionContext<S>,
    mut admission: Admission,
    mut log: SessionLog,
) {
    let SessionContext { config, roles, limits: _, mut stop } = context;
    let Some(zone) = config.zones.get(peer.zone) else {
        log.end = End::NoZone.word();
        return;
    };
    let (name, kind) = (zone.name.clone(), zone.kind);
    let dismissed = admission.dismissal();
    let transactions = Transactions::new(config, roles, peer, (name, kind), log);
    let mut session = Session::new(stream, admission, transactions);
    let stopped = pin!(async move { stop.wait_for(|stop| *stop).await.map(|_| ()) });
    let end = tokio::select! {
        biased;
        () = dismissed => Ok(End::MadeRoom),
        end = session.converse(stopped) => end,
    };
    // Apart: every session would have room for its end from its beginning on.
    Box::pin(session.finish(end)).await;
}

/// Refuses a connection for which there is no session.
pub(super) async fn reject_connection(stream: TcpStream, reply: &Reply) {
    let mut stream = Stream::Plain(stream);
    if let Ok(Ok(())) = timeout(LINGER, say(&mut stream, reply)).await {
        linger(stream).await;
    }
}

async fn say(stream: &mut Stream, reply: &Reply) -> io::Result<()> {
    let mut octets = Vec::new();
    reply.encode(&mut octets);
    stream.write_whole(&octets).await
}

/// Closes our side and waits a little for the client's. A socket closed over unread octets sends a reset,
/// which can overtake the last reply.
async fn linger(mut stream: Stream) {
    let drain = async {
        let mut octets = [0; 512];
        let mut left = LINGER_OCTETS;
        stream.shutdown().await?;
        while left > 0 {
            match stream.read(&mut octets).await? {
                0 => break,
                length => left = left.saturating_sub(length),
            }
        }
        io::Result::Ok(())
    };
    // Whatever happened: nothing is owed to the client any more.
    let _ = timeout(LINGER, drain).await;
}

struct Session<S: Sink> {
    stream: Stream,
    /// What STARTTLS needs, where it is offered.
    tls: Option<Arc<ServerConfig>>,
    server: Server<S::Receipt>,
    transactions: Transactions<S>,
    write_timeout: Duration,
    /// How long the client waits for the greeting: one that means well does.
    greet_delay: Duration,
    admission: Admission,
    /// When it is looked again whether there is still room for a client that hasn't introduced itself.
    silent_until: Option<Instant>,
}

impl<S: Sink> Session<S> {
    fn new(stream: TcpStream, admission: Admission, transactions: Transactions<S>) -> Self {
        let tls = transactions.tls();
        let settings = transactions.settings(tls.is_some());
        let server = &transactions.config().server;
        let red = transactions.kind() == ZoneKind::Red;
        Self {
            stream: Stream::Plain(stream),
            tls,
            server: Server::new(settings, now()),
            write_timeout: server.command_timeout,
            greet_delay: if red { server.greet_delay } else { Duration::ZERO },
            transactions,
            admission,
            silent_until: None,
        }
    }

    /// Says the last word, and what the session came to.
    async fn finish(self, end: io::Result<End>) {
        // The place is taken as long as the client is there.
        let Self { mut stream, server, mut transactions, admission: _place, .. } = self;
        transactions.abandon().await;
        transactions.ended(end.as_ref().map_or("lost", |end| end.word()), server.introduction().clone());
        if let Ok(End::Closed(CloseReason::TooManyErrors)) = end {
            transactions.abused(server.errors()).await;
        }
        // The log needn't wait for the client.
        drop(transactions);
        match end {
            Ok(End::Closed(_)) => linger(stream).await,
            Ok(End::MadeRoom) => {
                let said = timeout(LINGER, say(&mut stream, &LimitReached::Total.reply())).await;
                if let Ok(Ok(())) = said {
                    linger(stream).await;
                }
            }
            Ok(End::HungUp | End::NoZone) | Err(_) => {}
        }
    }

    /// From the greeting to the end.
    async fn converse<T>(&mut self, mut stopped: Pin<&mut impl Future<Output = T>>) -> io::Result<End> {
        let mut stopping = false;
        if let Some(plain) = self.stream.plain().filter(|_| !self.greet_delay.is_zero()) {
            let mut octet = [0];
            tokio::select! {
                // Octets, or the end of them.
                octets = plain.peek(&mut octet) => { octets?; }
                () = sleep(self.greet_delay) => {}
                _ = &mut stopped => {
                    stopping = true;
                    self.server.shut_down();
                }
            }
        }
        if self.client_spoke_already()? {
            self.server.handle_input(now(), &[]);
        }
        self.server.greet(now());
        self.silent_until = Some(now() + FIRST_COMMAND_TIME);
        // Deadlines mostly move away: the timer is set anew when it rings, or when one comes nearer.
        let mut timer = pin!(sleep_until(now().into()));
        loop {
            // What a session needs while it does something, one that waits for its client needn't hold.
            if let Some(reason) = Box::pin(self.perform()).await? {
                return Ok(End::Closed(reason));
            }
            self.notice_introduction();
            if let Some(deadline) = self.deadline()
                && deadline < timer.deadline().into_std()
            {
                timer.as_mut().reset(deadline.into());
            }
            tokio::select! {
                biased;
                // First: a client that never pauses must not keep us.
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    self.server.shut_down();
                }
                length = self.read() => if length? == 0 {
                    return Ok(End::HungUp);
                },
                () = &mut timer => {
                    let now = now();
                    if self.is_silent_too_long(now) {
                        return Ok(End::MadeRoom);
                    }
                    self.server.handle_timeout(now);
                    let deadline = self.deadline().unwrap_or(now);
                    timer.as_mut().reset(deadline.into());
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.server.poll_timeout().into_iter().chain(self.silent_until).min()
    }

    /// A client that has introduced itself keeps its place.
    fn notice_introduction(&mut self) {
        if self.silent_until.is_some() && self.server.introduction().greeting.name().is_some() {
            self.silent_until = None;
            self.admission.introduced();
        }
    }

    /// Whether the client has had its time for the first words, and others need the place.
    fn is_silent_too_long(&mut self, now: Instant) -> bool {
        if self.silent_until.is_none_or(|until| now < until) {
            return false;
        }
        self.silent_until = Some(now + FIRST_COMMAND_TIME);
        self.admission.is_scarce(&self.transactions.config().server)
    }

    /// Whether octets came before the greeting went.
    fn client_spoke_already(&self) -> io::Result<bool> {
        let Some(plain) = self.stream.plain() else { return Ok(false) };
        match SockRef::from(plain).peek(&mut [MaybeUninit::uninit()]) {
            Ok(length) => Ok(length > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for octets and gives them to the state machine; zero is the end of the stream.
    async fn read(&mut self) -> io::Result<usize> {
        let Self { stream, server, .. } = self;
        poll_fn(|context| {
            let mut space = [const { MaybeUninit::uninit() }; READ_OCTETS];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            if !read.filled().is_empty() {
                server.handle_input(now(), read.filled());
            }
            std::task::Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }

    /// Performs what there is to do.
    async fn perform(&mut self) -> io::Result<Option<CloseReason>> {
        let Self { stream, server, transactions, write_timeout, tls, .. } = self;
        while let Some(action) = server.poll_action() {
            match action {
                Action::Write(octets) => write(stream, octets, *write_timeout).await?,
                Action::Body(piece) => transactions.body(piece).await,
                Action::BeginBody => transactions.begin_body(),
                Action::Judge(Question::Mail(mail)) => {
                    if let Some(settings) = transactions.take_configuration_in_force(tls.is_some()) {
                        *write_timeout = settings.command_timeout;
                        server.set_settings(settings);
                    }
                    let (id, verdict) = transactions.mail(mail, server.introduction().clone()).await;
                    server.answer_mail(now(), id, verdict);
                }
                Action::Judge(Question::Rcpt(recipient)) => {
                    let mut judging = pin!(transactions.rcpt(recipient));
                    // What takes its time must not keep the replies to what came before.
                    let verdict = match poll_fn(|context| Poll::Ready(judging.as_mut().poll(context))).await {
                        Poll::Ready(verdict) => verdict,
                        Poll::Pending => {
                            write(stream, &server.take_replies(), *write_timeout).await?;
                            judging.await
                        }
                    };
                    server.answer_rcpt(now(), verdict);
                }
                Action::Judge(Question::Auth(credentials)) => {
                    let verdict = transactions.login(credentials).await;
                    server.answer_auth(now(), verdict);
                }
                Action::Judge(Question::AuthForAnother { user }) => {
                    server.refuse_auth(now(), transactions.login_for_another(&user));
                }
                Action::StartTls => {
                    transactions.abandon().await;
                    let Some(tls) = tls.clone() else { return Err(io::ErrorKind::Unsupported.into()) };
                    stream.accept(tls).await?;
                    server.tls_established(now());
                }
                Action::Judge(Question::Data) => {
                    let verdict = transactions.end_of_data().await;
                    server.answer_data(now(), verdict);
                }
                Action::RefuseBody(refusal) => transactions.refuse_body(refusal).await,
                Action::Abandon => transactions.abandon().await,
                Action::Close(reason) => return Ok(Some(reason)),
            }
        }
        Ok(None)
    }
}

async fn write(stream: &mut Stream, octets: &[u8], limit: Duration) -> io::Result<()> {
    timeout(limit, stream.write_whole(octets)).await?
}
