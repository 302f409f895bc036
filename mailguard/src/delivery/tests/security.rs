//! Encryption, verification, login and the source of connections, against a real handshake on loopback.

use mailguard_core::config::model::{Login, Mechanism, OutgoingAddress, Smarthost, SmarthostAddress};

use super::*;
use crate::tls::made_for;

const OFFERED: &str = "S: 220 mx.test ESMTP
    C: EHLO guard.test
    S: 250-mx.test
    S: 250 STARTTLS
    C: STARTTLS
    S: 220 go ahead
    ! tls";

/// A smarthost with a certificate for `relay.test`, found by that name.
struct Relay {
    server: ScriptedServer,
    ca: String,
}

impl Relay {
    async fn start(scripts: &[&str]) -> Self {
        let (ca, identity) = made_for("relay.test");
        let server = ScriptedServer::start_with("127.0.0.1:0", scripts, Some(identity.server_config())).await;
        Self { server, ca }
    }

    fn route(&self, name: &str, tls: Tls, login: Option<Login>) -> Route {
        let name = Domain::parse(name).unwrap();
        let port = self.server.address.port();
        let host = SmarthostAddress::Name(name.clone());
        let smarthost = Smarthost { host, port, tls, ca: Some(self.ca.clone()), login };
        Route { tls, smarthost: Some(smarthost.into()), ..plainly(NextHop::Host(name, port)) }
    }

    /// The outcome with how the session stood, and what the server saw.
    async fn send(&self, route: &Route) -> (String, Vec<String>) {
        let sender = Sender::new(&["relay.test A 127.0.0.1", "other.test A 127.0.0.1"]).await;
        let own_name = Domain::parse("guard.test").unwrap();
        let terms = Terms { own_name: &own_name, helo: Some(&own_name), postmaster: None };
        let names = routing::look_up(&sender.dns, &route.next_hop).await;
        let envelope = envelope(&["c@d.test"]);
        let outcomes =
            sender.delivery.attempt_on(&terms, route, names.as_ref(), &envelope, &short_body()).await;
        let report = outcomes[0].report();
        (format!("{} {}", show(&outcomes[0]), report.transfer), self.server.seen())
    }
}

#[tokio::test]
async fn opportunistic_takes_any_certificate() {
    let relay = Relay::start(&[&format!("{OFFERED}\n{STEPWISE}")]).await;
    let (outcome, seen) = relay.send(&relay.route("other.test", Tls::Opportunistic, None)).await;
    assert!(outcome.starts_with("delivered 2.0.0 TLSv1.3 TLS13_"), "{outcome}");
    assert!(outcome.ends_with(", not verified"), "{outcome}");
    assert_eq!(seen, ["hello\r\n"]);
}

#[tokio::test]
async fn a_handshake_that_fails_is_followed_by_the_clear_only_where_it_may() {
    let broken = "S: 220 mx.test ESMTP
        C: EHLO guard.test
        S: 250-mx.test
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 go ahead
        ! close";
    let clear =
        format!("S: 220 mx.test ESMTP\n{}", STEPWISE.replace("250 mx.test", "250-mx.test\nS: 250 STARTTLS"));
    let relay = Relay::start(&[broken, &clear]).await;
    let (outcome, seen) = relay.send(&relay.route("relay.test", Tls::Opportunistic, None)).await;
    assert_eq!((outcome.as_str(), seen.as_slice()), ("delivered 2.0.0 ", &["hello\r\n".to_owned()][..]));
    let relay = Relay::start(&[broken, &clear]).await;
    let (outcome, _) = relay.send(&relay.route("relay.test", Tls::Required, None)).await;
    assert_eq!((outcome.as_str(), relay.server.scripts_left()), ("deferred 4.7.4 ", 1));
}

