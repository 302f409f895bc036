//! The header of a message as far as reception needs it (RFC 5322 §2.2, §3.4, §3.6): where it ends, what
//! stands in it that policy asks about, what is missing.
//!
//! Line ends are CRLF, as `smtp::data` leaves them. Lines that are no field are passed over, and reading goes
//! on to the empty line: a reader who stops earlier has seen less, never more. Content fields and the many
//! readings of malformed messages are the MIME walk's.

use memchr::memmem;

use super::address::Mailbox;

/// Longest header that is taken, octets. Beyond it a check would have to guess.
pub const MAX_HEADER_OCTETS: usize = 256 * 1024;

/// U+FEFF in UTF-8, as editors put it before a text. Before a header it would make the first field no field.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Most addresses that are read from the From fields of one message.
pub const MAX_FROM_ADDRESSES: usize = 100;

/// Longest address that is considered, octets: local part, '@', domain, and comments within.
const MAX_ADDRESS_OCTETS: usize = 1_024;

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many Received fields there are.
    pub received: usize,
    /// There is a Date field.
    pub date: bool,
    /// There is a Message-ID field.
    pub message_id: bool,
    /// The addresses of all From fields, at most [`MAX_FROM_ADDRESSES`].
    pub from: Vec<Mailbox>,
}

/// Finds the end of the header in a message that is still arriving: the empty line. The value is the length
/// of the header, without that line; the search begins at `searched`, the length when it was last called.
pub fn end(message: &[u8], searched: usize) -> Option<usize> {
    if message.starts_with(b"\r\n") {
        return Some(0);
    }
    let start = searched.saturating_sub(3).min(message.len());
    memmem::find(&message[start..], b"\r\n\r\n").map(|found| start + found + 2)
}

/// Whether the message begins with a field, not with text that lacks a header altogether.
pub fn begins_with_field(message: &[u8]) -> bool {
    let line = message.split(|&octet| octet == b'\r').next().unwrap_or_default();
    line.starts_with(b"From ") || line.starts_with(b">From ") || split_name(line).is_some()
}

/// Reads a whole header.
pub fn summarise(header: &[u8]) -> Summary {
    let mut summary = Summary::default();
    for (name, value) in fields(header) {
        if name.eq_ignore_ascii_case(b"Received") {
            summary.received += 1;
        } else if name.eq_ignore_ascii_case(b"Date") {
            summary.date = true;
        } else if name.eq_ignore_ascii_case(b"Message-ID") {
            summary.message_id = true;
        } else if name.eq_ignore_ascii_case(b"From") {
            mailboxes(value, &mut summary.from);
        }
    }
    summary
}

/// The fields: name, and value with its folds.
fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = header;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let length = folded_length(rest);
            let (lines, after) = rest.split_at(length);
            rest = after;
            if let Some((name, colon)) = split_name(lines) {
                return Some((name, &lines[colon + 1..]));
            }
        }
        None
    })
}

/// The length of the first line and of those that continue it.
fn folded_length(octets: &[u8]) -> usize {
    let mut length = 0;
    while let Some(found) = memmem::find(&octets[length..], b"\r\n") {
        length += found + 2;
        if !matches!(octets.get(length), Some(b' ' | b'\t')) {
            return length;
        }
    }
    octets.len()
}

/// A field's name and where the colon stands. White space before it is obsolete, and read (RFC 5322 §4.5).
fn split_name(line: &[u8]) -> Option<(&[u8], usize)> {
    let colon = memchr::memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some((name, colon))
}

/// Reads the addresses of a mailbox or address list (RFC 5322 §3.4): names, comments, groups and routes left
/// out.
fn mailboxes(value: &[u8], found: &mut Vec<Mailbox>) {
    let text = String::from_utf8_lossy(value);
    let mut element = Element::default();
    let (mut quoted, mut escaped, mut comment) = (false, false, 0_u32);
    for c in text.chars() {
        let plain = !quoted && comment == 0;
        match c {
            _ if escaped => escaped = false,
            '\\' if !plain => escaped = true,
            '"' if comment == 0 => quoted = !quoted,
            '(' if !quoted => {
                comment = comment.saturating_add(1);
                continue;
            }
            ')' if comment > 0 => {
                comment -= 1;
                continue;
            }
            '<' if plain => {
                element.angle = Some(String::new());
                continue;
            }
            '>' if plain => {
                element.closed = element.angle.is_some();
                continue;
            }
            ',' | ';' if plain && !element.is_route() => {
                std::mem::take(&mut element).finish(found);
                continue;
            }
            ':' if plain => {
                // The end of a group's name or of a route.
                element.clear();
                continue;
            }
            c if plain && c.is_whitespace() => continue,
            _ => {}
        }
        if comment == 0 {
            element.push(c);
        }
    }
    element.finish(found);
}

