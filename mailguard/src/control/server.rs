//! The daemon's end of the control socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{MAX_ANSWER_OCTETS, MAX_REQUEST_OCTETS};
use crate::admin::{self, Actor, AdminError, Administration, ErrorKind, Reply, Request};

/// Clients at a time; further ones wait in the kernel's queue.
const MAX_CLIENTS: usize = 16;
/// A client says its next request within this time.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// A client takes an answer within this time.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Pause when no connection can be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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

/// Opens the socket at `path`, for those whom `mode` lets write. One that a dead daemon left is replaced.
/// Within a tokio runtime only.
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
pub async fn serve<A: Administration>(
    listener: UnixListener,
    administration: Arc<A>,
) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return std::future::pending().await };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let administration = administration.clone();
                clients.spawn(async move {
                    if let Err(error) = converse(stream, &*administration).await {
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

/// Who is at the other end, as the kernel says.
fn peer(stream: &UnixStream) -> io::Result<Actor> {
    let credentials = stream.peer_cred()?;
    Ok(Actor::Local { uid: credentials.uid(), pid: credentials.pid().unwrap_or_default() })
}

/// Answers one client's requests until it closes.
async fn converse(mut stream: UnixStream, administration: &impl Administration) -> io::Result<()> {
    let actor = peer(&stream)?;
    if !administration.admits(&actor) {
        admin::not_admitted(&actor, administration.revision()).await;
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
        let reply = if whole { answer(&line, &actor, administration).await } else { too_long() };
        timeout(ANSWER_TIME, stream.write_all(&encode(reply)?)).await??;
        if !whole {
            // Where the next request begins is unknown.
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], actor: &Actor, administration: &impl Administration) -> Reply {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            return Reply::Error(AdminError::new(ErrorKind::Invalid, format!("not a request: {error}")));
        }
    };
    match admin::handle(administration, actor, request).await {
        Ok(answer) => Reply::Ok(answer.into()),
        Err(error) => Reply::Error(error),
    }
}

fn not_admitted() -> Reply {
    let message = "only root may ask here: run this as root".to_owned();
    Reply::Error(AdminError::new(ErrorKind::Refused, message))
}

fn too_long() -> Reply {
    let message = format!("not a request: a line holds at most {MAX_REQUEST_OCTETS} octets");
    Reply::Error(AdminError::new(ErrorKind::Invalid, message))
}

fn encode(reply: Reply) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&reply)?;
    if line.len() >= MAX_ANSWER_OCTETS {
        let message = format!("the answer is longer than {MAX_ANSWER_OCTETS} octets: ask for less");
        line = serde_json::to_vec(&Reply::Error(AdminError::new(ErrorKind::Failed, message)))?;
    }
    line.push(b'\n');
    Ok(line)
}
