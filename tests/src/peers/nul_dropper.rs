//! A far server that drops every NUL as it reads, as some do (RFC 5321 §4.5.2 has none in mail), and only
//! then looks for lines: to it CR LF NUL "." CR LF ends a message. Remembers every message that it saw so,
//! whoever sent it, and the octets as they came.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// Longest wait for a client's next octets.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The messages, each by its lines.
    pub messages: Vec<Vec<String>>,
    /// NULs among all octets.
    pub nuls: usize,
}

/// The server; its threads end with the process.
#[derive(Debug, Clone, Default)]
pub struct NulDropper(Arc<Mutex<Heard>>);

impl NulDropper {
    /// Serves the connections of `listener`.
    pub fn serve(listener: TcpListener) -> Self {
        let server = Self::default();
        let shared = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // It ends when its client goes.
                thread::spawn(move || drop(shared.converse(stream)));
            }
        });
        server
    }

    /// What came since the last call.
    pub fn take(&self) -> Heard {
        std::mem::take(&mut *self.lock())
    }

    /// How many messages came since then.
    pub fn count(&self) -> usize {
        self.lock().messages.len()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn converse(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"220 dropper.example.test ESMTP\r\n")?;
        let (mut unread, mut message) = (Vec::new(), None);
        let mut piece = [0; 4096];
        loop {
            let count = stream.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            let kept: Vec<u8> = piece[..count].iter().copied().filter(|octet| *octet != 0).collect();
            self.lock().nuls += count - kept.len();
            unread.extend(kept);
            while let Some(end) = unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = unread.drain(..end + 2).take(end).collect();
                let answer = self.take_line(&String::from_utf8_lossy(&line), &mut message);
                // Whoever has gone needs no answer, and what it said counts.
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    }

    /// The answer to a line, which may be none.
    fn take_line(&self, line: &str, message: &mut Option<Vec<String>>) -> &'static str {
        match message {
            Some(_) if line == "." => {
                self.lock().messages.extend(message.take());
                "250 2.0.0 taken\r\n"
            }
            Some(lines) => {
                lines.push(line.to_owned());
                ""
            }
            None if line.eq_ignore_ascii_case("DATA") => {
                *message = Some(Vec::new());
                "354 go on\r\n"
            }
            None => "250 dropper.example.test\r\n",
        }
    }
}
