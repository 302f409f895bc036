//! What holds whatever is sent, and however it is cut.

use proptest::prelude::*;

use super::*;
use crate::smtp::EnhancedStatus;

/// What a client may send in one go: a group ends where it must wait.
fn groups() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let line = proptest::sample::select(vec![
        "MAIL FROM:<a@b.example> SIZE=10",
        "MAIL FROM:<deferred@b.example>",
        "RCPT TO:<c@d.example>",
        "RCPT TO:<refused@d.example>",
        "RCPT TO:<",
        "RSET",
        "NOOP",
        "NO\nOP",
        "VRFY x",
        "",
    ]);
    let commands = proptest::collection::vec(line, 0..6);
    let data = "(\\.?[a\\r\\n]{0,30}\r\n){0,6}";
    let chunks = proptest::collection::vec("[.a\\r\\n]{0,30}", 1..4);
    let group = (commands, 0..3, data, chunks).prop_map(|(commands, message, data, chunks)| {
        let mut group: String = commands.iter().map(|line| format!("{line}\r\n")).collect();
        let mut groups = Vec::new();
        if message == 2 {
            group.push_str("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n");
            for chunk in chunks {
                group.push_str(&format!("BDAT {}\r\n{chunk}", chunk.len()));
            }
            group.push_str("BDAT 0 LAST\r\n");
            groups.push(group.into_bytes());
        } else if message == 1 {
            group.push_str("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n");
            groups.push(std::mem::take(&mut group).into_bytes());
            groups.push(format!("{data}\r\n.\r\n").into_bytes());
        } else {
            groups.push(group.into_bytes());
        }
        groups
    });
    proptest::collection::vec(group, 1..4)
        .prop_map(|groups| [vec![b"EHLO a.example\r\n".to_vec()], groups.concat()].concat())
}

/// What comes of the groups, each given in pieces of these lengths: what was written, and what else was done.
fn run(groups: &[Vec<u8>], octets: &[usize]) -> (Vec<String>, Vec<String>) {
    let mut session = Session::new(Settings { hard_error_limit: 30, ..SETTINGS() });
    session.server.greet(session.now);
    session.perform();
    let mut lengths = octets.iter().cycle();
    for group in groups {
        let mut rest = group.as_slice();
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
            session.input(piece);
            rest = left;
        }
    }
    session.seen.retain(|line| line != "--");
    session.seen.into_iter().partition(|line| line.starts_with("S: "))
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_actions(
        groups in groups(),
        lengths in proptest::collection::vec(1_usize..40, 1..6),
    ) {
        prop_assert_eq!(run(&groups, &lengths), run(&groups, &[usize::MAX]));
    }

    #[test]
    fn every_reply_carries_a_status_code_of_its_class(
        groups in groups(),
        lengths in proptest::collection::vec(1_usize..40, 1..6),
    ) {
        // Banner and the answer to EHLO come first, and have none (RFC 2034 §3).
        let answers = run(&groups, &lengths).0.into_iter().skip(9);
        for line in answers.filter(|line| !line.starts_with("S: 354")) {
            let (code, rest) = line[3..].split_at(4);
            let status: EnhancedStatus = rest.split(' ').next().unwrap().parse().unwrap();
            prop_assert_eq!(format!("{}", status.class), &code[..1], "{}", line);
        }
    }

    #[test]
    fn any_octets_are_survived(
        octets in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000),
        lengths in proptest::collection::vec(1_usize..80, 1..6),
    ) {
        run(&[b"EHLO a\r\n".to_vec(), octets], &lengths);
    }
}
