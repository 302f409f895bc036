//! A connection, in the clear or encrypted, whichever side began it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mailguard_core::outcome::TlsUsed;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How long the other side may take over the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// The connection.
#[derive(Debug)]
pub enum Stream {
    /// In the clear.
    Plain(TcpStream),
    /// Encrypted; it is large, and most sessions have none.
    Encrypted(Box<TlsStream<TcpStream>>),
    /// A handshake failed.
    Gone,
}

impl Stream {
    /// Does the handshake as the server. After an error the connection is gone.
    pub async fn accept(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let handshake = TlsAcceptor::from(config).accept(self.take()?);
        *self = Stream::Encrypted(Box::new(timeout(HANDSHAKE_TIMEOUT, handshake).await??.into()));
        Ok(())
    }

    /// Does the handshake as the client of the server `name`; `verified` says what success means. After an
    /// error the connection is gone.
    pub async fn connect(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        verified: bool,
    ) -> io::Result<TlsUsed> {
        let handshake = TlsConnector::from(config).connect(name, self.take()?);
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        let (_, session) = stream.get_ref();
        // "TLSv1_3", as the constants are called.
        let version = session.protocol_version().map(|version| format!("{version:?}").replace('_', "."));
        let cipher = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        let used =
            TlsUsed { version: version.unwrap_or_default(), cipher: cipher.unwrap_or_default(), verified };
        *self = Stream::Encrypted(Box::new(stream.into()));
        Ok(used)
    }

    fn take(&mut self) -> io::Result<TcpStream> {
        match std::mem::replace(self, Stream::Gone) {
            Stream::Plain(plain) => Ok(plain),
            Stream::Encrypted(_) | Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes all of it, as far as the kernel.
    pub async fn write_whole(&mut self, octets: &[u8]) -> io::Result<()> {
        self.write_all(octets).await?;
        self.flush().await
    }

    /// The connection while nothing is encrypted.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Stream::Plain(stream) => Some(stream),
            Stream::Encrypted(_) | Stream::Gone => None,
        }
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Gone => gone(),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, octets),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write(context, octets),
            Stream::Gone => gone(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Gone => gone(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Encrypted(stream) => Pin::new(stream).poll_flush(context),
            Stream::Gone => gone(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Gone => gone(),
        }
    }
}
