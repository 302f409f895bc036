//! Sessions written down: one language for the tests of either end's state machine, of the drivers, and for
//! servers that play a part.
//!
//! | line | what it is |
//! |---|---|
//! | `C: text`, `S: text` | a line of the client's, of the server's; CRLF follows |
//! | <code>C&#124; text</code>, <code>S&#124; text</code> | octets as they stand |
//! | `--` | parts two writes: lines of one end that stand together are one |
//! | `+ 30s` | time passes |
//! | `! what` | something else that is done to the one that is tried, or by the one that plays a part |
//! | `= what` | something else that the one that is tried does |
//!
//! `\r`, `\n` and `\0` are escapes. White space around a line, and an empty line, is nothing.

use std::fmt;
use std::time::Duration;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `C`
    Client,
    /// `S`
    Server,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Client => "C",
            End::Server => "S",
        })
    }
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// One write.
    Write {
        /// Whose.
        by: End,
        /// As it is written down.
        lines: Vec<&'a str>,
        /// As it is on the wire.
        octets: Vec<u8>,
    },
    /// `--`
    Part,
    /// `+`
    Pass(Duration),
    /// `!`
    Told(&'a str),
    /// `=`
    Does(&'a str),
}

/// Reads a transcript.
#[track_caller]
pub fn parse(transcript: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for line in lines(transcript) {
        let said = said(line);
        match (said, steps.last_mut()) {
            (Some((end, more)), Some(Step::Write { by, lines, octets })) if *by == end => {
                lines.push(line);
                octets.extend(more);
            }
            (Some((by, octets)), _) => steps.push(Step::Write { by, lines: vec![line], octets }),
            (None, _) => steps.push(other(line)),
        }
    }
    steps
}

fn lines(transcript: &str) -> impl Iterator<Item = &str> {
    transcript.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// What one of the ends writes with this line, if it is one of theirs.
fn said(line: &str) -> Option<(End, Vec<u8>)> {
    let end = match line.as_bytes().first()? {
        b'C' => End::Client,
        b'S' => End::Server,
        _ => return None,
    };
    match line.as_bytes().get(1)? {
        b':' => Some((end, [unescaped(line[2..].trim_start()), b"\r\n".to_vec()].concat())),
        b'|' => Some((end, unescaped(line[2..].strip_prefix(' ').unwrap_or_default()))),
        _ => None,
    }
}

#[track_caller]
fn other(line: &str) -> Step<'_> {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("--", "") => Step::Part,
        ("+", span) => {
            let seconds = span.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
            Step::Pass(Duration::from_secs(seconds.unwrap_or_else(|| panic!("no time: {line}"))))
        }
        ("!", what) => Step::Told(what),
        ("=", what) => Step::Does(what),
        _ => panic!("no line of a transcript: {line}"),
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").into_bytes()
}

/// What an end wrote, line by line.
pub fn written(end: End, octets: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(octets).expect("text");
    text.split_terminator("\r\n").map(|line| format!("{end}: {line}").trim_end().to_owned()).collect()
}

/// One that is tried by a transcript.
pub trait Tried {
    /// The other end wrote this.
    fn hear(&mut self, octets: &[u8]);

    /// Time passed.
    fn pass(&mut self, time: Duration);

    /// `!`
    fn told(&mut self, what: &str);

    /// What it did since this was asked last, as the transcript has it.
    fn did(&mut self) -> Vec<String>;
}

/// Plays what `peer` writes and what is done besides; what comes of it must be the rest of the transcript, in
/// its order.
#[track_caller]
pub fn check(tried: &mut impl Tried, peer: End, transcript: &str) {
    let mut seen = tried.did();
    let mut heard = false;
    for step in parse(transcript) {
        let is_peers = matches!(step, Step::Write { by, .. } if by == peer);
        match step {
            Step::Write { lines, octets, .. } if is_peers => {
                seen.extend(lines.into_iter().map(str::to_owned));
                tried.hear(&octets);
            }
            // Between two writes of the peer's.
            Step::Part if heard => seen.push("--".to_owned()),
            Step::Pass(time) => {
                seen.push(format!("+ {}s", time.as_secs()));
                tried.pass(time);
            }
            Step::Told(what) => {
                seen.push(format!("! {what}"));
                tried.told(what);
            }
            Step::Write { .. } | Step::Part | Step::Does(_) => {}
        }
        let did = tried.did();
        heard = is_peers && did.is_empty();
        seen.extend(did);
    }
    let expect = lines(transcript).collect::<Vec<_>>().join("\n");
    let seen = seen.join("\n");
    assert_eq!(seen, expect, "\n--- seen:\n{seen}\n--- expected:\n{expect}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_stand_together_are_one_write() {
        let steps = parse(
            "C: EHLO a
             C:
             C| b\\r\\n\\0
             --
             C: c
             S: 250 ok
             + 30s
             ! lost
             = close",
        );
        let write = |by, lines: &[&'static str], octets: &[u8]| Step::Write {
            by,
            lines: lines.to_vec(),
            octets: octets.to_vec(),
        };
        let expect = [
            write(End::Client, &["C: EHLO a", "C:", "C| b\\r\\n\\0"], b"EHLO a\r\n\r\nb\r\n\0"),
            Step::Part,
            write(End::Client, &["C: c"], b"c\r\n"),
            write(End::Server, &["S: 250 ok"], b"250 ok\r\n"),
            Step::Pass(Duration::from_secs(30)),
            Step::Told("lost"),
            Step::Does("close"),
        ];
        assert_eq!(steps, expect);
    }

    /// Says what it hears.
    #[derive(Default)]
    struct Echo(Vec<String>);

    impl Tried for Echo {
        fn hear(&mut self, octets: &[u8]) {
            self.0.extend(written(End::Server, octets));
        }

        fn pass(&mut self, _: Duration) {}

        fn told(&mut self, what: &str) {
            self.0.push(format!("= {what}"));
        }

        fn did(&mut self) -> Vec<String> {
            std::mem::take(&mut self.0)
        }
    }

    #[test]
    fn what_comes_of_it_is_the_rest() {
        check(&mut Echo::default(), End::Client, "C: a\nC: b\nS: a\nS: b\n+ 1s\n! done\n= done\nC: c\nS: c");
    }

    #[test]
    #[should_panic(expected = "--- expected:")]
    fn what_is_not_written_down_is_a_fault() {
        check(&mut Echo::default(), End::Client, "C: a\nC: b\nS: a");
    }
}
