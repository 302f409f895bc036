//! Content in chunks (RFC 3030).

use super::*;

/// Goes on after the greeting: chunks may follow.
const IN_TRANSACTION: &str = "C: MAIL FROM:<a@client.test>
    S: 250 2.1.0 Sender ok
    C: RCPT TO:<b@here.test>
    S: 250 2.1.5 Recipient ok";

#[tokio::test]
async fn chunks_become_the_message_that_data_would_have_been() {
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play(IN_TRANSACTION).await;
    // The header ends within a chunk, a line of the body in another one.
    for chunk in ["Subject: x\r\nMessage-ID: y\r\nDate: z\r", "\n\r\n.dot\r\nli"] {
        let octets = format!("BDAT {}\r\n{chunk}", chunk.len());
        client.stream.get_mut().write_all(octets.as_bytes()).await.unwrap();
        client.play(&format!("S: 250 2.0.0 Ok: {} octets received", chunk.len())).await;
    }
    client.stream.get_mut().write_all(b"BDAT 4 LAST\r\nne\r\nQUIT\r\n").await.unwrap();
    client.play("S: 250 2.0.0 Ok: queued as 11\nS: 221 2.0.0 Bye").await;
    client.closed().await;
    let (_, stored) = server.message();
    let rest = &stored[stored.find("Subject:").unwrap()..];
    assert_eq!(rest, "Subject: x\r\nMessage-ID: y\r\nDate: z\r\n\r\n.dot\r\nline\r\n");
}

#[tokio::test]
async fn chunks_that_are_taken_back_or_break_off_leave_nothing() {
    let server = server(GREEN);
    let chunk = [b"BDAT 600000\r\n".to_vec(), b"x\r\n".repeat(200_000)].concat();
    for taken_back in [true, false] {
        let mut client = server.connect(b"").await;
        client.greet().await;
        client.play(IN_TRANSACTION).await;
        client.stream.get_mut().write_all(&chunk).await.unwrap();
        client.play("S: 250 2.0.0 Ok: 600000 octets received").await;
        if taken_back {
            client.play("C: RSET\nS: 250 2.0.0 Ok").await;
            client.quit().await;
        } else {
            let Client { stream, session } = client;
            drop(stream);
            session.await.unwrap();
        }
        server.nothing_was_stored();
        assert_eq!(server.records(), []);
        assert_eq!(std::fs::read_dir(server.directory.path()).unwrap().count(), 0, "files of lost bodies");
    }
}
