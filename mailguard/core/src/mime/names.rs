//! Every name that a mail reader could show or store a part under.
//!
//! The names of `filename` and `name`, each as it stands and with encoded words, percent escapes and charsets
//! decoded (until nothing changes, a bounded number of times); then, of each: folds removed, the last
//! component of a path, what stands before a NUL or a stream's colon (`a.exe:x`), full-width letters made
//! plain; bidirectional marks, zero-width and control characters removed, and the dots and spaces at the end,
//! which Windows drops. What a name means, a check decides.

use std::collections::HashSet;

use super::parameter::{Parameters, Value, percent};
use super::words;

/// Longest name looked at, octets. Of a longer one the end counts: that is where the extension stands.
pub const MAX_NAME_OCTETS: usize = 4096;
/// Most names of one part, all spellings together.
pub const MAX_NAMES: usize = 512;
/// Most spellings of one value that are decoded further.
const MAX_SPELLINGS: usize = 64;
/// How often a name is decoded again.
const MAX_ROUNDS: usize = 3;

/// Names, each once.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// In no particular order.
    pub(super) list: Vec<String>,
    seen: HashSet<String>,
    /// Whether there are more than [`MAX_NAMES`]: any of the others could be the one that a reader takes.
    pub(super) overflow: bool,
}

impl Names {
    fn push(&mut self, name: String) {
        if name.is_empty() || self.seen.contains(&name) {
            return;
        }
        if self.list.len() == MAX_NAMES {
            self.overflow = true;
            return;
        }
        self.seen.insert(name.clone());
        self.list.push(name);
    }
}

/// The names in a part's parameters.
pub(super) fn of_parameters<'a>(fields: impl IntoIterator<Item = &'a Parameters>) -> Names {
    let mut names = Names::default();
    for parameters in fields {
        for base in ["filename", "name"] {
            for value in parameters.values(base) {
                add_spellings(&value, &mut names);
            }
        }
    }
    names
}

/// The names that a bare text stands for, as in uuencode's first line.
pub(super) fn of_text(text: &[u8]) -> Vec<String> {
    let mut names = Names::default();
    add_spellings(&Value { octets: text.to_vec(), charset: None }, &mut names);
    names.list
}

fn add_spellings(value: &Value, names: &mut Names) {
    if names.overflow {
        return;
    }
    let octets = &value.octets[value.octets.len().saturating_sub(MAX_NAME_OCTETS)..];
    let mut spellings = vec![words::unlabelled(octets)];
    if let Some(charset) = &value.charset {
        for spelling in words::readings_in_charset(octets, charset) {
            push_new(&mut spellings, spelling);
        }
    }
    let mut done = 0;
    for _ in 0..MAX_ROUNDS {
        let round = spellings.len();
        for index in done..round {
            let text = &spellings[index];
            let mut decoded = if text.contains("=?") { words::readings(text) } else { Vec::new() };
            decoded.extend(text.contains('%').then(|| words::unlabelled(&percent(text.as_bytes()))));
            for spelling in decoded {
                push_new(&mut spellings, spelling);
            }
        }
        done = round;
    }
    for spelling in spellings {
        add_cleaned(&spelling, names);
    }
}

fn push_new(spellings: &mut Vec<String>, spelling: String) {
    if spellings.len() < MAX_SPELLINGS && !spellings.contains(&spelling) {
        spellings.push(spelling);
    }
}

fn add_cleaned(spelling: &str, names: &mut Names) {
    let unfolded: String = spelling.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let mut push = |text: &str| {
        let name = clean(text);
        let inner = name.trim_matches(is_quote);
        if inner.len() != name.len() {
            names.push(clean(inner));
        }
        names.push(name);
    };
    let base = unfolded.rsplit(['/', '\\']).find(|component| !component.trim().is_empty()).unwrap_or("");
    push(base);
    if base.len() != unfolded.len() {
        push(&unfolded);
    }
    if spelling.len() != unfolded.len() {
        push(&without_folds(spelling));
    }
    for mark in ['\0', ':'] {
        if let Some((head, _)) = base.split_once(mark) {
            push(head);
        }
    }
}

/// Fold and the white space after it removed: "a.\r\n exe".
fn without_folds(text: &str) -> String {
    text.split(['\r', '\n']).map(|line| line.trim_start_matches([' ', '\t'])).collect()
}

fn clean(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !is_invisible(*c)).map(to_halfwidth).collect();
    plain.trim_matches(|c: char| c.is_whitespace() || c == '"').trim_end_matches(is_dropped_at_end).to_owned()
}

/// Quotes that are none of RFC 5322's; some readers take them off all the same.
fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '`' | '\u{2018}'..='\u{201F}' | '\u{AB}' | '\u{BB}')
}

fn is_dropped_at_end(c: char) -> bool {
    c == '.' || c.is_whitespace()
}

/// Characters that show nothing: controls, bidirectional and zero-width marks, soft hyphen, variation
/// selectors, tags.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
            | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Full-width forms and the dots that look like one, as plain ASCII.
