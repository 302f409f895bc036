//! Sessions when there are hardly any left.

use super::*;

const TOLD: &str = "S: 421 4.3.2 Too many sessions, try again later";

#[tokio::test]
async fn a_silent_session_is_told_that_it_makes_room() {
    let server = server_with(RED, |config, _| config.server.max_sessions = 2);
    let mut talks = server.connect(b"").await;
    talks.greet().await;
    let mut silent = server.connect(b"").await;
    silent.play("S: 220 mailguard.test ESMTP").await;
    let mut newcomer = server.connect(b"").await;
    newcomer.greet().await;
    silent.play(TOLD).await;
    silent.closed().await;
    let mut refused = server.connect(b"").await;
    refused.play(TOLD).await;
    refused.closed().await;
    talks.quit().await;
    newcomer.quit().await;
    assert_eq!(server.limits.sessions(), 0);
}

#[tokio::test]
async fn who_waits_for_the_greeting_makes_room_too() {
    let server = server_with(RED, |config, _| {
        config.server.max_sessions = 1;
        config.server.greet_delay = Duration::from_secs(600);
    });
    let mut waits = server.connect(b"").await;
    while server.limits.sessions() == 0 {
        tokio::task::yield_now().await;
    }
    let _newcomer = server.connect(b"").await;
    waits.play(TOLD).await;
    waits.closed().await;
}

#[tokio::test(start_paused = true)]
async fn while_sessions_are_scarce_the_first_command_must_come_soon() {
    for (max_sessions, scarce) in [(2, false), (1, true)] {
        let server = server_with(RED, |config, _| config.server.max_sessions = max_sessions);
        let began = tokio::time::Instant::now();
        let mut client = server.connect(b"").await;
        client.play("S: 220 mailguard.test ESMTP").await;
        let timeout = "S: 421 4.4.2 Timeout, closing the connection";
        client.play(if scarce { TOLD } else { timeout }).await;
        assert_eq!(began.elapsed() < server.config.server.command_timeout, scarce);
        client.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_introduced_itself_keeps_its_time() {
    let server = server_with(RED, |config, _| config.server.max_sessions = 1);
    let mut client = server.connect(b"").await;
    client.greet().await;
    tokio::time::sleep(server.config.server.command_timeout / 2).await;
    client.quit().await;
}
