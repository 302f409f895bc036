//! Command lines, and what they are read as.

use super::*;
use crate::mail::Notify;

/// The command in a short form, or the reply to the wrong one.
fn read(line: &[u8]) -> String {
    in_words(Command::parse(line))
}

fn in_words(command: Result<Command, CommandError>) -> String {
    match command {
        Ok(Command::Mail(mail)) => in_short(&mail),
        Ok(Command::Rcpt(RcptCommand { recipient, .. })) => {
            let mut short = format!("rcpt {}", recipient.forward_path);
            if let Some(Notify { success, failure, delay }) = recipient.notify {
                let events = [(success, "success"), (failure, "failure"), (delay, "delay")];
                let wanted: Vec<_> = events.iter().filter(|event| event.0).map(|event| event.1).collect();
                short.push_str(&format!(" notify [{}]", wanted.join(" ")));
            }
            if let Some(original) = recipient.original_recipient {
                short.push_str(&format!(" orcpt {original}"));
            }
            short
        }
        Ok(Command::Auth(AuthCommand { mechanism, initial })) => {
            format!("auth {mechanism} {}", initial.unwrap_or_default())
        }
        Ok(Command::Helo(name)) => format!("helo {name}"),
        Ok(Command::Ehlo(name)) => format!("ehlo {name}"),
        Ok(Command::Bdat(Chunk { octets, last })) => {
            format!("bdat {octets}{}", if last { " last" } else { "" })
        }
        Ok(other) => format!("{other:?}").to_lowercase(),
        Err(error) => error.reply().to_string(),
    }
}

fn in_short(mail: &MailCommand) -> String {
    let mut short = format!("mail {}", mail.reverse_path);
    if let Some(octets) = mail.size {
        short.push_str(&format!(" size {octets}"));
    }
    if mail.body == BodyType::EightBitMime {
        short.push_str(" 8bit");
    }
    if mail.smtputf8 {
        short.push_str(" utf8");
    }
    if let Some(ret) = mail.dsn_return {
        short.push_str(if ret == DsnReturn::Full { " full" } else { " headers" });
    }
    if let Some(id) = &mail.envelope_id {
        short.push_str(&format!(" envid {id}"));
    }
    short
}

/// `expect` is the whole short form, or a reply's beginning.
fn check(line: impl AsRef<[u8]>, expect: &str) {
    let seen = read(line.as_ref());
    let same = if expect.starts_with('5') { seen.starts_with(expect) } else { seen == expect };
    assert!(same, "{}: {seen:?}, not {expect:?}", line.as_ref().escape_ascii());
}

#[test]
fn verbs() {
    check("EHLO client.example", "ehlo client.example");
    check("helo my computer ", "helo my computer");
    check("Ehlo [IPv6:2001:db8::1]", "ehlo [IPv6:2001:db8::1]");
    check("DATA", "data");
    check("rset  ", "rset");
    check("QUIT", "quit");
    check("NOOP whatever", "noop");
    check("HELP MAIL", "help");
    check("VRFY someone", "vrfy");
    check("VRFY", "501 5.5.2");
    check("EHLO", "501 5.5.2");
    check("DATA now", "501 5.5.2");
    check("EXPN list", "502 5.5.1");
    check("starttls", "starttls");
    check("STARTTLS now", "501 5.5.2");
    check("auth plain", "auth PLAIN ");
    check("AUTH LOGIN YWxpY2U=", "auth LOGIN YWxpY2U=");
    check("AUTH", "501 5.5.2");
    check("AUTH PLAIN a b", "501 5.5.2");
    check(format!("AUTH PLAIN {}", "a".repeat(1100)), &format!("auth PLAIN {}", "a".repeat(1100)));
    check("", "500 5.5.1");
    check("MAILFROM:<a@b.example>", "500 5.5.1");
    check("GET / HTTP/1.1", "500 5.5.1");
    check("NOOP\nRSET", "500 5.5.2");
    check("NOOP\r", "500 5.5.2");
    check("NO\0OP", "500 5.5.2");
    check(format!("NOOP {}", "a".repeat(505)), "noop");
    check(format!("NOOP {}", "a".repeat(506)), "500 5.5.2");
}

#[test]
fn bdat_arguments() {
    check("BDAT 0", "bdat 0");
    check("bdat 1000 last", "bdat 1000 last");
    check("BDAT  7  LAST ", "bdat 7 last");
    check("BDAT 99999999999999999999", "bdat 18446744073709551615");
    check("BDAT", "501 5.5.2");
    check("BDAT LAST", "501 5.5.2");
    check("BDAT -1", "501 5.5.2");
    check("BDAT 0x10", "501 5.5.2");
    check("BDAT 7 FIRST", "501 5.5.2");
    check("BDAT 7 LAST LAST", "501 5.5.2");
    check("BDAT 000000000000000000007", "501 5.5.2");
    check("BDAT 7\0LAST", "501 5.5.2");
    check("BDAT 7\nLAST", "501 5.5.2");
    check(format!("BDAT 7{}", " ".repeat(600)), "501 5.5.2");
    check("BDATA 7", "500 5.5.1");
}