#[tokio::test]
async fn required_and_implicit_verify_the_name() {
    for (tls, script) in [
        (Tls::Required, format!("{OFFERED}\n{STEPWISE}")),
        (Tls::Implicit, format!("! tls\nS: 220 mx.test ESMTP\n{STEPWISE}")),
    ] {
        let relay = Relay::start(&[&script]).await;
        let (outcome, seen) = relay.send(&relay.route("relay.test", tls, None)).await;
        assert!(outcome.starts_with("delivered 2.0.0 TLSv1.3 "), "{outcome}");
        assert!(outcome.ends_with(", verified"), "{outcome}");
        assert_eq!(seen, ["hello\r\n"]);
        let relay = Relay::start(&[&script]).await;
        let (outcome, seen) = relay.send(&relay.route("other.test", tls, None)).await;
        assert_eq!(outcome, "deferred 4.7.4 ", "{tls:?}");
        assert!(!seen.contains(&"hello\r\n".to_owned()), "{seen:?}");
    }
}

#[tokio::test]
async fn a_login_behind_the_handshake() {
    let script = format!(
        "{OFFERED}\nC: EHLO guard.test\nS: 250-mx.test\nS: 250 AUTH PLAIN
         C: AUTH PLAIN AHRpbQBzZWNyZXQ=\nS: 235 2.7.0 ok\n{}",
        STEPWISE.trim_start_matches("C: EHLO guard.test\n    S: 250 mx.test\n")
    );
    let login = mailguard_core::testing::login("tim", "secret", &[Mechanism::Plain]);
    let relay = Relay::start(&[&script]).await;
    let (outcome, seen) = relay.send(&relay.route("relay.test", Tls::Required, Some(login))).await;
    assert!(outcome.ends_with(", verified; AUTH PLAIN"), "{outcome}");
    assert_eq!(seen, ["hello\r\n"]);
}

#[tokio::test]
async fn a_session_of_one_route_carries_no_mail_of_another() {
    let script = format!("S: 220 mx.test ESMTP\n{STEPWISE}");
    let server = ScriptedServer::start("127.0.0.1:0", &[&script, &script]).await;
    let sender = Sender::new(&[]).await;
    let plain = to(server.address);
    let from =
        Route { outgoing: Some(OutgoingAddress::Address("127.0.0.1".parse().unwrap())), ..plain.clone() };
    let envelope = envelope(&["c@d.test"]);
    for route in [plain, from] {
        assert_eq!(sender.attempt(&route, &envelope, &short_body()).await, "delivered 2.0.0");
    }
    assert_eq!(server.scripts_left(), 0);
}

#[tokio::test]
async fn where_connections_come_from() {
    let script = format!("S: 220 mx.test ESMTP\n{STEPWISE}").replace("guard.test", "[127.0.0.9]");
    let server = ScriptedServer::start("127.0.0.1:0", &[&script, "S: 220 mx.test"]).await;
    let own_name = Domain::parse("guard.test").unwrap();
    let sender = Sender::new(&[]).await;
    let terms = Terms { own_name: &own_name, helo: None, postmaster: None };
    let envelope = envelope(&["c@d.test"]);
    for (outgoing, expect, why) in [
        (OutgoingAddress::Address("127.0.0.9".parse().unwrap()), "delivered 2.0.0", ""),
        (OutgoingAddress::Address("192.0.2.77".parse().unwrap()), "deferred 4.4.1", "from 192.0.2.77: "),
        (
            OutgoingAddress::Address("::1".parse().unwrap()),
            "deferred 4.4.1",
            "outgoing_address ::1 is IPv6, and ",
        ),
        (OutgoingAddress::Interface("absent0".to_owned()), "deferred 4.4.1", "from absent0: "),
    ] {
        let route = Route { outgoing: Some(outgoing), ..to(server.address) };
        let outcomes = sender.delivery.attempt_on(&terms, &route, None, &envelope, &short_body()).await;
        let said = &outcomes[0].report().text;
        assert_eq!((show(&outcomes[0]).as_str(), said.contains(why)), (expect, true), "{said}");
    }
}
