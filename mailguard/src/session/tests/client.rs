//! The client of these tests: plays transcripts.

use mailguard_core::testing::transcript::{End, Step, parse};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::*;

/// A connected one.
pub(super) struct Client {
    pub(super) stream: BufReader<TcpStream>,
    pub(super) session: tokio::task::JoinHandle<()>,
}

/// Plays the client of a transcript, and expects what its server says.
pub(super) async fn play<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, transcript: &str) {
    for step in parse(transcript) {
        match step {
            Step::Write { by: End::Client, octets, .. } => {
                stream.get_mut().write_all(&octets).await.unwrap();
                stream.get_mut().flush().await.unwrap();
            }
            Step::Write { by: End::Server, lines, .. } => {
                for line in lines {
                    let mut reply = String::new();
                    stream.read_line(&mut reply).await.unwrap();
                    assert_eq!(format!("S: {}", reply.trim_end()), line, "in\n{transcript}");
                }
            }
            other => panic!("no part of a client's: {other:?}"),
        }
    }
}

impl Client {
    /// Plays a transcript.
    pub(super) async fn play(&mut self, transcript: &str) {
        play(&mut self.stream, transcript).await;
    }

    pub(super) async fn greet(&mut self) {
        self.play(
            "S: 220 mailguard.test ESMTP
            C: EHLO client.test
            S: 250-mailguard.test greets client.test
            S: 250-PIPELINING
            S: 250-SIZE 1048576
            S: 250-8BITMIME
            S: 250-ENHANCEDSTATUSCODES
            S: 250-CHUNKING
            S: 250-DSN
            S: 250-SMTPUTF8
            S: 250 STARTTLS",
        )
        .await;
    }

    /// Gives an envelope, up to the server's 354.
    pub(super) async fn begin_data(&mut self) {
        self.play(
            "C: MAIL FROM:<a@client.test>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<b@here.test>
            S: 250 2.1.5 Recipient ok
            C: DATA
            S: 354 End data with <CR><LF>.<CR><LF>",
        )
        .await;
    }

    /// Gives envelope and text; `reply` answers the end of data.
    pub(super) async fn send(&mut self, text: &str, reply: &str) {
        self.begin_data().await;
        self.stream.get_mut().write_all(format!("{text}.\r\n").as_bytes()).await.unwrap();
        self.play(&format!("S: {reply}")).await;
    }

    pub(super) async fn quit(mut self) {
        self.play("C: QUIT\nS: 221 2.0.0 Bye").await;
        self.closed().await;
    }

    /// The server closes the connection, and its task ends.
    pub(super) async fn closed(mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest).await {
            Ok(_) => assert!(rest.is_empty(), "{}", rest.escape_ascii()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        drop(self.stream);
        self.session.await.unwrap();
    }
}