/// As [`check`], as clients inside are read; as it is read where the rules are kept, it is wrong.
fn check_lenient(line: &str, expect: &str) {
    let seen = in_words(Command::parse_as(line.as_bytes(), Strictness::Lenient));
    let same = if expect.starts_with('5') { seen.starts_with(expect) } else { seen == expect };
    assert!(same, "{line}: {seen:?}, not {expect:?}");
    check(line, "501 5.5.2");
}

#[test]
fn what_is_taken_from_clients_inside_only() {
    check_lenient("MAIL FROM:a@b.example", "mail <a@b.example>");
    check_lenient("mail from: a@b.example SIZE=7", "mail <a@b.example> size 7");
    check_lenient("MAIL FROM:\"a b\"@c.example BODY=8BITMIME", "mail <\"a b\"@c.example> 8bit");
    check_lenient("RCPT TO:a@b.example NOTIFY=NEVER", "rcpt <a@b.example> notify []");
    check_lenient("RCPT TO: postmaster", "rcpt <postmaster>");
    check_lenient("EHLO", "ehlo ");
    check_lenient("HELO ", "helo ");
    check_lenient("MAIL FROM:", "501 5.5.2");
    check_lenient("RCPT TO: ", "501 5.5.2");
    check_lenient("MAIL FROM: SIZE=7", "501 5.1.7");
    check_lenient("RCPT TO:a@b.example>", "501 5.1.3");
    check_lenient("RCPT TO:A <a@b.example>", "501 5.1.3");
    check_lenient("RCPT TO:<a@b.example", "501 5.5.2");
    check_lenient("RCPT TO:a@b.example,c@d.example", "501 5.1.3");
}

#[test]
fn dots_in_local_parts_stay_where_they_are() {
    check("MAIL FROM:<a..b@docomo.example>", "mail <a..b@docomo.example>");
    check("RCPT TO:<abc.@docomo.example>", "rcpt <abc.@docomo.example>");
    check("RCPT TO:<.@docomo.example>", "501 5.1.3");
}

#[test]
fn reverse_paths() {
    check("MAIL FROM:<a@b.example>", "mail <a@b.example>");
    check("mail from: <a@b.example>", "mail <a@b.example>");
    check("MAIL FROM:<>", "mail <>");
    check("MAIL FROM:<\"a>b\\\"\"@b.example>", "mail <\"a>b\\\"\"@b.example>");
    check("MAIL FROM:<@one.example,@two.example:a@b.example>", "mail <a@b.example>");
    check("MAIL FROM:<@one.example,two.example:a@b.example>", "501 5.5.2");
    check("MAIL FROM:<@one.example>", "501 5.5.2");
    check("MAIL FROM:<@:a@b.example>", "501 5.1.7");
    check("MAIL FROM:<a@[192.0.2.1]>", "mail <a@[192.0.2.1]>");
    check("MAIL FROM:a@b.example", "501 5.5.2");
    check("MAIL FROM:<a@b.example", "501 5.5.2");
    check("MAIL FROM:<a@b.example>x", "501 5.5.2");
    check("MAIL FROM <a@b.example>", "501 5.5.2");
    check("MAIL", "501 5.5.2");
    check("MAIL TO:<a@b.example>", "501 5.5.2");
    check("MAIL FROM:<a>", "501 5.1.7");
    check("MAIL FROM:<a b@c.example>", "501 5.1.7");
    check("MAIL FROM:<jörg@b.example>", "553 5.6.7");
    check(b"MAIL FROM:<j\xf6rg@b.example>", "553 5.6.7");
}

#[test]
fn forward_paths() {
    check("RCPT TO:<a@b.example>", "rcpt <a@b.example>");
    check("RCPT TO:<PostMaster>", "rcpt <postmaster>");
    check("RCPT TO:<postmaster@b.example>", "rcpt <postmaster@b.example>");
    check("RCPT TO:<@relay.example:a@b.example>", "rcpt <a@b.example>");
    check("RCPT TO:<>", "501 5.1.3");
    check("RCPT TO:<abuse>", "501 5.1.3");
    check("RCPT TO:<a@b.example> SIZE=1", "555 5.5.4");
    check("RCPT TO:<jörg@b.example>", "rcpt <jörg@b.example>");
    check("RCPT TO:<a@b.example> =", "501 5.5.2");
}

