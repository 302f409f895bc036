//! The virtual machine: qemu, what it prints, and the end of its patience.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mailguard_tests::peers::Process;

/// Longest time from power on to power off.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// Memory of the machine, in MiB: the unpacked files, and full-sized maps.
const MEMORY_MIB: &str = "2048";
/// Processors of the machine.
const PROCESSORS: &str = "2";
/// What the last line of init.sh begins with.
const END: &str = "vm: ended on ";

/// What the machine said at its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The release of its kernel.
    pub(super) kernel: String,
    /// The exit code of each part.
    pub(super) codes: HashMap<String, i32>,
    /// From power on to power off.
    pub(super) took: Duration,
}

/// Boots `kernel` with the file system `archive`, passes on what it prints, and waits for its end.
pub(super) fn boot(kernel: &Path, archive: &Path) -> Result<Outcome> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Emulated throughout: nested virtualisation isn't there everywhere, and what it can do differs.
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY_MIB, "-nic", "none"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(archive);
    // A panic ends the machine instead of stopping it.
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);
    let start = Instant::now();
    let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut machine = Process(child.context("qemu-system-x86_64 doesn't start: cargo xtask setup")?);
    let lines = lines(machine.0.stdout.take().context("qemu has an output")?);
    let mut end = None;
    loop {
        let left = TIME_LIMIT.saturating_sub(start.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => {
                println!("{line}");
                end = end.or_else(|| parse_end(&line));
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!(
                "the virtual machine wasn't done within {} s and was ended; its last line above says where it hung",
                TIME_LIMIT.as_secs()
            ),
        }
    }
    let status = machine.0.wait()?;
    let (kernel, codes) = end.with_context(|| {
        format!("the virtual machine ended ({status}) without a result: did its kernel panic? Its last lines are above")
    })?;
    Ok(Outcome { kernel, codes, took: start.elapsed() })
}

/// The lines of the console, from a thread that ends with the machine.
fn lines(console: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while matches!(console.read_until(b'\n', &mut line), Ok(octets) if octets > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// `vm: ended on 6.1.0: verify=0 kernel-suite=101`.
fn parse_end(line: &str) -> Option<(String, HashMap<String, i32>)> {
    let (kernel, codes) = line.strip_prefix(END)?.split_once(':')?;
    let code = |word: &str| {
        let (part, code) = word.split_once('=')?;
        Some((part.to_owned(), code.parse().ok()?))
    };
    Some((kernel.to_owned(), codes.split_whitespace().map(code).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_tells_every_exit_code() {
        let (kernel, codes) = parse_end("vm: ended on 6.1.0-1: verify=0 kernel-suite=101").unwrap();
        assert_eq!(kernel, "6.1.0-1");
        assert_eq!(codes, HashMap::from([("verify".to_owned(), 0), ("kernel-suite".to_owned(), 101)]));
        assert_eq!(parse_end("vm: ended on 6.1.0-1: verify=x"), None);
        assert_eq!(parse_end("── vm: verify: xtask verify"), None);
    }
}
