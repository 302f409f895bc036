//! How long a server takes to answer the end of a message: plain clients in threads, each with a session of
//! its own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;

/// Longest wait for one reply.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends `messages` of `octets` over each of `sessions` sessions, one after the other, and times each answer
/// to the final dot.
pub fn measure(
    place: &Namespace,
    server: SocketAddr,
    sessions: usize,
    messages: usize,
    octets: usize,
) -> Result<Vec<Duration>> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..sessions)
            .map(|_| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    place.enter()?;
                    session(server, messages, octets)
                })
            })
            .collect();
        let mut times = Vec::new();
        for client in clients {
            let done = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
            times.extend(done?);
        }
        Ok(times)
    })
}

/// The time that `percent` of them don't exceed.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((times.len() * percent / 100).min(last)).copied().unwrap_or_default()
}

fn session(server: SocketAddr, messages: usize, octets: usize) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut replies = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut times = Vec::with_capacity(messages);
    expect(&mut replies, "220")?;
    let mut command = |line: &str, code: &str, replies: &mut BufReader<TcpStream>| -> Result<()> {
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        expect(replies, code)
    };
    command("EHLO client.example.test", "250", &mut replies)?;
    let line = format!("{}\r\n", "x".repeat(70));
    let text = format!("Subject: timed\r\n\r\n{}", line.repeat(octets.div_ceil(line.len())));
    for _ in 0..messages {
        command("MAIL FROM:<bench@client.example.test>", "250", &mut replies)?;
        command("RCPT TO:<bench@server.example.test>", "250", &mut replies)?;
        command("DATA", "354", &mut replies)?;
        // All but the dot; then the clock starts.
        let mut content = stream_of(&replies)?;
        content.write_all(text.as_bytes())?;
        let start = Instant::now();
        command(".", "250", &mut replies)?;
        times.push(start.elapsed());
    }
    command("QUIT", "221", &mut replies)?;
    Ok(times)
}

fn stream_of(replies: &BufReader<TcpStream>) -> Result<TcpStream> {
    Ok(replies.get_ref().try_clone()?)
}

fn expect(replies: &mut impl BufRead, code: &str) -> Result<()> {
    loop {
        let mut line = String::new();
        ensure!(replies.read_line(&mut line).context("no reply")? > 0, "the connection ended");
        ensure!(line.starts_with(code), "{code} expected: {line}");
        if line.as_bytes().get(3) == Some(&b' ') {
            return Ok(());
        }
    }
}
