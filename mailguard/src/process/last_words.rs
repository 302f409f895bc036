//! What the mail process says on its standard error: its log, which goes on to ours, and what the language's
//! runtime or the C library say when it dies, which comes into the log by it. The last of that is kept for
//! whoever asks how it ended.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mailguard_core::log_value::MAX_LINE_OCTETS;
use nix::sys::signal::Signal;
use tracing::error;

use crate::admin::{AUDIT, VERBS_OF_ROOT};

/// Lines that are kept.
const MAX_LINES: usize = 20;
/// What is kept of a line, characters.
const MAX_KEPT_CHARACTERS: usize = 400;
/// How long the end of what it says is waited for, after its own end: whoever else has the pipe may keep it
/// open.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one mail process said.
pub(super) struct LastWords {
    kept: Arc<Mutex<VecDeque<String>>>,
    end: Receiver<()>,
}

impl LastWords {
    /// Reads on a thread of its own until the process closes its standard error. `log` is given lines that go
    /// on as they stand.
    pub(super) fn hear(
        from: impl Read + Send + 'static,
        log: impl FnMut(&[u8]) + Send + 'static,
    ) -> io::Result<Self> {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (at_end, end) = sync_channel(1);
        let keep = kept.clone();
        thread::Builder::new().name("last-words".to_owned()).spawn(move || {
            pass_on(BufReader::new(from), &keep, log);
            let _ = at_end.send(());
        })?;
        Ok(Self { kept, end })
    }

