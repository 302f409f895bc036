//! Untrusted octets, made safe for an administrator's terminal.

/// Text for people: UTF-8 as far as it is, lines ending in LF, and nothing that moves a cursor, changes a
/// colour or turns the direction of writing around. What is replaced shows as '?'.
pub fn shown(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' | '\t' => out.push(c),
            c if is_obeyed(c) => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// Whether a terminal, or whoever lays out text, does as this character says: control characters (those of
/// C1, too), and those that turn the direction of writing.
pub fn is_obeyed(c: char) -> bool {
    c.is_control() || turns_direction(c)
}

/// Whether nothing shows where this character stands (Unicode's format characters): two texts that differ in
/// it look the same.
pub fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{00AD}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E007F}'
    )
}

/// Unicode's explicit directional formatting characters (UAX #9 §2) and line separators.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(octets: &[u8], expect: &str) {
        assert_eq!(shown(octets), expect, "{octets:?}");
    }

    #[test]
    fn only_text_remains() {
        check(b"Subject: a\r\n\tb\r\n", "Subject: a\n\tb\n");
        check("Jörg\n".as_bytes(), "Jörg\n");
        check(b"\x1b[2J\x07a\rb\0", "?[2J?a?b?");
        check("invoice\u{202E}fdp.exe".as_bytes(), "invoice?fdp.exe");
        check("\u{9b}31m\u{85}".as_bytes(), "?31m?");
        check(b"caf\xe9", "caf\u{FFFD}");
    }
}
