//! What printers, scanners and scripts do inside, and what of it is taken from no stranger.

use super::*;

fn lenient() -> Settings {
    Settings { strictness: Strictness::Lenient, ..SETTINGS() }
}

/// The answer to EHLO, whoever it greets.
fn greets(name: &str) -> String {
    let reply = GREETED.split_once("C: EHLO client.example\n").map(|(_, reply)| reply).unwrap_or_default();
    reply.replace("client.example", name)
}

#[test]
fn inside_nobody_has_to_wait_for_the_reply_to_ehlo_or_to_say_a_name() {
    for (ehlo, greeted) in [("EHLO", "you"), ("EHLO printer", "printer")] {
        check_with(
            lenient(),
            &format!(
                "S: 220 mx.example ESMTP
                C: {ehlo}
                C: MAIL FROM:<a@client.example>
                C: RCPT TO:<b@mx.example>
                {}
                --
                S: 250 2.1.0 Sender ok
                S: 250 2.1.5 Recipient ok
                C: QUIT
                S: 221 2.0.0 Bye
                = close Quit",
                greets(greeted)
            ),
        );
    }
    check_with(
        lenient(),
        "S: 220 mx.example ESMTP
        C: HELO
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@mx.example>
        S: 250 mx.example greets you
        --
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok",
    );
}

#[test]
fn a_stranger_gives_a_helo_name_and_waits_for_the_reply_to_ehlo() {
    check(
        "S: 220 mx.example ESMTP
        C: EHLO
        S: 501 5.5.2 Syntax: EHLO hostname
        C: EHLO
        C: MAIL FROM:<a@client.example>
        S: 554 5.5.1 Protocol error: you went on without waiting for the reply
        = close Unsynchronised",
    );
}

/// Inside, a browser can be led to send us what a page of somebody else says.
#[test]
fn what_begins_as_http_ends_the_session_everywhere() {
    check_with(
        lenient(),
        "S: 220 mx.example ESMTP
        C: POST / HTTP/1.1
        C: Host: mx.example
        C:
        C: EHLO
        C: MAIL FROM:<a@client.example>
        S: 554 5.5.1 Protocol error: you went on without waiting for the reply
        = close Unsynchronised",
    );
}

/// What follows DATA would be commands where the message isn't wanted.
#[test]
fn data_wait_for_their_354_everywhere() {
    check_with(
        lenient(),
        "S: 220 mx.example ESMTP
        C: HELO client.example
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<refused@mx.example>
        C: DATA
        C: MAIL FROM:<b@client.example>
        S: 250 mx.example greets client.example
        --
        S: 250 2.1.0 Sender ok
        S: 554 5.7.1 Relay access denied (ref 11)
        S: 554 5.5.1 Protocol error: you went on without waiting for the reply
        = close Unsynchronised",
    );
}

#[test]
fn paths_without_angle_brackets_are_taken_inside_and_from_no_stranger() {
    let commands = "
        C: MAIL FROM: a@client.example
        {mail}
        C: RCPT TO:b@mx.example
        {rcpt}";
    let taken =
        commands.replace("{mail}", "S: 250 2.1.0 Sender ok").replace("{rcpt}", "S: 250 2.1.5 Recipient ok");
    check_with(lenient(), &format!("{GREETED}{taken}"));
    check_greeted(
        "C: RCPT TO:b@mx.example
        S: 501 5.5.2 Syntax: RCPT TO:<address> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]",
    );
}

#[test]
fn help_names_what_would_be_carried_out() {
    let help = |settings: Settings, offer: &str, between: &str, names: &str| {
        let greeted = GREETED.trim().replace("250 SMTPUTF8", &format!("250{offer}"));
        check_with(settings, &format!("{greeted}\n{between}\nC: HELP\nS: 214 2.0.0 HELO EHLO {names} QUIT"));
    };
    let rest = "MAIL RCPT DATA BDAT RSET NOOP HELP VRFY";
    help(SETTINGS(), " SMTPUTF8", "", rest);
    let auth = Settings { auth: AuthOffer::Always, ..SETTINGS() };
    help(auth.clone(), "-SMTPUTF8\nS: 250 AUTH PLAIN LOGIN", "", &format!("AUTH {rest}"));
    let authenticated = "C: AUTH PLAIN AGFsaWNlAHNlY3JldA==\nS: 235 2.7.0 Authentication successful";
    help(auth, "-SMTPUTF8\nS: 250 AUTH PLAIN LOGIN", authenticated, rest);
    let guarded = Settings { offers_tls: true, auth: AuthOffer::Encrypted, ..SETTINGS() };
    help(guarded, "-SMTPUTF8\nS: 250 STARTTLS", "", &format!("STARTTLS {rest}"));
}

#[test]
fn auth_with_the_authzid_of_somebody_else_is_a_wrong_login() {
    // "bob", and "alice" with the right password; the password wrong; "alice" for "alice".
    let (right, wrong) = ("Ym9iAGFsaWNlAHNlY3JldA==", "Ym9iAGFsaWNlAHdyb25n");
    let same = "YWxpY2UAYWxpY2UAc2VjcmV0";
    check_with(
        Settings { auth: AuthOffer::Always, ..SETTINGS() },
        &format!(
            "S: 220 mx.example ESMTP
            C: HELO client.example
            S: 250 mx.example greets client.example
            C: AUTH PLAIN {right}
            = alice for another
            S: 535 5.7.8 Authentication credentials invalid
            C: AUTH PLAIN
            S: 334
            C: {wrong}
            = alice for another
            S: 535 5.7.8 Authentication credentials invalid
            C: AUTH PLAIN {same}
            S: 235 2.7.0 Authentication successful"
        ),
    );
}
