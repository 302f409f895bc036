//! Sessions that don't come about, that break, or in which a server makes no sense; and how long each stage
//! may take.

use super::*;

#[test]
fn sessions_that_do_not_come_about() {
    for (replies, outcome) in [
        ("S: 554 5.3.2 no mail here", "= unusable failed 5.3.2"),
        ("S: 421 4.3.2 busy", "= unusable deferred 4.3.2"),
        ("S: 450 later", "= unusable deferred 4.0.0"),
        ("S: 354 go", "= unusable deferred 4.0.0"),
        ("S: 220 guard.test ESMTP", "= unusable failed 5.4.6"),
        ("S: SSH-2.0-OpenSSH_9.2", "= unusable deferred 4.5.0"),
        ("+ 300s", "= unusable deferred 4.4.2"),
        ("! lost", "= unusable deferred 4.4.2"),
    ] {
        check(&format!("{replies}\n{outcome}\n= close"));
    }
    for (replies, outcome) in [
        ("S: 421 4.3.2 busy", "deferred 4.3.2"),
        ("S: 450 later", "deferred 4.0.0"),
        ("S: 250-mx\nS: 251 no", "deferred 4.5.0"),
        ("S: 250 mx\nS: 250 ok", "deferred 4.5.0"),
        ("S: 250 GUARD.TEST at your service", "failed 5.4.6"),
        ("+ 300s", "deferred 4.4.2"),
        ("! lost", "deferred 4.4.2"),
        ("S: 500 no\nC: HELO guard.test\nS: 550 no", "failed 5.0.0"),
        ("S: 500 no\nC: HELO guard.test\nS: 421 no", "deferred 4.0.0"),
        ("S: 500 no\nC: HELO guard.test\n! lost", "deferred 4.4.2"),
    ] {
        check(&format!("S: 220 mx\nC: EHLO guard.test\n{replies}\n= unusable {outcome}\n= close"));
    }
}

#[test]
fn replies_ahead_of_commands_end_the_session() {
    // A greeting that brings the reply to EHLO along; the same within a transaction and after it.
    check("S: 220 mx\nS: 250 mx\n= unusable deferred 4.5.0\n= close");
    check(
        "S: 220 mx
        C: EHLO guard.test
        S: 250 mx
        = ready
        ! begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test>
        S: 250 ok
        S: 250 ok
        = Interrupted: deferred 4.5.0
        = close",
    );
    check_open(&format!(
        "{ENVELOPE}
        S: 250 ok
        S: 250 ok
        S: 354 go
        S: 250 queued
        = content
        = Interrupted: deferred 4.5.0
        = close"
    ));
    check_open(&format!(
        "{ENVELOPE}
        S: 250 ok
        S: 250 ok
        S: 354 go
        = content
        ! sent
        S: 250 queued
        S: 250 more
        = Settled: delivered 2.0.0
        = close
        ! begin a@b.test c@d.test
        = Unanswered: deferred 4.5.0
        = close"
    ));
}

/// A session that breaks at each stage of a transaction.
#[test]
fn connections_that_break() {
    let endings = [
        ("! lost", "deferred 4.4.2"),
        ("S: 421 4.3.2 shutting down", "deferred 4.3.2"),
        ("S: nonsense", "deferred 4.5.0"),
    ];
    for (event, outcome) in endings {
        check_open(&format!("{ENVELOPE}\n{event}\n= Unanswered: {outcome}\n= close"));
        check_open(&format!("{ENVELOPE}\nS: 250 ok\n{event}\n= Interrupted: {outcome}\n= close"));
        check_open(&format!("{ENVELOPE}\nS: 250 ok\nS: 250 ok\n{event}\n= Interrupted: {outcome}\n= close"));
        let content = format!("{ENVELOPE}\nS: 250 ok\nS: 250 ok\nS: 354 go\n= content");
        check_open(&format!("{content}\n{event}\n= Interrupted: {outcome}\n= close"));
        // After the final dot only the server's own word is certain.
        let ending = if event.starts_with("S: 421") { "Interrupted" } else { "InDoubt" };
        check_open(&format!("{content}\n! sent\n{event}\n= {ending}: {outcome}\n= close"));
    }
    // What was decided before stays.
    check_open(
        "! begin a@b.test c@d.test e@d.test
        C: MAIL FROM:<a@b.test> SIZE=100
        C: RCPT TO:<c@d.test>
        C: RCPT TO:<e@d.test>
        C: DATA
        S: 250 ok
        S: 550 5.1.1 no
        ! lost
        = Interrupted: failed 5.1.1, deferred 4.4.2
        = close",
    );
}

#[test]
fn replies_that_make_no_sense() {
    for (replies, ending) in [
        ("S: 354 go", "Unanswered"),
        ("S: 250 ok\nS: 354 go", "Interrupted"),
        ("S: 250 ok\nS: 250 ok\nS: 250 ok", "Interrupted"),
        ("S: 250 ok\nS: 250 ok\nS: 354 go\n= content\n! sent\nS: 354 go", "InDoubt"),
    ] {
        check_open(&format!("{ENVELOPE}\n{replies}\n= {ending}: deferred 4.5.0\n= close"));
    }
}

#[test]
fn a_refusal_before_the_end_of_the_content_counts() {
    for (reply, outcome) in [("552 5.3.4 too large", "failed 5.3.4"), ("452 4.3.1 full", "deferred 4.3.1")] {
        check_open(&format!(
            "{ENVELOPE}
            S: 250 ok
            S: 250 ok
            S: 354 go
            = content
            ! block
            S: {reply}
            = Interrupted: {outcome}
            = close"
        ));
    }
}

#[test]
fn timeouts() {
    check_open(&format!(
        "{ENVELOPE}
        + 299s
        S: 250 ok
        + 299s
        S: 250 ok
        + 119s
        S: 354 go
        = content
        + 179s
        ! block
        + 179s
        ! sent
        + 599s
        + 1s
        = InDoubt: deferred 4.4.2
        = close"
    ));
    for (replies, seconds, ending) in [
        ("", 300, "Unanswered"),
        ("S: 250 ok", 300, "Interrupted"),
        ("S: 250 ok\nS: 250 ok", 120, "Interrupted"),
        ("S: 250 ok\nS: 250 ok\nS: 354 go\n= content", 180, "Interrupted"),
    ] {
        check_open(&format!(
            "{ENVELOPE}\n{replies}\n+ {}s\n+ 1s\n= {ending}: deferred 4.4.2\n= close",
            seconds - 1
        ));
    }
    check_open("+ 100000s\n! quit\nC: QUIT\n+ 5s\n= close");
}