fn to_halfwidth(c: char) -> char {
    match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        '\u{3002}' | '\u{FF61}' | '\u{2024}' | '\u{FE52}' => '.',
        '\u{3000}' => ' ',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the field's value yields the name.
    #[track_caller]
    fn check(value: &str, expect: &str) {
        let names = of_parameters([&Parameters::parse(value.as_bytes())]).list;
        assert!(names.iter().any(|name| name == expect), "{value:?} gives {names:?}");
    }

    #[test]
    fn every_spelling_of_a_name() {
        for value in [
            "attachment; filename=a.exe",
            "attachment; filename=\"a.exe\"",
            "attachment; FILENAME = \"a\\.exe\"",
            "attachment filename=a.exe",
            "application/x; name=a.exe; x=y",
            "attachment; filename=\"=?utf-8?B?YS5leGU=?=\"",
            "attachment; filename==?utf-8?Q?a=2Eexe?=",
            "attachment; filename=\"=?utf-8?q?a.?=\r\n =?utf-8?q?exe?=\"",
            "attachment; filename=\"=?utf-8?q?a.?=exe",
            "attachment; filename*=utf-8''a%2Eexe",
            "attachment; filename*=utf-16le''a%00.%00e%00x%00e%00",
            "attachment; filename*0=a.; filename*1=exe",
            "attachment; filename*1*=%65xe; filename*0*=utf-8''a%2E",
            "attachment; filename*0=\"=?utf-8?B?YS5l\"; filename*1=\"eGU=?=\"",
            "attachment; filename*=utf-8''=?utf-8?B?YS5leGU=?=",
            "attachment; filename=\"%61%2eexe\"",
            "attachment; filename=\"%3D?utf-8?B?YS5leGU=?=\"",
            "attachment; filename=\"a.\r\n exe\"",
            "attachment; filename=\"a.exe. . \"",
            "attachment; filename=\"a.exe\0.txt\"",
            "attachment; filename=\"a.exe:x.txt\"",
            "attachment; filename=\"a.exe::$DATA\"",
            "attachment; filename=\"C:\\temp\\a.exe\"",
            "attachment; filename=\"/tmp/a.exe\"",
            "attachment; filename=\"a.exe/\"",
            "attachment; filename=\"a.\u{200b}e\u{202e}xe\u{feff}\"",
            "attachment; filename=\"a．ｅｘｅ\"",
            "attachment; filename=\"a.txt\"; filename=\"a.exe\"",
            "attachment; filename='a.exe'",
            "attachment; filename=\"'a.exe'\"",
            "attachment; filename=\u{201c}a.exe\u{201d}",
            "attachment; filename()=a.exe",
            "attachment; filename(=)=a.exe",
            "attachment; filename=(x)a.exe",
            "attachment; filename=a.(x)exe",
            "attachment; file name=a.exe",
            "attachment; \"filename\"=a.exe",
            "attachment; x filename=a.exe",
            "attachment,filename=a.exe",
            "attachment; filename\u{b}=a.exe",
            "attachment; x=\"; filename=a.exe",
            "attachment; x=\"\\\"; filename=a.exe; y=\"\"",
            "attachment; filename*0='a.'; filename*1='exe'",
            "attachment; filename(x)*0=a.; filename*1(x)=exe",
            "attachment; filename==?utf-16?B?AGEALgBlAHgAZQ==?=",
            "attachment; filename==?utf-16be?B?YQAuAGUAeABlAA==?=",
            "attachment; filename==?utf-32?B?AAAAYQAAAC4AAABlAAAAeAAAAGU=?=",
            "attachment; filename==?utf-7?Q?a+AC4-exe?=",
            "attachment; filename==?ibm037?Q?=81=4B=85=A7=85?=",
            "attachment; filename*=utf-16''%00a%00.%00e%00x%00e",
        ] {
            check(value, "a.exe");
        }
        check("attachment; filename=my file.exe", "my file.exe");
        check("attachment; filename*=iso-8859-1''caf%E9.exe", "café.exe");
    }

    #[test]
    fn a_plain_name_is_one_name() {
        let names = of_parameters([&Parameters::parse(b"attachment; filename=\"Report 2024.pdf\"")]);
        assert_eq!(names.list, ["Report 2024.pdf"]);
    }

    #[test]
    fn long_names_keep_their_end_and_many_names_their_limit() {
        let long = format!("attachment; filename=\"{}.exe\"", "a".repeat(3 * MAX_NAME_OCTETS));
        let names = of_parameters([&Parameters::parse(long.as_bytes())]);
        assert!(
            names.list.iter().all(|name| name.len() <= MAX_NAME_OCTETS && name.ends_with(".exe")),
            "{names:?}"
        );
        let many = |count: usize| {
            let many: String = (0..count).map(|i| format!("; filename=\"x/a{i}.txt\"")).collect();
            let names = of_parameters([&Parameters::parse(format!("attachment{many}").as_bytes())]);
            (names.list.len(), names.overflow)
        };
        assert_eq!(many(MAX_NAMES / 2 - 1), (MAX_NAMES - 2, false));
        assert_eq!(many(MAX_NAMES / 2), (MAX_NAMES, false));
        let two = Parameters::parse(b"attachment; filename=b; filename=c");
        let many: String = (0..MAX_NAMES / 2).map(|i| format!("; filename=\"x/a{i}.txt\"")).collect();
        assert!(of_parameters([&Parameters::parse(format!("attachment{many}").as_bytes()), &two]).overflow);
    }
}
