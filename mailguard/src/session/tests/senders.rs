//! Clients that may not send from their zone, where the kernel let them through.

use super::*;

async fn check(allowed: Option<&str>, refused: bool) {
    let server = server_with(GREEN, |config, _| {
        let networks = allowed.map(|text| text.split_whitespace().map(|net| net.parse().unwrap()).collect());
        config.zones[GREEN].allow_clients = networks;
        // No whitelist widens it.
        config.access.whitelist_clients = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let mut client = server.connect(b"").await;
    if refused {
        client.play("S: 554 5.7.1 Your address may not send mail here").await;
        client.closed().await;
    } else {
        client.greet().await;
        client.quit().await;
    }
    server.nothing_was_stored();
    assert_eq!(server.limits.sessions(), 0);
}

#[tokio::test]
async fn who_may_not_send_from_the_zone_is_refused_in_the_greetings_place() {
    check(None, false).await;
    check(Some("10.0.0.0/8 127.0.0.0/24"), false).await;
    check(Some("10.0.0.0/8 ::/0"), true).await;
    check(Some(""), true).await;
}
