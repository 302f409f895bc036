//! STARTTLS and AUTH, what needs them, and what counts as an error.

use super::*;

/// With STARTTLS and, where it is encrypted, AUTH.
fn guarded() -> Settings {
    Settings { offers_tls: true, auth: AuthOffer::Encrypted, ..SETTINGS() }
}

/// As [`GREETED`], where this is offered, too.
fn greeted(offer: &str) -> String {
    GREETED.trim().replace("250 SMTPUTF8", &format!("250-SMTPUTF8\nS: 250 {offer}"))
}

/// As [`greeted`], without the banner.
fn introduced(offer: &str) -> String {
    let greeted = greeted(offer);
    greeted.split_once('\n').map(|(_banner, rest)| rest.to_owned()).unwrap_or_default()
}

#[test]
fn starttls_forgets_what_was_said_in_the_clear() {
    check_with(
        guarded(),
        &format!(
            "{}
        C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 Sender ok
        C: STARTTLS
        C: RCPT TO:<b@mx.example>
        C: DATA
        S: 220 2.0.0 Ready to start TLS
        = handshake
        C: RCPT TO:<b@mx.example>
        S: 503 5.5.1 MAIL comes first
        C: STARTTLS
        S: 503 5.5.1 The session is encrypted already
        {}",
            greeted("STARTTLS"),
            introduced("AUTH PLAIN LOGIN"),
        ),
    );
}

#[test]
fn auth_has_its_time_and_its_place() {
    let offered = Settings { auth: AuthOffer::Always, hard_error_limit: 20, ..SETTINGS() };
    check_with(
        offered.clone(),
        "S: 220 mx.example ESMTP
        C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
        S: 503 5.5.1 EHLO comes first
        C: HELO client.example
        S: 250 mx.example greets client.example
        C: AUTH CRAM-MD5
        S: 504 5.5.4 Authentication mechanism not known: PLAIN and LOGIN are
        C: AUTH PLAIN
        S: 334
        C: *
        S: 501 5.7.0 Authentication cancelled
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: no base64
        S: 501 5.5.2 Authentication response can't be understood
        C: AUTH PLAIN AG5vYm9keQBzZWNyZXQ=
        S: 454 4.7.0 Temporary authentication failure, try later
        C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 Sender ok
        C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
        S: 503 5.5.1 Not within a transaction
        C: RSET
        = abandon
        S: 250 2.0.0 Ok
        C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
        S: 235 2.7.0 Authentication successful
        C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
        S: 503 5.5.1 You are authenticated already",
    );
    check_with(
        offered,
        &format!(
            "{}
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        + 300s
        S: 421 4.4.2 Timeout, closing the connection
        = close Timeout",
            greeted("AUTH PLAIN LOGIN")
        ),
    );
    check_with(
        guarded(),
        "S: 220 mx.example ESMTP
        C: HELO client.example
        S: 250 mx.example greets client.example
        C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
        S: 538 5.7.11 Encryption is required: STARTTLS comes first",
    );
    check_greeted(
        "C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
        S: 502 5.5.1 Command not implemented
        C: STARTTLS
        S: 502 5.5.1 Command not implemented",
    );
}

#[test]
fn auth_with_a_wrong_password_is_an_error() {
    let wrong = "C: AUTH PLAIN AGFsaWNlAHdyb25n\nS: 535 5.7.8 Authentication credentials invalid\n".repeat(3);
    check_with(
        Settings { auth: AuthOffer::Always, ..SETTINGS() },
        &format!(
            "S: 220 mx.example ESMTP
            C: HELO client.example
            S: 250 mx.example greets client.example
            {wrong}C: AUTH PLAIN AGFsaWNlAHdyb25n
            S: 421 4.7.0 Too many errors, closing the connection
            = close TooManyErrors"
        ),
    );
}

#[test]
fn a_recipient_in_utf8_wants_smtputf8_at_mail() {
    check_greeted(
        "C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<bücher@mx.example>
        S: 553 5.6.7 Address holds characters outside ASCII
        C: RSET
        = abandon
        S: 250 2.0.0 Ok
        C: MAIL FROM:<ä@client.example>
        S: 553 5.6.7 Address holds characters outside ASCII
        C: MAIL FROM:<ä@client.example> SMTPUTF8
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<bücher@mx.example>
        S: 250 2.1.5 Recipient ok",
    );
}

#[test]
fn what_follows_a_refused_sender_is_no_further_error() {
    let group = "C: RCPT TO:<b@mx.example>\nC: RCPT TO:<c@mx.example>\nC: DATA\n";
    let unanswered = "S: 503 5.5.1 MAIL comes first\nS: 503 5.5.1 MAIL comes first\n\
                      S: 503 5.5.1 MAIL and RCPT come first\n";
    // Three errors are allowed: each group makes one.
    let refused = format!(
        "C: MAIL FROM:<refused@client.example>\n{group}S: 554 5.7.1 Relay access denied (ref 11)\n{unanswered}"
    );
    check_greeted(&format!("{}C: NOOP\nS: 250 2.0.0 Ok", refused.repeat(3)));
    // Without any MAIL each is one.
    check_greeted(&format!(
        "{group}S: 503 5.5.1 MAIL comes first\nS: 503 5.5.1 MAIL comes first\n\
         S: 503 5.5.1 MAIL and RCPT come first\nC: DATA\nS: 421 4.7.0 Too many errors, closing the connection\n\
         = close TooManyErrors"
    ));
}

#[test]
fn ehlo_again_and_again_is_an_error_at_last() {
    let mut session = Session::new(SETTINGS());
    session.server.greet(session.now);
    for _ in 0..MAX_IDLE_COMMANDS + 5 {
        session.input(b"EHLO client.example\r\n");
    }
    assert_eq!(session.seen.last().map(String::as_str), Some("= close TooManyErrors"));
}

#[test]
fn a_client_that_never_pauses_meets_the_data_timeout() {
    let mut session = Session::new(SETTINGS());
    session.server.greet(session.now);
    session.perform();
    for _ in 0..301 {
        session.now += Duration::from_secs(1);
        session.input(b"an endless line");
    }
    assert_eq!(session.seen.last().map(String::as_str), Some("= close Timeout"));
}

#[test]
fn rcpt_without_end_is_answered_without_asking() {
    // Three are the limit, and twice as many may be named.
    let deferred = "C: RCPT TO:<deferred@mx.example>\n".repeat(10);
    let asked = "S: 452 4.3.1 Insufficient storage, try later (ref 11)\n".repeat(6);
    let unasked = "S: 452 4.5.3 Too many recipients, the limit is 3 (ref 11)\n".repeat(3);
    check_greeted(&format!(
        "C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 Sender ok
        {deferred}{asked}{unasked}S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors"
    ));
}
