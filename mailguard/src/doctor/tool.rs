//! Runs the programs that say how the system is set up: ip, nft, iptables-save. Each only prints.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much it may print, octets.
const MAX_OUTPUT_OCTETS: u64 = 256 << 20;
/// How much it may complain, octets.
const MAX_COMPLAINT_OCTETS: u64 = 64 << 10;

/// What a program printed, or why there is nothing.
pub(super) type Said = Result<String, Unread>;

/// Why something couldn't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// The program isn't there.
    #[error("there is no program {program}")]
    Missing {
        program: &'static str,
        /// Debian's package of it.
        package: &'static str,
    },
    /// It failed.
    #[error("{command}: {reason}")]
    Failed { command: String, reason: String },
}

/// Runs `program`, of Debian's `package`, and waits for what it prints.
pub(super) fn run(program: &'static str, package: &'static str, arguments: &[&str]) -> Said {
    run_up_to(MAX_OUTPUT_OCTETS, program, package, arguments)
}

/// [`run`] of a program that fails if it prints more than this.
pub(super) fn run_up_to(
    max_octets: u64,
    program: &'static str,
    package: &'static str,
    arguments: &[&str],
) -> Said {
    let fail =
        |reason: String| Unread::Failed { command: format!("{program} {}", arguments.join(" ")), reason };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unread::Missing { program, package },
        _ => fail(error.to_string()),
    })?;
    let (printed, complaint) =
        (collect(child.stdout.take(), max_octets), collect(child.stderr.take(), MAX_COMPLAINT_OCTETS));
    let text = printed.recv_timeout(PATIENCE);
    if text.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| fail(error.to_string()))?;
    let text = text.map_err(|_| fail(format!("no end within {} seconds", PATIENCE.as_secs())))?;
    if text.len() as u64 >= max_octets {
        return Err(fail(format!("it prints more than {max_octets} octets")));
    }
    if status.success() {
        return Ok(text);
    }
    Err(fail(complaint.recv_timeout(PATIENCE).unwrap_or_default().trim().to_owned()))
}

/// Reads to the end on a thread of its own, so that neither pipe fills up.
fn collect(pipe: Option<impl Read + Send + 'static>, max_octets: u64) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut octets = Vec::new();
        if let Some(pipe) = pipe {
            // What came before an error is said all the same.
            let _ = pipe.take(max_octets).read_to_end(&mut octets);
        }
        let _ = sender.send(String::from_utf8_lossy(&octets).into_owned());
    });
    receiver
}