/// One address of a list, being read.
#[derive(Default)]
struct Element {
    /// What stands outside angle brackets.
    outside: String,
    /// What stands within.
    angle: Option<String>,
    /// The bracket was closed.
    closed: bool,
}

impl Element {
    fn text(&mut self) -> Option<&mut String> {
        match &mut self.angle {
            Some(_) if self.closed => None,
            Some(angle) => Some(angle),
            None => Some(&mut self.outside),
        }
    }

    fn push(&mut self, c: char) {
        if let Some(text) = self.text()
            && text.len() < MAX_ADDRESS_OCTETS
        {
            text.push(c);
        }
    }

    fn clear(&mut self) {
        if let Some(text) = self.text() {
            text.clear();
        }
    }

    fn is_route(&self) -> bool {
        !self.closed && self.angle.as_ref().is_some_and(|angle| angle.starts_with('@'))
    }

    fn finish(self, found: &mut Vec<Mailbox>) {
        if found.len() < MAX_FROM_ADDRESSES
            && let Ok(mailbox) = Mailbox::parse(&self.angle.unwrap_or(self.outside))
        {
            found.push(mailbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expect: &[&str]) {
        let header = format!("Subject: From: no\r\nFROM : {value}\r\nTo: x@y.example\r\n");
        let seen: Vec<String> = summarise(header.as_bytes()).from.iter().map(ToString::to_string).collect();
        assert_eq!(seen, expect, "{value}");
    }

    #[test]
    fn addresses_of_from() {
        check("a@b.example", &["a@b.example"]);
        check("A B <a@b.example>", &["a@b.example"]);
        check("\"x@y.example, <c@d.example>\" <a@b.example>", &["a@b.example"]);
        check("=?utf-8?q?x=40y?= <a@b.example>", &["a@b.example"]);
        check("a@b.example (c@d.example (e\\) <f@g>)), h@i.example", &["a@b.example", "h@i.example"]);
        check("A\r\n\t<a@\r\n b.example>", &["a@b.example"]);
        check(
            "Team: a@b.example, C <c@d.example>;, e@f.example",
            &["a@b.example", "c@d.example", "e@f.example"],
        );
        check("<@one.example,@two.example:a@b.example>", &["a@b.example"]);
        check("\"a b\"@c.example", &["\"a b\"@c.example"]);
        check("nobody", &[]);
        check("a@b.example <", &[]);
        check("<a@b.example", &["a@b.example"]);
        check("\"", &[]);
        check(&"a@b.example,".repeat(200), &["a@b.example"; MAX_FROM_ADDRESSES]);
    }

    #[test]
    fn what_a_header_says() {
        let header = b"Received: a\r\n by b\r\nreceived:c\r\nnot a field\r\nDate: x\r\nmessage-id: <x>\r\n\
            From: a@b.example\r\nFrom: c@d.example\r\n";
        let summary = summarise(header);
        assert_eq!((summary.received, summary.date, summary.message_id), (2, true, true));
        assert_eq!(summary.from.len(), 2, "each From field counts");
        assert_eq!(summarise(b"X: y\r\n Date: folded\r\n"), Summary::default());
    }

    #[test]
    fn the_end_is_the_empty_line() {
        for (message, expect) in [
            ("A: b\r\n\r\nbody", Some(6)),
            ("\r\nbody", Some(0)),
            ("A: b\r\n", None),
            ("A: b\r\n \r\n", None),
        ] {
            assert_eq!(end(message.as_bytes(), 0), expect, "{message:?}");
            for searched in 0..message.len() {
                let before = end(&message.as_bytes()[..searched], 0);
                assert_eq!(
                    before.or_else(|| end(message.as_bytes(), searched)),
                    expect,
                    "{message:?} {searched}"
                );
            }
        }
    }

    #[test]
    fn text_without_a_header_is_noticed() {
        for (message, expect) in [
            ("A: b\r\n", true),
            ("From x\r\nA: b", true),
            ("hello\r\nA: b", false),
            ("a b: c", false),
            ("", false),
        ] {
            assert_eq!(begins_with_field(message.as_bytes()), expect, "{message:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_octets_are_survived(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            summarise(&octets);
            end(&octets, octets.len() / 2);
        }

        #[test]
        fn any_list_is_survived(value in "[<>()\",:;@a\\\\. ]{0,80}") {
            summarise(format!("From: {value}").as_bytes());
        }
    }
}