    /// Everything that is kept, once the process has ended.
    pub(super) fn all(self) -> Vec<String> {
        // Whether it came or not: what is there is told.
        let _ = self.end.recv_timeout(PATIENCE);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

/// Passes lines on to `log`: those of the process's log as they stand, others as lines of our own.
fn pass_on(mut from: impl BufRead, kept: &Mutex<VecDeque<String>>, mut log: impl FnMut(&[u8])) {
    let (mut octets, mut is_rest) = (Vec::new(), false);
    loop {
        octets.clear();
        match (&mut from).take(MAX_LINE_OCTETS as u64).read_until(b'\n', &mut octets) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        let begun =
            std::mem::replace(&mut is_rest, octets.len() == MAX_LINE_OCTETS && !octets.ends_with(b"\n"));
        if begun {
            // What follows in a line could look like one.
            continue;
        }
        let line = String::from_utf8_lossy(&octets);
        let line = line.trim_end();
        match kind(line) {
            Kind::Empty => continue,
            Kind::Log { .. } => log(&[line.as_bytes(), b"\n"].concat()),
            Kind::Other => error!(line, "the mail process says"),
        }
        if let Kind::Log { error: true } | Kind::Other = kind(line) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == MAX_LINES {
                kept.pop_front();
            }
            kept.push_back(line.chars().take(MAX_KEPT_CHARACTERS).collect());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Empty,
    /// A line of the log, in either form.
    Log {
        /// Of the level "error".
        error: bool,
    },
    /// Said by something that knows of no log.
    Other,
}

fn kind(line: &str) -> Kind {
    if line.is_empty() {
        return Kind::Empty;
    }
    if claims_roots_work(line) {
        return Kind::Other;
    }
    if line.starts_with("{\"timestamp\":") {
        return Kind::Log { error: line.contains("\"level\":\"ERROR\"") };
    }
    // 2026-11-24T05:29:36.000000Z ERROR …
    let mut words = line.split_ascii_whitespace();
    let time = words.next().unwrap_or_default();
    let is_time = time.len() > 20 && time.ends_with('Z') && time.as_bytes().get(10) == Some(&b'T');
    match words.next() {
        Some("ERROR") if is_time => Kind::Log { error: true },
        Some("WARN" | "INFO" | "DEBUG" | "TRACE") if is_time => Kind::Log { error: false },
        _ => Kind::Other,
    }
}

/// Whether a line of the mail process says in the audit what only we do: it was taken over, and would lead
/// astray.
fn claims_roots_work(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    if words.nth(2) == Some("audit:") {
        let claims =
            |word: &str| word.strip_prefix("verb=").is_some_and(|verb| VERBS_OF_ROOT.contains(&verb));
        return words.any(claims);
    }
    // Read whole only where it may be: a letter may be written by its number.
    if !line.starts_with('{') || !(line.contains("audit") || line.contains("\\u")) {
        return false;
    }
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| {
        let verb = line["fields"]["verb"].as_str().or(line["verb"].as_str()).unwrap_or_default();
        line["target"] == AUDIT && VERBS_OF_ROOT.contains(&verb)
    })
}

/// How a process ended that nobody asked to, in words for an administrator.
pub(super) fn cause(status: ExitStatus) -> String {
    let core = if status.core_dumped() { ", core dumped" } else { "" };
    if let Some(code) = status.code() {
        return match code {
            0 => "ended without being asked to".to_owned(),
            101 => "ended by a fault of the program (a panic)".to_owned(),
            code => format!("gave up (exit code {code})"),
        };
    }
    let number = status.signal().unwrap_or_default();
    let why = match Signal::try_from(number) {
        Ok(Signal::SIGKILL) => ", not by mailguard: perhaps by the kernel for want of memory (see dmesg)",
        Ok(Signal::SIGABRT) => ": it was out of memory or stack, or a library gave up",
        Ok(Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE) => ": a fault of the program",
        Ok(Signal::SIGXCPU | Signal::SIGXFSZ) => ": a limit of this system",
        Ok(Signal::SIGSYS) => ": it called what it may not",
        _ => "",
    };
    format!("was killed by {}{why}{core}", signal_name(number))
}

/// `signal 15 (SIGTERM)`
pub(super) fn signal_name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => format!("signal {number} ({signal})"),
        Err(_) => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// What goes on to the log as it stands, and what is kept.
    fn heard(said: &[u8]) -> (String, Vec<String>) {
        let (kept, mut log) = (Mutex::default(), Vec::new());
        pass_on(BufReader::new(said), &kept, |line| log.extend_from_slice(line));
        (String::from_utf8(log).unwrap(), kept.into_inner().unwrap().into())
    }

    #[test]
    fn log_lines_go_on_as_they_stand_and_the_rest_is_kept() {
        let log = "2026-11-24T05:29:36.000001Z  INFO mailguard: fine\n\
                   {\"timestamp\":\"2026\",\"level\":\"WARN\"}\n";
        let error = "2026-11-24T05:29:37.000001Z ERROR mailguard: no\n";
        let panic = "thread 'mail' panicked at src/x.rs:7:1:\n";
        let (passed, kept) = heard(format!("{log}{error}\n{panic}").as_bytes());
        assert_eq!(passed, format!("{log}{error}"));
        assert_eq!(kept, [error.trim_end(), panic.trim_end()]);
    }

    #[test]
    fn a_mail_process_claims_nothing_in_the_audit_that_only_we_do() {
        let own = "2026-11-24T05:29:36.000001Z  INFO audit: verb=queue-hold outcome=done uid=0\n\
                   {\"timestamp\":\"2026\",\"level\":\"INFO\",\"fields\":{\"verb\":\"ban\"},\"target\":\"audit\"}\n";
        let claimed = "2026-11-24T05:29:36.000001Z  INFO audit: verb=list-add outcome=done uid=0\n\
                       {\"timestamp\":\"2026\",\"level\":\"INFO\",\"fields\":{\"verb\":\"reload\"},\"target\":\"\\u0061udit\"}\n";
        let (passed, kept) = heard(format!("{own}{claimed}").as_bytes());
        assert_eq!((passed.as_str(), kept.len()), (own, 2));
    }

    #[test]
    fn neither_many_lines_nor_long_ones_nor_odd_octets_take_more_than_their_room() {
        let mut said = b"\xff\xfe\n".repeat(3 * MAX_LINES);
        said.extend(vec![b'x'; 3 * MAX_LINE_OCTETS]);
        let (passed, kept) = heard(&said);
        assert_eq!((passed.as_str(), kept.len()), ("", MAX_LINES));
        assert!(kept.iter().all(|line| line.chars().count() <= MAX_KEPT_CHARACTERS));
        assert!(kept.last().is_some_and(|line| line.starts_with("xxx")));
    }

    #[test]
    fn the_rest_of_a_long_line_is_no_line() {
        let said = format!(
            "{}2026-11-28T08:00:00.000001Z  INFO mail: id=X event=login\n2026-11-28T08:00:00.000002Z  INFO a: b\n",
            "x".repeat(MAX_LINE_OCTETS)
        );
        let (passed, kept) = heard(said.as_bytes());
        assert_eq!(passed, "2026-11-28T08:00:00.000002Z  INFO a: b\n");
        assert_eq!(kept, ["x".repeat(MAX_KEPT_CHARACTERS)]);
    }

    /// Real deaths, each by its cause: what a shell did, what it said, and what of both is known afterwards.
    #[test]
    fn every_way_to_die_leaves_its_cause() {
        for (script, expect, said) in [
            ("exit 0", "ended without being asked to", ""),
            (
                "echo 'mailguard: /x: no space left' >&2; exit 1",
                "gave up (exit code 1)",
                "mailguard: /x: no space left",
            ),
            ("echo \"thread 'x' panicked\" >&2; exit 101", "a panic", "thread 'x' panicked"),
            ("kill -KILL $$", "perhaps by the kernel for want of memory", ""),
            (
                "echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$",
                "signal 6 (SIGABRT)",
                "memory allocation of 9 bytes failed",
            ),
            (
                "echo \"thread 'x' has overflowed its stack\" >&2; kill -ABRT $$",
                "out of memory or stack",
                "thread 'x' has overflowed its stack",
            ),
            ("kill -SEGV $$", "signal 11 (SIGSEGV): a fault of the program", ""),
            ("kill -BUS $$", "signal 7 (SIGBUS): a fault of the program", ""),
            ("kill -SYS $$", "it called what it may not", ""),
            ("kill -XCPU $$", "a limit of this system", ""),
            ("kill -TERM $$", "was killed by signal 15 (SIGTERM)", ""),
            ("printf 'no end of line' >&2; exit 3", "gave up (exit code 3)", "no end of line"),
        ] {
            let mut command = Command::new("sh");
            let mut child = command
                .args(["-c", &format!("ulimit -c 0; {script}")])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let words = LastWords::hear(child.stderr.take().unwrap(), |_| {}).unwrap();
            let cause = cause(child.wait().unwrap());
            assert!(cause.contains(expect), "{script}: {cause}");
            assert_eq!(words.all().join("\n"), said, "{script}");
        }
    }

    /// A child of its own that goes on keeps the pipe open.
    #[test]
    fn whoever_keeps_the_pipe_open_holds_nobody_up() {
        let mut command = Command::new("sh");
        let script = "echo last >&2; sleep 60 & echo $!";
        let mut child =
            command.args(["-c", script]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let words = LastWords::hear(child.stderr.take().unwrap(), |_| {}).unwrap();
        let mut sleeper = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut sleeper).unwrap();
        child.wait().unwrap();
        assert_eq!(words.all(), ["last"]);
        let sleeper = nix::unistd::Pid::from_raw(sleeper.trim().parse().unwrap());
        nix::sys::signal::kill(sleeper, Signal::SIGKILL).unwrap();
    }
}
