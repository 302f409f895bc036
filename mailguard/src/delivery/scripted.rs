//! Servers for tests, on loopback, that say what a script tells them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use mailguard_core::testing::transcript::{End, Step, parse};
use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::tls::Stream;

/// A server that plays one script a connection, in turn, and remembers what it got.
pub(crate) struct ScriptedServer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    scripts: Arc<Mutex<VecDeque<String>>>,
}

impl ScriptedServer {
    /// Listens on `address`, and plays a transcript for each connection in turn: what the client says in it
    /// is expected, `! data` expects content up to its final dot, `! drain` reads to the end, `! close`
    /// closes at once. A script's end waits for the client to close. A connection without a script is closed.
    pub(crate) async fn start(address: &str, scripts: &[&str]) -> Self {
        Self::start_with(address, scripts, None).await
    }

    /// As [`ScriptedServer::start`]; `! tls` does a handshake by this configuration, and closes where there
    /// is none.
    pub(crate) async fn start_with(address: &str, scripts: &[&str], tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let scripts: VecDeque<String> = scripts.iter().map(|script| (*script).to_owned()).collect();
        let scripts = Arc::new(Mutex::new(scripts));
        let server = Self { address, seen: seen.clone(), scripts: scripts.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = scripts.lock().unwrap().pop_front();
                if let Some(script) = script {
                    tokio::spawn(play(Stream::Plain(stream), script, seen.clone(), tls.clone()));
                }
            }
        });
        server
    }

    /// The contents received, dots and all, without the final one; complaints about what wasn't in the
    /// script.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections that are still to come.
    pub(crate) fn scripts_left(&self) -> usize {
        self.scripts.lock().unwrap().len()
    }
}

async fn play(stream: Stream, script: String, seen: Arc<Mutex<Vec<String>>>, tls: Option<Arc<ServerConfig>>) {
    let note = |text: String| seen.lock().unwrap().push(text);
    let mut stream = BufReader::new(stream);
    for step in parse(&script) {
        match step {
            Step::Write { by: End::Server, octets, .. } => {
                stream.write_all(&octets).await.unwrap();
                stream.flush().await.unwrap();
            }
            Step::Write { by: End::Client, octets, .. } => {
                for expect in octets.split_inclusive(|&octet| octet == b'\n') {
                    let mut got = Vec::new();
                    stream.read_until(b'\n', &mut got).await.unwrap();
                    if got != expect {
                        return note(format!(
                            "expected {}, got {}",
                            expect.escape_ascii(),
                            got.escape_ascii()
                        ));
                    }
                }
            }
            Step::Told("data") => {
                let mut content = Vec::new();
                while !content.ends_with(b"\r\n.\r\n") {
                    if stream.read_until(b'\n', &mut content).await.unwrap() == 0 {
                        return note("content without an end".to_owned());
                    }
                }
                content.truncate(content.len() - b".\r\n".len());
                note(String::from_utf8(content).unwrap());
            }
            Step::Told("drain") => {
                stream.read_to_end(&mut Vec::new()).await.unwrap_or_default();
            }
            Step::Told("tls") => {
                let (mut inner, Some(tls)) = (stream.into_inner(), tls.clone()) else { return };
                if let Err(error) = inner.accept(tls).await {
                    return note(format!("no handshake: {error}"));
                }
                stream = BufReader::new(inner);
            }
            Step::Part => {}
            Step::Told("close") => return,
            other => panic!("no part of a server's: {other:?}"),
        }
    }
    stream.read_to_end(&mut Vec::new()).await.unwrap_or_default();
}
