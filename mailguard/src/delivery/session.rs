//! Drives `core::smtp::client` over a TCP connection: one session with one server, for any number of messages.
//!
//! The state machine decides what to do and how long the server may take; here are the reads, the writes and
//! the clock. While it writes it also reads: a server that answers or refuses early is heard, and two full
//! buffers never wait for each other.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use mailguard_core::mail::{AddressLiteral, Domain, Host};
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::smtp::EnhancedStatus;
use mailguard_core::smtp::client::{Action, Client, Conclusion, Settings, Transaction};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::content::Pieces;
use crate::routing::Destination;
use crate::spool::Body;

/// How long a connection may take to come about. RFC 5321 names no time; beyond this the next address is due.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long we listen for a server's last words after a write failed.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Octets of one read: the replies to a whole pipelined envelope.
const READ_OCTETS: usize = 4096;

/// How we present ourselves, and to what end.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The name of EHLO; none: the literal of the connection's own address.
    pub helo: Option<Domain>,
    /// Names by which a server would be ourselves.
    pub own_names: Vec<Domain>,
    /// The next hop, for reports of loops.
    pub destination: String,
}

/// A session that stands.
#[derive(Debug)]
pub(super) struct Session {
    stream: TcpStream,
    client: Client,
    opened: Instant,
    address: SocketAddr,
}

/// What `Session::run` comes back with.
enum Event {
    Ready,
    Unusable(Outcome),
    Concluded(Conclusion),
    Closed,
}

impl Session {
    /// Connects and greets. The outcome of a failure holds for every recipient, as far as this server goes.
    pub(super) async fn open(destination: &Destination, identity: &Identity) -> Result<Self, Outcome> {
        let remote = destination.to_string();
        let stream = match timeout(CONNECT_TIMEOUT, connect(destination)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(remote, &error)),
            Err(_) => return Err(unreachable(remote, &io::ErrorKind::TimedOut.into())),
        };
        let helo = match (&identity.helo, stream.local_addr()) {
            (Some(name), _) => Host::Domain(name.clone()),
            (None, Ok(local)) => Host::Literal(AddressLiteral(local.ip())),
            (None, Err(error)) => return Err(unreachable(remote, &error)),
        };
        let settings = Settings {
            helo,
            own_names: identity.own_names.clone(),
            remote: remote.clone(),
            destination: identity.destination.clone(),
        };
        let opened = Instant::now();
        let client = Client::new(settings, opened.into_std());
        let mut session = Self { stream, client, opened, address: destination.address };
        match session.run(None).await {
            Event::Ready => Ok(session),
            Event::Unusable(outcome) => {
                session.say_goodbye();
                Err(outcome)
            }
            Event::Concluded(_) | Event::Closed => {
                Err(deferred(EnhancedStatus::new(4, 4, 2), remote, "the session ended".to_owned()))
            }
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
        let unread = self.stream.try_read(&mut [0]);
        !matches!(unread, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Hands over one message, or asks about its recipients.
    pub(super) async fn send(&mut self, transaction: &Transaction<'_>, body: Option<&Body>) -> Conclusion {
        self.client.begin(self.now(), transaction);
        loop {
            match self.run(body).await {
                Event::Concluded(conclusion) => return conclusion,
                Event::Ready => {}
                // The state machine concludes before it closes; begin on a closed one concludes.
                Event::Unusable(_) | Event::Closed => self.client.begin(self.now(), transaction),
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
        let _ = self.stream.try_write(b"QUIT\r\n");
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

    /// Takes what is there without waiting.
    fn take_input(&mut self) {
        let mut buffer = [0; READ_OCTETS];
        let result = self.stream.try_read(&mut buffer);
        self.handle_read(result, &buffer);
    }

    fn handle_read(&mut self, result: io::Result<usize>, buffer: &[u8]) {
        match result {
            Ok(0) => self.client.handle_lost("the server closed the connection"),
            Ok(octets) => self.client.handle_input(self.now(), &buffer[..octets]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
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

    /// Writes both slices, with one call where the kernel takes them. Ends early when the session does.
    async fn write(&mut self, slices: [&[u8]; 2]) {
        let mut written = 0;
        let total = slices[0].len() + slices[1].len();
        while written < total && !self.client.is_closed() {
            let first = written.min(slices[0].len());
            let rest = [IoSlice::new(&slices[0][first..]), IoSlice::new(&slices[1][written - first..])];
            match self.stream.try_write_vectored(&rest) {
                Ok(octets) => {
                    written += octets;
                    self.client.content_progress(self.now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_to_write().await,
                Err(error) => self.last_words(&error).await,
            }
        }
    }

    /// Waits until the connection takes more, listening meanwhile.
    async fn wait_to_write(&mut self) {
        let ready = self.stream.ready(Interest::READABLE | Interest::WRITABLE);
        match Self::in_time(&self.client, ready).await {
            None => self.client.handle_timeout(self.now()),
            Some(Ok(ready)) if ready.is_readable() => self.take_input(),
            Some(Ok(_)) => {}
            Some(Err(error)) => self.client.handle_lost(&error.to_string()),
        }
    }

    /// A write failed because the server has gone. It may have said why before.
    async fn last_words(&mut self, error: &io::Error) {
        let listen = async {
            while !self.client.is_closed() && self.stream.readable().await.is_ok() {
                self.take_input();
            }
        };
        let _ = timeout(LAST_WORDS_TIMEOUT, listen).await;
        self.client.handle_lost(&error.to_string());
    }
}

async fn connect(destination: &Destination) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(destination.address).await?;
    // Each write is a whole turn of the conversation; nothing is gained by waiting for more.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn unreachable(remote: String, error: &io::Error) -> Outcome {
    let text = format!("can't connect to {remote}: {error}");
    deferred(EnhancedStatus::new(4, 4, 1), remote, text)
}

fn deferred(status: EnhancedStatus, remote: String, text: String) -> Outcome {
    Outcome::Deferred(Report { status, remote, reply: None, text })
}

fn unreadable(error: &io::Error) -> String {
    format!("the message can't be read from the spool: {error}")
}
