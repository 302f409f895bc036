//! One contestant: three namespaces in a row, and on the firewall mailguard's kernel side, nftables, or
//! nothing.
//!
//! mailguard's side is a process of its own, `tests/examples/bench_firewall.rs`; this file starts it, asks it
//! and ends it. It holds the listeners for nftables, too, so that both contestants have the same acceptor.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mailguard_tests::netns::Topology;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::process;

/// Longest wait for the process to come up, answer or end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A contestant.
pub(super) struct Contestant {
    /// What the tables call it.
    pub(super) name: &'static str,
    // Before the namespaces, for it is dropped before them.
    process: Option<Kernelside>,
    /// Where it stands.
    pub(super) topology: Topology,
}

impl Contestant {
    /// Nothing on the firewall.
    pub(super) fn idle(name: &'static str) -> Result<Self> {
        let topology = Topology::new()?;
        Ok(Self { name, process: None, topology })
    }

    /// mailguard with this configuration, to which `hostname` and `kernel.pin_dir` are added.
    pub(super) fn mailguard(name: &'static str, program: &Path, config: &str) -> Result<Self> {
        let mut contestant = Self::idle(name)?;
        contestant.process = Some(Kernelside::start(program, &contestant.topology, config, true)?);
        Ok(contestant)
    }

    /// These rules of nftables. With a configuration the listeners that mailguard would have.
    pub(super) fn nft(name: &'static str, rules: &str, listeners: Option<(&Path, &str)>) -> Result<Self> {
        let mut contestant = Self::idle(name)?;
        if let Some((program, config)) = listeners {
            contestant.process = Some(Kernelside::start(program, &contestant.topology, config, false)?);
        }
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(rules.as_bytes())?;
        process::run(contestant.topology.firewall.command("nft").arg("-f").arg(file.path()))?;
        Ok(contestant)
    }

    /// What mailguard's process counted: connections `accepted`, and packets by reason where the datapath
    /// runs.
    pub(super) fn counts(&mut self) -> Result<BTreeMap<String, u64>> {
        let process = self.process.as_mut().context("no process runs for this contestant")?;
        process.counts()
    }

    /// Processor time that its process has used, softirqs that interrupted it included.
    pub(super) fn processor_time(&self) -> Result<Duration> {
        let process = self.process.as_ref().context("no process runs for this contestant")?;
        processor_time(process.child.id())
    }
}

/// Processor time that a process has used, all threads.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    Ok(clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?.now()?.into())
}

/// Processor time that the calling thread has used.
pub(super) fn thread_time() -> Result<Duration> {
    Ok(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?.into())
}

/// The running process.
struct Kernelside {
    child: Child,
    questions: Option<ChildStdin>,
    answers: mpsc::Receiver<String>,
    pin_dir: PathBuf,
    _folder: TempDir,
}

impl Kernelside {
    fn start(program: &Path, topology: &Topology, config: &str, attach: bool) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/mailguard-bench-{}-{number}", std::process::id()));
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("mailguard.toml");
        let kernel = format!("[kernel]\npin_dir = \"{}\"\n", pin_dir.display());
        let config = config.replace("[kernel]\n", &kernel);
        fs::write(&path, format!("hostname = \"mailguard.example.test\"\n{config}"))?;
        let mut command = topology.firewall.command(&program.to_string_lossy());
        command.arg(path).args((!attach).then_some("listen-only"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = child.stdin.take();
        let output = child.stdout.take().context("its output is piped")?;
        let mut process = Self { child, questions, answers: lines(output), pin_dir, _folder: folder };
        let first = process.answer()?;
        ensure!(first == "ready", "mailguard's kernel side said {first:?}, not that it is ready");
        Ok(process)
    }

    fn answer(&mut self) -> Result<String> {
        let answer = self.answers.recv_timeout(PATIENCE);
        answer.context("mailguard's kernel side doesn't answer; what it printed above says why")
    }

    fn counts(&mut self) -> Result<BTreeMap<String, u64>> {
        writeln!(self.questions.as_ref().context("it is asked before it ends")?)?;
        let answer = self.answer()?;
        serde_json::from_str(&answer).with_context(|| format!("not counts: {answer}"))
    }
}

impl Drop for Kernelside {
    fn drop(&mut self) {
        // The end of its input: it removes what it set up, and ends.
        drop(self.questions.take());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                eprintln!("kernel: mailguard's kernel side doesn't end; it is killed");
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // What a process that was killed left; everything else lies in the namespace, which goes too.
        if self.pin_dir.exists()
            && let Err(error) = fs::remove_dir_all(&self.pin_dir)
        {
            eprintln!("kernel: cannot remove {}: {error}", self.pin_dir.display());
        }
    }
}

/// The lines of `output`, until it ends.
fn lines(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    // One answer is awaited at a time.
    let (sender, lines) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
