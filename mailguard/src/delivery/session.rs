//! Drives `core::smtp::client` over a TCP connection: one session with one server, for any number of
//! messages.
//!
//! The state machine decides what to do and how long the server may take; here are the connection, the
//! handshake, the reads, the writes and the clock. While it writes it also reads: a server that answers or
//! refuses early is heard, and two full buffers never wait for each other.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mailguard_core::config::model::{OutgoingAddress, Tls};
use mailguard_core::mail::{AddressLiteral, Domain, Host};
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::route::Route;
use mailguard_core::smtp::client::{Action, Client, Conclusion, Encryption, Settings, Transaction};
use mailguard_core::smtp::{Detail, EnhancedStatus};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::content::Pieces;
use crate::routing::{self, Destination};
use crate::spool::Body;
use crate::tls::{Stream, Trusts};

/// How long a connection may take to come about. RFC 5321 names no time; beyond this the next address is due.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long we listen for a server's last words after a write failed.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Octets of one read: the replies to a whole pipelined envelope.
const READ_OCTETS: usize = 4096;

/// How we present ourselves.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The name of EHLO; none: the literal of the connection's own address.
    pub helo: Option<Domain>,
    /// Names by which a server would be ourselves.
    pub own_names: Vec<Domain>,
}

/// A session that stands.
#[derive(Debug)]
pub(super) struct Session {
    stream: Stream,
    client: Client,
    opened: Instant,
    address: SocketAddr,
}

/// Whether a session may have come to its end unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionAge {
    /// It was opened for what it is used for.
    New,
    /// It waited for its next use: its server may have had enough of that.
    Waited,
}

/// What `Session::run` comes back with.
enum Event {
    Ready,
    Unusable(Outcome),
    Concluded(Conclusion),
    Closed,
    HandshakeDue,
}

impl Session {
    /// Connects and greets, encrypts and logs in as the route says. The outcome of a failure holds for every
    /// recipient, as far as this server goes.
    pub(super) async fn open(
        destination: &Destination,
        route: &Route,
        identity: &Identity,
        trusts: &Trusts,
    ) -> Result<Self, Outcome> {
        let encryption = match route.tls {
            Tls::Off => Encryption::Off,
            Tls::Opportunistic => Encryption::Offered,
            Tls::Required => Encryption::Required,
            Tls::Implicit => Encryption::Established,
        };
        let opening = Opening { destination, route, identity, trusts };
        match opening.open(encryption).await {
            Ok(session) => Ok(session),
            Err(Failure::Other(outcome)) => Err(outcome),
            // Who can't encrypt is written to in the clear, where that is allowed at all (RFC 7435 §3).
            Err(Failure::Handshake(failed)) if encryption == Encryption::Offered => {
                let cause = failed.into_report().text;
                tracing::info!(%destination, cause, "the server can't encrypt: tried in the clear");
                opening.open(Encryption::Failed).await.map_err(|failure| {
                    let mut outcome = failure.into_outcome();
                    let report = outcome.report_mut();
                    report.text = format!("{} (after: {cause})", report.text);
                    outcome
                })
            }
            Err(Failure::Handshake(outcome)) => Err(outcome),
        }
    }

    /// When the session was opened.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// The server's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the server takes 8-bit content (RFC 6152).
    pub(super) fn takes_eight_bit(&self) -> bool {
        self.client.capabilities().eight_bit_mime
    }

    /// Whether the server takes header fields in UTF-8 (RFC 6531).
    pub(super) fn takes_utf8(&self) -> bool {
        self.client.capabilities().smtputf8
    }