#[test]
fn mail_parameters_size_8bitmime_smtputf8() {
    check("MAIL FROM:<> SIZE=1000 BODY=8BITMIME", "mail <> size 1000 8bit");
    check("MAIL FROM:<> body=7bit size=0", "mail <> size 0");
    check("MAIL FROM:<> SIZE=99999999999999999999", "mail <> size 18446744073709551615");
    check("MAIL FROM:<> SIZE=999999999999999999999", "501 5.5.4");
    check("MAIL FROM:<> SIZE=-1", "501 5.5.4");
    check("MAIL FROM:<> SIZE=", "501 5.5.2");
    check("MAIL FROM:<> SIZE", "501 5.5.4");
    check("MAIL FROM:<> SIZE=1 SIZE=1", "501 5.5.4");
    check("MAIL FROM:<> BODY=9BIT", "501 5.5.4");
    check("MAIL FROM:<> BODY=7BIT BODY=8BITMIME", "501 5.5.4");
    check("MAIL FROM:<> XSIZE=1", "555 5.5.4");
    check("MAIL FROM:<jörg@b.example> SMTPUTF8", "mail <jörg@b.example> utf8");
    check("MAIL FROM:<a@bücher.example> smtputf8", "mail <a@bücher.example> utf8");
    check(b"MAIL FROM:<j\xf6rg@b.example> SMTPUTF8", "553 5.6.7");
    check("MAIL FROM:<> SMTPUTF8=1", "501 5.5.4");
    check("MAIL FROM:<> SMTPUTF8 SMTPUTF8", "501 5.5.4");
    check("MAIL FROM:<> AUTH=<>", "mail <>");
    check("MAIL FROM:<> AUTH=a+40b.example", "mail <>");
    check("MAIL FROM:<> AUTH=a+b", "501 5.5.4");
    check("MAIL FROM:<> AUTH", "501 5.5.4");
    check("MAIL FROM:<> -X=1", "501 5.5.2");
    check("MAIL FROM:<> X=a=b", "501 5.5.2");
}

#[test]
fn dsn_parameters_ret_envid_notify_orcpt() {
    check("MAIL FROM:<> RET=FULL ENVID=QQ314159", "mail <> full envid QQ314159");
    check("MAIL FROM:<> ret=hdrs", "mail <> headers");
    check("MAIL FROM:<> RET=SOME", "501 5.5.4");
    check("MAIL FROM:<> RET=FULL RET=FULL", "501 5.5.4");
    check("MAIL FROM:<> ENVID=a+2Bb", "mail <> envid a+2Bb");
    check("MAIL FROM:<> ENVID=a+0D+0AX:", "501 5.5.4");
    check("MAIL FROM:<> ENVID=a+b", "501 5.5.4");
    check(format!("MAIL FROM:<> ENVID={}", "a".repeat(100)), &format!("mail <> envid {}", "a".repeat(100)));
    check(format!("MAIL FROM:<> ENVID={}", "a".repeat(101)), "501 5.5.4");
    check("RCPT TO:<a@b.example> NOTIFY=NEVER", "rcpt <a@b.example> notify []");
    check("RCPT TO:<a@b.example> notify=delay,Success", "rcpt <a@b.example> notify [success delay]");
    check("RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", "501 5.5.4");
    check("RCPT TO:<a@b.example> NOTIFY=", "501 5.5.2");
    check("RCPT TO:<a@b.example> NOTIFY", "501 5.5.4");
    check("RCPT TO:<a@b.example> NOTIFY=DELAY NOTIFY=DELAY", "501 5.5.4");
    check(
        "RCPT TO:<a@b.example> ORCPT=rfc822;a+2Bc@b.example",
        "rcpt <a@b.example> orcpt rfc822;a+2Bc@b.example",
    );
    check(
        "RCPT TO:<a@b.example> ORCPT=utf-8;jörg@b.example",
        "rcpt <a@b.example> orcpt utf-8;jörg@b.example",
    );
    check("RCPT TO:<a@b.example> ORCPT=rfc822;jörg@b.example", "501 5.5.4");
    check("RCPT TO:<a@b.example> ORCPT=rfc822;a+0Ab", "501 5.5.4");
    check("RCPT TO:<a@b.example> ORCPT=a@b.example", "501 5.5.4");
    check("RCPT TO:<a@b.example> ORCPT=rfc822;", "501 5.5.4");
    check(format!("RCPT TO:<a@b.example> ORCPT=rfc822;{}", "a".repeat(494)), "501 5.5.4");
}

proptest::proptest! {
    #[test]
    fn any_octets_have_an_answer(line in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        read(&line);
    }

    #[test]
    fn what_is_written_is_what_is_read(
        local in "[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\\.[a-z]{0,9}){0,2}|\"([ -!#-\\[\\]-~]|\\\\[ -~]){0,20}\"",
        host in "[a-z0-9]{1,9}(\\.[a-z]{1,9}){0,3}|\\[192\\.0\\.2\\.[1-9]\\]",
    ) {
        let line = format!("MAIL FROM:<{local}@{host}>");
        proptest::prop_assert_eq!(read(line.as_bytes()), format!("mail <{local}@{host}>"));
    }
}
