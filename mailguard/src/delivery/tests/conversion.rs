//! What is done to content for a server that takes less than we have.

use super::*;

async fn sent(content: &str, offers: &str) -> (String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (original, scratch) = (folder.path().join("original"), folder.path().join("scratch"));
    std::fs::create_dir(&original).unwrap();
    std::fs::create_dir(&scratch).unwrap();
    let mut writer = BodyDirectory::new(original).writer(1);
    writer.push(content.as_bytes()).await.unwrap();
    let body = writer.finish().await.unwrap();
    let script = format!("S: 220 mx.test\n{}", STEPWISE.replace("S: 250 mx.test", offers));
    let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
    let own_name = Domain::parse("guard.test").unwrap();
    let terms = Terms { own_name: &own_name, helo: Some(&own_name), postmaster: None };
    let bodies = BodyDirectory::new(scratch.clone());
    let delivery = Delivery::default().with_scratch(Arc::new(move || bodies.writer(7)));
    let envelope = envelope(&["c@d.test"]);
    let outcomes = delivery.attempt_on(&terms, &to(server.address), None, &envelope, &body).await;
    assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0, "nothing is left");
    (format!("{} {}", show(&outcomes[0]), outcomes[0].report().transfer), server.seen())
}

#[tokio::test]
async fn eight_bit_content_is_converted_for_a_server_without_8bitmime() {
    let head = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n";
    let (outcome, seen) = sent(&format!("{head}\r\nGrüße\r\n"), "S: 250 mx.test").await;
    assert_eq!(outcome, "delivered 2.0.0 converted to 7 bits");
    assert_eq!(
        seen,
        [format!("{head}Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n")]
    );
    // Larger than what is held in memory.
    let (outcome, seen) = sent(&format!("{head}\r\n{}", "Grüße\r\n".repeat(60_000)), "S: 250 mx.test").await;
    assert_eq!(outcome, "delivered 2.0.0 converted to 7 bits");
    assert_eq!(seen[0].matches("Gr=C3=BC=C3=9Fe\r\n").count(), 60_000);
    let (outcome, seen) = sent("Subject: Grüße\r\n\r\nx\r\n", "S: 250 mx.test").await;
    assert_eq!((outcome.as_str(), seen), ("failed 5.6.3 ", vec![]));
}

#[tokio::test]
async fn a_waiting_session_that_takes_leave_costs_no_retry() {
    let again = format!("{OPENING}\n{}\nC: MAIL FROM:<a@b.test> SIZE=7", one_message());
    for leave in ["S: 421 4.4.2 too many messages", "! close"] {
        let scripts = [format!("{again}\n{leave}\n! drain"), format!("{OPENING}\n{}", one_message())];
        let server = ScriptedServer::start("127.0.0.1:0", &[&scripts[0], &scripts[1]]).await;
        let sender = Sender::new(&[]).await;
        for _ in 0..2 {
            let message = envelope(&["c@d.test"]);
            let outcome = sender.attempt(&to(server.address), &message, &short_body()).await;
            assert_eq!(outcome, "delivered 2.0.0", "{leave}");
        }
        assert_eq!((server.seen().len(), server.scripts_left()), (2, 0));
    }
}
