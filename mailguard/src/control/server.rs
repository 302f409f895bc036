//! The daemon's end of the control socket.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::audit::{self, Audited, Who};
use super::protocol::{Answer, ControlError, ErrorKind, Reply, Request};
use super::{MAX_ANSWER_OCTETS, MAX_REQUEST_OCTETS};

/// Clients at a time; further ones wait in the kernel's queue.
const MAX_CLIENTS: usize = 16;
/// A client says its next request within this time.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// A client takes an answer within this time.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// A request is done within this time.
const HANDLING_TIME: Duration = Duration::from_secs(60);
/// Pause when no connection can be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Does what requests ask for.
pub trait Handler: Send + Sync + 'static {
    /// Whether the user of this number may ask, whatever the socket's mode says.
    fn admits(&self, _user: u32) -> bool {
        true
    }

    /// The configuration in force: the first one since the daemon's start is 1.
    fn revision(&self) -> u64;

    /// Does it. An error is told to the client as it stands.
    fn handle(&self, request: Request) -> impl Future<Output = Result<Answer, ControlError>> + Send;
}

/// Why the socket can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("another mailguard is running: it answers on {}", .0.display())]
    InUse(PathBuf),
    /// Something else than a socket has the name.
    #[error("{} is not a socket: remove it", .0.display())]
    NotASocket(PathBuf),
    /// The system says no.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Opens the socket at `path`, for those whom `mode` lets write. One that a dead daemon left is replaced. Within a tokio
/// runtime only.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    let failed = |cause| BindError::Io { path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) if StdStream::connect(path).is_ok() => return Err(BindError::InUse(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Nobody reaches the socket under its name before it has its mode. The name is short: a socket's path is
    // limited to 107 octets.
    let fresh = path.with_file_name(".control");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)?;
    Ok(listener)
}

/// Serves until the future is dropped; requests under way are dropped with it.
pub async fn serve<H: Handler>(listener: UnixListener, handler: Arc<H>) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return std::future::pending().await };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let handler = handler.clone();
                clients.spawn(async move {
                    if let Err(error) = converse(stream, &*handler).await {
                        tracing::debug!(%error, "a control client went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a control client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one client's requests until it closes.
async fn converse(mut stream: UnixStream, handler: &impl Handler) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    if !handler.admits(credentials.uid()) {
        audit::not_admitted(&Who::of(credentials).await, handler.revision());
        return timeout(ANSWER_TIME, stream.write_all(&encode(not_admitted())?)).await?;
    }
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut stream).take(MAX_REQUEST_OCTETS as u64 + 1);
        if timeout(REQUEST_TIME, bounded.read_until(b'\n', &mut line)).await?? == 0 {
            return Ok(());
        }
        let whole = line.len() <= MAX_REQUEST_OCTETS;
        let reply = if whole { answer(&line, credentials, handler).await } else { too_long() };
        timeout(ANSWER_TIME, stream.write_all(&encode(reply)?)).await??;
        if !whole {
            // Where the next request begins is unknown.
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], who: UCred, handler: &impl Handler) -> Reply {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            return Reply::Error(ControlError::new(ErrorKind::Invalid, format!("not a request: {error}")));
        }
    };
    let audited = Audited::begin(who, &request).await;
    let result = timeout(HANDLING_TIME, handler.handle(request)).await.unwrap_or_else(|_| {
        let message = format!("not done within {} seconds", HANDLING_TIME.as_secs());
        Err(ControlError::new(ErrorKind::Failed, message))
    });
    if let Some(audited) = audited {
        audited.ended(result.as_ref(), handler.revision());
    }
    match result {
        Ok(answer) => Reply::Ok(answer),
        Err(error) => Reply::Error(error),
    }
}

fn not_admitted() -> Reply {
    let message = "only root may ask here: run this as root".to_owned();
    Reply::Error(ControlError::new(ErrorKind::Refused, message))
}

fn too_long() -> Reply {
    let message = format!("not a request: a line holds at most {MAX_REQUEST_OCTETS} octets");
    Reply::Error(ControlError::new(ErrorKind::Invalid, message))
}

fn encode(reply: Reply) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&reply)?;
    if line.len() >= MAX_ANSWER_OCTETS {
        let message = format!("the answer is longer than {MAX_ANSWER_OCTETS} octets: ask for less");
        line = serde_json::to_vec(&Reply::Error(ControlError::new(ErrorKind::Failed, message)))?;
    }
    line.push(b'\n');
    Ok(line)
}
