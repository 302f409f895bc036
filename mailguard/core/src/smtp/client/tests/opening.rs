//! STARTTLS and AUTH, and what comes of a server that can't or won't.

use super::*;
use crate::config::model::Mechanism;

fn with(encryption: Encryption) -> Settings {
    Settings { encryption, ..settings() }
}

fn logging_in(encryption: Encryption, methods: &[Mechanism]) -> Settings {
    let login = crate::testing::login("tim", "tanstaaftanstaaf", methods);
    Settings { encryption, login: Some(login), ..settings() }
}

const GREETED: &str = "S: 220 mx.test ESMTP
    C: EHLO guard.test
    S: 250-mx.test
    S: 250-PIPELINING
    S: 250-STARTTLS
    S: 250 AUTH PLAIN LOGIN CRAM-MD5";

fn check_greeted(settings: Settings, script: &str) {
    check_with(settings, &format!("{GREETED}\n{script}"));
}

#[test]
fn what_was_said_before_starttls_does_not_count() {
    // Encrypted, the server no longer offers PIPELINING.
    check_greeted(
        with(Encryption::Offered),
        "C: STARTTLS
        S: 220 go ahead
        = handshake
        ! encrypted
        C: EHLO guard.test
        S: 250 mx.test
        = ready
        ! begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test>",
    );
}

#[test]
fn what_comes_in_the_clear_behind_starttls_is_not_taken_for_encrypted() {
    for encryption in [Encryption::Offered, Encryption::Required] {
        check_greeted(
            with(encryption),
            "C: STARTTLS
            S: 220 go ahead
            S: 250 injected
            = unusable deferred 4.5.0
            = close",
        );
    }
}

#[test]
fn without_starttls_mail_goes_in_the_clear_only_where_that_is_allowed() {
    let refused = "C: STARTTLS
        S: 454 4.7.0 not now";
    check_greeted(with(Encryption::Offered), &format!("{refused}\n= ready"));
    check_greeted(with(Encryption::Required), &format!("{refused}\n= unusable deferred 4.7.4\n= close"));
    let none = "S: 220 mx.test ESMTP
        C: EHLO guard.test
        S: 250 mx.test";
    check_with(with(Encryption::Offered), &format!("{none}\n= ready"));
    check_with(with(Encryption::Required), &format!("{none}\n= unusable deferred 4.7.4\n= close"));
    // HELO knows no extensions.
    let old = "S: 220 mx.test ESMTP
        C: EHLO guard.test
        S: 502 what?";
    check_with(with(Encryption::Required), &format!("{old}\n= unusable deferred 4.7.4\n= close"));
    check_with(with(Encryption::Offered), &format!("{old}\nC: HELO guard.test\nS: 250 mx.test\n= ready"));
}

#[test]
fn a_tls_handshake_that_fails_or_never_ends() {
    let begun = "C: STARTTLS
        S: 220 go ahead
        = handshake";
    check_greeted(
        with(Encryption::Required),
        &format!("{begun}\n! failed\n= unusable deferred 4.7.4\n= close"),
    );
    check_greeted(with(Encryption::Required), &format!("{begun}\n+ 30s\n= unusable deferred 4.4.2\n= close"));
}

#[test]
fn auth_takes_the_strongest_mechanism_that_both_allow() {
    check_greeted(
        logging_in(Encryption::Off, &Mechanism::ALL),
        "C: AUTH CRAM-MD5
        S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+
        C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
        S: 235 2.7.0 welcome
        = ready",
    );
    check_greeted(
        logging_in(Encryption::Off, &[Mechanism::Login]),
        "C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: dGlt
        S: 334 UGFzc3dvcmQ6
        C: dGFuc3RhYWZ0YW5zdGFhZg==
        S: 235 2.7.0 welcome
        = ready",
    );
}

#[test]
fn no_password_in_the_clear_unless_tls_is_off() {
    let plain = [Mechanism::Plain];
    let without_tls = "S: 220 mx.test ESMTP
        C: EHLO guard.test
        S: 250-mx.test
        S: 250 AUTH PLAIN";
    let refused = format!("{without_tls}\n= unusable deferred 4.7.4\n= close");
    check_with(logging_in(Encryption::Offered, &plain), &refused);
    check_with(logging_in(Encryption::Failed, &plain), &refused);
    let told = "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm";
    check_with(logging_in(Encryption::Off, &plain), &format!("{without_tls}\n{told}\nS: 235 ok\n= ready"));
    check_greeted(
        logging_in(Encryption::Offered, &plain),
        &format!(
            "C: STARTTLS
            S: 220 go ahead
            = handshake
            ! encrypted
            C: EHLO guard.test
            S: 250-mx.test
            S: 250 AUTH PLAIN
            {told}
            S: 235 ok
            = ready"
        ),
    );
}

#[test]
fn a_refused_auth_fails_no_mail() {
    let cram = "C: AUTH CRAM-MD5
        S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+
        C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw";
    for (said, status) in [
        ("535 5.7.8 who are you", "4.7.8"),
        ("454 4.7.0 ask me later", "4.7.8"),
        ("421 4.3.2 bye", "4.3.2"),
        ("334 PDE+", "4.7.8"),
        ("250 ok", ""),
    ] {
        let end = if status.is_empty() {
            "= ready".to_owned()
        } else {
            format!("= unusable deferred {status}\n= close")
        };
        check_greeted(logging_in(Encryption::Off, &Mechanism::ALL), &format!("{cram}\nS: {said}\n{end}"));
    }
    let nothing = "S: 220 mx.test ESMTP
        C: EHLO guard.test
        S: 250 mx.test
        = unusable deferred 4.7.4
        = close";
    check_with(logging_in(Encryption::Off, &Mechanism::ALL), nothing);
}

#[test]
fn a_digest_md5_server_that_proves_nothing_gets_no_mail() {
    check_with(
        logging_in(Encryption::Off, &Mechanism::ALL),
        "S: 220 mx.test ESMTP
        C: EHLO guard.test
        S: 250-mx.test
        S: 250 AUTH DIGEST-MD5
        C: AUTH DIGEST-MD5
        S: 235 2.7.0 welcome whoever you are
        = unusable deferred 4.7.8
        = close",
    );
}
