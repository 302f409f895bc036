//! A mailguard under test: the real program, started where the test wants it, with folders and pins of its
//! own, and removed without a trace when dropped.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::peers::{Place, Process, open_folder, wait_until};

/// The user that handles mail in tests: there on every Debian.
const MAIL_USER: &str = "nobody";

/// A mailguard, running or stopped.
pub struct Appliance<'a> {
    place: Place<'a>,
    program: PathBuf,
    folder: TempDir,
    pin_dir: PathBuf,
    /// Where the log goes, if not to a file.
    log: Option<File>,
    process: Option<Process>,
}

/// The program under test: `MAILGUARD_BIN`, or what the last debug build made.
pub fn program() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/mailguard");
    std::env::var_os("MAILGUARD_BIN").map_or_else(built, PathBuf::from)
}

/// Where the program keeps the configuration that was in force last, of the file at this path.
pub fn applied(config: &Path) -> PathBuf {
    let name = config.display().to_string().replace('%', "%25").replace('/', "%2F");
    Path::new("/var/lib/mailguard-applied").join(name)
}

impl<'a> Appliance<'a> {
    /// Starts a mailguard with this configuration, to which `state_dir`, `runtime_dir`, `user` and
    /// `kernel.pin_dir` are added.
    pub fn start(place: Place<'a>, config: &str) -> Result<Self> {
        let mut appliance = Self::prepare(place, config)?;
        appliance.run()?;
        Ok(appliance)
    }

    /// As [`Appliance::start`], without starting it.
    pub fn prepare(place: Place<'a>, config: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = open_folder("mailguard-")?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/mailguard-{}-{number}", std::process::id()));
        let appliance = Self { place, program: program(), folder, pin_dir, log: None, process: None };
        appliance.write_config(config)?;
        Ok(appliance)
    }

    /// Is another program than [`program`] from its next start on: one to compare with.
    pub fn with_program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// Sends the log there from the next start on, and not to the file.
    pub fn log_to(&mut self, log: impl Into<OwnedFd>) {
        self.log = Some(File::from(log.into()));
    }

    /// Uses the pins of `other` from the next configuration on.
    pub fn share_pins(&mut self, other: &Self) {
        self.pin_dir.clone_from(&other.pin_dir);
    }

    /// Replaces the configuration file.
    pub fn write_config(&self, config: &str) -> Result<()> {
        let folder = self.folder.path().display();
        let mut head = format!(
            "state_dir = \"{folder}/state\"\nruntime_dir = \"{folder}/run\"\nuser = \"{MAIL_USER}\"\n"
        );
        if !config.contains("min_free_disk") {
            head.push_str("min_free_disk = \"1MB\"\n");
        }
        let kernel = format!("[kernel]\npin_dir = \"{}\"\n", self.pin_dir.display());
        let text = match config.contains("[kernel]\n") {
            true => format!("{head}{}", config.replace("[kernel]\n", &kernel)),
            false => format!("{head}{config}\n{kernel}"),
        };
        Ok(fs::write(self.config(), text)?)
    }

    /// Starts the program where it can't start, and waits for its end: its exit code, and what it logged.
    pub fn run_to_its_end(&self) -> Result<(Option<i32>, String)> {
        let before = self.log().len();
        let mut process = self.spawn()?;
        wait_until("mailguard ends", || matches!(process.0.try_wait(), Ok(Some(_))))
            .with_context(|| self.log())?;
        Ok((process.0.wait()?.code(), self.log().split_off(before)))
    }

    /// Starts the program, lets it live so long, and kills it.
    pub fn run_for(&mut self, time: std::time::Duration) -> Result<()> {
        let process = self.spawn()?;
        std::thread::sleep(time);
        process.signal(Signal::SIGKILL)
    }

    fn spawn(&self) -> Result<Process> {
        let log = match &self.log {
            Some(log) => log.try_clone()?,
            None => File::options().create(true).append(true).open(self.log_path())?,
        };
        let mut command = (self.place)(&self.program.to_string_lossy());
        command.arg("--config").arg(self.config()).arg("run");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Process(command.spawn().context("can't start mailguard: cargo xtask build")?))
    }

    /// Starts the program and waits until it answers.
    pub fn run(&mut self) -> Result<()> {
        let mut process = self.spawn()?;
        let started = wait_until("mailguard answers", || {
            self.cli(&["status"]).is_ok_and(|output| output.status.success())
                || process.0.try_wait().is_ok_and(|status| status.is_some())
        });
        if started.is_err() || process.0.try_wait()?.is_some() {
            bail!("mailguard didn't start:\n{}", self.log());
        }
        self.process = Some(process);
        Ok(())
    }

    /// Runs a command of the command line against it.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = (self.place)(&self.program.to_string_lossy());
        command.arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null());
        command.output().context("can't start mailguard: cargo xtask build")
    }

    /// Runs a command that must succeed, and what it printed.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cli(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("mailguard {}: {}{text}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }

    /// Runs a command with `--json`, and what it printed.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        Ok(serde_json::from_str(&self.ok(&with_json)?)?)
    }

    /// Asks it to stop and waits for that.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM)?;
            wait_until("mailguard stops", || process.0.try_wait().is_ok_and(|status| status.is_some()))?;
        }
        Ok(())
    }

    /// `kill -9` of the datapath process; the mail process dies with it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.signal(Signal::SIGKILL)?;
        }
        Ok(())
    }

    /// The datapath process.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The mail process that serves now.
    pub fn mail_process(&self) -> Result<Pid> {
        let status = self.json(&["status"])?;
        let pid = status["processes"]["mail"]["pid"].as_i64().context("no mail process runs")?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("mailguard.toml")
    }

    /// Where the program keeps the configuration that was in force last.
    pub fn applied(&self) -> PathBuf {
        applied(&self.config())
    }

    /// A folder of its own for the test's files; the program knows nothing of it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its maps and links are pinned.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("mailguard.log")
    }
}

impl Drop for Appliance<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error}");
        }
        if let Err(error) = self.ok(&["unload"]) {
            eprintln!("{error}");
        }
        // One that never served has none.
        let _ = fs::remove_file(self.applied());
        if std::thread::panicking() || std::env::var_os("MAILGUARD_SHOW").is_some() {
            eprintln!("── log of mailguard ──\n{}", self.log());
        }
    }
}

/// Whether a complaint is that few files may be open, on a machine where nobody can have more: it says
/// nothing of what is tested.
pub fn is_of_this_machine(complaint: &str) -> bool {
    /// More than the configuration of any test needs.
    const ENOUGH: u64 = 65_536;
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    complaint.contains("LimitNOFILE=") && limit.is_ok_and(|(_, hard)| hard < ENOUGH)
}

/// A command outside any namespace of ours.
pub fn here(program: &str) -> Command {
    Command::new(program)
}
