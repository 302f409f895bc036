//! Next hops that are ourselves, asked over the loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use super::super::hops::{ask, judge};
use super::*;

/// A server that greets so, once, and answers every line with 250.
fn server(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(greeting.as_bytes()).unwrap();
        for _line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            // Whoever knows enough has gone.
            let _ = stream.write_all(b"250 inside.example.org\r\n");
        }
    });
    address
}

fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_next_hop_is_known_by_its_greeting_and_silence_is_said() {
    let (other, refuses) = (server("220 inside.example.org ESMTP\r\n"), server("554 5.3.2 no\r\n"));
    let (same, gone) = (server("220 MailGuard.example.org. ESMTP\r\n"), nobody());
    let domain = |name: &str, server: &dyn std::fmt::Display| {
        format!("[[incoming_domain]]\ndomain = \"{name}.example.org\"\nserver = \"{server}\"\n")
    };
    let text = [
        TEXT.to_owned(),
        domain("a", &other),
        domain("b", &same),
        domain("c", &same),
        domain("d", &gone),
        domain("e", &refuses),
        // Where the first zone listens.
        domain("f", &"127.0.0.1:10025"),
    ];
    let config = config::parse_and_validate(&Source::of_text("m.toml", text.concat())).unwrap();
    let found = judge(&ask(&config));
    let (error, warning) = (("next-hop", Severity::Error), ("next-hop", Severity::Warning));
    assert_eq!(complaints(&found), [error, warning, error], "{found:#?}");
    for (finding, expect) in found.iter().zip([
        format!("incoming_domain[1].server and 1 more: {same} is ourselves, or is called as we are: "),
        format!("incoming_domain[3].server: {gone} doesn't say who it is: can't connect"),
        "incoming_domain[5].server: 127.0.0.1:10025 is ourselves".to_owned(),
        "2 of 5 next hops answer, and are others".to_owned(),
    ]) {
        assert!(finding.what.starts_with(&expect), "{expect}: {finding:#?}");
    }
}

#[test]
fn so_many_next_hops_are_greeted_and_the_rest_is_counted() {
    let address = nobody();
    let domain = |number: usize| {
        format!(
            "[[incoming_domain]]\ndomain = \"d{number}.example.org\"\nserver = \"127.0.0.{number}:{}\"\n",
            address.port()
        )
    };
    let text = TEXT.to_owned() + &(2..70).map(domain).collect::<String>();
    let config = config::parse_and_validate(&Source::of_text("m.toml", text)).unwrap();
    let found = judge(&ask(&config));
    assert_eq!(complaints(&found).len(), 64);
    assert!(found.last().is_some_and(|last| last.what.starts_with("4 more next hops")), "{found:?}");
    assert!(judge(&ask(&super::config())).is_empty(), "none is named");
}