    /// Whether the next message can be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.client.is_ready()
    }

    /// Whether the server has closed the session, or said something unasked, while nobody read.
    pub(super) fn is_stale(&mut self) -> bool {
        let mut octet = [0];
        let mut buffer = ReadBuf::new(&mut octet);
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer).is_ready()
    }

    /// Hands over one message, or asks about its recipients.
    pub(super) async fn send(&mut self, transaction: &Transaction<'_>, body: Option<&Body>) -> Conclusion {
        self.client.begin(self.now(), transaction);
        loop {
            match self.run(body).await {
                Event::Concluded(conclusion) => return conclusion,
                Event::Ready => {}
                // The state machine concludes before it closes; begin on a closed one concludes.
                Event::Unusable(_) | Event::Closed | Event::HandshakeDue => {
                    self.client.begin(self.now(), transaction)
                }
            }
        }
    }

    /// Takes leave, waiting shortly for the answer.
    pub(super) async fn quit(mut self) {
        self.client.quit(self.now());
        while !matches!(self.run(None).await, Event::Closed) {}
    }

    /// Performs actions and reads until something is to be decided.
    async fn run(&mut self, body: Option<&Body>) -> Event {
        loop {
            match (self.client.poll_action(), body) {
                (Some(Action::Send(octets)), _) => self.write([&octets, &[]]).await,
                (Some(Action::SendContent), Some(body)) => self.write_content(body).await,
                (Some(Action::SendContent), None) => self.client.handle_lost("there is no content to send"),
                (Some(Action::StartTls), _) => return Event::HandshakeDue,
                (Some(Action::Ready), _) => return Event::Ready,
                (Some(Action::Unusable(outcome)), _) => return Event::Unusable(outcome),
                (Some(Action::Concluded(conclusion)), _) => return Event::Concluded(conclusion),
                (Some(Action::Close), _) => return Event::Closed,
                (None, _) if self.client.is_closed() => return Event::Closed,
                (None, _) => self.read().await,
            }
        }
    }

    /// QUIT, as far as it goes without waiting.
    pub(super) fn say_goodbye(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let stream = Pin::new(&mut self.stream);
        if matches!(stream.poll_write(&mut context, b"QUIT\r\n"), Poll::Ready(Ok(_))) {
            let _ = Pin::new(&mut self.stream).poll_flush(&mut context);
        }
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    /// Waits for `operation` as long as the state machine allows; nothing when the time is up.
    async fn in_time<T>(client: &Client, operation: impl Future<Output = T>) -> Option<T> {
        match client.poll_timeout() {
            Some(deadline) => timeout_at(Instant::from_std(deadline), operation).await.ok(),
            None => Some(operation.await),
        }
    }

    async fn read(&mut self) {
        let mut buffer = [0; READ_OCTETS];
        match Self::in_time(&self.client, self.stream.read(&mut buffer)).await {
            None => self.client.handle_timeout(self.now()),
            Some(result) => self.handle_read(result, &buffer),
        }
    }

    fn handle_read(&mut self, result: io::Result<usize>, buffer: &[u8]) {
        match result {
            Ok(0) => self.client.handle_lost("the server closed the connection"),
            Ok(octets) => self.client.handle_input(self.now(), &buffer[..octets]),
            Err(error) => self.client.handle_lost(&error.to_string()),
        }
    }

    async fn write_content(&mut self, body: &Body) {
        let mut pieces = match Pieces::of(body).await {
            Ok(pieces) => pieces,
            Err(error) => return self.client.handle_lost(&unreadable(&error)),
        };
        loop {
            match pieces.next().await {
                Ok(Some(piece)) => self.write([piece, &[]]).await,
                Ok(None) => break,
                Err(error) => return self.client.handle_lost(&unreadable(&error)),
            }
            if self.client.is_closed() {
                return;
            }
        }
        let end = pieces.end();
        self.write(end).await;
        self.client.content_sent(self.now());
    }

    /// Writes both slices, with one call where the kernel takes them, listening meanwhile. Ends early when
    /// the session does.
    async fn write(&mut self, slices: [&[u8]; 2]) {
        let mut written = 0;
        let total = slices[0].len() + slices[1].len();
        let mut buffer = [0; READ_OCTETS];
        loop {
            if self.client.is_closed() {
                return;
            }
            let first = written.min(slices[0].len());
            let rest = [IoSlice::new(&slices[0][first..]), IoSlice::new(&slices[1][written - first..])];
            let stream = &mut self.stream;
            let step = poll_fn(|context| write_or_read(stream, context, &rest, written < total, &mut buffer));
            match Self::in_time(&self.client, step).await {
                None => self.client.handle_timeout(self.now()),
                Some(Step::Written(Ok(octets))) => {
                    written += octets;
                    self.client.content_progress(self.now());
                }
                Some(Step::Flushed(Ok(()))) => return,
                Some(Step::Read(result)) => self.handle_read(result, &buffer),
                Some(Step::Written(Err(error)) | Step::Flushed(Err(error))) => self.last_words(&error).await,
            }
        }
    }

    /// A write failed because the server has gone. It may have said why before.
    async fn last_words(&mut self, error: &io::Error) {
        let listen = async {
            while !self.client.is_closed() {
                self.read().await;
            }
        };
        let _ = timeout(LAST_WORDS_TIMEOUT, listen).await;
        self.client.handle_lost(&error.to_string());
    }
}

/// What happened first.
enum Step {
    Written(io::Result<usize>),
    Flushed(io::Result<()>),
    Read(io::Result<usize>),
}

/// Writes `rest`, or hands on what was written; while the connection takes nothing, reads.
fn write_or_read(
    stream: &mut Stream,
    context: &mut Context<'_>,
    rest: &[IoSlice<'_>],
    more: bool,
    buffer: &mut [u8],
) -> Poll<Step> {
    if more {
        match Pin::new(&mut *stream).poll_write_vectored(context, rest) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Step::Written(Err(io::ErrorKind::WriteZero.into()))),
            Poll::Ready(written) => return Poll::Ready(Step::Written(written)),
            Poll::Pending => {}
        }
    } else if let Poll::Ready(flushed) = Pin::new(&mut *stream).poll_flush(context) {
        return Poll::Ready(Step::Flushed(flushed));
    }
    let mut read = ReadBuf::new(buffer);
    Pin::new(stream)
        .poll_read(context, &mut read)
        .map(|result| Step::Read(result.map(|()| read.filled().len())))
}

