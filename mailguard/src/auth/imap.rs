//! Drives `core::imap` over a connection: one login, bounded in time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mailguard_core::config::model::{ImapAuth, ImapTls, SmarthostAddress};
use mailguard_core::credentials::Credentials;
use mailguard_core::imap::{Action, Login, Transport, Verdict};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tls::{self, TrustError};

/// Longest time of one login, the connection included.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one of the server's addresses may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of one read.
const READ_OCTETS: usize = 4096;

/// What is wrong with the section.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// The trust anchors can't be used.
    #[error("imap_auth.ca_file: {0}")]
    Trust(#[from] TrustError),
    /// The server's name can't be one of a certificate.
    #[error("imap_auth.server: {0} can't be verified by TLS")]
    Name(String),
}

/// The IMAP server.
pub(super) struct Server {
    port: u16,
    tls: ImapTls,
    /// How it is verified; nothing where nothing is encrypted.
    verified: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connection, in the clear or encrypted.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// How a conversation ended.
enum Ended<C> {
    Done(Verdict),
    HandshakeDue(C),
}

impl<C> Ended<C> {
    /// Of a conversation that wants no handshake any more.
    fn verdict(self) -> Verdict {
        match self {
            Ended::Done(verdict) => verdict,
            Ended::HandshakeDue(_) => Verdict::Unavailable("the server wants STARTTLS twice".to_owned()),
        }
    }
}

impl Server {
    pub(super) fn new(config: &ImapAuth) -> Result<Self, ImapError> {
        let verified = match config.tls {
            ImapTls::Off => None,
            ImapTls::StartTls | ImapTls::Implicit => {
                let name = match &config.server {
                    SmarthostAddress::Ip(address) => ServerName::from(*address),
                    SmarthostAddress::Name(name) => ServerName::try_from(name.ascii().to_owned())
                        .map_err(|_| ImapError::Name(name.to_string()))?,
                };
                let client = tls::verifying(config.ca.as_deref())?;
                Some((TlsConnector::from(Arc::new(client)), name))
            }
        };
        Ok(Self { port: config.port, tls: config.tls, verified })
    }

    /// Asks the first of the server's addresses that answers.
    pub(super) async fn log_in(&self, addresses: &[IpAddr], credentials: Credentials) -> Verdict {
        let unavailable = |error: io::Error| Verdict::Unavailable(error.to_string());
        let whole = async {
            let stream = self.connect(addresses).await?;
            self.converse(stream, credentials).await
        };
        match timeout(LOGIN_TIMEOUT, whole).await {
            Ok(verdict) => verdict.unwrap_or_else(unavailable),
            Err(_) => Verdict::Unavailable("no answer in time".to_owned()),
        }
    }

    async fn connect(&self, addresses: &[IpAddr]) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for &address in addresses {
            let address = SocketAddr::new(address, self.port);
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} doesn't answer")),
            }
        }
        Err(last)
    }

    async fn converse(&self, plain: TcpStream, credentials: Credentials) -> io::Result<Verdict> {
        match self.tls {
            ImapTls::Off => {
                let mut login = Login::new(credentials, Transport::AsItIs);
                self.run(&mut login, plain).await.map(Ended::verdict)
            }
            ImapTls::Implicit => {
                let mut login = Login::new(credentials, Transport::AsItIs);
                let encrypted = self.encrypt(plain).await?;
                self.run(&mut login, encrypted).await.map(Ended::verdict)
            }
            ImapTls::StartTls => {
                let mut login = Login::new(credentials, Transport::StartTls);
                match self.run(&mut login, plain).await? {
                    Ended::HandshakeDue(plain) => {
                        let encrypted = self.encrypt(plain).await?;
                        login.tls_established();
                        self.run(&mut login, encrypted).await.map(Ended::verdict)
                    }
                    Ended::Done(verdict) => Ok(verdict),
                }
            }
        }
    }

    async fn encrypt(&self, plain: TcpStream) -> io::Result<impl Connection> {
        let Some((connector, name)) = &self.verified else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        connector.connect(name.clone(), plain).await
    }

    /// Talks to the end, or until a handshake is due.
    async fn run<C: Connection>(&self, login: &mut Login, mut connection: C) -> io::Result<Ended<C>> {
        let mut buffer = [0; READ_OCTETS];
        loop {
            while let Some(action) = login.poll_action() {
                match action {
                    Action::Send(octets) => {
                        connection.write_all(&octets).await?;
                        connection.flush().await?;
                    }
                    Action::StartTls => return Ok(Ended::HandshakeDue(connection)),
                    Action::Done(verdict) => {
                        if matches!(verdict, Verdict::Accepted | Verdict::Refused) {
                            // A farewell, for the server's log; nobody waits for the answer.
                            let _ = connection.write_all(b"z LOGOUT\r\n").await;
                        }
                        let _ = connection.shutdown().await;
                        return Ok(Ended::Done(verdict));
                    }
                }
            }
            match connection.read(&mut buffer).await? {
                0 => login.handle_end(),
                length => login.handle_input(&buffer[..length]),
            }
        }
    }
}