/// Why a session didn't come about.
enum Failure {
    /// The TLS handshake failed.
    Handshake(Outcome),
    /// Something else.
    Other(Outcome),
}

impl Failure {
    fn into_outcome(self) -> Outcome {
        match self {
            Failure::Handshake(outcome) | Failure::Other(outcome) => outcome,
        }
    }
}

/// A session that is to come about.
struct Opening<'a> {
    destination: &'a Destination,
    route: &'a Route,
    identity: &'a Identity,
    trusts: &'a Trusts,
}

impl Opening<'_> {
    async fn open(&self, encryption: Encryption) -> Result<Session, Failure> {
        let remote = self.destination.to_string();
        let connecting = connect(self.destination.address, self.route.outgoing.as_ref());
        let connected =
            timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        let plain = connected.map_err(|error| Failure::Other(unreachable(&remote, &error)))?;
        let local = plain.local_addr().map_err(|error| Failure::Other(unreachable(&remote, &error)))?;
        let opened = Instant::now();
        let client = Client::new(self.settings(encryption, local, &remote), opened.into_std());
        let stream = Stream::Plain(plain);
        let mut session = Session { stream, client, opened, address: self.destination.address };
        if encryption == Encryption::Established {
            self.encrypt(&mut session).await?;
        }
        loop {
            match session.run(None).await {
                Event::Ready => return Ok(session),
                Event::Unusable(outcome) => {
                    session.say_goodbye();
                    return Err(Failure::Other(outcome));
                }
                Event::HandshakeDue => self.encrypt(&mut session).await?,
                Event::Concluded(_) | Event::Closed => {
                    let text = "the session ended";
                    let report =
                        Report::about(EnhancedStatus::transient(Detail::BAD_CONNECTION), remote, text);
                    return Err(Failure::Other(Outcome::Deferred(report)));
                }
            }
        }
    }

    fn settings(&self, encryption: Encryption, local: SocketAddr, remote: &str) -> Settings {
        let literal = Host::Literal(AddressLiteral(local.ip()));
        let Destination { name, address } = self.destination;
        Settings {
            helo: self.identity.helo.clone().map_or(literal, Host::Domain),
            own_names: self.identity.own_names.clone(),
            remote: remote.to_owned(),
            destination: routing::destination_name(&self.route.next_hop),
            encryption,
            login: self.route.smarthost.as_ref().and_then(|smarthost| smarthost.login.clone()),
            host: name.as_ref().map_or(address.ip().to_string(), |name| name.ascii().to_owned()),
            cnonce: cnonce(),
        }
    }

    async fn encrypt(&self, session: &mut Session) -> Result<(), Failure> {
        match self.handshake(session).await {
            Ok(()) => Ok(()),
            Err(cause) => {
                session.client.tls_failed(&cause);
                match session.run(None).await {
                    Event::Unusable(outcome) => Err(Failure::Handshake(outcome)),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The error is a cause for people.
    async fn handshake(&self, session: &mut Session) -> Result<(), String> {
        let verified = matches!(self.route.tls, Tls::Required | Tls::Implicit);
        let config = if verified {
            let added = self.route.smarthost.as_ref().and_then(|smarthost| smarthost.ca.as_deref());
            self.trusts.verifying(added)
        } else {
            self.trusts.anybody()
        };
        let config = config.map_err(|error| error.to_string())?;
        let name = match &self.destination.name {
            Some(name) => ServerName::try_from(name.ascii().to_owned()).map_err(|error| error.to_string())?,
            None => ServerName::from(self.destination.address.ip()),
        };
        let used = session.stream.connect(config, name, verified).await.map_err(|error| error.to_string())?;
        session.client.tls_established(session.now(), used);
        Ok(())
    }
}

/// Not to be guessed: the standard library seeds its hashers from the system's randomness.
fn cnonce() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = || std::hash::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

async fn connect(address: SocketAddr, outgoing: Option<&OutgoingAddress>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let from = |error: io::Error, outgoing: &OutgoingAddress| {
        io::Error::new(error.kind(), format!("from {outgoing}: {error}"))
    };
    match outgoing {
        None => {}
        Some(outgoing @ OutgoingAddress::Address(ip)) => {
            socket.bind(SocketAddr::new(*ip, 0)).map_err(|error| from(error, outgoing))?;
        }
        Some(outgoing @ OutgoingAddress::Interface(name)) => {
            socket.bind_device(Some(name.as_bytes())).map_err(|error| from(error, outgoing))?;
        }
    }
    let stream = socket.connect(address).await?;
    // Each write is a whole turn of the conversation; nothing is gained by waiting for more.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn unreachable(remote: &str, error: &io::Error) -> Outcome {
    let text = format!("can't connect to {remote}: {error}");
    Outcome::Deferred(Report::about(EnhancedStatus::transient(Detail::NO_ANSWER_FROM_HOST), remote, text))
}

fn unreadable(error: &io::Error) -> String {
    format!("the message can't be read from the spool: {error}")
}
